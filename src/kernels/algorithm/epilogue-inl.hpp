// Epilogue: from the row states of a query block to the caller's rows.
//
//   out = output / sum,  lse = max log 2 + log sum,  with the head's sink in both
//
// Contract: rounds once to the type of out. Rows that left F32's range are computed again in float64 by reference_row.
// Cost: O(Dv) a row.

// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_ALGORITHM_EPILOGUE_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_ALGORITHM_EPILOGUE_INL_HPP
#undef MANYHEADS_ALGORITHM_EPILOGUE_INL_HPP
#else
#define MANYHEADS_ALGORITHM_EPILOGUE_INL_HPP
#endif

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "base/math.hpp"
#include "hwy/highway.h"
#include "kernels/algorithm/block_info-inl.hpp"
#include "kernels/algorithm/combine-inl.hpp"
#include "kernels/reference.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Maxima this far from 0, in base 2, may have stopped at a bound.
constexpr float kFarthestScore = 2.8e38f;

// Whether a row's maximum and sum say that its scores left F32's range. Two cases look alike and are told apart by mask
// and bias:
// - sum 0: also a row that sees no key;
// - the lowest maximum: also padding, a row whose keys all have the lowest float as bias and count alike.
HWY_INLINE bool ScoresBeyondFloat(const ForwardParams& params, const QueryBlock& q_block, const BlockInfo& info,
                                  std::size_t r, float maximum, float sum) {
  if (sum == 0.0f) {
    return info.begin[r] < info.end[r] && sees_a_key(params, q_block.batch, info.head[r], info.query[r]);
  }
  if (!(sum < std::numeric_limits<float>::infinity()) || !(maximum < kFarthestScore)) return true;
  if (maximum > -kFarthestScore) return false;
  const bool low_sink =
      params.sinks != nullptr && params.sinks[info.head[r] * params.sinks_stride] <= -kFarthestScore / kLog2e;
  return info.extreme_scale || low_sink || !one_bias(params, q_block.batch, info.head[r], info.query[r]);
}

// A row's lse, and the factor of its output.
struct RowScale {
  double lse, inverse;
};

// From a row's maximum and sum and its head's sink (null: none). `padding(lse)` gives the lse of a row all of whose
// scores stopped at the lowest.
//
// The sum is that of the probabilities before they are rounded for the pv product. With the rounded ones, a row of one
// key would be exact; but an output of small probabilities beside a large one whose value is 0 would take over the
// large one's error, and pass 2 u A.
template <class Padding>
HWY_INLINE RowScale FinishRow(float maximum, float total, const float* sink, Padding&& padding) {
  const double sum = static_cast<double>(total);
  const double sink_score = sink != nullptr ? static_cast<double>(*sink) : -std::numeric_limits<double>::infinity();
  // 0 only where every key is forbidden: the largest score adds at least 2^-1/2.
  if (sum == 0.0) return {sink_score, 0};
  const double m = static_cast<double>(maximum);
  double keys = (m + base::log2(sum)) * base::kLn2;
  if (m <= -static_cast<double>(kFarthestScore)) keys = padding(keys);
  double lse = keys;
  double share = 1;  // the keys' share of the mass beside the sink
  if (sink != nullptr) {
    share = 1.0 / (1.0 + base::exp(sink_score - keys));
    lse = sink_score > keys ? sink_score + base::log1p(base::exp(keys - sink_score))
                            : keys + base::log1p(base::exp(sink_score - keys));
  }
  if (std::isnan(sum)) lse = sum;
  return {lse, share / sum};
}

// FinishRow for row r of a query block. Writes lse and returns the output's factor.
HWY_INLINE double FinishRowOf(const ForwardParams& params, const QueryBlock& q_block, const BlockInfo& info,
                              std::size_t r, float maximum, float total) {
  const std::int64_t h = info.head[r], i = info.query[r];
  const float* const sink = params.sinks != nullptr ? params.sinks + h * params.sinks_stride : nullptr;
  // All keys of a padding row share its bias, which is then its lse.
  const RowScale scale =
      FinishRow(maximum, total, sink, [&](double lse) { return one_bias(params, q_block.batch, h, i).value_or(lse); });
  if (params.lse != nullptr) params.lse[params.lse_at(q_block.batch, h, i)] = static_cast<float>(scale.lse);
  return scale.inverse;
}

// + 0 turns the -0 of a row of -0 products into the 0 of a longer sum. A row without keys has scale 0.
HWY_INLINE VF Normalised(VF output, VF scale) {
  const DF d;
  const VF y = hn::Add(hn::Mul(output, scale), hn::Zero(d));
  return hn::IfThenElse(hn::Eq(scale, hn::Zero(d)), hn::Zero(d), y);
}

// The rows of a query block that leave F32's range between inputs and output, one bit each. They are computed again in
// float64.
class RowsBeyondFloat {
 public:
  HWY_INLINE RowsBeyondFloat() : check_(hn::Zero(DF())) {}
  HWY_INLINE void add(std::size_t r) { rows_ |= std::uint64_t{1} << r; }
  // Checks a vector of outputs: check_ is NaN from the first one on that is not finite.
  HWY_INLINE void see(VF output) { check_ = Fma(output, hn::Zero(DF()), check_); }
  HWY_INLINE bool saw_any() const { return !hn::AllTrue(DF(), hn::Eq(check_, check_)); }
  HWY_INLINE void forget() { check_ = hn::Zero(DF()); }
  void compute_again(const ForwardParams& params, const QueryBlock& q_block, const BlockInfo& info) {
    for (; rows_ != 0; rows_ &= rows_ - 1) {
      const std::size_t r = static_cast<std::size_t>(std::countr_zero(rows_));
      reference_row(params.unpacked != nullptr ? *params.unpacked : params, q_block.batch, info.head[r], info.query[r]);
    }
  }

