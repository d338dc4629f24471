// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_WEIGHTS_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_WEIGHTS_INL_HPP
#undef MANYHEADS_WEIGHTS_INL_HPP
#else
#define MANYHEADS_WEIGHTS_INL_HPP
#endif

#include <cmath>
#include <cstdint>
#include <limits>

#include "hwy/highway.h"
#include "kernels/algorithm/forward-inl.hpp"
#include "kernels/algorithm/scores-inl.hpp"
#include "kernels/kernel_table.hpp"

// The weights of each head, recomputed from q, k and lse: the fused path's own scores, written out and exponentiated.
HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Turns a row of base-2 scores, the largest of which is `top`, into weights that, with the sink, sum to 1. `lse` is only
// a guess at what they are shifted by: the row is divided by its own sum. Returns its own lse; NaN where the sum is no
// number, since scores left F32's range.
HWY_INLINE float FinishWeights(float* row, std::int64_t step, std::int64_t count, float lse, float sink, float top) {
  const DF d;
  const std::int64_t n = static_cast<std::int64_t>(hn::Lanes(d));
  const auto at = [&](std::int64_t j) -> float& { return row[j * step]; };
  // The row's own largest score where lse is so large that its rounding would show, or farther from the scores than the
  // log of their number: then it is another's, and exponentials would leave the range.
  double shift = static_cast<double>(lse) * 1.44269504088896340736;
  const double sink_score = static_cast<double>(sink) * 1.44269504088896340736;
  const double above = std::max(static_cast<double>(top), sink_score) - shift;
  const double farthest = 2 + std::log2(static_cast<double>(count) + 1);
  if (std::fabs(lse) > 4096.0f || !(above <= 2 && above >= -farthest)) shift = static_cast<double>(top);
  const float by = static_cast<float>(shift);
  double sum = std::exp2(sink_score - static_cast<double>(by));
  if (step == 1) {
    HWY_ALIGN float part[HWY_MAX_BYTES / sizeof(float)];
    std::int64_t j = 0;
    while (j + n <= count) {  // short runs in float, the runs in double: the sum of a long row stays sharp
      VF sums = hn::Zero(d);
      for (std::int64_t steps = 0; steps < 8 && j + n <= count; ++steps, j += n) {
        const VF p = Exp2(d, hn::Sub(hn::LoadU(d, row + j), hn::Set(d, by)));
        hn::StoreU(p, d, row + j);
        sums = hn::Add(sums, p);
      }
      hn::Store(sums, d, part);
      for (std::int64_t lane = 0; lane < n; ++lane) sum += static_cast<double>(part[lane]);
    }
    for (; j < count; ++j) {
      row[j] = hn::GetLane(Exp2(d, hn::Set(d, row[j] - by)));
      sum += static_cast<double>(row[j]);
    }
  } else {
    for (std::int64_t j = 0; j < count; ++j) {
      at(j) = hn::GetLane(Exp2(d, hn::Set(d, at(j) - by)));
      sum += static_cast<double>(at(j));
    }
  }
  const float inverse = static_cast<float>(1.0 / sum);
  for (std::int64_t j = 0; j < count; ++j) at(j) *= inverse;
  if (!(sum < std::numeric_limits<double>::infinity())) return std::numeric_limits<float>::quiet_NaN();
  return static_cast<float>((static_cast<double>(by) + std::log2(sum)) * 0.69314718055994530942);
}

// A row of weights in float64, and its own lse where it is asked for.
HWY_INLINE void WeightsInDouble(const AttentionCall& call, std::int64_t b, std::int64_t h, std::int64_t i) {
  AttentionCall row = call;
  row.lse = call.row_lse;  // lse itself is an input here
  row.lse_stride[0] = call.q_heads * call.tq;
  row.lse_stride[1] = call.tq;
  row.lse_stride[2] = 1;
  reference_row(row, b, h, i);
}

