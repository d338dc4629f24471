// Backward: what a block of 64 queries and a chunk of 512 keys give each other.
//
//   S^T = K Q^T,  dP^T = V dO^T,  P = exp2(S - shift) factor,  dS = P (dP - delta)
//   dV = dV + P^T dO,  dK = dK + dS^T Q,  dQ^T = dQ^T + K^T dS^T
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
#include <cmath>
#include <cstdint>
#include <limits>

#include "base/math.hpp"
#include "hwy/highway.h"
#include "kernels/algorithm/block_info-inl.hpp"
#include "kernels/algorithm/pack_kv-inl.hpp"
#include "kernels/algorithm/pack_q-inl.hpp"
#include "kernels/algorithm/pv_product-inl.hpp"
#include "kernels/algorithm/qk_scores-inl.hpp"
#include "kernels/backward.hpp"
#include "kernels/isa/exp2-inl.hpp"
#include "kernels/reference.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr std::size_t kGradLanes = static_cast<std::size_t>(kGradRows);
static_assert(BlockInfo::kMaxRows == kGradRows && kRunKeys == kGradRows);

HWY_INLINE std::size_t PaddedWidth(std::int64_t width) { return RoundUp(static_cast<std::size_t>(width), kMaxLanes); }

// dk, then dv, each padded to whole vectors.
inline std::size_t KeyGradFloats(const BackwardParams& params) {
  return PaddedWidth(params.d) + PaddedWidth(params.dv);
}

// The workspace of a task. Offsets in floats, each array at a multiple of 64 bytes.
struct BackwardWorkspace {
  std::size_t flags, keys, values, packed_q, packed_dout, q_rows, dout_rows, probs, grads, stored, total;

  explicit BackwardWorkspace(const BackwardParams& params) {
    std::size_t at = 0;
    const auto take = [&at](std::size_t floats) {
      const std::size_t begin = at;
      at += RoundUp(floats, 16);
      return begin;
    };
    const std::size_t d = static_cast<std::size_t>(params.d), dv = static_cast<std::size_t>(params.dv);
    const std::size_t chunk = static_cast<std::size_t>(std::min(kChunkKeys, params.tk));
    flags = take(1);
    keys = take(chunk * d);
    values = take(chunk * dv);
    packed_q = take(d * kGradLanes);
    packed_dout = take(dv * kGradLanes);
    q_rows = take(kGradLanes * PaddedWidth(params.d));
    dout_rows = take(kGradLanes * PaddedWidth(params.dv));
    probs = take(kGradLanes * kGradLanes);
    grads = take(kGradLanes * kGradLanes);
    // Rows on their way out: 64 of dq, twice, or one of dk and dv; and a row that lay there before.
    stored = take(std::max(2 * kGradLanes * d, KeyGradFloats(params)) + KeyGradFloats(params));
    total = at;
  }
};
inline std::size_t BackwardFloats(const BackwardParams& params) { return BackwardWorkspace(params).total; }

// Rows of F32, `width` wide and dense: where they lie, or copied.
template <class At>
HWY_INLINE StridedRows DenseRows(DType type, const void* base, std::int64_t count, std::int64_t row_stride,
                                 std::int64_t step, std::int64_t width, bool adjacent, std::size_t padded,
                                 float* HWY_RESTRICT copy, At&& at) {
  if (type == DType::kF32 && step == 1 && adjacent && row_stride == width &&
      padded == static_cast<std::size_t>(width)) {
    return {static_cast<const float*>(base) + at(0), padded};
  }
  for (std::int64_t i = 0; i < count; ++i) {
    float* const to = copy + static_cast<std::size_t>(i) * padded;
    CopyRow(type, base, at(i), step, width, to);
    std::fill(to + width, to + padded, 0.0f);
  }
  return {copy, padded};
}

