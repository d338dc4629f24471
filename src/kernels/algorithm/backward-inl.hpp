// Backward: what a block of 64 queries and a chunk of 512 keys give each other.
//
//   S^T = K Q^T,  dP^T = V dO^T,  P = exp2(S - shift) factor,  dS = P (M dP - delta)
//   dV = dV + (M P)^T dO,  dK = dK + dS^T Q,  dQ^T = dQ^T + K^T dS^T
//
// M is dropout's: 0 or 1 / (1 - p), 1 without.
//
// Contract: scores are those of the forward with the same Mma. Sums over queries run in chains of 16 and runs of 64
// from query 0, sums over keys likewise from key 0. BF16 pairs are one chain: P and dS are rounded to BF16, and pairs
// lie along queries for dV and dK, along keys for dQ. Runs that the mask rules out are not read.
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
#include "kernels/isa/mma_bf16-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// The rows of a block of queries, and the tiles of the run under way.
// - scores, grads (dS): [key][64 rows]. For BF16 dS is there where keeps_grads.
// - prob_words, grad_words: P and dS as words along the rows, [key][word]; key_grads: dS along the keys, [word][64
// rows].
//   For F32 those are the scores and grads themselves.
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
  float* scores;
  float* grads;
  float* prob_words;
  float* grad_words;
  float* key_grads;
  float late_factor;
  bool keeps_grads;
  bool finite;  // queries and dout
};

// P and dS where forbidden: -0 tells the products to leave their values out.
HWY_INLINE VF NoGrad(bool mask_nonfinite) {
  const VF zero = hn::Zero(DF());
  return mask_nonfinite ? hn::Neg(zero) : zero;
}

// Where the word of a key's rows `lane` and lane + 1 lies.
HWY_INLINE std::size_t PairAt(std::size_t key, std::size_t lane) { return (key * kGradLanes + lane) / 2; }

// Stores packed BF16 of two vectors of rows, or of the first.
template <bool kTwo>
HWY_INLINE void StorePairs(VF pairs, float* to) {
  if constexpr (kTwo) {
    hn::StoreU(pairs, DF(), to);
  } else {
    const hn::Half<DF> half;
    hn::StoreU(hn::LowerHalf(half, pairs), half, to);
  }
}

// Stores M x NV vectors of dS from row `lane` of key `key` on as the products read them. `none`: that of a key behind
// the last.
template <class Mma, int M, int NV>
HWY_INLINE void StoreGrads(const GradBlock& block, std::size_t key, std::size_t lane, const VF (&ds)[M][NV], VF none) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  if constexpr (Mma::kValuesPerWord == 1) {
#pragma GCC unroll 16
    for (std::size_t m = 0; m < M; ++m) {
#pragma GCC unroll 8
      for (std::size_t v = 0; v < NV; ++v) hn::StoreU(ds[m][v], d, block.grads + (key + m) * kGradLanes + lane + v * n);
    }
  } else {
#pragma GCC unroll 16
    for (std::size_t m = 0; m < M; m += 2) {
#pragma GCC unroll 8
      for (std::size_t v = 0; v < NV; v += 2) {
        constexpr bool kTwo = NV % 2 == 0, kBoth = M % 2 == 0;
        float* const rows = block.grad_words + PairAt(key + m, lane + v * n);
        float* const keys = block.key_grads + (key + m) / 2 * kGradLanes + lane + v * n;
        const VF first = Mma::Pack(ds[m][v], ds[m][kTwo ? v + 1 : v]);
        const VF second = kBoth ? Mma::Pack(ds[m + 1][v], ds[m + 1][kTwo ? v + 1 : v]) : Mma::Pack(none, none);
        StorePairs<kTwo>(first, rows);
        if constexpr (kBoth) StorePairs<kTwo>(second, rows + PairAt(1, 0));
        hn::StoreU(Mma::ZipLow(first, second), d, keys);
        if constexpr (kTwo) hn::StoreU(Mma::ZipHigh(first, second), d, keys + n);
      }
    }
  }
}

