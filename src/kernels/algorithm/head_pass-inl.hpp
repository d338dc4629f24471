// A pass over the keys of one head for up to 64 rows: weights, or what is summed of them.
//
//   p = exp2(score - shift) factor
//
// Contract: the scores are those of prefill in F32. All sums have the same bits on each target with fused
// multiply-adds:
// - along keys, chains of 16 in a run; runs in double;
// - along the block's 64 rows, by halves: row r and r + 32, then r + 16, and so on; rows it lacks are 0;
// - along a diagonal of a run, ascending keys.
// Cost: one product, one power a weight, and about ten instructions more a vector where all outputs are wanted.

// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_ALGORITHM_HEAD_PASS_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_ALGORITHM_HEAD_PASS_INL_HPP
#undef MANYHEADS_ALGORITHM_HEAD_PASS_INL_HPP
#else
#define MANYHEADS_ALGORITHM_HEAD_PASS_INL_HPP
#endif

#include <algorithm>
#include <bit>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/algorithm/block_info-inl.hpp"
#include "kernels/algorithm/pack_kv-inl.hpp"
#include "kernels/algorithm/pack_q-inl.hpp"
#include "kernels/algorithm/prefetch-inl.hpp"
#include "kernels/algorithm/qk_scores-inl.hpp"
#include "kernels/algorithm/workspace-inl.hpp"
#include "kernels/head_pass.hpp"
#include "kernels/isa/exp2-inl.hpp"
#include "kernels/isa/transpose-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// The weights of a run: [key][64 rows and padding of 0], with padding before the first key too, so that diagonals may
// be read past either side.
constexpr std::size_t kPassPadding = kMaxLanes;
constexpr std::size_t kPassLanes = static_cast<std::size_t>(kPassRows);
constexpr std::size_t kPassStride = kPassLanes + kPassPadding;
constexpr std::size_t kPassRun = static_cast<std::size_t>(kRunKeys);
constexpr std::size_t kPassTile = kPassPadding + kPassRun * kPassStride;
static_assert(BlockInfo::kMaxRows == kPassRows && kRunKeys == kPassRows);

inline std::size_t HeadPassFloats(const HeadPassParams& params) {
  return ForwardWorkspace(params, kPassRows).total + RoundUp(kPassTile, 16);
}

// The keys that rows `row_step` queries apart see.
HWY_INLINE void SpreadRows(const HeadPassParams& params, BlockInfo& info) {
  const Band band(params, 0);
  const std::size_t n = LaneCount();
  info.range = BlockKeyRange(params);
  for (std::size_t r = 0; static_cast<std::int64_t>(r) < info.rows; ++r) {
    const KeyRange keys = band.keys_of(info.query[r] * params.row_step);
    info.begin[r] = keys.begin;
    info.end[r] = keys.end;
    info.range.add(keys);
  }
  for (std::size_t v = 0; v * n < kPassLanes; ++v) {
    BlockKeyRange of(params);
    for (std::size_t r = v * n; r < v * n + n && static_cast<std::int64_t>(r) < info.rows; ++r) {
      of.add({info.begin[r], info.end[r]});
    }
    info.vector_keys[v] = of.any;
    info.vector_all[v] = of.all;
  }
}

// What a block's rows carry from run to run.
struct HeadPassRows {
  HWY_ALIGN float shift[kPassLanes] = {};
  HWY_ALIGN float factor[kPassLanes] = {};
  HWY_ALIGN float least_top[kPassLanes] = {};
};