HWY_INLINE StridedRows ChunkKeys(const BackwardParams& params, const KeyChunk& chunk, std::int64_t count) {
  return DenseRows(params.kv_type, params.k, count, params.k_stride[2], params.k_stride[3], params.d, true,
                   static_cast<std::size_t>(params.d), chunk.workspace + BackwardWorkspace(params).keys,
                   [&](std::int64_t j) { return params.k_at(chunk.batch, chunk.kv_head, chunk.begin + j); });
}
HWY_INLINE StridedRows ChunkValues(const BackwardParams& params, const KeyChunk& chunk, std::int64_t count) {
  return DenseRows(params.kv_type, params.v, count, params.v_stride[2], params.v_stride[3], params.dv, true,
                   static_cast<std::size_t>(params.dv), chunk.workspace + BackwardWorkspace(params).values,
                   [&](std::int64_t j) { return params.v_at(chunk.batch, chunk.kv_head, chunk.begin + j); });
}

inline void LoadChunk(const BackwardParams& params, const KeyChunk& chunk) {
  const std::int64_t count = chunk.end - chunk.begin;
  const StridedRows keys = ChunkKeys(params, chunk, count);
  const StridedRows values = ChunkValues(params, chunk, count);
  const std::size_t rows = static_cast<std::size_t>(count);
  const bool finite = AllFinite<MmaF32>(keys, rows, static_cast<std::size_t>(params.d)) &&
                      AllFinite<MmaF32>(values, rows, static_cast<std::size_t>(params.dv));
  chunk.workspace[BackwardWorkspace(params).flags] = finite ? 1.0f : 0.0f;
}

