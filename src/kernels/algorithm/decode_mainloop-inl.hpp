// Decode mainloop: one to kDecodeRows queries of a block over one split of its keys, to row states.
//
//   S = Q K^T,  P = online softmax of S,  O = O + P V
//
// Contract: keys and values lie in the lanes, where prefill keeps queries. The chains of operations are those of
// prefill, and so are the bits. Returns the row states once the last split is done; null before it, or where no key was
// read.
// Cost: reads each key and value once. The next run is prefetched while this one is multiplied.

// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_ALGORITHM_DECODE_MAINLOOP_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_ALGORITHM_DECODE_MAINLOOP_INL_HPP
#undef MANYHEADS_ALGORITHM_DECODE_MAINLOOP_INL_HPP
#else
#define MANYHEADS_ALGORITHM_DECODE_MAINLOOP_INL_HPP
#endif

#include <algorithm>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/algorithm/combine-inl.hpp"
#include "kernels/algorithm/pack_kv-inl.hpp"
#include "kernels/algorithm/pack_q-inl.hpp"
#include "kernels/algorithm/prefetch-inl.hpp"
#include "kernels/algorithm/pv_int8-inl.hpp"
#include "kernels/algorithm/pv_product-inl.hpp"
#include "kernels/algorithm/qk_scores-inl.hpp"
#include "kernels/algorithm/softmax-inl.hpp"
#include "kernels/tuning.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <class Mma, int R>
HWY_NOINLINE float* DecodeMainloop(const ForwardParams& params, const QueryBlock& q_block, const KvSplit& split,
                                   float* workspace, BlockInfo& info) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  constexpr std::size_t kRun = static_cast<std::size_t>(kRunKeys);
  constexpr int kVectors = VectorsBeside<R>();
  const ForwardWorkspace at(params, q_block.rows);
  const std::size_t width = OutputWidth<Mma>(params, q_block.rows);
  const std::size_t d_words = Words<Mma>(static_cast<std::size_t>(params.d));
  const std::size_t key_words = static_cast<std::size_t>(params.d) * size_of(params.kv_type) / sizeof(float);

  float* queries = workspace + at.packed;
  DecodeQueries<Mma, R>(params, q_block, workspace + at.keys, queries, info);
  float* scores = workspace + at.scores;  // [row][64]
  float* added = workspace + at.added;
  // The softmax sums probabilities by chains, one chain a lane: clear the rows up to a whole vector of chains.
  constexpr std::size_t kChain = static_cast<std::size_t>(kChainKeys);
  std::fill(scores + R * kRun, scores + RoundUp(R * kRun / kChain, n) * kChain, 0.0f);

  CombineTree<StatesInRows> tree({width, static_cast<std::size_t>(q_block.rows)}, at.tree(workspace), split.first);
  std::int64_t chunk = tree.chunk();
  float* states = tree.states();

  const bool drops = params.dropout.any();  // never with the scales of I8
  const bool to_l2 = tuning().prefetch_to_l2 != 0;
  const std::int64_t back = to_l2 ? kRunKeys / 2 : 0;
  const BlockKeyRange range = Within(info.range, split);
  AttentionMask(params).each_run(
      q_block, range, [&](std::int64_t begin, std::int64_t end, bool partly_masked) HWY_ATTR {
        partly_masked = TakesOthers<Mma>(params, begin, end) || partly_masked;
        const std::int64_t run = begin / kRunKeys * kRunKeys;
        const bool masked = partly_masked || params.bias != nullptr;
        const bool first_in_chunk = begin / kChunkKeys + params.first_chunk != chunk;
        if (first_in_chunk) {
          chunk = begin / kChunkKeys + params.first_chunk;
          states = tree.open(chunk);
          std::fill_n(states, kDecodeRows, kNoMaximum);
          std::fill_n(states + kDecodeRows, kDecodeRows, 0.0f);
        }
        float* output = states + 2 * kDecodeRows;
        const std::size_t run_offset = static_cast<std::size_t>(begin - run);
        const std::size_t count = static_cast<std::size_t>(end - begin);

        // Prefetches the next run's keys beside the products with keys, and its values beside those with values. The
        // other way round was slower.
        MemoryRange ahead[kMaxRanges];
        const std::int64_t next = std::min(run + kRunKeys, range.any.end),
                           after = std::min(next + kRunKeys, range.any.end);
        const std::size_t keys_ahead = NextRunRanges(params, q_block, false, next, after, back, ahead);
        const std::size_t values_ahead = NextRunRanges(params, q_block, true, next, after, back, ahead + keys_ahead);
        Prefetcher<true> prefetch_keys(ahead, keys_ahead,
                                       kRun / (KeysBeside<R>() * n) * (key_words / 4) * kPrefetchesPerBlock, to_l2);
        Prefetcher<true> values_prefetcher(
            ahead + keys_ahead, values_ahead,
            (width + kVectors * n - 1) / (kVectors * n) * (kRun / kKeysPerPrefetch<Mma>)*kPrefetches<kVectors>, to_l2);
        const auto prefetch_values = [&](const float*) HWY_ATTR {
#pragma GCC unroll 4
          for (std::size_t i = 0; i < kPrefetches<kVectors>; ++i) values_prefetcher(nullptr);
        };

        constexpr int kKeys = KeysBeside<R>();
        for (std::size_t first = 0; first < count; first += kKeys * n) {
          LaneRows rows[kKeys];
          for (std::size_t k = 0; k < kKeys && first + k * n < count; ++k) {
            const std::int64_t from = begin + static_cast<std::int64_t>(first + k * n);
            rows[k].count = std::min(n, count - first - k * n);
            if (params.all_adjacent(q_block.batch, from, from + static_cast<std::int64_t>(rows[k].count))) {
              const std::int64_t at_first = params.k_at(q_block.batch, q_block.kv_head, from);
              for (std::size_t l = 0; l < n; ++l)
                rows[k].at[l] = at_first + static_cast<std::int64_t>(l) * params.k_stride[2];
              rows[k].stride = rows[k].count == n ? params.k_stride[2] : 0;
            } else {
              for (std::size_t l = 0; l < rows[k].count; ++l) {
                rows[k].at[l] = params.k_at(q_block.batch, q_block.kv_head, from + static_cast<std::int64_t>(l));
              }
            }
          }
          DecodeScores<Mma, R, kKeys>(params, info, rows, queries, d_words, workspace + at.keys, scores + first,
                                      prefetch_keys);
        }

        if (partly_masked || info.score_mod) {
          MaskScoresInRows(params, q_block, info, R, begin, end, added, scores);
        } else if (info.scaled_keys) {
          ScaleScoresInRows(params, q_block, R, begin, end, scores);
        }

        HWY_ALIGN float scales[kRun] = {};
        const float* value_scales = ValueScales(params, q_block, begin, count, scales);
        StridedRows values{};
        bool mask_nonfinite = masked && !ScalesFinite(value_scales, count);
        if constexpr (!Mma::kInt8) {  // integers are finite
          if (masked) {
            values = VRows<Mma>(params, q_block, begin, end, n, workspace + at.values);
            mask_nonfinite =
                mask_nonfinite || !AllFinite<Mma>(values, Words<Mma>(count), static_cast<std::size_t>(params.dv));
          }
        }
        SoftmaxInRows<Mma>(info, R, run_offset, count, mask_nonfinite, first_in_chunk, value_scales, width, states,
                           scores);
        if (drops) DropInRows(params, q_block, info, R, begin, count, scores);

        if constexpr (Mma::kInt8) {
          values = PackValueQuads(params, q_block, begin, end, n, workspace + at.values);
          PvInt8<Mma, R, kVectors>(values, Words<Mma>(count), first_in_chunk, width, scores, output, prefetch_values);
        } else {
          if (!masked && PvInPlace<Mma, R>(params, q_block, begin, count, scores, first_in_chunk, workspace + at.values,
                                           output, prefetch_values))
            return;
          if (!masked) values = VRows<Mma>(params, q_block, begin, end, n, workspace + at.values);
          PvInRows<Mma, R>(values, run_offset, count, mask_nonfinite, first_in_chunk, width, scores, output,
                           prefetch_values);
        }
      });
  return split.last ? tree.close() : nullptr;
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