// Turns the scores of M keys and NV vectors of rows from lane `lane` on into P, less what dropout takes, and writes dS
// before softcap. Unless kPlain some may be forbidden, and their P and dS are `none`; or dropped, as `kept` says.
template <class Mma, int M, int NV, bool kPlain>
HWY_INLINE void GradsOfKeys(const GradBlock& block, const StridedRows& values, const KeptInLanes* kept, std::size_t key,
                            std::size_t dv, std::size_t lane, VF none) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  // A score exceeds its row's lse by rounding alone, and the shift lies within 1/2 of it.
  const VF most = hn::Set(d, 64.0f);
  VF dprob[M][NV];
  Products<Mma>(values.data + key * values.stride, values.stride, 1, block.packed_dout + lane, kGradLanes, dv, 1.0,
                dprob);
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) {
    VF prob[NV];
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) {
      const std::size_t row = lane + static_cast<std::size_t>(v) * n;
      const std::size_t at = (key + static_cast<std::size_t>(m)) * kGradLanes + row;
      const VF score = hn::LoadU(d, block.scores + at);
      VF x = Less<Mma>(score, block.late_factor, hn::Load(d, block.shift + row));
      if constexpr (Mma::kValuesPerWord == 1) x = MinKeepsNaN(most, x);
      VF p = hn::Mul(Exp2<(Mma::kValuesPerWord > 1)>(x), hn::Load(d, block.factor + row));
      VF dp = dprob[m][v];
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
      if constexpr (Mma::kValuesPerWord == 1) {
        hn::StoreU(p, d, block.prob_words + at);
      } else if (block.keeps_grads) {
        hn::StoreU(ds, d, block.grads + at);
      }
      prob[v] = p;
      dprob[m][v] = ds;
    }
    if constexpr (Mma::kValuesPerWord == 2) {
      constexpr bool kTwo = NV % 2 == 0;
#pragma GCC unroll 8
      for (std::size_t v = 0; v < NV; v += 2) {
        StorePairs<kTwo>(Mma::Pack(prob[v], prob[kTwo ? v + 1 : v]),
                         block.prob_words + PairAt(key + static_cast<std::size_t>(m), lane + v * n));
      }
    }
  }
  StoreGrads<Mma>(block, key, lane, dprob, none);
}

// Calls f(rows, key) for the keys of a run, kMost of them at a time, in the end as many as a word holds, or one.
template <class Mma, int kMost, class F>
HWY_INLINE void EachKeys(std::size_t keys, F&& f) {
  constexpr int kWord = static_cast<int>(Mma::kValuesPerWord);
  std::size_t key = 0;
  for (; key + kMost <= keys; key += kMost) f(std::integral_constant<int, kMost>(), key);
  for (; key + kWord <= keys; key += kWord) f(std::integral_constant<int, kWord>(), key);
  for (; key < keys; ++key) f(std::integral_constant<int, 1>(), key);
}

template <class Mma, int NV, bool kPlain>
HWY_NOINLINE void GradsOfRun(const GradBlock& block, const StridedRows& values, const KeptInLanes* kept,
                             std::size_t keys, std::size_t dv, std::size_t lane, VF none) {
  EachKeys<Mma, MmaRowsBeside<NV>()>(keys, [&]<int M>(std::integral_constant<int, M>, std::size_t key) HWY_ATTR {
    GradsOfKeys<Mma, M, NV, kPlain>(block, values, kept, key, dv, lane, none);
  });
}

