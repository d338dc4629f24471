// Backward: what a block of 64 queries and a chunk of 512 keys give each other.
//
//   S^T = K Q^T,  dP^T = V dO^T,  P = exp2(S - shift) factor,  dS = P (M dP - delta)
//   dV = dV + (M P)^T dO,  dK = dK + dS^T Q,  dQ^T = dQ^T + K^T dS^T
//
// M is dropout's: 0 or 1 / (1 - p), 1 without.
//
// Contract: scores are those of the forward in F32. Sums over queries run in chains of 16 and runs of 64 from query 0,
// sums over keys likewise from key 0. Runs that the mask rules out are not read.
// Cost: 2 (3 D + 2 Dv) FLOP for each query and key of the runs read.

// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_ALGORITHM_BACKWARD_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_ALGORITHM_BACKWARD_INL_HPP
#undef MANYHEADS_ALGORITHM_BACKWARD_INL_HPP
#else
#define MANYHEADS_ALGORITHM_BACKWARD_INL_HPP
#endif

#include <algorithm>
#include <cstdint>
#include <cstdlib>

#include "hwy/highway.h"
#include "kernels/algorithm/backward_rows-inl.hpp"
#include "kernels/algorithm/block_info-inl.hpp"
#include "kernels/algorithm/dropout-inl.hpp"
#include "kernels/algorithm/pack_kv-inl.hpp"
#include "kernels/algorithm/pack_q-inl.hpp"
#include "kernels/algorithm/pv_product-inl.hpp"
#include "kernels/algorithm/qk_scores-inl.hpp"
#include "kernels/backward.hpp"
#include "kernels/isa/exp2-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// The rows of a block of queries, and the tiles of the run under way: [key][64 rows].
// - `rows` and `vectors` are those of the block.
// - Of the run under way, lanes [lane, lane_end) alone may see a key: whole chains of rows, at the end whole vectors.
struct GradBlock {
  HWY_ALIGN float shift[kGradLanes] = {};
  HWY_ALIGN float factor[kGradLanes] = {};
  HWY_ALIGN float delta[kGradLanes] = {};
  StridedRows q_rows, dout_rows;
  std::size_t rows, vectors;
  std::size_t lane, lane_end;
  std::size_t rows_end() const { return std::min(rows, lane_end); }
  const float* packed_dout;
  float* probs;
  float* grads;
  bool finite;  // queries and dout
};

// Turns the scores of M keys and NV vectors of rows from lane `lane` on into P, less what dropout takes, and writes dS
// before softcap. Unless kPlain some may be forbidden, and their P and dS are `none`; or dropped, as `kept` says.
template <int M, int NV, bool kPlain>
HWY_INLINE void GradsOfKeys(const GradBlock& block, const StridedRows& values, const KeptInLanes* kept, std::size_t key,
                            std::size_t dv, std::size_t lane, VF none) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  // A score exceeds its row's lse by rounding alone, and the shift lies within 1/2 of it. 2^-200 is 0.
  const VF most = hn::Set(d, 64.0f), least = hn::Set(d, -200.0f);
  VF sum[M][NV];
  Products<MmaF32>(values.data + key * values.stride, values.stride, 1, block.packed_dout + lane, kGradLanes, dv, 1.0,
                   sum);
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) {
      const std::size_t row = lane + static_cast<std::size_t>(v) * n;
      const std::size_t at = (key + static_cast<std::size_t>(m)) * kGradLanes + row;
      const VF score = hn::LoadU(d, block.probs + at);
      VF x = hn::Sub(score, hn::Load(d, block.shift + row));
      x = MaxKeepsNaN(least, MinKeepsNaN(most, x));
      VF p = hn::Mul(Exp2(x), hn::Load(d, block.factor + row));
      VF dp = sum[m][v];
      if constexpr (!kPlain) {
        if (kept != nullptr) dp = (*kept)(dp, key + static_cast<std::size_t>(m), static_cast<std::size_t>(v));
      }
      VF ds = hn::Mul(p, hn::Sub(dp, hn::Load(d, block.delta + row)));
      if constexpr (!kPlain) {
        if (kept != nullptr) p = (*kept)(p, key + static_cast<std::size_t>(m), static_cast<std::size_t>(v));
        const auto forbidden = hn::Eq(score, hn::Set(d, kForbidden));
        p = hn::IfThenElse(forbidden, none, p);
        // + 0: -0 says "forbidden".
        ds = hn::IfThenElse(forbidden, none, hn::Add(ds, hn::Zero(d)));
      }
      hn::StoreU(p, d, block.probs + at);
      hn::StoreU(ds, d, block.grads + at);
    }
  }
}

