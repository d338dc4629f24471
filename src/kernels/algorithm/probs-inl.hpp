// Attention probabilities of each head, recomputed from q, k and lse.
//
//   p = exp(score - lse)
//
// Contract: the scores are those of prefill in F32; each row is divided by its own sum, before dropout.
// Cost: one product, and Tk floats written a row.

// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_ALGORITHM_PROBS_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_ALGORITHM_PROBS_INL_HPP
#undef MANYHEADS_ALGORITHM_PROBS_INL_HPP
#else
#define MANYHEADS_ALGORITHM_PROBS_INL_HPP
#endif

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "base/math.hpp"
#include "hwy/highway.h"
#include "kernels/algorithm/dropout-inl.hpp"
#include "kernels/algorithm/epilogue-inl.hpp"
#include "kernels/algorithm/pack_q-inl.hpp"
#include "kernels/canonical_order.hpp"
#include "kernels/algorithm/qk_scores-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Turns a row of base-2 scores, of which `top` is the largest, into probabilities that sum to 1 with the sink. `lse`
// only guesses the shift: the row is divided by its own sum. Returns the row's own lse; NaN where the sum is not
// finite, since scores left F32's range.
HWY_INLINE float NormaliseProbs(float* row, std::int64_t step, std::int64_t count, float lse, float sink, float top) {
  const DF d;
  const std::int64_t n = static_cast<std::int64_t>(hn::Lanes(d));
  const auto at = [&](std::int64_t j) -> float& { return row[j * step]; };
  // Shifts by the row's largest score instead where
  // - lse is so large that its rounding would show;
  // - lse is farther from the scores than the log of their number: it is another row's, and exponentials would leave
  //   the range.
  double shift = static_cast<double>(lse) * base::kLog2e;
  const double sink_score = static_cast<double>(sink) * base::kLog2e;
  const double above = std::max(static_cast<double>(top), sink_score) - shift;
  const double farthest = 2 + base::log2(static_cast<double>(count) + 1);
  if (std::fabs(lse) > 4096.0f || !(above <= 2 && above >= -farthest)) shift = static_cast<double>(top);
  const float by = static_cast<float>(shift);
  double sum = base::exp2(sink_score - static_cast<double>(by));
  // Eight steps of the canonical lanes in F32, their sums in double: the sum of a long row stays sharp.
  HWY_ALIGN float lanes[kSumLanes];
  HWY_ALIGN float copy[kSumLanes];
  const VF shifted = hn::Set(d, by);
  std::int64_t j = 0;
  while (j + kSumLanes <= count) {
    std::fill_n(lanes, kSumLanes, 0.0f);
    for (std::int64_t steps = 0; steps < 8 && j + kSumLanes <= count; ++steps, j += kSumLanes) {
      for (std::int64_t l = 0; step != 1 && l < kSumLanes; ++l) copy[l] = at(j + l);
      float* const p = step == 1 ? row + j : copy;
      for (std::int64_t l = 0; l < kSumLanes; l += n) {
        const VF prob = Exp2(hn::Sub(hn::LoadU(d, p + l), shifted));
        hn::StoreU(prob, d, p + l);
        hn::Store(hn::Add(hn::Load(d, lanes + l), prob), d, lanes + l);
      }
      for (std::int64_t l = 0; step != 1 && l < kSumLanes; ++l) at(j + l) = copy[l];
    }
    for (const float lane : lanes) sum += static_cast<double>(lane);
  }
  for (; j < count; ++j) {
    at(j) = hn::GetLane(Exp2(hn::Set(d, at(j) - by)));
    sum += static_cast<double>(at(j));
  }
  const float inverse = static_cast<float>(1.0 / sum);
  for (std::int64_t j = 0; j < count; ++j) at(j) *= inverse;
  if (!(sum < std::numeric_limits<double>::infinity())) return std::numeric_limits<float>::quiet_NaN();
  return static_cast<float>((static_cast<double>(by) + base::log2(sum)) * base::kLn2);
}

// Drops weights of a whole row, [Tk] in storage places.
inline HWY_NOINLINE void DropInProbs(const ProbsParams& params, std::int64_t b, std::int64_t h, std::int64_t i) {
  const std::int64_t step = params.probs_stride[3], keys = params.key_length(b);
  float* const row = params.row_of_probs(b, h, i) + params.key_start(b) * step;
  HWY_ALIGN float run[kRunKeys];
  for (std::int64_t begin = 0; begin < keys; begin += kRunKeys) {
    const std::int64_t count = std::min(kRunKeys, keys - begin);
    for (std::int64_t j = 0; j < count; ++j) run[j] = row[(begin + j) * step];
    DropInRow(params, b, h, i, begin, static_cast<std::size_t>(count), run);
    for (std::int64_t j = 0; j < count; ++j) row[(begin + j) * step] = run[j];
  }
}

