// Packed Q: the queries of a query block as words, with the scale folded in.
//
// Contract: prefill reads packed[word][lane], decode packed[word][row].
// Cost: each query is read once a block.

// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_ALGORITHM_PACK_Q_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_ALGORITHM_PACK_Q_INL_HPP
#undef MANYHEADS_ALGORITHM_PACK_Q_INL_HPP
#else
#define MANYHEADS_ALGORITHM_PACK_Q_INL_HPP
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/algorithm/block_info-inl.hpp"
#include "kernels/algorithm/pv_int8-inl.hpp"
#include "kernels/algorithm/split_products-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// The factor of the packed queries. It comes as two floats, whose products with q add up to the exact product with one
// rounding that counts.
template <class Mma>
struct QueryFactor {
  explicit QueryFactor(const BlockInfo& info)
      : high(static_cast<float>(info.q_factor)), rest(static_cast<float>(info.q_factor - static_cast<double>(high))) {}
  HWY_INLINE VF operator()(VF q) const {
    const DF d;
    if constexpr (Mma::kScaledQueries) {
      return Fma(q, hn::Set(d, high), hn::Mul(q, hn::Set(d, rest)));
    } else {
      const hn::RebindToUnsigned<DF> du;
      return hn::BitCast(d, hn::Xor(hn::BitCast(du, q), hn::Set(du, high < 0 ? 0x80008000u : 0u)));
    }
  }
  float high, rest;
};

// Packs the queries for prefill: packed[word][lane], `lanes` wide.
template <class Mma>
HWY_INLINE void PackQ(const QkvMask& params, const QueryBlock& q_block, std::size_t lanes, float* packed,
                      BlockInfo& info) {
  const std::size_t n = LaneCount();
  const auto at = [&](std::int64_t h, std::int64_t i) { return params.q_at(q_block.batch, h, i); };
  for (std::size_t first = 0; first < lanes; first += n) {
    PackLanes<Mma>(params.type, params.q, info.rows_at(first, n, at), params.q_stride[3], params.d, lanes,
                   packed + first, QueryFactor<Mma>(info));
  }
  if constexpr (Mma::kAmx && !Mma::kSplits) {  // whole tiles along D
    const std::size_t words = Words<Mma>(static_cast<std::size_t>(params.d));
    std::fill(packed + words * lanes, packed + (words + kTileSide - 1) / kTileSide * kTileSide * lanes, 0.0f);
  }
  info.packed = packed;
}

// Splits the packed queries for tiles. Lanes with what the pieces cannot hold, or whose product is scaled later beyond
// what they bound, are marked.
HWY_INLINE void SplitQ(const QkvMask& params, std::size_t lanes, float* split, float* unsplit, BlockInfo& info) {
  const DF d;
  info.unsplit_queries = info.extreme_scale;
  std::fill(unsplit, unsplit + lanes, info.extreme_scale ? 1.0f : 0.0f);
  SplitColumns(info.packed, static_cast<std::size_t>(params.d), static_cast<std::size_t>(params.d), lanes, split, lanes,
               [&](const auto& beyond, std::size_t /*row*/, std::size_t lane) HWY_ATTR {
                 info.unsplit_queries = true;
                 hn::StoreU(hn::IfThenElse(beyond, hn::Set(d, 1.0f), hn::LoadU(d, unsplit + lane)), d, unsplit + lane);
               });
  info.split_queries = split;
  info.unsplit_lanes = unsplit;
}

// Packs R queries for decode: queries[word][row]. `copy` holds one row of floats.
template <class Mma, int R>
HWY_INLINE void DecodeQueries(const QkvMask& params, const QueryBlock& q_block, float* HWY_RESTRICT copy,
                              float* HWY_RESTRICT queries, BlockInfo& info) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  const std::size_t width = static_cast<std::size_t>(params.d);
  const std::size_t words = Words<Mma>(width);
  for (std::size_t r = 0; r < R; ++r) {
    const std::int64_t at = params.q_at(q_block.batch, info.head[r], info.query[r]);
    if constexpr (Mma::kInt8) {
      Int8Query(params, at, r, copy, info);
      for (std::size_t i = 0; i < words; ++i) queries[i * R + r] = WordAt(copy + i);
    } else {
      const QueryFactor<Mma> change(info);
      const float* row = Mma::Row(params.type, params.q, at, params.q_stride[3], params.d, copy);
      std::size_t i = 0;
      for (; i + n <= words; i += n) {
        HWY_ALIGN float changed[kMaxLanes];
        hn::Store(change(hn::LoadU(d, row + i)), d, changed);
        for (std::size_t l = 0; l < n; ++l) queries[(i + l) * R + r] = changed[l];
      }
      for (; i < words; ++i) queries[i * R + r] = hn::GetLane(change(hn::Set(d, WordAt(row + i))));
    }
  }
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