// Multiplies dS by softcap's derivative, 1 - tanh^2 of the score over the cap.
template <class Mma, int M, int NV>
HWY_INLINE void CapGradsOfKeys(const GradBlock& block, const BlockInfo& info, const StridedRows& key_rows,
                               std::size_t key, std::size_t width, std::size_t lane, VF none) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  const VF one = hn::Set(d, 1.0f), factor = hn::Set(d, info.score_factor), over_cap = hn::Set(d, 1.0f / info.cap);
  const VF huge = hn::Set(d, 2.0e38f);
  VF product[M][NV];
  Products<Mma>(key_rows.data + key * key_rows.stride, key_rows.stride, 1, info.packed + lane, kGradLanes, width,
                info.sum_factor, product);
  for (std::size_t m = 0; m < M; ++m) {
    for (std::size_t v = 0; v < NV; ++v) {
      VF x = hn::Mul(product[m][v], factor);
      x = MaxKeepsNaN(hn::Neg(huge), MinKeepsNaN(huge, x));
      const VF t = Tanh(d, hn::Mul(x, over_cap));
      const VF ds = hn::LoadU(d, block.grads + (key + m) * kGradLanes + lane + v * n);
      const VF capped = hn::Mul(hn::Mul(ds, hn::Sub(one, t)), hn::Add(one, t));
      // A forbidden key's stays as it is.
      product[m][v] = hn::IfThenElse(hn::Eq(ds, hn::Zero(d)), ds, capped);
    }
  }
  StoreGrads<Mma>(block, key, lane, product, none);
}
template <class Mma, int NV>
HWY_NOINLINE void CapGrads(const GradBlock& block, const BlockInfo& info, const StridedRows& key_rows, std::size_t keys,
                           std::size_t width, std::size_t lane, VF none) {
  constexpr int kWord = static_cast<int>(Mma::kValuesPerWord);
  EachKeys<Mma, kWord>(keys, [&]<int M>(std::integral_constant<int, M>, std::size_t key) HWY_ATTR {
    CapGradsOfKeys<Mma, M, NV>(block, info, key_rows, key, width, lane, none);
  });
}

// sums[key][i] = sums[key][i] + sum over the run's rows, ascending, of tile[key][row] rows[row][i].
template <class Mma>
HWY_NOINLINE void AddOverRows(const GradBlock& block, const float* HWY_RESTRICT tile, std::size_t keys,
                              const StridedRows& rows, std::size_t width, std::size_t step, float* HWY_RESTRICT sums) {
  if (block.lane >= block.rows_end()) return;
  constexpr std::size_t kStep = Words<Mma>(kGradLanes);
  const std::size_t words = Words<Mma>(block.rows_end() - block.lane), skipped = block.lane / Mma::kValuesPerWord;
  const float* const from = tile + skipped;
  const float* const first = rows.data + skipped * rows.stride;
  EachColumns<kBlockVectors, 1>(
      width, [&]<int kVectors>(std::integral_constant<int, kVectors>, std::size_t i) HWY_ATTR {
        constexpr int kRows = MmaRowsBeside<kVectors>();
        std::size_t key = 0;
        if constexpr (!Mma::kChains && kVectors == kBlockVectors) {
          for (; key + kTallRows <= keys; key += kTallRows) {
            PvProduct<Mma, kVectors, kTallRows>(from + key * kStep, kStep, 1, first + i, rows.stride, 0, words, false,
                                                step, sums + key * step + i);
          }
        }
        for (; key + kRows <= keys; key += kRows) {
          PvProduct<Mma, kVectors, kRows>(from + key * kStep, kStep, 1, first + i, rows.stride, 0, words, false, step,
                                          sums + key * step + i);
        }
        for (; key < keys; ++key) {
          PvProduct<Mma, kVectors, 1>(from + key * kStep, kStep, 1, first + i, rows.stride, 0, words, false, step,
                                      sums + key * step + i);
        }
      });
}

// Calls f(vectors, lane) for the vectors of a run, kBlockVectors at a time and the rest in twos and one.
template <class F>
HWY_INLINE void EachVectors(const GradBlock& block, F&& f) {
  const std::size_t n = LaneCount();
  std::size_t lane = block.lane;
  for (; lane + kBlockVectors * n <= block.lane_end; lane += kBlockVectors * n) {
    f(std::integral_constant<int, kBlockVectors>(), lane);
  }
  for (; lane + 2 * n <= block.lane_end; lane += 2 * n) f(std::integral_constant<int, 2>(), lane);
  if (lane < block.lane_end) f(std::integral_constant<int, 1>(), lane);
}