 private:
  VF check_;
  std::uint64_t rows_ = 0;
};

// A row's factor in F32. A sink far above the keys makes it so small that F32 holds it coarsely or not at all: the row
// is then multiplied in double.
HWY_INLINE float ScaledByDouble(double factor, float* output, std::size_t width, std::size_t step) {
  if (!(factor > 0 && factor < static_cast<double>(std::numeric_limits<float>::min()))) {
    return static_cast<float>(factor);
  }
  for (std::size_t e = 0; e < width; ++e) {
    float& o = output[e * step];
    o = static_cast<float>(static_cast<double>(o) * factor);
  }
  return 1.0f;
}

// Writes the row states of one split, in the order of the caller's rows.
template <class Mma>
HWY_INLINE void SaveRowStates(const ForwardParams& params, const QueryBlock& q_block, const BlockInfo& info,
                              const float* states, std::int64_t split) {
  const std::size_t padded_rows = PaddedRows<Mma>(q_block.rows);
  const std::size_t width = OutputWidth<Mma>(params, q_block.rows);
  const bool in_rows = Mma::kDecodeOnly || q_block.rows <= Mma::kDecodeRows;
  const float* const output = states + 2 * padded_rows;
  for (std::size_t r = 0; r < static_cast<std::size_t>(q_block.rows); ++r) {
    const std::int64_t row =
        ((split * params.batch + q_block.batch) * params.q_heads + info.head[r]) * params.tq + info.query[r];
    params.row_max[row] = states[r];
    params.row_sum[row] = states[padded_rows + r];
    float* const to = params.row_output + row * params.dv;
    for (std::size_t e = 0; e < static_cast<std::size_t>(params.dv); ++e) {
      to[e] = in_rows ? output[r * width + e] : output[e * padded_rows + r];
    }
  }
}

// Writes the caller's rows from the row states over all keys.
template <class Mma>
HWY_INLINE void StoreBlock(const ForwardParams& params, const QueryBlock& q_block, const BlockInfo& info,
                           float* states) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  const std::size_t padded_rows = PaddedRows<Mma>(q_block.rows);
  const std::size_t width = OutputWidth<Mma>(params, q_block.rows);
  float* output = states + 2 * padded_rows;
  HWY_ALIGN float inverse[BlockInfo::kMaxRows] = {};
  RowsBeyondFloat beyond;
  for (std::size_t r = 0; r < static_cast<std::size_t>(q_block.rows); ++r) {
    if (ScoresBeyondFloat(params, q_block, info, r, states[r], states[padded_rows + r])) beyond.add(r);
  }
  const bool sums_only = params.lse == nullptr && params.sinks == nullptr;
  for (std::size_t r = 0; sums_only && r < static_cast<std::size_t>(q_block.rows);
       ++r) {  // a loop of its own, which becomes vectors
    const double sum = static_cast<double>(states[padded_rows + r]);
    inverse[r] = static_cast<float>(sum != 0.0 ? 1.0 / sum : 0.0);
  }
  for (std::size_t r = 0; !sums_only && r < static_cast<std::size_t>(q_block.rows); ++r) {
    const double factor = FinishRowOf(params, q_block, info, r, states[r], states[padded_rows + r]);
    const bool in_rows = q_block.rows <= Mma::kDecodeRows;
    inverse[r] = ScaledByDouble(factor, output + (in_rows ? r * width : r), width, in_rows ? 1 : padded_rows);
  }
  if (Mma::kDecodeOnly || q_block.rows <= Mma::kDecodeRows) {
    for (std::size_t r = 0; r < static_cast<std::size_t>(q_block.rows); ++r) {
      float* row = output + r * width;
      beyond.forget();
      for (std::size_t i = 0; i < width; i += n) {
        const VF y = Normalised(hn::LoadU(d, row + i), hn::Set(d, inverse[r]));
        beyond.see(y);
        hn::StoreU(y, d, row + i);
      }
      if (beyond.saw_any()) beyond.add(r);
      StoreRow(params.out_type, params.out, params.out_at(q_block.batch, info.head[r], info.query[r]),
               params.out_stride[3], params.dv, row);
    }
  } else if constexpr (!Mma::kDecodeOnly) {
    const auto out_at = [&](std::int64_t h, std::int64_t i) { return params.out_at(q_block.batch, h, i); };
    for (std::size_t first = 0; first < padded_rows; first += n) {
      beyond.forget();
      UnpackLanes(params.out_type, params.out, info.rows_at(first, n, out_at), params.out_stride[3], params.dv,
                  padded_rows, output + first, inverse + first, [&beyond](VF sum, VF scale) HWY_ATTR {
                    const VF y = Normalised(sum, scale);
                    beyond.see(y);
                    return y;
                  });
      const std::size_t last = std::min(first + n, static_cast<std::size_t>(q_block.rows));
      for (std::size_t r = first; beyond.saw_any() && r < last; ++r) {
        bool finite = true;
        for (std::size_t i = 0; inverse[r] != 0.0f && i < width; ++i) {
          finite = finite && std::isfinite(output[i * padded_rows + r] * inverse[r]);
        }
        if (!finite) beyond.add(r);
      }
    }
  }
  beyond.compute_again(params, q_block, info);
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
