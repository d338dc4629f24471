// What depends on the processor and is not an instruction set.
#include "kernels/dispatch.hpp"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace manyheads::kernels {

#if defined(__x86_64__)
namespace {

// A processor's family as its maker counts it: AMD's Zen 4 is 0x19, Zen 5 0x1a.
unsigned family() {
  unsigned version = 0, unused = 0;
  if (__get_cpuid(1, &version, &unused, &unused, &unused) == 0) return 0;
  const unsigned base = version >> 8 & 0xf;
  return base == 0xf ? base + (version >> 20 & 0xff) : base;
}

}  // namespace

bool fast_bf16_products() { return __builtin_cpu_is("amd"); }
bool has_vnni() { return __builtin_cpu_supports("avx512vnni"); }
bool fetches_into_second_cache() {
  static const bool yes = __builtin_cpu_is("amd") && family() < 0x1a;
  return yes;
}
#else
bool fast_bf16_products() { return false; }
bool has_vnni() { return false; }
bool fetches_into_second_cache() { return false; }
#endif

}  // namespace manyheads::kernels