// The weights of `count` keys and one vector of rows from scores[key][64], and their sums: into the tile, from its key
// `first` on.
HWY_INLINE void WeightsOfVector(const float* HWY_RESTRICT scores, std::size_t row, std::size_t first, std::size_t count,
                                const HeadPassRows& rows, const HeadPassOutputs& out, std::int64_t run,
                                float* HWY_RESTRICT tile, float* HWY_RESTRICT best) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  const VF shift = hn::Load(d, rows.shift + row);
  const VF factor = hn::Load(d, rows.factor + row);
  const auto left_out = hn::Eq(factor, hn::Zero(d));
  // Exp2 takes no more than 127. A weight below 2^-126 is 0, and 0 * -200 adds nothing to log_sum.
  const VF most = hn::Set(d, 127.0f), least = hn::Set(d, -200.0f);
  VF top = hn::Zero(d), sum = hn::Zero(d), logs = hn::Zero(d);
  for (std::size_t chain = 0; chain < count; chain += static_cast<std::size_t>(kChainKeys)) {
    const std::size_t end = std::min(count, chain + static_cast<std::size_t>(kChainKeys));
    VF chain_sum = hn::Zero(d), chain_logs = hn::Zero(d);
    for (std::size_t key = chain; key < end; ++key) {
      VF x = hn::Sub(hn::LoadU(d, scores + key * kPassLanes + row), shift);
      x = MaxKeepsNaN(least, MinKeepsNaN(most, x));
      const VF p = hn::IfThenZeroElse(left_out, hn::Mul(Exp2(x), factor));
      hn::StoreU(p, d, tile + (first + key) * kPassStride + row);
      top = hn::Max(p, top);
      chain_sum = hn::Add(chain_sum, p);
      chain_logs = Fma(p, x, chain_logs);
    }
    sum = hn::Add(sum, chain_sum);
    logs = hn::Add(logs, chain_logs);
  }
  hn::StoreU(top, d, best + row);
  HWY_ALIGN float lanes[2][kMaxLanes];
  hn::Store(sum, d, lanes[0]);
  hn::Store(logs, d, lanes[1]);
  for (std::size_t l = 0; out.sum != nullptr && l < n; ++l) out.sum[row + l] += static_cast<double>(lanes[0][l]);
  for (std::size_t l = 0; out.log_sum != nullptr && l < n; ++l) {
    out.log_sum[row + l] += static_cast<double>(lanes[1][l]);
  }
  if (out.block_sum == nullptr) return;
  const std::size_t at = static_cast<std::size_t>(run) * kPassLanes + row;
  hn::StoreU(sum, d, out.block_sum + at);
  hn::StoreU(top, d, out.block_max + at);
}

// Adds the tile's sums over rows to columns [64].
HWY_INLINE void AddColumns(const float* HWY_RESTRICT tile, float* HWY_RESTRICT columns) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  constexpr std::size_t kVectors = static_cast<std::size_t>(BlockInfo::kMaxVectors);
  for (std::size_t key = 0; key < kPassRun; key += n) {
    VF square[kMaxLanes];
    for (std::size_t j = 0; j < n; ++j) {
      VF rows[kVectors];
      for (std::size_t v = 0; v < kVectors; ++v) rows[v] = hn::LoadU(d, tile + (key + j) * kPassStride + v * n);
      for (std::size_t half = kVectors / 2; half > 0; half /= 2) {
        for (std::size_t v = 0; v < half; ++v) rows[v] = hn::Add(rows[v], rows[v + half]);
      }
      square[j] = rows[0];
    }
    TransposeSquare(square);
    for (std::size_t half = n / 2; half > 0; half /= 2) {
      for (std::size_t l = 0; l < half; ++l) square[l] = hn::Add(square[l], square[l + half]);
    }
    hn::StoreU(hn::Add(hn::LoadU(d, columns + key), square[0]), d, columns + key);
  }
}

// Adds the tile's diagonals to distances [128]: place 64 + row - key.
HWY_INLINE void AddDistances(const float* HWY_RESTRICT tile, float* HWY_RESTRICT distances) {
  const DF d;
  const std::int64_t n = static_cast<std::int64_t>(hn::Lanes(d));
  for (std::int64_t first = -kPassRows; first < kPassRows; first += n) {
    // Keys of which some lane is a row.
    const std::int64_t begin = std::max<std::int64_t>(0, 1 - first - n);
    const std::int64_t end = std::min(kRunKeys, kPassRows - first);
    VF sum = hn::Zero(d);
    for (std::int64_t key = begin; key < end; ++key) {
      sum = hn::Add(sum, hn::LoadU(d, tile + key * static_cast<std::int64_t>(kPassStride) + key + first));
    }
    float* const to = distances + kPassRows + first;
    hn::StoreU(hn::Add(hn::LoadU(d, to), sum), d, to);
  }
}

// Puts a weight that is above the least of its row's largest among them.
HWY_INLINE void InsertTop(float p, std::int64_t key, std::int64_t row, const HeadPassOutputs& out, HeadPassRows& rows) {
  float* const weights = out.top_weights + row * out.top;
  std::int64_t* const keys = out.top_keys + row * out.top;
  std::int64_t at = out.top - 1;
  for (; at > 0 && weights[at - 1] < p; --at) {
    weights[at] = weights[at - 1];
    keys[at] = keys[at - 1];
  }
  weights[at] = p;
  keys[at] = key;
  rows.least_top[row] = weights[out.top - 1];
}