template <int NV>
HWY_NOINLINE void WeightsTile(const AttentionCall& call, const Tile& tile, float* scratch) {
  const std::size_t lanes = NV * LaneCount();
  const ForwardScratch at(call, tile);
  TileState state;
  BeginTile<Floats>(call, tile, lanes, state);
  PackQueries<Floats>(call, tile, lanes, scratch + at.packed, state);
  float* scores = scratch + at.scores;
  const std::int64_t step = call.weights_stride[3];
  const auto row_of = [&](std::int64_t r) {
    const std::size_t lane = static_cast<std::size_t>(r);
    return call.weights + tile.batch * call.weights_stride[0] + state.head[lane] * call.weights_stride[1] +
           state.query[lane] * call.weights_stride[2];
  };
  for (std::int64_t r = 0; r < tile.rows; ++r) {
    for (std::int64_t j = 0; j < call.tk; ++j) row_of(r)[j * step] = kForbidden;
  }
  const DF d;
  HWY_ALIGN float tops[NV * kMaxLanes];
  std::fill_n(tops, lanes, kForbidden);
  for_each_run(call, tile, state.range, [&](std::int64_t begin, std::int64_t end, bool some) HWY_ATTR {
    VF top[NV];
    ScoreRun<Floats, NV>(call, tile, state, lanes, 0, KeyRows<Floats>(call, tile, begin, end, scratch + at.keys), begin,
                         end, some, scores, top, [](std::size_t, std::size_t) {});
    for (int v = 0; v < NV; ++v) {
      float* const to = tops + static_cast<std::size_t>(v) * hn::Lanes(d);
      hn::Store(hn::Max(top[v], hn::Load(d, to)), d, to);
    }
    for (std::int64_t r = 0; r < tile.rows; ++r) {
      float* row = row_of(r) + begin * step;
      for (std::int64_t j = 0; j < end - begin; ++j) {
        row[j * step] = scores[static_cast<std::size_t>(j) * lanes + static_cast<std::size_t>(r)];
      }
    }
  });
  for (std::int64_t r = 0; r < tile.rows; ++r) {
    const std::size_t lane = static_cast<std::size_t>(r);
    const float lse = call.lse[tile.batch * call.lse_stride[0] + state.head[lane] * call.lse_stride[1] +
                               state.query[lane] * call.lse_stride[2]];
    const float sink = call.sinks != nullptr ? call.sinks[state.head[lane] * call.sinks_stride] : kForbidden;
    const std::int64_t h = state.head[lane];
    const std::int64_t i = state.query[lane];
    float own = sink;
    bool sound = true;
    if (tops[lane] == kForbidden) {  // sees no key, or its scores are -inf or NaN
      for (std::int64_t j = 0; j < call.tk; ++j) row_of(r)[j * step] = 0.0f;
      sound = state.begin[lane] >= state.end[lane] || !sees_a_key(call, tile.batch, h, i);
    } else {
      own = FinishWeights(row_of(r), step, call.tk, lse, sink, tops[lane]);
      sound = std::fabs(own) < kFarthestScore / kLog2e;
      if (!sound && own < 0 && !state.extreme) {  // padding: its bias is all there is to see
        if (const auto bias = one_bias(call, tile.batch, h, i)) {
          own = static_cast<float>(*bias);
          sound = true;
        }
      }
    }
    if (call.row_lse != nullptr) call.row_lse[(tile.batch * call.q_heads + h) * call.tq + i] = own;
    if (!sound) WeightsInDouble(call, tile.batch, h, i);
  }
}

void Weights(const AttentionCall& call, const Tile& tile, float* scratch) {
  const std::int64_t most = kTileVectors * static_cast<std::int64_t>(LaneCount());
  for (std::int64_t row = 0; row < tile.rows; row += most) {
    Tile part = tile;
    part.row += row;
    part.rows = std::min(most, tile.rows - row);
    const std::size_t vectors = RoundUp(static_cast<std::size_t>(part.rows), LaneCount()) / LaneCount();
    if (vectors == 1) {
      WeightsTile<1>(call, part, scratch);
    } else if (vectors == 2) {
      WeightsTile<2>(call, part, scratch);
    } else if (vectors == 3) {
      WeightsTile<3>(call, part, scratch);
    } else {
      WeightsTile<kTileVectors>(call, part, scratch);
    }
  }
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
