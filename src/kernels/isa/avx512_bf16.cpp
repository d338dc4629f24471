// AVX-512 BF16: Highway has no target for it, so its code carries the attribute itself and is asked for at run time.
#include "kernels/dispatch.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace manyheads::kernels {

#if defined(__x86_64__)
namespace {

__attribute__((target("avx512f,avx512bf16"))) double dot_work(std::int64_t rounds, float* value) {
  constexpr int kChains = 12;
  __m512 acc[kChains];
#pragma GCC unroll 16
  for (int c = 0; c < kChains; ++c) acc[c] = _mm512_set1_ps(static_cast<float>(c));
  const __m512bh a = _mm512_cvtne2ps_pbh(_mm512_set1_ps(*value), _mm512_set1_ps(0.5f));
  const __m512bh b = _mm512_cvtne2ps_pbh(_mm512_set1_ps(0.001f), _mm512_set1_ps(-0.001f));
  for (std::int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 16
    for (int c = 0; c < kChains; ++c) acc[c] = _mm512_dpbf16_ps(acc[c], a, b);
  }
#pragma GCC unroll 16
  for (int c = 1; c < kChains; ++c) acc[0] = _mm512_add_ps(acc[0], acc[c]);
  *value = _mm512_cvtss_f32(acc[0]);
  return 2.0 * 2 * 16 * kChains * static_cast<double>(rounds);
}

}  // namespace

DotWork bf16_dot_work() {
  return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512f") ? dot_work : nullptr;
}
#else
DotWork bf16_dot_work() { return nullptr; }
#endif

}  // namespace manyheads::kernels