// sum over e of x[e] y[e], in double: each product is exact, and element e goes to sum e % 8.
HWY_INLINE double ExactDot(DType x_type, const void* x, std::int64_t x_at, std::int64_t x_step, DType y_type,
                           const void* y, std::int64_t y_at, std::int64_t y_step, std::int64_t width) {
  constexpr std::int64_t kSegmentFloats = 256;
  constexpr std::int64_t kSums = 8;
  HWY_ALIGN float xs[kSegmentFloats], ys[kSegmentFloats];
  double sums[kSums] = {};
  for (std::int64_t from = 0; from < width; from += kSegmentFloats) {
    const std::int64_t count = std::min(kSegmentFloats, width - from);
    CopyRow(x_type, x, x_at + from * x_step, x_step, count, xs);
    CopyRow(y_type, y, y_at + from * y_step, y_step, count, ys);
    std::int64_t e = 0;
    for (; e + kSums <= count; e += kSums) {
      for (std::int64_t s = 0; s < kSums; ++s) {
        sums[s] += static_cast<double>(xs[e + s]) * static_cast<double>(ys[e + s]);
      }
    }
    for (std::int64_t s = 0; e < count; ++e, ++s) sums[s] += static_cast<double>(xs[e]) * static_cast<double>(ys[e]);
  }
  return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

inline void PrepareRows(const BackwardParams& params, std::int64_t b, std::int64_t h, std::int64_t begin,
                        std::int64_t end) {
  for (std::int64_t i = begin; i < end; ++i) {
    const std::int64_t at = params.grad_row(b, h, i);
    double delta = ExactDot(params.dout_type, params.dout, params.dout_at(b, h, i), params.dout_stride[3],
                            params.out_type, params.out, params.out_at(b, h, i), params.out_stride[3], params.dv);
    if (params.dlse != nullptr) delta -= static_cast<double>(params.dlse[params.dlse_at(b, h, i)]);
    params.delta[at] = static_cast<float>(delta);
    const double lse = static_cast<double>(params.lse[params.lse_at(b, h, i)]) * base::kLog2e;
    // A row without a key has no mass. One whose lse lies at the end of F32's range is padding, whose keys all count
    // alike, or has lost its scores.
    double shift = 0, factor = 0;
    if (lse == std::numeric_limits<double>::infinity() || std::isnan(lse)) {
      factor = std::numeric_limits<double>::quiet_NaN();
    } else if (std::fabs(lse) >= 2.8e38) {
      if (lse < 0 && std::isfinite(lse)) {
        shift = static_cast<double>(kLowestScore);
        factor = one_bias(params, b, h, i) ? 1.0 / static_cast<double>(keys_seen(params, b, h, i))
                                           : std::numeric_limits<double>::quiet_NaN();
      } else if (lse > 0) {
        factor = std::numeric_limits<double>::quiet_NaN();
      }
    } else {
      shift = std::floor(lse + 0.5);
      factor = base::exp2(shift - lse);
    }
    params.shift[at] = static_cast<float>(shift);
    params.factor[at] = static_cast<float>(factor);
  }
}

// The rows of a block of queries, and the tiles of the run under way: [key][64 rows].
// - `rows` and `vectors` are those of the block; of the run under way, lanes [lane, lane_end) alone may see a key:
// whole
//   chains of rows, and at the end whole vectors.
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

// Turns the scores of M keys and NV vectors of rows from lane `lane` on into P, and writes dS before softcap. kMasked:
// some may be forbidden; their P and dS are `none`.
template <int M, int NV, bool kMasked>
HWY_INLINE void GradsOfKeys(const GradBlock& block, const StridedRows& values, std::size_t key, std::size_t dv,
                            std::size_t lane, VF none) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  // Exp2 takes no more than 127, and 2^-200 is 0.
  const VF most = hn::Set(d, 127.0f), least = hn::Set(d, -200.0f);
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
      VF ds = hn::Mul(p, hn::Sub(sum[m][v], hn::Load(d, block.delta + row)));
      if constexpr (kMasked) {
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

template <int NV, bool kMasked>
HWY_NOINLINE void GradsOfRun(const GradBlock& block, const StridedRows& values, std::size_t keys, std::size_t dv,
                             std::size_t lane, VF none) {
  constexpr std::size_t kRows = MmaRowsBeside<NV>();
  std::size_t key = 0;
  for (; key + kRows <= keys; key += kRows) GradsOfKeys<kRows, NV, kMasked>(block, values, key, dv, lane, none);
  for (; key < keys; ++key) GradsOfKeys<1, NV, kMasked>(block, values, key, dv, lane, none);
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
  bool guarded;  // forbidden keys or rows may have values that are not finite
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
  block.q_rows = DenseRows(params.type, params.q, q_block.rows, params.q_stride[2], params.q_stride[3], params.d, true,
                           PaddedWidth(params.d), chunk.workspace + at.q_rows,
                           [&](std::int64_t r) { return params.q_at(q_block.batch, h, i + r); });
  block.dout_rows = DenseRows(params.dout_type, params.dout, q_block.rows, params.dout_stride[2], params.dout_stride[3],
                              params.dv, true, PaddedWidth(params.dv), chunk.workspace + at.dout_rows,
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
        const VF none = run.guarded ? hn::Neg(hn::Zero(DF())) : hn::Zero(DF());
        LanesOfRun(params, q_block, info, begin, end, partly_masked, block);
        EachVectors(block, [&]<int NV>(std::integral_constant<int, NV>, std::size_t lane) HWY_ATTR {
          VF top[NV];
          PrefillScores<MmaF32, NV>(params, q_block, info, kGradLanes, lane, run.keys, begin, end, partly_masked,
                                    block.probs + lane, top, [](std::size_t, std::size_t) {});
          if (masked) {
            GradsOfRun<NV, true>(block, run.values, run.count, dv, lane, none);
          } else {
            GradsOfRun<NV, false>(block, run.values, run.count, dv, lane, none);
          }
        });
        visit(run, info, block);
      });
}

// Adds sum of -dS |j - i - o| over the run to the gradient of a slope.
HWY_NOINLINE void AddSlopeGrad(const BackwardParams& params, const GradRun& run, const BlockInfo& info,
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
        if (run.guarded) {
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

// Multiplies by the scale, in double where F32 has it coarsely or not at all.
HWY_INLINE void ScaleRow(double scale, std::size_t width, float* HWY_RESTRICT row) {
  const double magnitude = std::fabs(scale);
  if (magnitude < 1e30 && magnitude > 1e-30) {
    const float factor = static_cast<float>(scale);
    for (std::size_t e = 0; e < width; ++e) row[e] *= factor;
  } else {
    for (std::size_t e = 0; e < width; ++e) row[e] = static_cast<float>(static_cast<double>(row[e]) * scale);
  }
}

// Writes a row of a gradient, or adds it to what lies there. Overwrites `row`; `before` has room for it.
HWY_INLINE void StoreGrad(const BackwardParams& params, const Gradient& gradient, std::int64_t at, std::int64_t width,
                          float* HWY_RESTRICT row, float* HWY_RESTRICT before) {
  if (params.accumulate) {
    CopyRow(gradient.type, gradient.data, at, gradient.stride[3], width, before);
    for (std::int64_t e = 0; e < width; ++e) row[e] += before[e];
  }
  StoreRow(gradient.type, gradient.data, at, gradient.stride[3], width, row);
}

inline void StoreQueries(const BackwardParams& params, const QueryBlock& q_block, const float* high, const float* low,
                         float* workspace) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  const std::size_t width = static_cast<std::size_t>(params.d);
  const std::int64_t queries = params.queries(q_block.batch);
  const std::int64_t h = q_block.kv_head * params.group() + q_block.row / queries, i = q_block.row % queries;
  float* const rows = workspace + BackwardWorkspace(params).stored;  // [64][D]
  float* const sums = rows + kGradLanes * width;                     // [D][64]
  float* const before = sums + kGradLanes * width;                   // [D]
  if (high == nullptr) {
    std::fill_n(rows, kGradLanes * width, 0.0f);
  } else {
    for (std::size_t at = 0; at < width * kGradLanes; at += n) {
      VF sum = hn::LoadU(d, high + at);
      if (low != nullptr) {
        // What rounding took from a sum beyond F32 is no number.
        const auto finite = hn::Eq(hn::Sub(sum, sum), hn::Zero(d));
        sum = hn::IfThenElse(finite, hn::Add(sum, hn::LoadU(d, low + at)), sum);
      }
      hn::StoreU(sum, d, sums + at);
    }
    for (std::size_t first = 0; static_cast<std::int64_t>(first) < q_block.rows; first += n) {
      LaneRows lanes;
      for (std::size_t r = first; r < first + n && static_cast<std::int64_t>(r) < q_block.rows; ++r) {
        lanes.at[lanes.count++] = static_cast<std::int64_t>(r * width);
      }
      UnpackLanes(DType::kF32, rows, lanes, 1, params.d, kGradLanes, sums + first, sums + first,
                  [](VF x, VF) { return x; });
    }
  }
  for (std::int64_t r = 0; r < q_block.rows; ++r) {
    float* const row = rows + static_cast<std::size_t>(r) * width;
    ScaleRow(params.scale, width, row);
    StoreGrad(params, params.dq, params.dq_at(q_block.batch, h, i + r), params.d, row, before);
  }
}

inline void StoreKeys(const BackwardParams& params, const KeyChunk& chunk, float* keys) {
  const std::size_t step = KeyGradFloats(params);
  const std::size_t d_floats = PaddedWidth(params.d);
  float* const row = chunk.workspace + BackwardWorkspace(params).stored;
  float* const before = row + step;
  for (std::int64_t j = chunk.begin; j < chunk.end; ++j) {
    if (keys != nullptr) {
      std::copy_n(keys + static_cast<std::size_t>(j - chunk.begin) * step, step, row);
    } else {
      std::fill_n(row, step, 0.0f);
    }
    if (params.dk.defined()) {
      ScaleRow(params.scale, static_cast<std::size_t>(params.d), row);
      StoreGrad(params, params.dk, params.key_at(params.dk.stride, chunk.batch, chunk.kv_head, j), params.d, row,
                before);
    }
    if (params.dvalue.defined()) {
      StoreGrad(params, params.dvalue, params.key_at(params.dvalue.stride, chunk.batch, chunk.kv_head, j), params.dv,
                row + d_floats, before);
    }
  }
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
