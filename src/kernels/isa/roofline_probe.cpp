// Their code carries its own target attribute; a check at run time says whether it may run.
#include "kernels/isa/roofline_probe.hpp"

#include "kernels/isa/processor.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace manyheads::kernels {

#if defined(__x86_64__)
namespace {

__attribute__((target("avx512f,avx512bf16"))) double dot_probe(std::int64_t rounds, float* value) {
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

__attribute__((target("avx512f,avx512vnni"))) double byte_probe(std::int64_t rounds, float* value) {
  constexpr int kChains = 12;
  __m512i acc[kChains];
#pragma GCC unroll 16
  for (int c = 0; c < kChains; ++c) acc[c] = _mm512_set1_epi32(c);
  const __m512i a = _mm512_set1_epi32(static_cast<int>(*value));
  const __m512i b = _mm512_set1_epi32(0x01ff01ff);
  for (std::int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 16
    for (int c = 0; c < kChains; ++c) acc[c] = _mm512_dpbusd_epi32(acc[c], a, b);
  }
#pragma GCC unroll 16
  for (int c = 1; c < kChains; ++c) acc[0] = _mm512_add_epi32(acc[0], acc[c]);
  *value = static_cast<float>(_mm512_cvtsi512_si32(acc[0]));
  return 4.0 * 2 * 16 * kChains * static_cast<double>(rounds);
}

// Products of one tile with another, in four chains.
double tile_probe(std::int64_t rounds, float* value) {
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

ArithmeticProbe bf16_dot_probe() { return has_bf16_products() ? dot_probe : nullptr; }
ArithmeticProbe amx_tile_probe() { return has_amx_bf16() ? tile_probe : nullptr; }
ArithmeticProbe int8_dot_probe() { return has_vnni() ? byte_probe : nullptr; }
#else
ArithmeticProbe bf16_dot_probe() { return nullptr; }
ArithmeticProbe amx_tile_probe() { return nullptr; }
ArithmeticProbe int8_dot_probe() { return nullptr; }
#endif

}  // namespace manyheads::kernels
