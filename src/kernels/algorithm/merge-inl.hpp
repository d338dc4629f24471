// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_MERGE_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_MERGE_INL_HPP
#undef MANYHEADS_MERGE_INL_HPP
#else
#define MANYHEADS_MERGE_INL_HPP
#endif

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "hwy/highway.h"
#include "kernels/algorithm/scores-inl.hpp"
#include "kernels/kernel_table.hpp"
#include "kernels/reference.hpp"

// What the forms of the forward share: the memory of a tile, the merge tree over chunks, and the way from its root to the
// caller's rows.
HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr std::size_t RoundUp(std::size_t value, std::size_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

constexpr std::size_t kFewRows = Floats::kFewRows;

// The places of a tile: lanes in whole vectors (in whole tiles, where they multiply), or a few rows.
template <class Unit>
HWY_INLINE std::size_t PlacesOf(const Tile& tile) {
  const std::size_t rows = static_cast<std::size_t>(tile.rows);
  return rows <= Unit::kFewRows ? kFewRows : RoundUp(rows, Unit::kTiles ? kTileSide : LaneCount());
}
// Floats that the output of a row takes.
template <class Unit>
HWY_INLINE std::size_t OutputWidth(const AttentionCall& call, const Tile& tile) {
  const std::size_t dv = static_cast<std::size_t>(call.dv);
  if (Unit::kTiles) return RoundUp(dv, kTileSide);
  return tile.rows <= Unit::kFewRows ? RoundUp(dv, LaneCount()) : dv;
}

// A node of the merge tree: maximum, sum, and the unnormalised output of each row, [Dv][lanes] or [rows][Dv].
template <class Unit>
HWY_INLINE std::size_t NodeFloats(const AttentionCall& call, const Tile& tile) {
  return RoundUp((2 + OutputWidth<Unit>(call, tile)) * PlacesOf<Unit>(tile), 16);
}

// Where the nodes of a merge tree lie, `node` floats each, and which chunks the open ones begin with.
struct OpenNodes {
  struct Chunks {
    std::int64_t count;
    std::int64_t last[63];
  };
  Chunks* chunks;
  float* nodes;
  std::size_t node;
};

// Where a tile's working memory lies in the scratch block of its worker. Sizes in floats, each rounded up to 64 bytes.
struct ForwardScratch {
  std::size_t packed, keys, values, tiles, scores, added, opened, nodes, node, total;

  ForwardScratch(const AttentionCall& call, const Tile& tile) {
    std::size_t at = 0;
    const auto take = [&at](std::size_t floats) {
      const std::size_t begin = at;
      at += RoundUp(floats, 16);
      return begin;
    };
    // Enough for a tile of this height or less, in any form.
    const std::size_t places = RoundUp(std::max<std::size_t>(static_cast<std::size_t>(tile.rows), kFewRows), kTileSide);
    const std::size_t d = RoundUp(static_cast<std::size_t>(call.d), 2 * kTileSide);
    const std::size_t dv = RoundUp(static_cast<std::size_t>(call.dv), kTileSide);
    packed = take(d * places);
    keys = take(kRunKeys * d);
    values = take(kRunKeys * dv);
    tiles = take(call.pairs() ? kRunKeys / 2 * dv : 0);
    scores = take(kRunKeys * places);
    added = take(call.bias != nullptr || call.allowed != nullptr ? kRunKeys * kFewRows : 0);  // of few rows
    node = RoundUp((2 + dv) * places, 16);
    opened = take(sizeof(OpenNodes::Chunks) / sizeof(float));
    // The tree holds one open node a level, and the chunk under way.
    const std::uint64_t chunks = static_cast<std::uint64_t>(call.tk / kChunkKeys + 1);
    nodes = take(node * static_cast<std::size_t>(std::bit_width(chunks) + 2));
    total = at;
  }
  OpenNodes tree(float* scratch) const {
    return {reinterpret_cast<OpenNodes::Chunks*>(scratch + opened), scratch + nodes, node};
  }
};

// How the nodes of a tile whose rows lie in the lanes are merged; and of one whose rows follow each other.
struct LaneNodes {
  std::size_t lanes, width;

  void Merge(float* HWY_RESTRICT a, const float* HWY_RESTRICT b) const {
    const DF d;
    const std::size_t n = hn::Lanes(d);
    for (std::size_t at = 0; at < lanes; at += n) {
      const VF ma = hn::LoadU(d, a + at);
      const VF mb = hn::LoadU(d, b + at);
      const VF m = hn::Max(ma, mb);
      const VF fa = PowerOfTwo(d, hn::Sub(ma, m));
      const VF fb = PowerOfTwo(d, hn::Sub(mb, m));
      hn::StoreU(m, d, a + at);
      // Row 1 is the sum, the rows behind it the output: scaled alike.
      for (std::size_t i = lanes + at; i < (2 + width) * lanes; i += lanes) {
        hn::StoreU(hn::MulAdd(hn::LoadU(d, a + i), fa, hn::Mul(hn::LoadU(d, b + i), fb)), d, a + i);
      }
    }
  }
};
struct RowNodes {
  std::size_t width, rows;  // those that there are, of the kFewRows places

  void Merge(float* HWY_RESTRICT a, const float* HWY_RESTRICT b) const {
    const DF d;
    const std::size_t n = hn::Lanes(d);
    for (std::size_t r = 0; r < rows; ++r) {
      const VF ma = hn::Set(d, a[r]);
      const VF mb = hn::Set(d, b[r]);
      const VF m = hn::Max(ma, mb);
      const VF fa = PowerOfTwo(d, hn::Sub(ma, m));
      const VF fb = PowerOfTwo(d, hn::Sub(mb, m));
      a[r] = hn::GetLane(m);
      float& l = a[kFewRows + r];
      l = hn::GetLane(hn::MulAdd(hn::Set(d, l), fa, hn::Mul(hn::Set(d, b[kFewRows + r]), fb)));
      for (std::size_t i = 2 * kFewRows + r * width; i < 2 * kFewRows + (r + 1) * width; i += n) {
        hn::StoreU(hn::MulAdd(hn::LoadU(d, a + i), fa, hn::Mul(hn::LoadU(d, b + i), fb)), d, a + i);
      }
    }
  }
};

// A node of no keys: merging it changes no bit but the sign of a zero.
template <class Unit>
HWY_INLINE void ClearNode(const AttentionCall& call, const Tile& tile, float* node) {
  const std::size_t places = PlacesOf<Unit>(tile);
  std::fill_n(node, places, kNoMaximum);
  std::fill_n(node + places, NodeFloats<Unit>(call, tile) - places, 0.0f);
}

// Chunks merged in the binary tree over their numbers, in which a missing chunk counts as empty: the shape does not
// depend on which chunks a tile happened to read.
template <class Nodes>
class MergeTree {
 public:
  MergeTree(const Nodes& merger, const OpenNodes& open, bool fresh)
      : merger_(merger), nodes_(open.nodes), node_(open.node), opened_(*open.chunks) {
    if (fresh) opened_.count = 0;
  }

  // The node opened last and its chunk; null and -1 where there is none.
  float* node() const { return opened_.count == 0 ? nullptr : at(opened_.count - 1); }
  std::int64_t chunk() const { return opened_.count == 0 ? -1 : opened_.last[opened_.count - 1]; }
  // The node to fill for a chunk. Nodes whose common subtree does not reach the chunk are complete and merged first.
  float* open(std::int64_t chunk) {
    const std::int64_t* last = opened_.last;
    while (opened_.count >= 2 &&
           level(last[opened_.count - 2], last[opened_.count - 1]) < level(last[opened_.count - 1], chunk)) {
      merge_top();
    }
    opened_.last[opened_.count++] = chunk;
    return node();
  }
  // Merges all that is left into the root; null when no chunk was opened.
  float* close() {
    while (opened_.count >= 2) merge_top();
    return node();
  }

 private:
  static int level(std::int64_t a, std::int64_t b) { return std::bit_width(static_cast<std::uint64_t>(a ^ b)); }

  float* at(std::int64_t i) const { return nodes_ + static_cast<std::size_t>(i) * node_; }

  void merge_top() {
    merger_.Merge(at(opened_.count - 2), at(opened_.count - 1));
    opened_.last[opened_.count - 2] = opened_.last[opened_.count - 1];
    --opened_.count;
  }

  Nodes merger_;
  float* nodes_;
  std::size_t node_;
  OpenNodes::Chunks& opened_;
};

// Maxima this far from 0, in base 2, may have stopped at a bound.
constexpr float kFarthestScore = 2.8e38f;

// Whether a row's maximum and sum tell that its scores left F32's range. A sum of 0 is also that of a row that sees no
// key, and the lowest maximum that of one whose keys all have the lowest float as bias and count alike: padding, which is
// told from the mask and the bias alone.
HWY_INLINE bool ScoresBeyondFloat(const AttentionCall& call, const Tile& tile, const TileState& state, std::size_t r,
                                  float maximum, float sum) {
  if (sum == 0.0f) {
    return state.begin[r] < state.end[r] && sees_a_key(call, tile.batch, state.head[r], state.query[r]);
  }
  if (!(sum < std::numeric_limits<float>::infinity()) || !(maximum < kFarthestScore)) return true;
  if (maximum > -kFarthestScore) return false;
  const bool low_sink = call.sinks != nullptr && call.sinks[state.head[r] * call.sinks_stride] <= -kFarthestScore / kLog2e;
  return state.extreme || low_sink || !one_bias(call, tile.batch, state.head[r], state.query[r]);
}

// A row's lse, to the caller, and the factor that normalises its output. Also where weights are rounded for their product
// it is the sum before that: with the sum of the rounded ones a row of one key would be exact, but an output of small
// weights beside a large one whose value is 0 would take over that one's error, and pass 2 u A.
HWY_INLINE double FinishRow(const AttentionCall& call, const Tile& tile, const TileState& state, std::size_t r,
                           float maximum, float total) {
  const double sum = static_cast<double>(total);
  double inverse = 0;
  double lse = call.sinks != nullptr ? static_cast<double>(call.sinks[state.head[r] * call.sinks_stride])
                                     : -std::numeric_limits<double>::infinity();
  if (sum != 0.0) {  // 0 only where every key is forbidden: the largest score contributes at least 2^-1/2
    const double m = static_cast<double>(maximum);
    double keys = (m + std::log2(sum)) * 0.693147180559945309417;
    if (m <= -static_cast<double>(kFarthestScore)) {  // padding: its bias is all there is to see
      keys = one_bias(call, tile.batch, state.head[r], state.query[r]).value_or(keys);
    }
    const double sink = lse;
    double share = 1;  // of the keys beside the sink
    lse = keys;
    if (call.sinks != nullptr) {
      share = 1.0 / (1.0 + std::exp(sink - keys));
      lse = sink > keys ? sink + std::log1p(std::exp(keys - sink)) : keys + std::log1p(std::exp(sink - keys));
    }
    if (std::isnan(sum)) lse = sum;
    inverse = share / sum;
  }
  if (call.lse != nullptr) {
    call.lse[call.lse_at(tile.batch, state.head[r], state.query[r])] = static_cast<float>(lse);
  }
  return inverse;
}

// + 0 turns the -0 of a row of -0 products into the 0 that a longer sum gives. A row without keys has scale 0.
HWY_INLINE VF Normalised(VF output, VF scale) {
  const DF d;
  const VF y = hn::Add(hn::Mul(output, scale), hn::Zero(d));
  return hn::IfThenElse(hn::Eq(scale, hn::Zero(d)), hn::Zero(d), y);
}

// The rows of a tile that leave F32's range somewhere between the inputs and the output: a bit each. They are computed
// again in float64.
class RowsBeyondFloat {
 public:
  HWY_INLINE RowsBeyondFloat() : check_(hn::Zero(DF())) {}
  HWY_INLINE void add(std::size_t r) { rows_ |= std::uint64_t{1} << r; }
  // For a vector of outputs: NaN from the first on that is not finite.
  HWY_INLINE void see(VF output) { check_ = hn::MulAdd(output, hn::Zero(DF()), check_); }
  HWY_INLINE bool saw_any() const { return !hn::AllTrue(DF(), hn::Eq(check_, check_)); }
  HWY_INLINE void forget() { check_ = hn::Zero(DF()); }
  void compute_again(const AttentionCall& call, const Tile& tile, const TileState& state) {
    for (; rows_ != 0; rows_ &= rows_ - 1) {
      const std::size_t r = static_cast<std::size_t>(std::countr_zero(rows_));
      reference_row(call.source != nullptr ? *call.source : call, tile.batch, state.head[r], state.query[r]);
    }
  }

 private:
  VF check_;
  std::uint64_t rows_ = 0;
};

// The caller's rows from the root of a tile.
template <class Unit>
HWY_INLINE void StoreTile(const AttentionCall& call, const Tile& tile, const TileState& state, float* root) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  const std::size_t places = PlacesOf<Unit>(tile);
  const std::size_t width = OutputWidth<Unit>(call, tile);
  float* output = root + 2 * places;
  HWY_ALIGN float inverse[TileState::kMaxRows] = {};
  RowsBeyondFloat beyond;
  for (std::size_t r = 0; r < static_cast<std::size_t>(tile.rows); ++r) {
    if (ScoresBeyondFloat(call, tile, state, r, root[r], root[places + r])) beyond.add(r);
  }
  const bool sums_only = call.lse == nullptr && call.sinks == nullptr;
  for (std::size_t r = 0; sums_only && r < static_cast<std::size_t>(tile.rows); ++r) {  // by itself, for vectors
    const double sum = static_cast<double>(root[places + r]);
    inverse[r] = static_cast<float>(sum != 0.0 ? 1.0 / sum : 0.0);
  }
  for (std::size_t r = 0; !sums_only && r < static_cast<std::size_t>(tile.rows); ++r) {
    double factor = FinishRow(call, tile, state, r, root[r], root[places + r]);
    // A sink far above the keys leaves a factor that F32 holds coarsely or not at all.
    if (factor > 0 && factor < static_cast<double>(std::numeric_limits<float>::min())) {
      const bool few = tile.rows <= Unit::kFewRows;
      for (std::size_t i = 0; i < width; ++i) {
        float& o = output[few ? r * width + i : i * places + r];
        o = static_cast<float>(static_cast<double>(o) * factor);
      }
      factor = 1;
    }
    inverse[r] = static_cast<float>(factor);
  }
  if (Unit::kRowsOnly || tile.rows <= Unit::kFewRows) {
    for (std::size_t r = 0; r < static_cast<std::size_t>(tile.rows); ++r) {
      float* row = output + r * width;
      beyond.forget();
      for (std::size_t i = 0; i < width; i += n) {
        const VF y = Normalised(hn::LoadU(d, row + i), hn::Set(d, inverse[r]));
        beyond.see(y);
        hn::StoreU(y, d, row + i);
      }
      if (beyond.saw_any()) beyond.add(r);
      StoreRow(call.out_type, call.out, call.out_at(tile.batch, state.head[r], state.query[r]), call.out_stride[3],
               call.dv, row);
    }
  } else if constexpr (!Unit::kRowsOnly) {
    const auto out_at = [&](std::int64_t h, std::int64_t i) { return call.out_at(tile.batch, h, i); };
    for (std::size_t first = 0; first < places; first += n) {
      beyond.forget();
      UnpackLanes(call.out_type, call.out, state.rows_at(first, n, out_at), call.out_stride[3], call.dv, places,
                  output + first, inverse + first, [&beyond](VF sum, VF scale) HWY_ATTR {
                    const VF y = Normalised(sum, scale);
                    beyond.see(y);
                    return y;
                  });
      const std::size_t last = std::min(first + n, static_cast<std::size_t>(tile.rows));
      for (std::size_t r = first; beyond.saw_any() && r < last; ++r) {
        bool finite = true;
        for (std::size_t i = 0; inverse[r] != 0.0f && i < width; ++i) {
          finite = finite && std::isfinite(output[i * places + r] * inverse[r]);
        }
        if (!finite) beyond.add(r);
      }
    }
  }
  beyond.compute_again(call, tile, state);
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
