// LayerNorm over rows: NormParams has the formula.
//
// Contract: F32 throughout. The variance is summed from the differences to the mean.
// Cost: three passes over a row.

// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_ALGORITHM_NORM_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_ALGORITHM_NORM_INL_HPP
#undef MANYHEADS_ALGORITHM_NORM_INL_HPP
#else
#define MANYHEADS_ALGORITHM_NORM_INL_HPP
#endif

#include <cmath>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/isa/vector-inl.hpp"
#include "kernels/params.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

void LayerNorm(const NormParams& params, std::int64_t row_begin, std::int64_t row_end) {
  const DF d;
  const std::int64_t n = static_cast<std::int64_t>(hn::Lanes(d));
  const std::int64_t whole = params.size / n * n;
  const auto sum_lanes = [&](VF v) HWY_ATTR { return hn::GetLane(hn::SumOfLanes(d, v)); };
  for (std::int64_t row = row_begin; row < row_end; ++row) {
    const float* x = params.x + row * params.x_stride;
    const float* r = params.residual != nullptr ? params.residual + row * params.residual_stride : nullptr;
    float* y = params.y + row * params.y_stride;
    VF sums = hn::Zero(d);
    float rest = 0;
    for (std::int64_t i = 0; i < whole; i += n) {
      VF value = hn::LoadU(d, x + i);
      if (r != nullptr) value = hn::Add(value, hn::LoadU(d, r + i));
      hn::StoreU(value, d, y + i);
      sums = hn::Add(sums, value);
    }
    for (std::int64_t i = whole; i < params.size; ++i) {
      y[i] = r != nullptr ? x[i] + r[i] : x[i];
      rest += y[i];
    }
    const float mean = (sum_lanes(sums) + rest) / static_cast<float>(params.size);
    sums = hn::Zero(d);
    rest = 0;
    for (std::int64_t i = 0; i < whole; i += n) {
      const VF off = hn::Sub(hn::LoadU(d, y + i), hn::Set(d, mean));
      sums = hn::MulAdd(off, off, sums);
    }
    for (std::int64_t i = whole; i < params.size; ++i) rest += (y[i] - mean) * (y[i] - mean);
    const float variance = (sum_lanes(sums) + rest) / static_cast<float>(params.size);
    const float inverse = 1.0f / std::sqrt(variance + params.epsilon);
    for (std::int64_t i = 0; i < whole; i += n) {
      const VF off = hn::Mul(hn::Sub(hn::LoadU(d, y + i), hn::Set(d, mean)), hn::Set(d, inverse));
      hn::StoreU(hn::MulAdd(off, hn::LoadU(d, params.gamma + i), hn::LoadU(d, params.beta + i)), d, y + i);
    }
    for (std::int64_t i = whole; i < params.size; ++i) {
      y[i] = (y[i] - mean) * inverse * params.gamma[i] + params.beta[i];
    }
  }
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