template <int NV, bool kPlain>
HWY_NOINLINE void GradsOfRun(const GradBlock& block, const StridedRows& values, const KeptInLanes* kept,
                             std::size_t keys, std::size_t dv, std::size_t lane, VF none) {
  constexpr std::size_t kRows = MmaRowsBeside<NV>();
  std::size_t key = 0;
  for (; key + kRows <= keys; key += kRows) GradsOfKeys<kRows, NV, kPlain>(block, values, kept, key, dv, lane, none);
  for (; key < keys; ++key) GradsOfKeys<1, NV, kPlain>(block, values, kept, key, dv, lane, none);
}

// Multiplies dS by softcap's derivative, 1 - tanh^2 of the score over the cap.
template <int NV>
HWY_NOINLINE void CapGrads(const GradBlock& block, const BlockInfo& info, const StridedRows& key_rows, std::size_t keys,
                           std::size_t width, std::size_t lane) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  const VF one = hn::Set(d, 1.0f), factor = hn::Set(d, info.score_factor), over_cap = hn::Set(d, 1.0f / info.cap);
  const VF huge = hn::Set(d, 2.0e38f);
  for (std::size_t key = 0; key < keys; ++key) {
    VF product[1][NV];
    Products<MmaF32>(key_rows.data + key * key_rows.stride, key_rows.stride, 1, info.packed + lane, kGradLanes, width,
                     info.sum_factor, product);
    for (int v = 0; v < NV; ++v) {
      float* const at = block.grads + key * kGradLanes + lane + static_cast<std::size_t>(v) * n;
      VF x = hn::Mul(product[0][v], factor);
      x = MaxKeepsNaN(hn::Neg(huge), MinKeepsNaN(huge, x));
      const VF t = Tanh(d, hn::Mul(x, over_cap));
      const VF ds = hn::LoadU(d, at);
      const VF capped = hn::Mul(hn::Mul(ds, hn::Sub(one, t)), hn::Add(one, t));
      // A forbidden key's stays as it is.
      hn::StoreU(hn::IfThenElse(hn::Eq(ds, hn::Zero(d)), ds, capped), d, at);
    }
  }
}

// sums[key][i] = sums[key][i] + sum over the run's rows, ascending, of tile[key][row] rows[row][i].
template <class Mma>
HWY_NOINLINE void AddOverRows(const GradBlock& block, const float* HWY_RESTRICT tile, std::size_t keys,
                              const StridedRows& rows, std::size_t width, std::size_t step, float* HWY_RESTRICT sums) {
  if (block.lane >= block.rows_end()) return;
  const std::size_t count = block.rows_end() - block.lane;
  const float* const from = tile + block.lane;
  const float* const first = rows.data + block.lane * rows.stride;
  EachColumns<kBlockVectors, 1>(
      width, [&]<int kVectors>(std::integral_constant<int, kVectors>, std::size_t i) HWY_ATTR {
        constexpr int kRows = MmaRowsBeside<kVectors>();
        std::size_t key = 0;
        for (; key + kRows <= keys; key += kRows) {
          PvProduct<Mma, kVectors, kRows>(from + key * kGradLanes, kGradLanes, 1, first + i, rows.stride, 0, count,
                                          false, step, sums + key * step + i);
        }
        for (; key < keys; ++key) {
          PvProduct<Mma, kVectors, 1>(from + key * kGradLanes, kGradLanes, 1, first + i, rows.stride, 0, count, false,
                                      step, sums + key * step + i);
        }
      });
}

// Calls f(vectors, lane) for the vectors of a run, kBlockVectors at a time and the rest one by one.
template <class F>
HWY_INLINE void EachVectors(const GradBlock& block, F&& f) {
  const std::size_t n = LaneCount();
  std::size_t lane = block.lane;
  for (; lane + kBlockVectors * n <= block.lane_end; lane += kBlockVectors * n) {
    f(std::integral_constant<int, kBlockVectors>(), lane);
  }
  for (; lane < block.lane_end; lane += n) f(std::integral_constant<int, 1>(), lane);
}

// sums[i][row] = sums[i][row] + sum over keys, ascending, of keys[key][i] tile[key][row], for the run's lanes.
template <class Mma>
HWY_NOINLINE void AddOverKeys(const GradBlock& block, const StridedRows& keys, std::size_t run_offset,
                              std::size_t count, std::size_t width, float* HWY_RESTRICT sums) {
  EachVectors(block, [&]<int NV>(std::integral_constant<int, NV>, std::size_t lane) HWY_ATTR {
    PvProducts<Mma, NV>(keys, block.grads + lane, run_offset, count, false, width, kGradLanes, sums + lane);
  });
}

// Where a run of a chunk lies.
struct GradRun {
  std::int64_t begin, end;
  std::size_t count;
  StridedRows keys, values;
  bool mask_nonfinite;  // forbidden keys or rows may have values that are not finite
};