// sums[i][row] = sums[i][row] + sum over keys, ascending, of keys[key][i] dS[key][row], for the run's lanes.
template <class Mma>
HWY_NOINLINE void AddOverKeys(const GradBlock& block, const StridedRows& keys, std::size_t run_offset,
                              std::size_t count, std::size_t width, float* HWY_RESTRICT sums) {
  EachVectors(block, [&]<int NV>(std::integral_constant<int, NV>, std::size_t lane) HWY_ATTR {
    PvProducts<Mma, NV>(keys, block.key_grads + lane, run_offset, Words<Mma>(count), false, width, kGradLanes,
                        sums + lane);
  });
}

// Where a run of a chunk lies.
struct GradRun {
  std::int64_t begin, end;
  std::size_t count;
  StridedRows keys, values, key_words;
  bool mask_nonfinite;  // forbidden keys or rows may have values that are not finite
};

// The block's side of the work: its rows, packed and not.
template <class Mma>
HWY_INLINE void BeginGradBlock(const BackwardParams& params, const KeyChunk& chunk, const QueryBlock& q_block,
                               BlockInfo& info, bool reads_grads, GradBlock& block) {
  const BackwardWorkspace<Mma> at(params);
  const std::size_t n = LaneCount();
  PackQ<Mma>(params, q_block, kGradLanes, chunk.workspace + at.packed_q, info);
  float* const packed = chunk.workspace + at.packed_dout;
  const auto dout_at = [&](std::int64_t h, std::int64_t i) { return params.dout_at(q_block.batch, h, i); };
  for (std::size_t first = 0; first < kGradLanes; first += n) {
    PackLanes<Mma>(params.dout_type, params.dout, info.rows_at(first, n, dout_at), params.dout_stride[3], params.dv,
                   kGradLanes, packed + first, [](VF x) { return x; });
  }
  block.packed_dout = packed;
  const std::int64_t h = info.head[0], i = info.query[0];
  const std::int64_t row = params.grad_row(q_block.batch, h, i);
  std::copy_n(params.shift + row, q_block.rows, block.shift);
  std::copy_n(params.factor + row, q_block.rows, block.factor);
  std::copy_n(params.delta + row, q_block.rows, block.delta);
  block.q_rows = RowsTogether<Mma>(params.type, params.q, q_block.rows, params.q_stride[2], params.q_stride[3],
                                   params.d, PaddedWidth(params.d), chunk.workspace + at.q_rows,
                                   [&](std::int64_t r) { return params.q_at(q_block.batch, h, i + r); });
  block.dout_rows =
      RowsTogether<Mma>(params.dout_type, params.dout, q_block.rows, params.dout_stride[2], params.dout_stride[3],
                        params.dv, PaddedWidth(params.dv), chunk.workspace + at.dout_rows,
                        [&](std::int64_t r) { return params.dout_at(q_block.batch, h, i + r); });
  block.rows = static_cast<std::size_t>(q_block.rows);
  block.vectors = RoundUp(block.rows, n) / n;
  block.scores = chunk.workspace + at.scores;
  block.grads = chunk.workspace + at.grads;
  block.keeps_grads = reads_grads;
  block.prob_words = chunk.workspace + at.prob_words;
  block.grad_words = chunk.workspace + at.grad_words;
  block.key_grads = chunk.workspace + at.key_grads;
  block.late_factor = info.late_factor;
  block.finite = AllFinite<Mma>(block.q_rows, Words<Mma>(block.rows), static_cast<std::size_t>(params.d)) &&
                 AllFinite<Mma>(block.dout_rows, Words<Mma>(block.rows), static_cast<std::size_t>(params.dv));
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

// The keys of [begin, end) that any of the run's lanes may see. Keys beside them would add 0.
HWY_INLINE KeyRange KeysOfRun(const QkvMask& params, const QueryBlock& q_block, const BlockInfo& info,
                              const GradBlock& block, std::int64_t begin, std::int64_t end) {
  const std::size_t n = LaneCount();
  KeyRange all{end, begin};
  for (std::size_t v = block.lane / n; v < block.lane_end / n; ++v) {
    KeyRange keys{std::max(info.vector_keys[v].begin, begin), std::min(info.vector_keys[v].end, end)};
    if (keys.begin < keys.end && params.documents()) {
      keys = keys_with_ids(params, q_block.batch, info.vector_ids[v], keys.begin, keys.end);
    }
    if (keys.begin < keys.end) all = {std::min(all.begin, keys.begin), std::max(all.end, keys.end)};
  }
  return all.begin < all.end ? all : KeyRange{begin, end};
}

// A block's last word of rows may hold one that does not exist: its P and dS are 0.
HWY_INLINE void ClearBehind(const GradBlock& block, std::size_t keys) {
  for (float* const words : {block.prob_words, block.grad_words}) {
    std::uint16_t* const values = reinterpret_cast<std::uint16_t*>(words);
    for (std::size_t key = 0; key < keys; ++key) values[key * kGradLanes + block.rows_end()] = 0;
  }
}

// Visits the runs of a chunk that a block of queries reads, with P and dS before softcap in the block's tiles:
// visit(run, info, block). Returns their number. reads_grads: visit reads dS in F32.
template <class Mma, class Visit>
HWY_INLINE std::int64_t EachGradRun(const BackwardParams& params, const KeyChunk& chunk, const QueryBlock& q_block,
                                    bool reads_grads, Visit&& visit) {
  BlockInfo info;
  BeginBlock<Mma>(params, q_block, kGradLanes, info);
  const BlockKeyRange range = Within(info.range, {chunk.begin, chunk.end});
  const BackwardWorkspace<Mma> at(params);
  const std::size_t dv = static_cast<std::size_t>(params.dv);
  const StridedRows keys = ChunkKeys<Mma>(params, chunk, 0);  // loaded before
  const StridedRows values = ChunkValues<Mma>(params, chunk, 0);
  const StridedRows key_words =
      Mma::kValuesPerWord == 1 ? keys : StridedRows{chunk.workspace + at.key_words, static_cast<std::size_t>(params.d)};
  GradBlock block;
  bool begun = false;
  return AttentionMask(params).each_run(
      q_block, range, [&](std::int64_t begin, std::int64_t end, bool partly_masked) HWY_ATTR {
        if (!begun) BeginGradBlock<Mma>(params, chunk, q_block, info, reads_grads, block);
        begun = true;
        LanesOfRun(params, q_block, info, begin, end, partly_masked, block);
        if (partly_masked) {
          const KeyRange seen = KeysOfRun(params, q_block, info, block, begin, end);
          begin = seen.begin;
          end = seen.end;
        }
        // The first and the last word may hold keys that no row sees.
        partly_masked =
            TakesOthers<Mma>(params, begin, end) || partly_masked || (end < chunk.end && end % kKeysTogether<Mma> != 0);
        const std::size_t skipped = static_cast<std::size_t>(begin - chunk.begin);
        const bool masked = partly_masked || params.bias != nullptr;
        const GradRun run{begin,
                          end,
                          static_cast<std::size_t>(end - begin),
                          {keys.data + skipped * keys.stride, keys.stride},
                          {values.data + skipped * values.stride, values.stride},
                          {key_words.data + skipped / Mma::kValuesPerWord * key_words.stride, key_words.stride},
                          masked && !(block.finite && chunk.workspace[at.flags] != 0.0f)};
        const VF none = NoGrad(run.mask_nonfinite);
        EachVectors(block, [&]<int NV>(std::integral_constant<int, NV>, std::size_t lane) HWY_ATTR {
          VF top[NV];
          PrefillScores<Mma, NV>(params, q_block, info, kGradLanes, lane, run.keys, begin, end, partly_masked,
                                 block.scores + lane, top, [](std::size_t, std::size_t) {});
          if (masked || params.dropout.any()) {
            KeptInLanes kept;
            if (params.dropout.any()) kept.fill(params, q_block, info, lane, NV, begin, end);
            GradsOfRun<Mma, NV, false>(block, run.values, params.dropout.any() ? &kept : nullptr, run.count, dv, lane,
                                       none);
          } else {
            GradsOfRun<Mma, NV, true>(block, run.values, nullptr, run.count, dv, lane, none);
          }
        });
        if constexpr (Mma::kValuesPerWord == 2) {
          if (block.rows_end() % 2 != 0) ClearBehind(block, run.count);
        }
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

template <class Mma>
std::int64_t BackwardBlock(const BackwardParams& params, const KeyChunk& chunk, const QueryBlock& q_block,
                           const BlockGradients& to) {
  const std::size_t step = KeyGradFloats(params);
  const std::size_t d_floats = PaddedWidth(params.d), dv_floats = PaddedWidth(params.dv);
  const std::size_t width = static_cast<std::size_t>(params.d);
  bool first = true;
  const bool reads_grads = Mma::kValuesPerWord == 1 || to.alibi != nullptr || params.softcap > 0;
  return EachGradRun<Mma>(
      params, chunk, q_block, reads_grads,
      [&](const GradRun& run, const BlockInfo& info, const GradBlock& block) HWY_ATTR {
        if (to.alibi != nullptr) AddSlopeGrad(params, run, info, block, q_block.batch, to.alibi);
        if (info.cap > 0) {
          EachVectors(block, [&]<int NV>(std::integral_constant<int, NV>, std::size_t lane) HWY_ATTR {
            CapGrads<Mma, NV>(block, info, run.keys, run.count, width, lane, NoGrad(run.mask_nonfinite));
          });
          if constexpr (Mma::kValuesPerWord == 2) {
            if (block.rows_end() % 2 != 0) ClearBehind(block, run.count);
          }
        }
        float* const of_keys = to.keys + static_cast<std::size_t>(run.begin - chunk.begin) * step;
        const std::size_t offset = static_cast<std::size_t>(run.begin % kRunKeys);
        if (first && params.dq.defined()) std::fill_n(to.queries, width * kGradLanes, 0.0f);
        first = false;
        const auto add = [&]<class OverRows, class OverKeys>(OverRows, OverKeys) HWY_ATTR {
          if (params.dvalue.defined()) {
            AddOverRows<OverRows>(block, block.prob_words, run.count, block.dout_rows, dv_floats, step,
                                  of_keys + d_floats);
          }
          if (params.dk.defined()) {
            AddOverRows<OverRows>(block, block.grad_words, run.count, block.q_rows, d_floats, step, of_keys);
          }
          if (params.dq.defined()) {
            AddOverKeys<OverKeys>(block, run.key_words, offset, run.count, width, to.queries);
          }
        };
        if (run.mask_nonfinite) {
          add(ProbsFirst<Mma>(), ProbsSecond<Mma>());
        } else {
          add(Mma(), Mma());
        }
      });
}

template <class Mma>
void BiasGradient(const BackwardParams& params, const KeyChunk& chunk, const QueryBlock& q_block, double* sums) {
  EachGradRun<Mma>(params, chunk, q_block, true,
                   [&](const GradRun& run, const BlockInfo& /*info*/, const GradBlock& block) HWY_ATTR {
                     double* to = sums + static_cast<std::size_t>(run.begin - chunk.begin) * kGradLanes;
                     const float* from = block.grads;
                     for (std::size_t key = 0; key < run.count; ++key, to += kGradLanes, from += kGradLanes) {
                       for (std::size_t r = block.lane; r < block.rows_end(); ++r)
                         to[r] += static_cast<double>(from[r]);
                     }
                   });
}

// A constant: no instruction of this target runs before a processor is known to have it.
template <class Mma>
inline constexpr BackwardKernels kBackwardKernels{BackwardFloats<Mma>, KeyGradFloats,      PrepareRows<Mma>,
                                                  LoadChunk<Mma>,      BackwardBlock<Mma>, BiasGradient<Mma>,
                                                  StoreQueries<Mma>,   StoreKeys<Mma>};

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
