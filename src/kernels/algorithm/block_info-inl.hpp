// The rows of a query block: their queries, their visible keys, and the factors from products to scores.

// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_ALGORITHM_BLOCK_INFO_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_ALGORITHM_BLOCK_INFO_INL_HPP
#undef MANYHEADS_ALGORITHM_BLOCK_INFO_INL_HPP
#else
#define MANYHEADS_ALGORITHM_BLOCK_INFO_INL_HPP
#endif

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/algorithm/lane_rows-inl.hpp"
#include "kernels/isa/exp2-inl.hpp"
#include "kernels/isa/mma_amx-inl.hpp"
#include "kernels/mask.hpp"
#include "kernels/params.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// The rows of a query block. Padded rows, behind the last, repeat the first query and see no key.
struct BlockInfo {
  static constexpr int kMaxRows = 64;  // rows of the largest query block: 4 vectors of 16
  static constexpr int kMaxVectors = kMaxRows / static_cast<int>(HWY_LANES(float));

  std::int64_t head[kMaxRows];
  std::int64_t query[kMaxRows];
  std::int64_t begin[kMaxRows];  // the keys that causal, window and length leave to the row
  std::int64_t end[kMaxRows];
  std::int64_t document[kMaxRows];  // where the call has documents
  std::int64_t rows = 0;            // without the padded ones
  BlockKeyRange range;
  KeyRange vector_keys[kMaxVectors];            // keys that any row of a vector sees by position
  KeyRange vector_all[kMaxVectors];             // keys that all rows of a vector see by position
  IdRange vector_ids[kMaxVectors];              // where the call has documents
  double q_factor = 1;                          // folded into the packed queries
  double sum_factor = 1;                        // on products summed in double
  float row_factor[MmaF32::kDecodeRows];        // on products of bytes: the row's step times the factor
  std::int32_t row_start[MmaF32::kDecodeRows];  // what sums of bytes begin with
  float score_factor = 1;                       // on the product, before softcap, bias and ALiBi
  float late_factor = 1;                        // on the score, where nothing is added to it
  float cap = 0;                                // softcap; 0: none
  bool extreme_scale = false;                   // the scale would overflow or vanish in q
  bool score_mod = false;     // softcap, bias, ALiBi or an extreme scale: the product is not yet the score
  bool bias_or_mask = false;  // bias or bool mask
  bool documents = false;
  bool scaled_keys = false;  // I8 keys: each has its scale
  const float* packed = nullptr;
  // Of an Mma that splits: the queries' pieces, where a run's keys' go, and 1 for each lane that is multiplied as F32.
  const float* split_queries = nullptr;
  float* split_keys = nullptr;
  const float* unsplit_lanes = nullptr;
  bool unsplit_queries = false;  // any of them

  // Rows [first, first + n) as lanes; at(head, query) is the offset of each.
  template <class At>
  LaneRows rows_at(std::size_t first, std::size_t n, At&& at) const {
    LaneRows lanes;
    for (std::size_t r = first; r < first + n && static_cast<std::int64_t>(r) < rows; ++r) {
      lanes.at[lanes.count++] = at(head[r], query[r]);
    }
    lanes.find_stride();
    return lanes;
  }
};

template <class Mma>
HWY_INLINE void BeginBlock(const QkvMask& params, const QueryBlock& q_block, std::size_t padded_rows, BlockInfo& info) {
  const std::int64_t group = params.group();
  info.rows = q_block.rows;
  const AttentionMask mask(params);
  info.range = BlockKeyRange(params);
  RowCursor cursor(params, q_block);
  const Band band(params, q_block.batch);
  for (std::size_t r = 0; r < padded_rows; ++r) {
    const bool real = static_cast<std::int64_t>(r) < q_block.rows;
    info.head[r] = real ? q_block.kv_head * group + cursor.head : info.head[0];
    info.query[r] = real ? cursor.query : info.query[0];
    const KeyRange keys = real ? band.keys_of(cursor.query) : KeyRange{};
    info.begin[r] = keys.begin;
    info.end[r] = keys.end;
    if (real) info.range.add(keys);
    cursor.next();
  }
  if (params.documents()) mask.narrow_to_documents(q_block, info.range.any);
  const std::size_t n = LaneCount();
  for (std::size_t v = 0; v * n < padded_rows; ++v) {
    KeyRange& keys = info.vector_keys[v];
    KeyRange& all = info.vector_all[v];
    keys = {params.tk, 0};
    all = {0, params.tk};
    for (std::size_t r = v * n; r < v * n + n && r < padded_rows; ++r) {
      if (static_cast<std::int64_t>(r) < q_block.rows) {
        all = {std::max(all.begin, info.begin[r]), std::min(all.end, info.end[r])};
      }
      if (info.begin[r] >= info.end[r]) continue;
      keys = {std::min(keys.begin, info.begin[r]), std::max(keys.end, info.end[r])};
    }
    if (params.documents() && static_cast<std::int64_t>(v * n) < q_block.rows) {
      const std::int64_t row = static_cast<std::int64_t>(v * n);
      info.vector_ids[v] = mask.query_ids(q_block, row, std::min(static_cast<std::int64_t>(n), q_block.rows - row));
    }
  }
  // A usual scale is folded with the change to base 2.
  const double magnitude = std::fabs(params.scale);
  info.extreme_scale = !(magnitude < 0x1p40 && magnitude > 0x1p-40);
  // A cap far above every score changes nothing; one far below all makes them 0.
  info.cap = params.softcap > 1e30 ? 0.0f
             : params.softcap > 0  ? static_cast<float>(std::fmax(params.softcap, 1e-30))
                                   : 0.0f;
  info.score_mod = info.cap > 0 || params.bias != nullptr || params.alibi != nullptr || info.extreme_scale;
  info.scaled_keys = params.k_scales != nullptr;
  info.bias_or_mask = params.bias != nullptr || params.allowed != nullptr;
  info.documents = params.documents();
  for (std::size_t r = 0; info.documents && r < padded_rows; ++r) {
    info.document[r] = params.q_documents.at(q_block.batch, info.query[r]);
  }
  // Base 2 from the start, unless softcap stands between.
  const double factor = info.cap > 0 ? params.scale : params.scale * 1.44269504088896340736;
  if (info.extreme_scale) {
    // Beyond float's range every scale picks the row's largest score alone. 1e30 does so too, without saturating.
    info.score_factor = static_cast<float>(magnitude > 1e38 ? std::copysign(1e30, params.scale) : params.scale);
  } else if (Mma::kScaledQueries) {
    (InDouble<Mma>(static_cast<std::size_t>(params.d)) ? info.sum_factor : info.q_factor) = factor;
  } else {
    // Folding the sign alone leaves the bits of BF16 and F16 exact. A positive factor keeps the order of the products.
    info.q_factor = std::copysign(1.0, params.scale);
    (info.score_mod ? info.score_factor : info.late_factor) = static_cast<float>(std::fabs(factor));
  }
}

// The keys of a query block that lie in a split.
HWY_INLINE BlockKeyRange Within(BlockKeyRange range, const KvSplit& split) {
  range.any.begin = std::max(range.any.begin, split.begin);
  if (split.end >= 0) range.any.end = std::min(range.any.end, split.end);
  return range;
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
