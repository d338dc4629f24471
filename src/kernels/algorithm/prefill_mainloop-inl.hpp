// Prefill mainloop: a query block of many queries over one split of its keys, to row states.
//
//   S^T = K Q^T,  P = online softmax of S,  O^T = O^T + V^T P^T
//
// Contract: the queries lie in the lanes, NV vectors of them. Returns the row states once the last split is done; null
// before it, or where no key was read.
// Cost: 2 (D + Dv) FLOP for each query and key of the runs read.

// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_ALGORITHM_PREFILL_MAINLOOP_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_ALGORITHM_PREFILL_MAINLOOP_INL_HPP
#undef MANYHEADS_ALGORITHM_PREFILL_MAINLOOP_INL_HPP
#else
#define MANYHEADS_ALGORITHM_PREFILL_MAINLOOP_INL_HPP
#endif

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "hwy/highway.h"
#include "kernels/algorithm/combine-inl.hpp"
#include "kernels/algorithm/pack_kv-inl.hpp"
#include "kernels/algorithm/pack_q-inl.hpp"
#include "kernels/algorithm/prefetch-inl.hpp"
#include "kernels/algorithm/pv_product-inl.hpp"
#include "kernels/algorithm/qk_scores-inl.hpp"
#include "kernels/algorithm/softmax-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Where an Mma that splits puts a run's probabilities and values.
struct SplitOperands {
  float *probs, *values, *squares;
};

// What the vectors of a query block share of one run of keys.
struct PrefillRun {
  std::int64_t begin, end;
  bool partly_masked;   // some lane may not see some key
  bool mask_nonfinite;  // a forbidden key may have values that are not finite
  bool first_in_chunk;  // the first run of its chunk
  StridedRows keys, values;
  const float* value_scales;
  float* scores;
  float* amx_values;           // where values become tiles; null: they are
  const SplitOperands* split;  // null: none
  float* output;               // of the chunk's row states
  NextBlockPrefetch& ahead;
};

// Adds keys [begin, end) of a run to the row states of NV vectors from `vector` on: scores, probabilities, pv product.
// `begin` begins a word. The other vectors keep their state.
template <class Mma, int NV, bool kWhole>
HWY_INLINE void PrefillKeys(const QkvMask& params, const QueryBlock& q_block, const BlockInfo& info,
                            const PrefillRun& run, std::size_t lanes, std::size_t vector, std::int64_t begin,
                            std::int64_t end, VF* m, VF* l) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  const std::size_t row = vector * n;
  const std::size_t dv = static_cast<std::size_t>(params.dv);
  const std::size_t keys = static_cast<std::size_t>(end - begin);
  const std::size_t words = Words<Mma>(keys);
  const std::size_t skipped = static_cast<std::size_t>(begin - run.begin);
  const std::size_t run_offset = static_cast<std::size_t>(begin % kRunKeys);
  const float* values = run.values.data + skipped / Mma::kValuesPerWord * run.values.stride;
  float* scores = run.scores + row;
  float* output = run.output + row;
  m += vector;
  l += vector;

  VF top[NV];
  PrefillScores<Mma, NV>(params, q_block, info, lanes, row,
                         {run.keys.data + skipped * run.keys.stride, run.keys.stride}, begin, end, run.partly_masked,
                         scores, top, run.ahead);
  for (std::size_t v = 0; v < NV; ++v) {
    VF factor;
    if (!MoveMaximum(top[v], m[v], factor) || run.first_in_chunk) continue;
    l[v] = hn::Mul(l[v], factor);
    for (std::size_t i = 0; i < OutputWidth<Mma>(params, q_block.rows); ++i) {
      float* o = output + i * lanes + v * n;
      hn::StoreU(hn::Mul(hn::LoadU(d, o), factor), d, o);
    }
  }
  const float* scales = run.value_scales != nullptr ? run.value_scales + skipped : nullptr;
  const bool drops = params.dropout.any();
  if (scales == nullptr && !run.mask_nonfinite && !drops) {
    SoftmaxInLanes<Mma, NV, true>(m, info.late_factor, nullptr, nullptr, run_offset, keys, false, lanes, scores, l);
  } else {
    KeptInLanes kept;
    if (drops) kept.fill(params, q_block, info, row, NV, begin, end);
    SoftmaxInLanes<Mma, NV, false>(m, info.late_factor, scales, drops ? &kept : nullptr, run_offset, keys,
                                   run.mask_nonfinite, lanes, scores, l);
  }

  if constexpr (Mma::kSplits) {
    const std::size_t width = OutputWidth<Mma>(params, q_block.rows);
    const StridedRows rows{values, run.values.stride};
    std::uint64_t unsplit = SplitValues(rows, keys, dv, run.split->squares, run.split->values);
    SplitColumns(
        scores, keys, keys, lanes, run.split->probs, lanes,
        [&](const auto& /*beyond*/, std::size_t key, std::size_t /*lane*/) { unsplit |= std::uint64_t{1} << key; });
    AmxProducts<typename Mma::Tiles, ThreePieces>(run.split->values, SplitWords(keys), run.split->probs, lanes,
                                                  SplitDepth(keys), output, lanes, width, lanes, run.first_in_chunk);
    if (unsplit != 0) AddUnsplitProducts(rows, scores, keys, dv, lanes, unsplit, output);
  } else if constexpr (Mma::kAmx) {
    const std::size_t width = OutputWidth<Mma>(params, q_block.rows);
    const std::size_t padded = RoundUp(words, kTileSide);
    StridedRows tiles = run.values;
    if (run.amx_values != nullptr) {
      AmxValues(WordRows{run.values}, words, dv, padded, padded, run.amx_values);
      tiles = {run.amx_values, padded};
    }
    // Packed tiles hold the values of keys behind the last too, which nothing may see.
    std::fill(scores + words * lanes, scores + padded * lanes, run.mask_nonfinite ? ForbiddenPair() : 0.0f);
    if (run.mask_nonfinite) {
      EmulatedProducts<true>(tiles.data, tiles.stride, scores, lanes, padded / kTileSide, output, lanes, width, lanes,
                             run.first_in_chunk);
    } else {
      AmxProducts<Mma>(tiles.data, tiles.stride, scores, lanes, padded / kTileSide, output, lanes, width, lanes,
                       run.first_in_chunk);
    }
  } else {
    const StridedRows rows{values, run.values.stride};
    if (run.mask_nonfinite) {
      PvProductsOutOfLine<ProbsSecond<Mma>, NV>(rows, scores, run_offset, words, run.first_in_chunk, dv, lanes, output);
    } else if constexpr (!kWhole) {
      PvProductsOutOfLine<Mma, NV>(rows, scores, run_offset, words, run.first_in_chunk, dv, lanes, output);
    } else {
      PvProducts<Mma, NV>(rows, scores, run_offset, words, run.first_in_chunk, dv, lanes, output);
    }
  }
}

