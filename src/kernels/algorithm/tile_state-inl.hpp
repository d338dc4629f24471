// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_TILE_STATE_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_TILE_STATE_INL_HPP
#undef MANYHEADS_TILE_STATE_INL_HPP
#else
#define MANYHEADS_TILE_STATE_INL_HPP
#endif

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "hwy/highway.h"
#include "kernels/algorithm/pack-inl.hpp"
#include "kernels/algorithm/tile-inl.hpp"
#include "kernels/algorithm/tiles-inl.hpp"
#include "kernels/kernel_table.hpp"
#include "kernels/mask.hpp"

// The rows of a tile: which queries they are, what they may see, and their words in the lanes.
HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Vectors of queries in the largest tile, and rows of the register tile, so that accumulators and operands fit.
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_SSE4 || HWY_TARGET == HWY_SSSE3
constexpr int kTileVectors = 3;
constexpr int kTileRows = 4;
#else
constexpr int kTileVectors = 4;
constexpr int kTileRows = 4;
#endif

constexpr float kLog2e = 1.44269504088896340736f;
constexpr float kForbidden = -std::numeric_limits<float>::infinity();
// A finite score never counts as forbidden, however low: scores stop here, maxima begin below. A row whose maximum stops
// here is computed again (ScoresBeyondFloat), so that no more is lost than what a larger score hides.
constexpr float kLowestScore = -3.0e38f;
constexpr float kNoMaximum = -std::numeric_limits<float>::max();

// Register rows that keep the multipliers busy beside NV vectors.
template <int NV>
constexpr int RowsBeside() {
  return NV * 2 * kTileRows <= kTileVectors * kTileRows ? 2 * kTileRows : kTileRows;
}

// A chain over all of D would round sharp heads too coarsely for lse: D is summed in runs, and the runs one after the
// other.
constexpr std::size_t DepthRun(std::size_t width) { return width <= 48 ? 8 : 16; }
// Over a short D nothing averages the roundings out: such heads are summed and scaled in double, longer ones too where
// products are rounded by themselves.
#if HWY_NATIVE_FMA
constexpr std::size_t kDoubleWidth = 16;
#else
constexpr std::size_t kDoubleWidth = 48;
#endif

template <class Unit>
constexpr bool InDouble(std::size_t width) {
  return Unit::kChains && width <= kDoubleWidth;
}

// What a tile's rows are, and how their products become scores.
struct TileState {
  static constexpr int kMaxRows = 64;  // lanes of the largest tile: 4 vectors of 16

  std::int64_t head[kMaxRows];
  std::int64_t query[kMaxRows];
  std::int64_t begin[kMaxRows];  // the keys that causal, window and length leave to the row
  std::int64_t end[kMaxRows];
  std::int64_t document[kMaxRows];  // where there are documents
  std::int64_t rows = 0;            // rows of the call; places behind them stand for the first, and see no key
  TileRange range;
  KeyRange vector_keys[kMaxRows];            // what the ranges above leave to any row of a vector
  KeyRange vector_all[kMaxRows];             // and to all of them
  IdRange vector_ids[kMaxRows];              // where there are documents
  double q_factor = 1;                       // folded into the packed queries
  double sum_factor = 1;                     // on products summed in double
  float row_factor[Floats::kFewRows];        // on products of bytes: the row's step and the factor
  std::int32_t row_start[Floats::kFewRows];  // where they begin
  float score_factor = 1;                    // on the product before softcap and what is added
  float late_factor = 1;                     // on the score, where nothing is added
  float cap = 0;                             // softcap, 0 where there is none
  bool extreme = false;                      // a scale that would overflow or vanish in q
  bool rich = false;  // softcap, bias, ALiBi or an extreme scale: the product is not yet the score
  bool adds = false;  // bias or bool mask
  bool documents = false;
  bool scaled_keys = false;  // I8 keys: each has its own factor
  const float* packed = nullptr;

