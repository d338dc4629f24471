// AMX tiles: whether this machine and its system give them, and how fast they are. Their products are in
// algorithm/tiles-inl.hpp.
#include "kernels/dispatch.hpp"

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>
#endif

namespace manyheads::kernels {

#if defined(__x86_64__) && defined(__linux__)
namespace {

constexpr unsigned kTileState = 18;               // XCR0's bit for the tiles' data; 17 is their configuration
constexpr unsigned kRequestPermission = 0x1023;   // ARCH_REQ_XCOMP_PERM

// Products of one tile with another, in four chains.
double tile_work(std::int64_t rounds, float* value) {
  alignas(64) struct {
    std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
    std::uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  } config;
  alignas(64) std::uint16_t words[512];
  for (std::uint16_t& word : words) word = *value > 0 ? 0x3a80 : 0x3a81;  // small, so that the sums stay finite
  asm volatile(
      "ldtilecfg %0\n\t"
      "tileloadd (%1,%2,1), %%tmm4\n\ttileloadd (%1,%2,1), %%tmm5\n\t"
      "tilezero %%tmm0\n\ttilezero %%tmm1\n\ttilezero %%tmm2\n\ttilezero %%tmm3" ::"m"(config),
      "r"(words), "r"(std::int64_t{64})
      : "memory");
  for (std::int64_t r = 0; r < rounds; ++r) {
    asm volatile(
        "tdpbf16ps %%tmm5, %%tmm4, %%tmm0\n\ttdpbf16ps %%tmm5, %%tmm4, %%tmm1\n\t"
        "tdpbf16ps %%tmm5, %%tmm4, %%tmm2\n\ttdpbf16ps %%tmm5, %%tmm4, %%tmm3" ::);
  }
  alignas(64) float sums[256];
  asm volatile("tilestored %%tmm0, (%0,%1,1)\n\ttilerelease" ::"r"(sums), "r"(std::int64_t{64}) : "memory");
  *value = sums[0];
  return 4.0 * 2 * 16 * 16 * 32 * static_cast<double>(rounds);
}

}  // namespace

bool has_amx_bf16() {
  static const bool has = [] {
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
    const bool tiles = (d >> 24 & 1) != 0;
    const bool bf16 = (d >> 22 & 1) != 0;
    if (!tiles || !bf16 || bf16_dot_work() == nullptr) return false;  // weights are packed by AVX-512 BF16
    if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c >> 27 & 1) == 0) return false;  // the system keeps no wide state
    unsigned low = 0, high = 0;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    if ((low >> (kTileState - 1) & 3) != 3) return false;
    // Linux hands the tiles' state out on request, for the whole process.
    return ::syscall(SYS_arch_prctl, kRequestPermission, kTileState) == 0;
  }();
  return has;
}

DotWork amx_tile_work() { return has_amx_bf16() ? tile_work : nullptr; }
#else
bool has_amx_bf16() { return false; }
DotWork amx_tile_work() { return nullptr; }
#endif

}  // namespace manyheads::kernels
