// Rotary embedding of rows of heads: RotaryParams has the formula.
//
// Contract: each product x cos is rounded, then the multiply-add. y is rounded once to its type.
// Cost: one pass over a row, kPairs pairs at a time.

// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_ALGORITHM_ROTARY_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_ALGORITHM_ROTARY_INL_HPP
#undef MANYHEADS_ALGORITHM_ROTARY_INL_HPP
#else
#define MANYHEADS_ALGORITHM_ROTARY_INL_HPP
#endif

#include <algorithm>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/isa/edge-inl.hpp"
#include "kernels/isa/load_store-inl.hpp"
#include "kernels/params.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Rotates `count` pairs (low[i], high[i]) and stores vectors of them: whole ones, also the last.
HWY_INLINE void RotatePairs(const float* low, const float* high, const float* cos, const float* sin, std::int64_t count,
                            float* HWY_RESTRICT to_low, float* HWY_RESTRICT to_high) {
  const DF d;
  const std::int64_t n = static_cast<std::int64_t>(hn::Lanes(d));
  const auto rotate = [&](std::int64_t i, const auto& load) HWY_ATTR {
    const VF a = load(low + i), b = load(high + i), c = load(cos + i), s = load(sin + i);
    hn::StoreU(Fnma(b, s, hn::Mul(a, c)), d, to_low + i);
    hn::StoreU(Fma(a, s, hn::Mul(b, c)), d, to_high + i);
  };
  std::int64_t i = 0;
  for (; i + n <= count; i += n) rotate(i, [&](const float* from) HWY_ATTR { return hn::LoadU(d, from); });
  if (i < count) rotate(i, [&](const float* from) HWY_ATTR { return LoadFirst(from, count - i); });
}

void Rotary(const RotaryParams& params, std::int64_t row_begin, std::int64_t row_end) {
  constexpr std::int64_t kPairs = 64;
  HWY_ALIGN float low[kPairs], high[kPairs];  // kPairs is a multiple of kMaxLanes
  const std::int64_t half = params.head_dim / 2;
  const std::int64_t rotated = params.rotated_heads * params.head_dim;
  for (std::int64_t row = row_begin; row < row_end; ++row) {
    const float* x = params.x + row * params.x_stride;
    const float* cos = params.cos + row * half;
    const float* sin = params.sin + row * half;
    const std::int64_t to = row * params.y_stride;
    for (std::int64_t head = 0; head < rotated; head += params.head_dim) {
      for (std::int64_t i = 0; i < half; i += kPairs) {
        const std::int64_t count = std::min(kPairs, half - i);
        RotatePairs(x + head + i, x + head + half + i, cos + i, sin + i, count, low, high);
        StoreRow(params.y_type, params.y, to + head + i, 1, count, low);
        StoreRow(params.y_type, params.y, to + head + half + i, 1, count, high);
      }
    }
    if (params.y == params.x) continue;
    StoreRow(params.y_type, params.y, to + rotated, 1, params.heads * params.head_dim - rotated, x + rotated);
  }
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