// Adds a run's weights to the largest of each row. `best` holds each row's largest of the run: most runs have none.
HWY_INLINE void AddTops(const float* HWY_RESTRICT tile, const float* HWY_RESTRICT best, std::size_t vectors,
                        std::int64_t first_key, const HeadPassOutputs& out, HeadPassRows& rows) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  for (std::size_t row = 0; row < vectors * n; row += n) {
    if (hn::AllFalse(d, hn::Gt(hn::LoadU(d, best + row), hn::LoadU(d, rows.least_top + row)))) continue;
    for (std::size_t key = 0; key < kPassRun; ++key) {
      const VF weights = hn::LoadU(d, tile + key * kPassStride + row);
      std::uint64_t larger = 0;
      hn::StoreMaskBits(d, hn::Gt(weights, hn::LoadU(d, rows.least_top + row)),
                        reinterpret_cast<std::uint8_t*>(&larger));
      for (; larger != 0; larger &= larger - 1) {
        const std::size_t r = row + static_cast<std::size_t>(std::countr_zero(larger));
        InsertTop(tile[key * kPassStride + r], first_key + static_cast<std::int64_t>(key), static_cast<std::int64_t>(r),
                  out, rows);
      }
    }
  }
}

inline void HeadPass(const HeadPassParams& params, std::int64_t row, std::int64_t block_rows,
                     const HeadPassOutputs& out, float* workspace) {
  const QueryBlock q_block{0, 0, row, block_rows};
  const ForwardWorkspace at(params, kPassRows);
  const std::size_t n = LaneCount();
  BlockInfo info;
  BeginBlock<MmaF32>(params, q_block, kPassLanes, info);
  if (params.row_step != 1) SpreadRows(params, info);
  PackQ<MmaF32>(params, q_block, kPassLanes, workspace + at.packed, info);
  float* const scores = workspace + at.scores;
  float* const tile = workspace + at.total + kPassPadding;
  std::fill_n(workspace + at.total, kPassTile, 0.0f);
  HeadPassRows rows;
  std::copy_n(params.shift + row, block_rows, rows.shift);
  std::copy_n(params.factor + row, block_rows, rows.factor);
  if (out.sum != nullptr) std::fill_n(out.sum, kPassLanes, 0.0);
  if (out.log_sum != nullptr) std::fill_n(out.log_sum, kPassLanes, 0.0);
  std::fill_n(out.top_weights, kPassRows * out.top, 0.0f);
  std::fill_n(out.top_keys, kPassRows * out.top, std::int64_t{-1});

  const std::size_t vectors = RoundUp(static_cast<std::size_t>(block_rows), n) / n;
  const std::int64_t runs = runs_of(params.tk);
  AttentionMask(params).each_run(
      q_block, info.range, [&](std::int64_t begin, std::int64_t end, bool partly_masked) HWY_ATTR {
        const std::int64_t run = begin / kRunKeys;
        const std::size_t first = static_cast<std::size_t>(begin % kRunKeys);
        const std::size_t count = static_cast<std::size_t>(end - begin);
        const StridedRows keys = KRows<MmaF32>(params, q_block, begin, end, workspace + at.keys);
        MemoryRange ranges[kMaxRanges];
        const std::int64_t next_end = std::min(end + kRunKeys, info.range.any.end);
        Prefetcher<> prefetch(ranges, NextRunRanges(params, q_block, false, end, next_end, 0, ranges),
                              count / MmaRowsBeside<kBlockVectors>());
        const auto score = [&]<int NV>(std::integral_constant<int, NV>, std::size_t v) HWY_ATTR {
          VF top[NV];
          PrefillScores<MmaF32, NV>(params, q_block, info, kPassLanes, v * n, keys, begin, end, partly_masked,
                                    scores + v * n, top, [&](std::size_t, std::size_t) HWY_ATTR { prefetch(nullptr); });
        };
        std::size_t v = 0;
        for (; v + kBlockVectors <= vectors; v += kBlockVectors) {
          score(std::integral_constant<int, kBlockVectors>(), v);
        }
        for (; v < vectors; ++v) score(std::integral_constant<int, 1>(), v);
        if (count < kPassRun) std::fill_n(tile, kPassRun * kPassStride, 0.0f);
        HWY_ALIGN float best[kPassLanes] = {};
        for (v = 0; v < vectors; ++v) WeightsOfVector(scores, v * n, first, count, rows, out, run, tile, best);
        if (out.columns != nullptr) AddColumns(tile, out.columns + run * kRunKeys);
        if (out.distances != nullptr) AddDistances(tile, out.distances + (runs - 1 - run) * kRunKeys);
        if (out.top > 0) AddTops(tile, best, vectors, run * kRunKeys, out, rows);
        for (std::int64_t r = 0; r < block_rows && out.weights != nullptr; ++r) {
          float* const to = out.weights + (row + r) * out.weights_stride[0] + begin * out.weights_stride[1];
          const float* const from = tile + first * kPassStride + static_cast<std::size_t>(r);
          for (std::size_t j = 0; j < count; ++j) {
            to[static_cast<std::int64_t>(j) * out.weights_stride[1]] = from[j * kPassStride];
          }
        }
      });
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