// The block's side of the work: its rows, packed and not.
HWY_INLINE void BeginGradBlock(const BackwardParams& params, const KeyChunk& chunk, const QueryBlock& q_block,
                               BlockInfo& info, GradBlock& block) {
  const BackwardWorkspace at(params);
  const std::size_t n = LaneCount();
  PackQ<MmaF32>(params, q_block, kGradLanes, chunk.workspace + at.packed_q, info);
  float* const packed = chunk.workspace + at.packed_dout;
  const auto dout_at = [&](std::int64_t h, std::int64_t i) { return params.dout_at(q_block.batch, h, i); };
  for (std::size_t first = 0; first < kGradLanes; first += n) {
    PackLanes<MmaF32>(params.dout_type, params.dout, info.rows_at(first, n, dout_at), params.dout_stride[3], params.dv,
                      kGradLanes, packed + first, [](VF x) { return x; });
  }
  block.packed_dout = packed;
  const std::int64_t h = info.head[0], i = info.query[0];
  const std::int64_t row = params.grad_row(q_block.batch, h, i);
  std::copy_n(params.shift + row, q_block.rows, block.shift);
  std::copy_n(params.factor + row, q_block.rows, block.factor);
  std::copy_n(params.delta + row, q_block.rows, block.delta);
  block.q_rows = DenseRows(params.type, params.q, q_block.rows, params.q_stride[2], params.q_stride[3], params.d,
                           PaddedWidth(params.d), chunk.workspace + at.q_rows,
                           [&](std::int64_t r) { return params.q_at(q_block.batch, h, i + r); });
  block.dout_rows = DenseRows(params.dout_type, params.dout, q_block.rows, params.dout_stride[2], params.dout_stride[3],
                              params.dv, PaddedWidth(params.dv), chunk.workspace + at.dout_rows,
                              [&](std::int64_t r) { return params.dout_at(q_block.batch, h, i + r); });
  block.rows = static_cast<std::size_t>(q_block.rows);
  block.vectors = RoundUp(block.rows, n) / n;
  block.probs = chunk.workspace + at.probs;
  block.grads = chunk.workspace + at.grads;
  block.finite = AllFinite<MmaF32>(block.q_rows, block.rows, static_cast<std::size_t>(params.d)) &&
                 AllFinite<MmaF32>(block.dout_rows, block.rows, static_cast<std::size_t>(params.dv));
}

// The lanes of a block that may see any of keys [begin, end): from the first to the last such chain of rows. Rows
// beside them would add 0.
HWY_INLINE void LanesOfRun(const QkvMask& params, const QueryBlock& q_block, const BlockInfo& info, std::int64_t begin,
                           std::int64_t end, bool partly_masked, GradBlock& block) {
  constexpr std::size_t kChain = static_cast<std::size_t>(kChainKeys);
  const std::size_t n = LaneCount();
  block.lane = 0;
  block.lane_end = block.vectors * n;
  if (!partly_masked) return;
  const IdRange there = params.documents() ? key_ids(params, q_block.batch, begin, end) : IdRange{};
  const auto sees = [&](std::size_t lane) {
    const KeyRange& keys = info.vector_keys[lane / n];
    return std::max(keys.begin, begin) < std::min(keys.end, end) &&
           (!params.documents() || info.vector_ids[lane / n].meets(there));
  };
  while (block.lane < block.lane_end && !sees(block.lane)) block.lane += n;
  while (block.lane < block.lane_end && !sees(block.lane_end - n)) block.lane_end -= n;
  block.lane = block.lane / kChain * kChain;
  block.lane_end = std::min(RoundUp(block.lane_end, kChain), block.vectors * n);
}

