// Attention from the row states of parts of the keys, whoever computed them: the combine tree of a call over all keys,
// and its epilogue.
//
// Contract: the bits are those of one call over all keys at this instruction set.
// Cost: a multiplication and a multiply-add for each element of output and branch.

// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_ALGORITHM_ROW_STATES_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_ALGORITHM_ROW_STATES_INL_HPP
#undef MANYHEADS_ALGORITHM_ROW_STATES_INL_HPP
#else
#define MANYHEADS_ALGORITHM_ROW_STATES_INL_HPP
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/algorithm/epilogue-inl.hpp"
#include "kernels/params.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Floats for the states of kDecodeRows rows, one open branch a level.
inline std::size_t CombineStatesFloats(std::int64_t dv) {
  constexpr std::size_t kLevels = 64;
  return kLevels * (2 + RoundUp(static_cast<std::size_t>(dv), kMaxLanes)) * kDecodeRows;
}

// Combines `rows` rows from `first` on, at most kDecodeRows.
HWY_INLINE void CombineRows(const StatesParams& params, std::int64_t first, std::size_t rows, float* workspace) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  const std::size_t dv = static_cast<std::size_t>(params.dv);
  const std::size_t width = RoundUp(dv, n);
  OpenStates::Chunks opened;
  CombineTree tree(StatesInRows{width, rows}, {&opened, workspace, (2 + width) * kDecodeRows}, true);
  for (std::int64_t s = 0; s < params.count; ++s) {
    const StatesParams::Branch& branch = params.branches[s];
    float* const states = tree.open(branch.chunk);
    std::copy_n(branch.max + first, rows, states);
    std::copy_n(branch.sum + first, rows, states + kDecodeRows);
    for (std::size_t r = 0; r < rows; ++r) {
      float* const to = states + 2 * kDecodeRows + r * width;
      std::copy_n(branch.output + (first + static_cast<std::int64_t>(r)) * params.dv, dv, to);
      std::fill(to + dv, to + width, 0.0f);
    }
  }
  float* const combined = tree.close();
  for (std::size_t r = 0; r < rows; ++r) {
    const std::int64_t row = first + static_cast<std::int64_t>(r);
    const std::int64_t i = row % params.tq, h = row / params.tq % params.q_heads, b = row / params.tq / params.q_heads;
    const float* const sink = params.sinks != nullptr ? params.sinks + h * params.sinks_stride : nullptr;
    const RowScale scale = FinishRow(combined[r], combined[kDecodeRows + r], sink, [](double lse) { return lse; });
    if (params.lse != nullptr) {
      params.lse[b * params.lse_stride[0] + h * params.lse_stride[1] + i * params.lse_stride[2]] =
          static_cast<float>(scale.lse);
    }
    float* const output = combined + 2 * kDecodeRows + r * width;
    const float inverse = ScaledByDouble(scale.inverse, output, width, 1);
    for (std::size_t e = 0; e < width; e += n) {
      hn::StoreU(Normalised(hn::LoadU(d, output + e), hn::Set(d, inverse)), d, output + e);
    }
    StoreRow(params.out_type, params.out,
             b * params.out_stride[0] + h * params.out_stride[1] + i * params.out_stride[2], params.out_stride[3],
             params.dv, output);
  }
}

void CombineStates(const StatesParams& params, std::int64_t row_begin, std::int64_t row_end, float* workspace) {
  constexpr std::int64_t kMost = static_cast<std::int64_t>(kDecodeRows);
  for (std::int64_t row = row_begin; row < row_end; row += kMost) {
    CombineRows(params, row, static_cast<std::size_t>(std::min(kMost, row_end - row)), workspace);
  }
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
