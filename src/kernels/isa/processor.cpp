#include "kernels/isa/processor.hpp"

#include <cerrno>
#include <system_error>

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

namespace manyheads::kernels {

#if defined(__x86_64__)
namespace {

// The processor's family in its maker's count: AMD's Zen 4 is 0x19, Zen 5 0x1a.
unsigned family() {
  unsigned version = 0, unused = 0;
  if (__get_cpuid(1, &version, &unused, &unused, &unused) == 0) return 0;
  const unsigned base = version >> 8 & 0xf;
  return base == 0xf ? base + (version >> 20 & 0xff) : base;
}

}  // namespace

bool has_bf16_products() { return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512f"); }
bool fast_bf16_products() { return __builtin_cpu_is("amd"); }
bool has_vnni() { return __builtin_cpu_supports("avx512vnni"); }
bool prefetches_into_l2() {
  static const bool yes = __builtin_cpu_is("amd") && family() < 0x1a;
  return yes;
}
#else
bool has_bf16_products() { return false; }
bool fast_bf16_products() { return false; }
bool has_vnni() { return false; }
bool prefetches_into_l2() { return false; }
#endif

#if defined(__x86_64__) && defined(__linux__)
namespace {

constexpr unsigned kTileState = 18;              // XCR0's bit for the tiles' data; 17 is their configuration
constexpr unsigned kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM

const TileFacts& tile_facts() {
  static const TileFacts here = [] {
    TileFacts facts;
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return facts;
    facts.tiles = (d >> 24 & 1) != 0;
    facts.bf16 = (d >> 22 & 1) != 0;
    facts.bf16_products = has_bf16_products();
    if (!facts.tiles || __get_cpuid(1, &a, &b, &c, &d) == 0 || (c >> 27 & 1) == 0) return facts;
    unsigned low = 0, high = 0;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    facts.state_kept = (low >> (kTileState - 1) & 3) == 3;
    // Linux grants the tiles' state on request, for the whole process.
    if (facts.state_kept && ::syscall(SYS_arch_prctl, kRequestPermission, kTileState) != 0) facts.refused = errno;
    return facts;
  }();
  return here;
}

}  // namespace

bool has_amx_bf16() { return tile_facts().tiles && why_no_tiles().empty(); }

const std::string& why_no_tiles() {
  static const std::string why = why_no_tiles(tile_facts());
  return why;
}
#else
bool has_amx_bf16() { return false; }

const std::string& why_no_tiles() {
  static const std::string none;
  return none;
}
#endif

std::string why_no_tiles(const TileFacts& facts) {
  if (!facts.tiles) return {};
  if (!facts.bf16) return "the processor's multiply no BF16";
  if (!facts.bf16_products) return "the processor shows no AVX-512 BF16";
  if (!facts.state_kept) return "the system keeps no state of them";
  if (facts.refused != 0) {
    return "the system refuses them to this process: " + std::generic_category().message(facts.refused);
  }
  return {};
}

}  // namespace manyheads::kernels
