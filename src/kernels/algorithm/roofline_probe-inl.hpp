// Roofline probes: work that one unit of the machine alone limits. The benchmarks measure everything else against it.

// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_ALGORITHM_ROOFLINE_PROBE_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_ALGORITHM_ROOFLINE_PROBE_INL_HPP
#undef MANYHEADS_ALGORITHM_ROOFLINE_PROBE_INL_HPP
#else
#define MANYHEADS_ALGORITHM_ROOFLINE_PROBE_INL_HPP
#endif

#include <cstdint>

#include "hwy/highway.h"
#include "kernels/tuning.hpp"
#include "kernels/isa/vector-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Twelve independent chains cover the latency of two multiply-add units.
double FmaProbe(std::int64_t rounds, float* value) {
  const DF d;
  constexpr int kChains = 12;
  VF acc[kChains];
#pragma GCC unroll 16
  for (int c = 0; c < kChains; ++c) acc[c] = hn::Set(d, static_cast<float>(c));
  const VF a = hn::Set(d, 0.999f);
  const VF b = hn::Set(d, *value);
  for (std::int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 16
    for (int c = 0; c < kChains; ++c) acc[c] = hn::MulAdd(acc[c], a, b);
  }
#pragma GCC unroll 16
  for (int c = 1; c < kChains; ++c) acc[0] = hn::Add(acc[0], acc[c]);
  *value = hn::GetLane(acc[0]);
  return 2.0 * kChains * static_cast<double>(hn::Lanes(d)) * static_cast<double>(rounds);
}

float ReadProbe(const float* data, std::int64_t count, int multiplies, const float* ahead) {
  const DF d;
  constexpr int kStreams = 8;
  const std::int64_t n = static_cast<std::int64_t>(hn::Lanes(d));
  VF acc[kStreams], work[kStreams];
#pragma GCC unroll 8
  for (int s = 0; s < kStreams; ++s) acc[s] = work[s] = hn::Zero(d);
  const bool to_l2 = tuning().prefetch_to_l2 != 0;
  std::int64_t i = 0;
  for (; i + kStreams * n <= count; i += kStreams * n) {
#pragma GCC unroll 8
    for (int s = 0; s < kStreams; ++s) {
      const VF x = hn::LoadU(d, data + i + s * n);
      acc[s] = hn::Add(acc[s], x);
      if (ahead != nullptr && to_l2) __builtin_prefetch(ahead + i + s * n, 0, 2);
      if (ahead != nullptr && !to_l2) __builtin_prefetch(ahead + i + s * n, 0, 3);
      for (int m = 0; m < multiplies; m += kStreams) {
#pragma GCC unroll 8
        for (int w = 0; w < kStreams; ++w) work[w] = hn::MulAdd(x, hn::Zero(d), work[w]);
      }
    }
  }
#pragma GCC unroll 8
  for (int s = 0; s < kStreams; ++s) acc[0] = hn::Add(acc[0], s > 0 ? hn::Add(acc[s], work[s]) : work[s]);
  return hn::GetLane(hn::SumOfLanes(d, acc[0]));
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
