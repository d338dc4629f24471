// LayerNorm and RMSNorm over rows: NormParams and RmsNormParams have the formulas.
//
// Contract: F32 throughout. LayerNorm's variance is summed from the differences to the mean. A row whose squares add up
// beyond F32 becomes 0.
// Cost: three passes over a row, RMSNorm's two.

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
#include "kernels/canonical_order.hpp"
#include "kernels/isa/vector-inl.hpp"
#include "kernels/params.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Sums over a row in the canonical order: kSumLanes lanes, whose halves add up. The elements behind the last whole
// kSumLanes are a chain of their own.
class RowSum {
 public:
  HWY_INLINE RowSum() {
    for (std::size_t v = 0; v < kVectors; ++v) sums_[v] = hn::Zero(DF());
  }
  // body(i, sum) returns sum plus what the vector of elements from i on adds.
  template <class Body>
  HWY_INLINE void add(std::int64_t i, Body&& body) {
    const std::int64_t n = static_cast<std::int64_t>(hn::Lanes(DF()));
#pragma GCC unroll 4
    for (std::size_t v = 0; v < kVectors; ++v) sums_[v] = body(i + static_cast<std::int64_t>(v) * n, sums_[v]);
  }
  HWY_INLINE float total() const {
    const DF d;
    HWY_ALIGN float lanes[kSumLanes];
    for (std::size_t v = 0; v < kVectors; ++v) hn::Store(sums_[v], d, lanes + v * hn::Lanes(d));
    for (std::int64_t half = kSumLanes / 2; half > 0; half /= 2) {
      for (std::int64_t l = 0; l < half; ++l) lanes[l] += lanes[l + half];
    }
    return lanes[0];
  }

 private:
  static constexpr std::size_t kVectors = static_cast<std::size_t>(kSumLanes) / hn::MaxLanes(DF());
  VF sums_[kVectors];
};

void LayerNorm(const NormParams& params, std::int64_t row_begin, std::int64_t row_end) {
  const DF d;
  const std::int64_t n = static_cast<std::int64_t>(hn::Lanes(d));
  const std::int64_t whole = params.size / kSumLanes * kSumLanes;
  for (std::int64_t row = row_begin; row < row_end; ++row) {
    const float* x = params.x + row * params.x_stride;
    const float* r = params.residual != nullptr ? params.residual + row * params.residual_stride : nullptr;
    float* y = params.y + row * params.y_stride;
    RowSum sum;
    float rest = 0;
    for (std::int64_t at = 0; at < whole; at += kSumLanes) {
      sum.add(at, [&](std::int64_t i, VF sums) HWY_ATTR {
        VF value = hn::LoadU(d, x + i);
        if (r != nullptr) value = hn::Add(value, hn::LoadU(d, r + i));
        hn::StoreU(value, d, y + i);
        return hn::Add(sums, value);
      });
    }
    for (std::int64_t i = whole; i < params.size; ++i) {
      y[i] = r != nullptr ? x[i] + r[i] : x[i];
      rest += y[i];
    }
    const float mean = (sum.total() + rest) / static_cast<float>(params.size);
    RowSum squares;
    rest = 0;
    for (std::int64_t at = 0; at < whole; at += kSumLanes) {
      squares.add(at, [&](std::int64_t i, VF sums) HWY_ATTR {
        const VF off = hn::Sub(hn::LoadU(d, y + i), hn::Set(d, mean));
        return Fma(off, off, sums);
      });
    }
    for (std::int64_t i = whole; i < params.size; ++i) rest += (y[i] - mean) * (y[i] - mean);
    const float variance = (squares.total() + rest) / static_cast<float>(params.size);
    const float inverse = 1.0f / std::sqrt(variance + params.epsilon);
    for (std::int64_t i = 0; i < whole; i += n) {
      const VF off = hn::Mul(hn::Sub(hn::LoadU(d, y + i), hn::Set(d, mean)), hn::Set(d, inverse));
      hn::StoreU(Fma(off, hn::LoadU(d, params.gamma + i), hn::LoadU(d, params.beta + i)), d, y + i);
    }
    for (std::int64_t i = whole; i < params.size; ++i) {
      y[i] = (y[i] - mean) * inverse * params.gamma[i] + params.beta[i];
    }
  }
}

void RmsNorm(const RmsNormParams& params, std::int64_t row_begin, std::int64_t row_end) {
  const DF d;
  const std::int64_t n = static_cast<std::int64_t>(hn::Lanes(d));
  const std::int64_t whole = params.size / kSumLanes * kSumLanes;
  for (std::int64_t row = row_begin; row < row_end; ++row) {
    const float* x = params.x + row * params.x_stride;
    const float* z = x;
    RowSum squares;
    float rest = 0;
    if (params.residual == nullptr) {
      for (std::int64_t at = 0; at < whole; at += kSumLanes) {
        squares.add(at, [&](std::int64_t i, VF sums) HWY_ATTR {
          const VF value = hn::LoadU(d, x + i);
          return Fma(value, value, sums);
        });
      }
    } else {
      const float* r = params.residual + row * params.residual_stride;
      float* sum = params.sum + row * params.sum_stride;
      for (std::int64_t at = 0; at < whole; at += kSumLanes) {
        squares.add(at, [&](std::int64_t i, VF sums) HWY_ATTR {
          const VF value = hn::Add(hn::LoadU(d, x + i), hn::LoadU(d, r + i));
          hn::StoreU(value, d, sum + i);
          return Fma(value, value, sums);
        });
      }
      for (std::int64_t i = whole; i < params.size; ++i) sum[i] = x[i] + r[i];
      z = sum;
    }
    for (std::int64_t i = whole; i < params.size; ++i) rest += z[i] * z[i];
    const float mean = (squares.total() + rest) / static_cast<float>(params.size);
    const float inverse = 1.0f / std::sqrt(mean + params.epsilon);
    float* y = params.y + row * params.y_stride;
    for (std::int64_t i = 0; i < whole; i += n) {
      const VF scaled = hn::Mul(hn::LoadU(d, z + i), hn::Set(d, inverse));
      hn::StoreU(hn::Mul(scaled, hn::LoadU(d, params.gamma + i)), d, y + i);
    }
    for (std::int64_t i = whole; i < params.size; ++i) y[i] = z[i] * inverse * params.gamma[i];
  }
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