// From the first to the last key that any of vectors [first, last) needs.
HWY_INLINE KeyRange Together(const KeyRange* ranges, int first, int last) {
  KeyRange all{0, 0};
  for (int v = first; v < last; ++v) {
    if (ranges[v].begin >= ranges[v].end) continue;
    all = all.begin == all.end ? ranges[v]
                               : KeyRange{std::min(all.begin, ranges[v].begin), std::max(all.end, ranges[v].end)};
  }
  return all;
}

// A run of which each vector needs other keys. Keys forbidden to every row of a vector would add 0, so skipping them
// changes no bit. Fewer vectors at a time skip more, but keep the multipliers less busy.
template <class Mma, int NV>
HWY_INLINE void PrefillByVectors(const QkvMask& params, const QueryBlock& q_block, const BlockInfo& info,
                                 const PrefillRun& run, std::size_t lanes, const KeyRange (&ranges)[NV], VF* m, VF* l) {
  const auto steps = [&](int vectors, std::int64_t percent) {
    std::int64_t sum = 0;
    for (int v = 0; v < NV; v += vectors) {
      const KeyRange keys = Together(ranges, v, std::min(v + vectors, NV));
      sum += (keys.end - keys.begin) * std::min(vectors, NV - v);
    }
    return sum * percent;
  };
  const auto add = [&]<int kVectors>(std::integral_constant<int, kVectors>, int vector) HWY_ATTR {
    const KeyRange keys = Together(ranges, vector, vector + kVectors);
    const std::size_t first = static_cast<std::size_t>(vector);
    if (keys.begin < keys.end) {
      PrefillKeys<Mma, kVectors, false>(params, q_block, info, run, lanes, first, keys.begin, keys.end, m, l);
    } else if (run.first_in_chunk) {
      const std::size_t n = LaneCount();
      for (std::size_t i = 0; i < OutputWidth<Mma>(params, q_block.rows); ++i) {
        std::fill_n(run.output + i * lanes + first * n, kVectors * n, 0.0f);
      }
    }
  };
  constexpr std::integral_constant<int, 1> kOne;
  constexpr std::integral_constant<int, 2> kTwo;
  const std::int64_t in_ones = steps(1, 122);
  const std::int64_t in_twos = steps(2, NV > 2 ? 105 : 100);
  if constexpr (NV > 2) {
    if (steps(NV, 100) <= std::min(in_ones, in_twos)) return add(std::integral_constant<int, NV>(), 0);
  }
  if (in_ones < in_twos) {
    for (int v = 0; v < NV; ++v) add(kOne, v);
    return;
  }
  for (int v = 0; v + 2 <= NV; v += 2) add(kTwo, v);
  if constexpr (NV % 2 != 0) add(kOne, NV - 1);
}