template <int NV>
HWY_NOINLINE void ProbsBlock(const ProbsParams& params, const QueryBlock& q_block, float* workspace) {
  const std::size_t lanes = NV * LaneCount();
  const ForwardWorkspace at(params, q_block.rows);
  BlockInfo info;
  BeginBlock<MmaF32>(params, q_block, lanes, info);
  PackQ<MmaF32>(params, q_block, lanes, workspace + at.packed, info);
  float* scores = workspace + at.scores;
  const std::int64_t step = params.probs_stride[3];
  const auto row_of = [&](std::int64_t r) {
    const std::size_t lane = static_cast<std::size_t>(r);
    return params.row_of_probs(q_block.batch, info.head[lane], info.query[lane]);
  };
  for (std::int64_t r = 0; r < q_block.rows; ++r) {
    for (std::int64_t j = 0; j < params.tk; ++j) row_of(r)[j * step] = kForbidden;
  }
  const DF d;
  HWY_ALIGN float tops[NV * kMaxLanes];
  std::fill_n(tops, lanes, kForbidden);
  AttentionMask(params).each_run(
      q_block, info.range, [&](std::int64_t begin, std::int64_t end, bool partly_masked) HWY_ATTR {
        VF top[NV];
        PrefillScores<MmaF32, NV>(params, q_block, info, lanes, 0,
                                  KRows<MmaF32>(params, q_block, begin, end, workspace + at.keys), begin, end,
                                  partly_masked, scores, top, [](std::size_t, std::size_t) {});
        for (int v = 0; v < NV; ++v) {
          float* const to = tops + static_cast<std::size_t>(v) * hn::Lanes(d);
          hn::Store(hn::Max(top[v], hn::Load(d, to)), d, to);
        }
        for (std::int64_t r = 0; r < q_block.rows; ++r) {
          float* row = row_of(r) + (params.key_start(q_block.batch) + begin) * step;
          for (std::int64_t j = 0; j < end - begin; ++j) {
            row[j * step] = scores[static_cast<std::size_t>(j) * lanes + static_cast<std::size_t>(r)];
          }
        }
      });
  for (std::int64_t r = 0; r < q_block.rows; ++r) {
    const std::size_t lane = static_cast<std::size_t>(r);
    const float lse = params.lse[params.lse_at(q_block.batch, info.head[lane], info.query[lane])];
    const float sink = params.sinks != nullptr ? params.sinks[info.head[lane] * params.sinks_stride] : kForbidden;
    const std::int64_t h = info.head[lane];
    const std::int64_t i = info.query[lane];
    float own = sink;
    bool sound = true;
    if (tops[lane] == kForbidden) {  // sees no key, or its scores are -inf or NaN
      for (std::int64_t j = 0; j < params.tk; ++j) row_of(r)[j * step] = 0.0f;
      sound = info.begin[lane] >= info.end[lane] || !sees_a_key(params, q_block.batch, h, i);
    } else {
      own = NormaliseProbs(row_of(r), step, params.tk, lse, sink, tops[lane]);
      sound = std::fabs(own) < kFarthestScore / kLog2e;
      if (!sound && own < 0 && !info.extreme_scale) {  // padding: all keys share its bias, which is its lse
        if (const auto bias = one_bias(params, q_block.batch, h, i)) {
          own = static_cast<float>(*bias);
          sound = true;
        }
      }
    }
    if (float* const to = params.row_lse_of(q_block.batch, h, i)) *to = own;
    if (!sound) {
      reference_probs_row(params, q_block.batch, h, i);
    } else if (params.dropout.any()) {
      DropInProbs(params, q_block.batch, h, i);
    }
  }
}

void Probs(const ProbsParams& params, const QueryBlock& q_block, float* workspace) {
  const std::int64_t most = kBlockVectors * static_cast<std::int64_t>(LaneCount());
  for (std::int64_t row = 0; row < q_block.rows; row += most) {
    QueryBlock block = q_block;
    block.row += row;
    block.rows = std::min(most, q_block.rows - row);
    const std::size_t vectors = RoundUp(static_cast<std::size_t>(block.rows), LaneCount()) / LaneCount();
    if (vectors == 1) {
      ProbsBlock<1>(params, block, workspace);
    } else if (vectors == 2) {
      ProbsBlock<2>(params, block, workspace);
    } else if (vectors == 3) {
      ProbsBlock<3>(params, block, workspace);
    } else {
      ProbsBlock<kBlockVectors>(params, block, workspace);
    }
  }
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