  // Where rows [first, first + n) begin.
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

template <class Unit>
HWY_INLINE void BeginTile(const AttentionCall& call, const Tile& tile, std::size_t places, TileState& state) {
  const std::int64_t group = call.q_heads / call.kv_heads;
  state.rows = tile.rows;
  state.range = TileRange(call);
  RowCursor cursor(call, tile);
  const QueryKeys keys_of_query(call, tile.batch);
  for (std::size_t r = 0; r < places; ++r) {
    const bool real = static_cast<std::int64_t>(r) < tile.rows;
    state.head[r] = real ? tile.kv_head * group + cursor.head : state.head[0];
    state.query[r] = real ? cursor.query : state.query[0];
    const KeyRange keys = real ? keys_of_query(cursor.query) : KeyRange{};
    state.begin[r] = keys.begin;
    state.end[r] = keys.end;
    if (real) state.range.add(keys);
    cursor.next();
  }
  if (call.q_documents.data != nullptr) narrow_to_documents(call, tile, state.range.any);
  const std::size_t n = LaneCount();
  for (std::size_t v = 0; v * n < places; ++v) {
    KeyRange& keys = state.vector_keys[v];
    KeyRange& all = state.vector_all[v];
    keys = {call.tk, 0};
    all = {0, call.tk};
    for (std::size_t r = v * n; r < v * n + n && r < places; ++r) {
      if (static_cast<std::int64_t>(r) < tile.rows) {
        all = {std::max(all.begin, state.begin[r]), std::min(all.end, state.end[r])};
      }
      if (state.begin[r] >= state.end[r]) continue;
      keys = {std::min(keys.begin, state.begin[r]), std::max(keys.end, state.end[r])};
    }
    if (call.q_documents.data != nullptr && static_cast<std::int64_t>(v * n) < tile.rows) {
      const std::int64_t row = static_cast<std::int64_t>(v * n);
      state.vector_ids[v] = query_ids(call, tile, row, std::min(static_cast<std::int64_t>(n), tile.rows - row));
    }
  }
  // A plain scale is folded with the change of base.
  const double magnitude = std::fabs(call.scale);
  state.extreme = !(magnitude < 0x1p40 && magnitude > 0x1p-40);
  // Far above every score a cap changes nothing; far below all of them it makes them 0.
  state.cap = call.softcap > 1e30 ? 0.0f : call.softcap > 0 ? static_cast<float>(std::fmax(call.softcap, 1e-30)) : 0.0f;
  state.rich = state.cap > 0 || call.bias != nullptr || call.alibi != nullptr || state.extreme;
  state.scaled_keys = call.k_scales != nullptr;
  state.adds = call.bias != nullptr || call.allowed != nullptr;
  state.documents = call.q_documents.data != nullptr;
  for (std::size_t r = 0; state.documents && r < places; ++r) {
    state.document[r] = call.q_documents.at(tile.batch, state.query[r]);
  }
  // Base 2 from the start, unless softcap stands between.
  const double factor = state.cap > 0 ? call.scale : call.scale * 1.44269504088896340736;
  if (state.extreme) {
    // Beyond float's range every scale picks the row's largest score alone; a smaller one does so without saturating.
    state.score_factor = static_cast<float>(magnitude > 1e38 ? std::copysign(1e30, call.scale) : call.scale);
  } else if (Unit::kScaledQueries) {
    (InDouble<Unit>(static_cast<std::size_t>(call.d)) ? state.sum_factor : state.q_factor) = factor;
  } else {
    // The sign alone leaves a half type's bits exact; a positive factor keeps the order of the products.
    state.q_factor = std::copysign(1.0, call.scale);
    (state.rich ? state.score_factor : state.late_factor) = static_cast<float>(std::fabs(factor));
  }
}

// Changes the words of queries on their way into a tile. The factor comes in two floats: their products with q add up
// to the exact one with a single rounding to speak of.
template <class Unit>
struct QueryFactor {
  explicit QueryFactor(const TileState& state)
      : high(static_cast<float>(state.q_factor)),
        rest(static_cast<float>(state.q_factor - static_cast<double>(high))) {}
  HWY_INLINE VF operator()(VF q) const {
    const DF d;
    if constexpr (Unit::kScaledQueries) {
      return hn::MulAdd(q, hn::Set(d, high), hn::Mul(q, hn::Set(d, rest)));
    } else {
      const hn::RebindToUnsigned<DF> du;
      return hn::BitCast(d, hn::Xor(hn::BitCast(du, q), hn::Set(du, high < 0 ? 0x80008000u : 0u)));
    }
  }
  float high, rest;
};

// The words of the tile's queries, packed[word][lane].
template <class Unit>
HWY_INLINE void PackQueries(const AttentionCall& call, const Tile& tile, std::size_t lanes, float* packed,
                            TileState& state) {
  const std::size_t n = LaneCount();
  const auto at = [&](std::int64_t h, std::int64_t i) { return call.q_at(tile.batch, h, i); };
  for (std::size_t first = 0; first < lanes; first += n) {
    PackLanes<Unit>(call.type, call.q, state.rows_at(first, n, at), call.q_stride[3], call.d, lanes, packed + first,
                    QueryFactor<Unit>(state));
  }
  if constexpr (Unit::kTiles) {  // whole tiles in depth
    const std::size_t words = Words<Unit>(static_cast<std::size_t>(call.d));
    std::fill(packed + words * lanes, packed + (words + kTileSide - 1) / kTileSide * kTileSide * lanes, 0.0f);
  }
  state.packed = packed;
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