template <class Mma, int NV>
HWY_NOINLINE float* PrefillMainloop(const ForwardParams& params, const QueryBlock& q_block, const KvSplit& split,
                                    float* workspace, BlockInfo& info, const QueryBlock& next, bool writes) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  const std::size_t lanes = NV * n;
  const std::size_t dv = static_cast<std::size_t>(params.dv);
  const ForwardWorkspace at(params, q_block.rows, Mma::kSplits);
  info.packed = workspace + at.packed;
  if (split.first) PackQ<Mma>(params, q_block, lanes, workspace + at.packed, info);
  SplitOperands operands{};
  if constexpr (Mma::kSplits) {
    SplitQ(params, lanes, workspace + at.split_queries, workspace + at.unsplit, info);
    info.split_keys = workspace + at.split_keys;
    operands = {workspace + at.split_probs, workspace + at.split_values, workspace + at.squares};
  }
  const BlockKeyRange range = Within(info.range, split);
  NextBlockPrefetch ahead(params, q_block, range, next, info, writes, NV);
  CombineTree<StatesInLanes> tree({lanes, OutputWidth<Mma>(params, q_block.rows)}, at.tree(workspace), split.first);

  std::int64_t chunk = tree.chunk();
  float* states = tree.states();  // of the chunk under way
  VF m[NV], l[NV];
  for (int v = 0; states != nullptr && v < NV; ++v) {
    m[v] = hn::LoadU(d, states + static_cast<std::size_t>(v) * n);
    l[v] = hn::LoadU(d, states + lanes + static_cast<std::size_t>(v) * n);
  }
  const auto end_chunk = [&]() HWY_ATTR {
    if (states == nullptr) return;
    for (int v = 0; v < NV; ++v) {
      hn::StoreU(m[v], d, states + static_cast<std::size_t>(v) * n);
      hn::StoreU(l[v], d, states + lanes + static_cast<std::size_t>(v) * n);
    }
  };

  AttentionMask(params).each_run(
      q_block, range, [&](std::int64_t begin, std::int64_t end, bool partly_masked) HWY_ATTR {
        partly_masked = TakesOthers<Mma>(params, begin, end) || partly_masked;
        const bool first_in_chunk = begin / kChunkKeys + params.first_chunk != chunk;
        if (first_in_chunk) {
          end_chunk();
          chunk = begin / kChunkKeys + params.first_chunk;
          states = tree.open(chunk);
          for (int v = 0; v < NV; ++v) {
            m[v] = hn::Set(d, kNoMaximum);
            l[v] = hn::Zero(d);
          }
        }
        const std::size_t keys = static_cast<std::size_t>(end - begin);
        const bool packed_tiles = kTilesOfValues<Mma> && params.packed_v != nullptr;
        const StridedRows values = packed_tiles ? PackedTiles(params, begin)
                                                : VRows<Mma>(params, q_block, begin, end, 1, workspace + at.values);
        float scales[kRunKeys];
        const float* value_scales = ValueScales(params, q_block, begin, keys, scales);
        const std::size_t words = Words<Mma>(keys);
        const auto all_finite = [&]() HWY_ATTR {
          return packed_tiles ? AllFinite<Mma>(values, dv, RoundUp(words, kTileSide))
                              : AllFinite<Mma>(values, words, dv);
        };
        const bool mask_nonfinite =
            (partly_masked || params.bias != nullptr) && !(all_finite() && ScalesFinite(value_scales, keys));
        const PrefillRun run{begin,
                             end,
                             partly_masked,
                             mask_nonfinite,
                             first_in_chunk,
                             KRows<Mma>(params, q_block, begin, end, workspace + at.keys),
                             values,
                             value_scales,
                             workspace + at.scores,
                             packed_tiles ? nullptr : workspace + at.amx_values,
                             Mma::kSplits ? &operands : nullptr,
                             states + 2 * lanes,
                             ahead};

        if constexpr (!Mma::kAmx && NV > 1) {
          if (partly_masked) {
            KeyRange keys_of_vector[NV];
            for (int v = 0; v < NV; ++v) {
              KeyRange& of = keys_of_vector[v];
              of = {std::max(begin, info.vector_keys[v].begin), std::min(end, info.vector_keys[v].end)};
              if (of.begin < of.end && params.documents()) {
                of = keys_with_ids(params, q_block.batch, info.vector_ids[v], of.begin, of.end);
              }
              of.begin -= (of.begin - begin) % kKeysTogether<Mma>;
            }
            PrefillByVectors<Mma, NV>(params, q_block, info, run, lanes, keys_of_vector, m, l);
            return;
          }
        }
        PrefillKeys<Mma, NV, true>(params, q_block, info, run, lanes, 0, begin, end, m, l);
      });
  end_chunk();
  return split.last ? tree.close() : nullptr;
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
