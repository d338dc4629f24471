// pv product of integers, for int8_products: probabilities are rounded to bytes, and so are queries.
//
// Contract: integer sums are exact, so their order is free. A query has one step; a row's probabilities have one for
// each run of keys.
// Cost: a word multiplies four keys.

// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_ALGORITHM_PV_INT8_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_ALGORITHM_PV_INT8_INL_HPP
#undef MANYHEADS_ALGORITHM_PV_INT8_INL_HPP
#else
#define MANYHEADS_ALGORITHM_PV_INT8_INL_HPP
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "hwy/highway.h"
#include "kernels/algorithm/block_info-inl.hpp"
#include "kernels/isa/mma_int8-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// The step of bytes up to `largest` that stand for the floats. 0 where all count as 0, NaN where one is not finite.
// `count` is a multiple of the lanes.
HWY_INLINE float Int8Step(const float* HWY_RESTRICT from, std::size_t count, float largest) {
  const DF d;
  const hn::RebindToSigned<DF> di;
  // Magnitudes order as their bits do, infinity and NaN last.
  auto most = hn::Zero(di);
  for (std::size_t i = 0; i < count; i += hn::Lanes(d)) {
    most = hn::Max(most, hn::BitCast(di, hn::Abs(hn::LoadU(d, from + i))));
  }
  const float magnitude = hn::GetLane(hn::BitCast(d, hn::MaxOfLanes(di, most)));
  if (!(magnitude <= std::numeric_limits<float>::max())) return std::numeric_limits<float>::quiet_NaN();
  const float step = magnitude / largest;
  return step < std::numeric_limits<float>::min() ? 0.0f : step;
}
HWY_INLINE float InverseStep(float step) { return step > 0.0f ? 1.0f / step : 0.0f; }

// Writes the floats times `inverse`, each rounded to the nearest byte in range.
template <class Byte>
HWY_INLINE void ToInt8(const float* from, std::size_t count, float inverse, Byte* to) {
  const DF d;
  const hn::Rebind<Byte, DF> db;
  for (std::size_t i = 0; i < count; i += hn::Lanes(d)) {
    hn::StoreU(hn::DemoteTo(db, hn::NearestInt(hn::Mul(hn::LoadU(d, from + i), hn::Set(d, inverse)))), db, to + i);
  }
}

// Rounds the query of row r, at offset `at`, to bytes at the front of `copy`, which holds a row of floats in whole
// squares of kTileSide. Sets what the row's products begin with and are multiplied by.
template <class Info>
HWY_INLINE void Int8Query(const QkvMask& params, std::int64_t at, std::size_t r, float* HWY_RESTRICT copy, Info& info) {
  const std::size_t width = static_cast<std::size_t>(params.d);
  const std::size_t padded = RoundUp(width, kTileSide);
  CopyRow(params.type, params.q, at, params.q_stride[3], params.d, copy);
  std::fill(copy + width, copy + padded, 0.0f);
  const float step = Int8Step(copy, padded, 127.0f);
  std::int8_t* bytes = reinterpret_cast<std::int8_t*>(copy);
  ToInt8(copy, padded, InverseStep(step), bytes);
  std::int32_t sum = 0;
  for (std::size_t i = 0; i < width; ++i) sum += bytes[i];
  info.row_start[r] = -128 * sum;
  info.row_factor[r] = static_cast<float>(static_cast<double>(step) * info.q_factor);
}

// output[row][value] (+)= step[row] * sum over words of probs * values. `output` rows are `width` apart.
template <class Mma, int NV, int R, class Prefetch>
HWY_INLINE void PvInt8Columns(const float* HWY_RESTRICT probs, std::size_t probs_step, const float* HWY_RESTRICT values,
                              std::size_t values_step, std::size_t words, const float* HWY_RESTRICT step,
                              bool first_in_chunk, std::size_t width, float* HWY_RESTRICT output, Prefetch&& prefetch) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  VF sum[R][NV];
  Clear(sum);
  Accumulate<Mma>(probs, probs_step, 1, values, values_step, words, sum, prefetch);
  for (std::size_t r = 0; r < R; ++r) {
    for (std::size_t v = 0; v < NV; ++v) {
      float* to = output + r * width + v * n;
      const VF x = Mma::Number(sum[r][v], step[r]);
      hn::StoreU(first_in_chunk ? x : hn::Add(hn::LoadU(d, to), x), d, to);
    }
  }
}

// A run's probabilities [row][64] as bytes: words at the front of each row, and the row's step. `below` holds the words
// of those below 0, where a value's scale is negative.
template <class Mma, int R>
struct Int8Probs {
  static constexpr std::size_t kRun = static_cast<std::size_t>(kRunKeys);

  explicit Int8Probs(float* probs) {
    const DF d;
    VF least = hn::Zero(d);
    for (std::size_t i = 0; i < R * kRun; i += hn::Lanes(d)) least = hn::Min(least, hn::LoadU(d, probs + i));
    negative = !hn::AllFalse(d, hn::Lt(least, hn::Zero(d)));
    for (std::size_t r = 0; r < R; ++r) step[r] = Int8Step(probs + r * kRun, kRun, 255.0f);
    for (std::size_t r = 0; r < R; ++r) {
      float* row = probs + r * kRun;
      const float inverse = InverseStep(step[r]);
      if (negative) ToInt8(row, kRun, -inverse, reinterpret_cast<std::uint8_t*>(below + r * kRun / 4));
      ToInt8(row, kRun, inverse,
             reinterpret_cast<std::uint8_t*>(row));  // the bytes lie before the floats still to read
    }
  }

  bool negative = false;
  float step[R];
  HWY_ALIGN float below[R * kRun / 4];
};

// output[row] (+)= probs[row] * values, `width` wide, for a run's probabilities [row][64] and values from
// PackValueQuads.
template <class Mma, int R, int NV, class Prefetch>
HWY_INLINE void PvInt8(const StridedRows& values, std::size_t words, bool first_in_chunk, std::size_t width,
                       float* HWY_RESTRICT probs, float* HWY_RESTRICT output, Prefetch&& prefetch) {
  const std::size_t n = LaneCount();
  constexpr std::size_t kRun = static_cast<std::size_t>(kRunKeys);
  Int8Probs<Mma, R> bytes(probs);
  const auto add = [&](const float* from, std::size_t step, bool first) HWY_ATTR {
    std::size_t i = 0;
    for (; i + NV * n <= width; i += NV * n) {
      PvInt8Columns<Mma, NV, R>(from, step, values.data + i, values.stride, words, bytes.step, first, width, output + i,
                                prefetch);
    }
    for (; i < width; i += n) {
      PvInt8Columns<Mma, 1, R>(from, step, values.data + i, values.stride, words, bytes.step, first, width, output + i,
                               prefetch);
    }
  };
  add(probs, kRun, first_in_chunk);
  if (bytes.negative) {
    for (float& step : bytes.step) step = -step;
    add(bytes.below, kRun / 4, false);
  }
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