// Visits the runs of a chunk that a block of queries reads, with P and dS before softcap in the block's tiles:
// visit(run, info, block). Returns their number.
template <class Visit>
HWY_INLINE std::int64_t EachGradRun(const BackwardParams& params, const KeyChunk& chunk, const QueryBlock& q_block,
                                    Visit&& visit) {
  BlockInfo info;
  BeginBlock<MmaF32>(params, q_block, kGradLanes, info);
  const BlockKeyRange range = Within(info.range, {chunk.begin, chunk.end});
  const BackwardWorkspace at(params);
  const std::size_t dv = static_cast<std::size_t>(params.dv);
  const StridedRows keys = ChunkKeys(params, chunk, 0);  // loaded before
  const StridedRows values = ChunkValues(params, chunk, 0);
  GradBlock block;
  bool begun = false;
  return AttentionMask(params).each_run(
      q_block, range, [&](std::int64_t begin, std::int64_t end, bool partly_masked) HWY_ATTR {
        if (!begun) BeginGradBlock(params, chunk, q_block, info, block);
        begun = true;
        const std::size_t skipped = static_cast<std::size_t>(begin - chunk.begin);
        const bool masked = partly_masked || params.bias != nullptr;
        const GradRun run{begin,
                          end,
                          static_cast<std::size_t>(end - begin),
                          {keys.data + skipped * keys.stride, keys.stride},
                          {values.data + skipped * values.stride, values.stride},
                          masked && !(block.finite && chunk.workspace[at.flags] != 0.0f)};
        const VF none = run.mask_nonfinite ? hn::Neg(hn::Zero(DF())) : hn::Zero(DF());
        LanesOfRun(params, q_block, info, begin, end, partly_masked, block);
        EachVectors(block, [&]<int NV>(std::integral_constant<int, NV>, std::size_t lane) HWY_ATTR {
          VF top[NV];
          PrefillScores<MmaF32, NV>(params, q_block, info, kGradLanes, lane, run.keys, begin, end, partly_masked,
                                    block.probs + lane, top, [](std::size_t, std::size_t) {});
          if (masked || params.dropout.any()) {
            KeptInLanes kept;
            if (params.dropout.any()) kept.fill(params, q_block, info, lane, NV, begin, end);
            GradsOfRun<NV, false>(block, run.values, params.dropout.any() ? &kept : nullptr, run.count, dv, lane, none);
          } else {
            GradsOfRun<NV, true>(block, run.values, nullptr, run.count, dv, lane, none);
          }
        });
        visit(run, info, block);
      });
}

// Adds sum of -dS |j - i - o| over the run to the gradient of a slope.
inline HWY_NOINLINE void AddSlopeGrad(const BackwardParams& params, const GradRun& run, const BlockInfo& info,
                                      const GradBlock& block, std::int64_t batch, double* sum) {
  const std::int64_t diagonal = params.diagonal(batch);
  for (std::size_t key = 0; key < run.count; ++key) {
    const std::int64_t j = run.begin + static_cast<std::int64_t>(key) - diagonal;
    double of_key = 0;
    for (std::size_t r = block.lane; r < block.rows_end(); ++r) {
      of_key +=
          static_cast<double>(block.grads[key * kGradLanes + r]) * static_cast<double>(std::abs(j - info.query[r]));
    }
    *sum -= of_key;
  }
}

inline std::int64_t BackwardBlock(const BackwardParams& params, const KeyChunk& chunk, const QueryBlock& q_block,
                                  const BlockGradients& to) {
  const std::size_t step = KeyGradFloats(params);
  const std::size_t d_floats = PaddedWidth(params.d), dv_floats = PaddedWidth(params.dv);
  const std::size_t width = static_cast<std::size_t>(params.d);
  bool first = true;
  return EachGradRun(
      params, chunk, q_block, [&](const GradRun& run, const BlockInfo& info, const GradBlock& block) HWY_ATTR {
        if (to.alibi != nullptr) AddSlopeGrad(params, run, info, block, q_block.batch, to.alibi);
        if (info.cap > 0) {
          EachVectors(block, [&]<int NV>(std::integral_constant<int, NV>, std::size_t lane)
                                 HWY_ATTR { CapGrads<NV>(block, info, run.keys, run.count, width, lane); });
        }
        float* const of_keys = to.keys + static_cast<std::size_t>(run.begin - chunk.begin) * step;
        const std::size_t offset = static_cast<std::size_t>(run.begin % kRunKeys);
        if (first && params.dq.defined()) std::fill_n(to.queries, width * kGradLanes, 0.0f);
        first = false;
        const auto add = [&]<class OverRows, class OverKeys>(OverRows, OverKeys) HWY_ATTR {
          if (params.dvalue.defined()) {
            AddOverRows<OverRows>(block, block.probs, run.count, block.dout_rows, dv_floats, step, of_keys + d_floats);
          }
          if (params.dk.defined()) {
            AddOverRows<OverRows>(block, block.grads, run.count, block.q_rows, d_floats, step, of_keys);
          }
          if (params.dq.defined()) {
            AddOverKeys<OverKeys>(block, run.keys, offset, run.count, width, to.queries);
          }
        };
        if (run.mask_nonfinite) {
          add(ProbsFirst<MmaF32>(), ProbsSecond<MmaF32>());
        } else {
          add(MmaF32(), MmaF32());
        }
      });
}

inline void BiasGradient(const BackwardParams& params, const KeyChunk& chunk, const QueryBlock& q_block, double* sums) {
  EachGradRun(params, chunk, q_block,
              [&](const GradRun& run, const BlockInfo& /*info*/, const GradBlock& block) HWY_ATTR {
                double* to = sums + static_cast<std::size_t>(run.begin - chunk.begin) * kGradLanes;
                const float* from = block.grads;
                for (std::size_t key = 0; key < run.count; ++key, to += kGradLanes, from += kGradLanes) {
                  for (std::size_t r = block.lane; r < block.rows_end(); ++r) to[r] += static_cast<double>(from[r]);
                }
              });
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
