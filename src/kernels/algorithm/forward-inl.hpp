// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_FORWARD_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_FORWARD_INL_HPP
#undef MANYHEADS_FORWARD_INL_HPP
#else
#define MANYHEADS_FORWARD_INL_HPP
#endif

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "kernels/algorithm/scores-inl.hpp"
#include "kernels/kernel_table.hpp"

// The fused forward: online softmax over runs of 64 keys, chunks of 512, chunks merged in a fixed tree. What a row
// computes depends on itself only, at fixed key positions: a run or chunk that is skipped leaves the same bits as one
// whose keys are all forbidden to the row. Many rows lie in the vector lanes (ForwardLanes); for a few of them, as in
// decoding, keys and values do (ForwardRows). The chains of operations are the same, and so are the bits.
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

// Where a tile's working memory lies in the scratch block of its worker. Sizes in floats, each rounded up to 64 bytes.
struct ForwardScratch {
  std::size_t packed, keys, values, tiles, scores, added, nodes, node, total;

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
    tiles = take(call.kv_type == DType::kBF16 ? kRunKeys / 2 * dv : 0);
    scores = take(kRunKeys * places);
    added = take(call.bias != nullptr || call.allowed != nullptr || call.q_documents.data != nullptr
                     ? kRunKeys * places
                     : 0);
    node = RoundUp((2 + dv) * places, 16);
    // The tree holds one open node a level, and the chunk under way.
    const std::uint64_t chunks = static_cast<std::uint64_t>(call.tk / kChunkKeys + 1);
    nodes = take(node * static_cast<std::size_t>(std::bit_width(chunks) + 2));
    total = at;
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
  std::size_t width;

  void Merge(float* HWY_RESTRICT a, const float* HWY_RESTRICT b) const {
    const DF d;
    const std::size_t n = hn::Lanes(d);
    for (std::size_t r = 0; r < kFewRows; ++r) {
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
  MergeTree(const Nodes& merger, float* nodes, std::size_t node) : merger_(merger), nodes_(nodes), node_(node) {}

  // The node to fill for a chunk. Nodes whose common subtree does not reach the chunk are complete and merged first.
  float* open(std::int64_t chunk) {
    while (count_ >= 2 && level(last_[count_ - 2], last_[count_ - 1]) < level(last_[count_ - 1], chunk)) merge_top();
    last_[count_++] = chunk;
    return nodes_ + static_cast<std::size_t>(count_ - 1) * node_;
  }
  // Merges all that is left into the root; null when no chunk was opened.
  float* close() {
    while (count_ >= 2) merge_top();
    return count_ == 1 ? nodes_ : nullptr;
  }

 private:
  static int level(std::int64_t a, std::int64_t b) { return std::bit_width(static_cast<std::uint64_t>(a ^ b)); }

  void merge_top() {
    float* a = nodes_ + static_cast<std::size_t>(count_ - 2) * node_;
    merger_.Merge(a, a + node_);
    last_[count_ - 2] = last_[count_ - 1];
    --count_;
  }

  Nodes merger_;
  float* nodes_;
  std::size_t node_;
  int count_ = 0;
  std::int64_t last_[64];
};

// A row's lse, to the caller, and the factor that normalises its output.
HWY_INLINE float FinishRow(const AttentionCall& call, const Tile& tile, const TileState& state, std::size_t r,
                           float maximum, float total) {
  const double sum = static_cast<double>(total);
  float inverse = 0.0f;
  double lse = call.sinks != nullptr ? static_cast<double>(call.sinks[state.head[r] * call.sinks_stride])
                                     : -std::numeric_limits<double>::infinity();
  if (sum != 0.0) {  // 0 only where every key is forbidden: the largest score contributes at least 2^-1/2
    const double m = static_cast<double>(maximum);
    const double keys = m <= static_cast<double>(kLowestScore)
                            ? -static_cast<double>(std::numeric_limits<float>::max())
                            : (m + std::log2(sum)) * 0.693147180559945309417;
    const double sink = lse;
    double share = 1;  // of the keys beside the sink
    lse = keys;
    if (call.sinks != nullptr) {
      share = 1.0 / (1.0 + std::exp(sink - keys));
      lse = sink > keys ? sink + std::log1p(std::exp(keys - sink)) : keys + std::log1p(std::exp(sink - keys));
    }
    if (std::isnan(sum)) lse = sum;
    inverse = static_cast<float>(share / sum);
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

// The caller's rows from the root of a tile.
template <class Unit>
HWY_INLINE void StoreTile(const AttentionCall& call, const Tile& tile, const TileState& state, float* root) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  const std::size_t places = PlacesOf<Unit>(tile);
  const std::size_t width = OutputWidth<Unit>(call, tile);
  float* output = root + 2 * places;
  HWY_ALIGN float inverse[TileState::kMaxRows] = {};
  for (std::size_t r = 0; r < static_cast<std::size_t>(tile.rows); ++r) {
    inverse[r] = FinishRow(call, tile, state, r, root[r], root[places + r]);
  }
  if (tile.rows <= Unit::kFewRows) {
    for (std::size_t r = 0; r < static_cast<std::size_t>(tile.rows); ++r) {
      float* row = output + r * width;
      for (std::size_t i = 0; i < width; i += n) {
        hn::StoreU(Normalised(hn::LoadU(d, row + i), hn::Set(d, inverse[r])), d, row + i);
      }
      StoreRow(call.out_type, call.out, call.out_at(tile.batch, state.head[r], state.query[r]), call.out_stride[3],
               call.dv, row);
    }
    return;
  }
  for (std::size_t at = 0; at < places * width; at += n) {
    hn::StoreU(Normalised(hn::LoadU(d, output + at), hn::Load(d, inverse + at % places)), d, output + at);
  }
  const auto out_at = [&](std::int64_t h, std::int64_t i) { return call.out_at(tile.batch, h, i); };
  for (std::size_t first = 0; first < places; first += n) {
    UnpackLanes(call.out_type, call.out, state.rows_at(first, n, out_at), call.out_stride[3], call.dv, places,
                output + first);
  }
}

// output[dv][lane] (+)= sum over the run's keys, ascending, of values[key][dv] * p[key][lane]. `place` is the first
// key's place in its run; `keys` counts words.
template <class Unit, int NV, int M, class Meanwhile = Nothing>
HWY_INLINE void AddValues(const float* HWY_RESTRICT a, std::size_t a_m, std::size_t a_i, const float* HWY_RESTRICT b,
                          std::size_t b_i, std::size_t place, std::size_t words, bool fresh, std::size_t out_step,
                          float* HWY_RESTRICT output, Meanwhile&& meanwhile = {}) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  VF acc[M][NV];
  const auto at = [&](int m, int v) HWY_ATTR {
    return output + static_cast<std::size_t>(m) * out_step + static_cast<std::size_t>(v) * n;
  };
  if constexpr (Unit::kChains) {
    SumInRuns<Unit>(a, a_m, a_i, b, b_i, place, words, kChainKeys, acc, meanwhile);
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) {
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) {
        hn::StoreU(fresh ? acc[m][v] : hn::Add(hn::LoadU(d, at(m, v)), acc[m][v]), d, at(m, v));
      }
    }
  } else {
    if (fresh) {
      Clear(acc);
    } else {
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) {
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) acc[m][v] = hn::LoadU(d, at(m, v));
      }
    }
    Accumulate<Unit>(a, a_m, a_i, b, b_i, words, acc, meanwhile);
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) {
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) hn::StoreU(acc[m][v], d, at(m, v));
    }
  }
}

// The factors of a run's values where they are I8; null for other types.
HWY_INLINE const float* ValueScales(const AttentionCall& call, const Tile& tile, std::int64_t begin, std::size_t keys,
                                    float* HWY_RESTRICT to) {
  if (call.v_scales == nullptr) return nullptr;
  for (std::size_t j = 0; j < keys; ++j) {
    to[j] = call.v_scale(tile.batch, tile.kv_head, begin + static_cast<std::int64_t>(j));
  }
  return to;
}
HWY_INLINE bool ScalesFinite(const float* scales, std::size_t keys) {
  bool finite = true;
  for (std::size_t j = 0; scales != nullptr && j < keys; ++j) finite = finite && scales[j] * 0.0f == 0.0f;
  return finite;
}

// Weights in place of a run's scores, p[word][lane], for lanes' maxima m; adds them to l. They take the values' scales,
// if any, with them. A forbidden key's weight is -0 where `guard` asks for it.
template <class Unit, int NV>
HWY_INLINE void LaneWeights(const VF (&m)[NV], float late_factor, const float* value_scales, std::size_t place,
                            std::size_t keys, bool guard, float* HWY_RESTRICT scores, VF (&l)[NV]) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  const std::size_t lanes = NV * n;
  const VF factor = hn::Set(d, late_factor);
  VF sum[NV], chain[NV];
  for (int v = 0; v < NV; ++v) sum[v] = chain[v] = hn::Zero(d);
  for (std::size_t j = 0; j < keys; j += Unit::kTerms) {
    if ((place + j) % kChainKeys == 0) {
      for (int v = 0; v < NV; ++v) {
        sum[v] = hn::Add(sum[v], chain[v]);
        chain[v] = hn::Zero(d);
      }
    }
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) {
      const auto weight = [&](std::size_t key) HWY_ATTR {
        const VF x = hn::LoadU(d, scores + key * lanes + static_cast<std::size_t>(v) * n);
        VF p = Exp2(d, Unit::Shifted(x, factor, m[v]));
        chain[v] = hn::Add(chain[v], p);
        if (value_scales != nullptr) p = hn::Mul(p, hn::Set(d, value_scales[key]));
        return guard ? hn::IfThenElse(hn::Eq(x, hn::Set(d, kForbidden)), hn::Neg(hn::Zero(d)), p) : p;
      };
      float* to = scores + j / Unit::kTerms * lanes + static_cast<std::size_t>(v) * n;
      const VF p = weight(j);
      if constexpr (Unit::kTerms == 1) {
        hn::StoreU(p, d, to);
      } else {
        hn::StoreU(Unit::Zip(p, j + 1 < keys ? weight(j + 1) : hn::Zero(d)), d, to);
      }
    }
  }
  for (int v = 0; v < NV; ++v) l[v] = hn::Add(l[v], hn::Add(sum[v], chain[v]));
}

// The chunks [begin, end) that a call of the kernel covers.
HWY_INLINE TileRange WithinChunks(TileRange range, const ChunkRange& chunks) {
  range.any.begin = std::max(range.any.begin, chunks.begin * kChunkKeys);
  if (chunks.end >= 0) range.any.end = std::min(range.any.end, chunks.end * kChunkKeys);
  return range;
}

template <class Unit, int NV>
HWY_NOINLINE float* ForwardLanes(const AttentionCall& call, const Tile& tile, const ChunkRange& chunks, float* scratch,
                                 TileState& state) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  const std::size_t lanes = NV * n;
  const std::size_t dv = static_cast<std::size_t>(call.dv);
  const std::size_t rows_of_output = OutputWidth<Unit>(call, tile);
  const ForwardScratch at(call, tile);
  PackQueries<Unit>(call, tile, lanes, scratch + at.packed, state);
  float* scores = scratch + at.scores;
  MergeTree<LaneNodes> tree({lanes, rows_of_output}, scratch + at.nodes, at.node);

  std::int64_t chunk = -1;
  float* node = nullptr;  // of the chunk under way
  VF m[NV], l[NV];
  const auto end_chunk = [&]() HWY_ATTR {
    if (node == nullptr) return;
    for (int v = 0; v < NV; ++v) {
      hn::StoreU(m[v], d, node + static_cast<std::size_t>(v) * n);
      hn::StoreU(l[v], d, node + lanes + static_cast<std::size_t>(v) * n);
    }
  };

  for_each_run(call, tile, WithinChunks(state.range, chunks), [&](std::int64_t begin, std::int64_t end,
                                                                  bool some) HWY_ATTR {
    if (begin % static_cast<std::int64_t>(Unit::kTerms) != 0) {
      --begin;
      some = true;
    }
    const bool masked = some || call.bias != nullptr;
    const std::size_t keys = static_cast<std::size_t>(end - begin);
    const bool fresh = begin / kChunkKeys != chunk;
    if (fresh) {
      end_chunk();
      chunk = begin / kChunkKeys;
      node = tree.open(chunk);
      for (int v = 0; v < NV; ++v) {
        m[v] = hn::Set(d, kNoMaximum);
        l[v] = hn::Zero(d);
      }
    }
    float* output = node + 2 * lanes;

    VF top[NV];
    ScoreRun<Unit, NV>(call, tile, state, KeyRows<Unit>(call, tile, begin, end, scratch + at.keys), begin, end, some,
                       scratch + at.added, scores, top);

    for (int v = 0; v < NV; ++v) {
      const auto moves = hn::Gt(top[v], hn::Add(m[v], hn::Set(d, kMaxSlack)));
      if (hn::AllFalse(d, moves)) continue;
      const VF next = hn::IfThenElse(moves, hn::Round(top[v]), m[v]);
      if (!fresh) {
        const VF factor = PowerOfTwo(d, hn::Sub(m[v], next));
        l[v] = hn::Mul(l[v], factor);
        for (std::size_t i = 0; i < rows_of_output; ++i) {
          float* o = output + i * lanes + static_cast<std::size_t>(v) * n;
          hn::StoreU(hn::Mul(hn::LoadU(d, o), factor), d, o);
        }
      }
      m[v] = next;
    }

    const std::size_t words = Words<Unit>(keys);
    const Rows values = ValueRows<Unit>(call, tile, begin, end, 1, scratch + at.values);
    float scales[kRunKeys];
    const float* value_scales = ValueScales(call, tile, begin, keys, scales);
    const bool guard = masked && !(AllFinite<Unit>(values, words, dv) && ScalesFinite(value_scales, keys));
    const std::size_t place = static_cast<std::size_t>(begin % kRunKeys);
    LaneWeights<Unit, NV>(m, state.late_factor, value_scales, place, keys, guard, scores, l);

    if constexpr (Unit::kTiles) {
      const Rows rows = TileValues(values, words, dv, scratch + at.tiles);
      std::fill(scores + words * lanes, scores + rows.stride * lanes, 0.0f);
      if (guard) {
        EmulatedProducts<true>(rows.data, rows.stride, scores, lanes, rows.stride / kTileSide, output, lanes,
                               rows_of_output, lanes, fresh);
      } else {
        TileProducts<Unit>(rows.data, rows.stride, scores, lanes, rows.stride / kTileSide, output, lanes,
                           rows_of_output, lanes, fresh);
      }
    } else {
      const auto add = [&]<class U>(U) HWY_ATTR {
        constexpr int kRows = RowsBeside<NV>();
        std::size_t i = 0;
        for (; i + kRows <= dv; i += kRows) {
          AddValues<U, NV, kRows>(values.data + i, 1, values.stride, scores, lanes, place, words, fresh, lanes,
                                  output + i * lanes);
        }
        for (; i < dv; ++i) {
          AddValues<U, NV, 1>(values.data + i, 1, values.stride, scores, lanes, place, words, fresh, lanes,
                              output + i * lanes);
        }
      };
      if (guard) {
        add(WeightsSecond<Unit>());
      } else {
        add(Unit());
      }
    }
  });
  end_chunk();
  return tree.close();
}

// Vectors of keys or values beside R broadcast rows, so that sums and operands fit the registers.
template <int R>
constexpr int VectorsBeside() {
  return R * 4 <= kTileRows * kTileVectors ? 4 : R * 2 <= kTileRows * kTileVectors ? 2 : 1;
}

// A stretch of memory, in whole lines.
struct Stretch {
  const char* begin;
  const char* end;
};

// The keys and values of [begin, end), a run or less, as stretches; returns how many.
HWY_INLINE std::size_t StretchesOf(const AttentionCall& call, const Tile& tile, std::int64_t begin, std::int64_t end,
                                   Stretch (&to)[2 * kRunKeys]) {
  const std::int64_t size = static_cast<std::int64_t>(size_of(call.kv_type));
  std::size_t count = 0;
  const auto add = [&](const void* base, const std::int64_t* stride, std::int64_t width, const auto& at) {
    if (stride[3] != 1 || begin >= end) return;
    const std::int64_t together = stride[2] == width && call.adjacent_keys(begin, end) ? end - begin : 1;
    for (std::int64_t j = begin; j < end; j += together) {
      const char* from = static_cast<const char*>(base) + at(j) * size;
      to[count++] = {from, from + (together * width * size + 63) / 64 * 64};
    }
  };
  add(call.k, call.k_stride, call.d, [&](std::int64_t j) { return call.k_at(tile.batch, tile.kv_head, j); });
  add(call.v, call.v_stride, call.dv, [&](std::int64_t j) { return call.v_at(tile.batch, tile.kv_head, j); });
  return count;
}

// Fetches stretches of memory line by line, evenly over the steps of other work: a burst would leave the memory idle for
// the rest of the time.
class Fetcher {
 public:
  Fetcher(const Stretch* stretches, std::size_t count, std::size_t steps) : next_(stretches), last_(stretches + count) {
    std::size_t lines = 0;
    for (const Stretch* s = next_; s != last_; ++s) lines += static_cast<std::size_t>(s->end - s->begin) / 64;
    each_step_ = (lines + steps - 1) / steps;
    if (count > 0) take();
  }
  HWY_INLINE void operator()(std::size_t) {
    for (std::size_t i = 0; i < each_step_; ++i) {
      if (at_ == end_) {
        if (next_ == last_) return;
        take();
      }
      __builtin_prefetch(at_, 0, 2);  // to the second cache: the first is full of this run
      at_ += 64;
    }
  }

 private:
  HWY_INLINE void take() {
    at_ = next_->begin;
    end_ = next_->end;
    ++next_;
  }
  const Stretch* next_;
  const Stretch* last_;
  const char* at_ = nullptr;
  const char* end_ = nullptr;
  std::size_t each_step_ = 0;
};

// Adds the weights of R rows, [row][64] from `place` on, to their sums l, in the order of LaneWeights: chains of 16 keys,
// one after the other. A lane takes a chain.
template <int R>
HWY_INLINE void AddChains(const float* HWY_RESTRICT weights, std::size_t place, float* HWY_RESTRICT l) {
  constexpr std::size_t kRun = static_cast<std::size_t>(kRunKeys);
  constexpr std::size_t kChain = static_cast<std::size_t>(kChainKeys);
  HWY_ALIGN float sums[kFewRows * kRun / kChain];
#if HWY_TARGET != HWY_SCALAR
  if (place == 0) {
    const DF d;
    const std::size_t n = hn::Lanes(d);
    for (std::size_t first = 0; first < R * kRun / kChain; first += n) {
      const float* chains[kMaxLanes];
      for (std::size_t c = 0; c < n; ++c) chains[c] = weights + (first + c) * kChain;
      VF sum = hn::Zero(d);
      for (std::size_t i = 0; i < kChain; i += 4) {
        VF block[4];
        for (std::size_t j = 0; j < 4; ++j) block[j] = LoadBlocks(chains + j, i);
        TransposeBlocks(block);
        for (std::size_t j = 0; j < 4; ++j) sum = hn::Add(sum, block[j]);
      }
      hn::Store(sum, d, sums + first);
    }
  } else  // the run is cut at its begin
#endif
  {
    for (std::size_t c = 0; c < R * kRun / kChain; ++c) sums[c] = 0.0f;
    for (std::size_t r = 0; r < R; ++r) {
      for (std::size_t i = place; i < kRun; ++i) sums[(r * kRun + i) / kChain] += weights[r * kRun + i - place];
    }
  }
  for (std::size_t r = 0; r < R; ++r) {
    float sum = 0;
    for (std::size_t c = 0; c < kRun / kChain; ++c) sum += sums[r * (kRun / kChain) + c];
    l[r] += sum;
  }
}

template <class Unit, int R>
HWY_NOINLINE float* ForwardRows(const AttentionCall& call, const Tile& tile, const ChunkRange& chunks, float* scratch,
                                TileState& state) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  constexpr std::size_t kRun = static_cast<std::size_t>(kRunKeys);
  constexpr int kVectors = VectorsBeside<R>();
  const ForwardScratch at(call, tile);
  const std::size_t width = OutputWidth<Unit>(call, tile);
  const std::size_t d_words = Words<Unit>(static_cast<std::size_t>(call.d));
  const VF forbidden = hn::Set(d, kForbidden);
  const VF late_factor = hn::Set(d, state.late_factor);

  // The queries, [row][word].
  float* queries = scratch + at.packed;
  const QueryFactor<Unit> change(state);
  for (std::size_t r = 0; r < R; ++r) {
    float* to = queries + r * d_words;
    const float* row = Unit::Row(call.type, call.q, call.q_at(tile.batch, state.head[r], state.query[r]),
                                 call.q_stride[3], call.d, to);
    std::size_t i = 0;
    for (; i + n <= d_words; i += n) hn::StoreU(change(hn::LoadU(d, row + i)), d, to + i);
    for (; i < d_words; ++i) to[i] = hn::GetLane(change(hn::Set(d, row[i])));
  }
  float* keys = scratch + at.keys;      // [word][lane]
  float* scores = scratch + at.scores;  // [row][64]
  float* added = scratch + at.added;
  // Sums of weights are taken by chains, a lane each: rows up to a whole vector.
  for (std::size_t i = R * kRun; i < kFewRows * kRun; ++i) scores[i] = 0.0f;

  MergeTree<RowNodes> tree({width}, scratch + at.nodes, at.node);
  std::int64_t chunk = -1;
  float* node = nullptr;
  const ScoreRule rule(call, state);
  HWY_ALIGN float ramp[kRun];
  for (std::size_t i = 0; i < kRun; ++i) ramp[i] = static_cast<float>(i);

  const TileRange range = WithinChunks(state.range, chunks);
  for_each_run(call, tile, range, [&](std::int64_t begin, std::int64_t end, bool some) HWY_ATTR {
    if (begin % static_cast<std::int64_t>(Unit::kTerms) != 0) {
      --begin;
      some = true;
    }
    const std::int64_t run = begin / kRunKeys * kRunKeys;
    const bool masked = some || call.bias != nullptr;
    const bool fresh = begin / kChunkKeys != chunk;
    if (fresh) {
      chunk = begin / kChunkKeys;
      node = tree.open(chunk);
      std::fill_n(node, kFewRows, kNoMaximum);
      std::fill_n(node + kFewRows, kFewRows, 0.0f);
    }
    float* output = node + 2 * kFewRows;
    const std::size_t place = static_cast<std::size_t>(begin - run);
    const std::size_t count = static_cast<std::size_t>(end - begin);

    const std::size_t steps = kRun / n * (d_words / 4) + kRun / (kVectors * n) * d_words +
                              (width + kVectors * n - 1) / (kVectors * n) * Words<Unit>(count);
    Stretch ahead[2 * kRunKeys];
    Fetcher fetch(ahead,
                  StretchesOf(call, tile, std::min(run + kRunKeys, range.any.end),
                              std::min(run + 2 * kRunKeys, range.any.end), ahead),
                  steps);

    // Keys into the lanes, as many as are multiplied at once.
    for (std::size_t first = 0; first < kRun; first += kVectors * n) {
      for (std::size_t v = 0; v < kVectors; ++v) {
        LaneRows rows;
        for (std::size_t l = first + v * n; l < first + (v + 1) * n && l < count; ++l) {
          rows.at[rows.count++] = call.k_at(tile.batch, tile.kv_head, begin + static_cast<std::int64_t>(l));
        }
        PackLanes<Unit>(call.kv_type, call.k, rows, call.k_stride[3], call.d, kVectors * n, keys + v * n,
                        [](VF x) { return x; }, fetch);
      }
      VF sum[R][kVectors];
      Products<Unit>(queries, d_words, keys, kVectors * n, static_cast<std::size_t>(call.d), sum, fetch);
      for (std::size_t r = 0; r < R; ++r) {
        for (std::size_t v = 0; v < kVectors; ++v) hn::StoreU(sum[r][v], d, scores + r * kRun + first + v * n);
      }
    }

    if (some || state.rich || state.scaled_keys) {
      HWY_ALIGN float key_scales[kRun] = {};
      for (std::size_t j = 0; state.scaled_keys && j < count; ++j) {
        key_scales[j] = call.k_scale(tile.batch, tile.kv_head, begin + static_cast<std::int64_t>(j));
      }
      if (state.adds) FillAdded(call, tile, state, R, begin, end, 1, kRun, added);
      for (std::size_t r = 0; r < R; ++r) {
        const RowRule row(call, tile, state, r, begin);
        for (std::size_t i = 0; i < kRun; i += n) {
          const VF here = hn::LoadU(d, ramp + i);
          const VF extra = state.adds ? hn::LoadU(d, added + r * kRun + i) : hn::Zero(d);
          VF x = rule(hn::LoadU(d, scores + r * kRun + i), hn::Load(d, key_scales + i), extra, hn::Set(d, row.slope), hn::Set(d, row.distance),
                      hn::Add(here, hn::Set(d, static_cast<float>(place))));
          x = hn::IfThenElse(hn::And(hn::Ge(here, hn::Set(d, row.first)), hn::Lt(here, hn::Set(d, row.last))), x,
                             forbidden);
          hn::StoreU(x, d, scores + r * kRun + i);
        }
      }
    }

    const std::size_t words = Words<Unit>(count);
    const Rows values = ValueRows<Unit>(call, tile, begin, end, n, scratch + at.values);
    HWY_ALIGN float scales[kRun] = {};
    const float* value_scales = ValueScales(call, tile, begin, count, scales);
    const bool guard = masked && !(AllFinite<Unit>(values, words, static_cast<std::size_t>(call.dv)) &&
                                   ScalesFinite(value_scales, count));
    const VF last = hn::Set(d, static_cast<float>(count));
    for (std::size_t r = 0; r < R; ++r) {
      float* row = scores + r * kRun;
      VF best = forbidden;
      for (std::size_t i = 0; i < kRun; i += n) {
        VF x = hn::LoadU(d, row + i);
        if (count < kRun) {  // lanes behind the last key
          x = hn::IfThenElse(hn::Lt(hn::LoadU(d, ramp + i), last), x, forbidden);
          hn::StoreU(x, d, row + i);
        }
        best = hn::Max(x, best);
      }
      VF top = hn::MaxOfLanes(d, best);
      if (!Unit::kScaledQueries) top = hn::Mul(top, late_factor);
      VF m = hn::Set(d, node[r]);
      if (!hn::AllFalse(d, hn::Gt(top, hn::Add(m, hn::Set(d, kMaxSlack))))) {
        const VF next = hn::Round(top);
        if (!fresh) {
          const VF factor = PowerOfTwo(d, hn::Sub(m, next));
          node[kFewRows + r] = hn::GetLane(hn::Mul(hn::Set(d, node[kFewRows + r]), factor));
          for (std::size_t i = r * width; i < (r + 1) * width; i += n) {
            hn::StoreU(hn::Mul(hn::LoadU(d, output + i), factor), d, output + i);
          }
        }
        m = next;
        node[r] = hn::GetLane(m);
      }
      for (std::size_t i = 0; i < kRun; i += n) {
        const VF x = hn::LoadU(d, row + i);
        VF p = Exp2(d, Unit::Shifted(x, late_factor, m));
        if (guard) p = hn::IfThenElse(hn::Eq(x, forbidden), hn::Neg(hn::Zero(d)), p);
        hn::StoreU(p, d, row + i);
      }
    }
    AddChains<R>(scores, place, node + kFewRows);
    if (value_scales != nullptr) {
      const hn::RebindToUnsigned<DF> du;
      for (std::size_t i = 0; i < R * kRun; i += n) {
        const VF p = hn::LoadU(d, scores + i);
        const auto kept = hn::RebindMask(d, hn::Eq(hn::BitCast(du, p), hn::Set(du, 0x80000000u)));
        hn::StoreU(hn::IfThenElse(kept, p, hn::Mul(p, hn::Load(d, value_scales + i % kRun))), d, scores + i);
      }
    }

    // Weights as words: in place, each row's packed at its begin.
    if constexpr (Unit::kTerms == 2) {
      for (std::size_t i = 0; i < R * kRun; i += 2 * n) {
        hn::StoreU(Unit::Pack(hn::LoadU(d, scores + i), hn::LoadU(d, scores + i + n)), d,
                   scores + i / kRun * kRun + i % kRun / 2);
      }
    }
    const auto add = [&]<class U>(U) HWY_ATTR {
      std::size_t i = 0;
      for (; i + kVectors * n <= width; i += kVectors * n) {
        AddValues<U, kVectors, R>(scores, kRun, 1, values.data + i, values.stride, place, words, fresh, width,
                                  output + i, fetch);
      }
      for (; i < width; i += n) {
        AddValues<U, 1, R>(scores, kRun, 1, values.data + i, values.stride, place, words, fresh, width, output + i, fetch);
      }
    };
    if (guard) {
      add(WeightsFirst<Unit>());
    } else {
      add(Unit());
    }
  });
  return tree.close();
}

// Vectors of the lanes of so many tiles side by side.
constexpr int SideVectors(int sides) { return sides * static_cast<int>(kTileSide) / static_cast<int>(HWY_LANES(float)); }

template <class Unit, template <class, int> class Kernel, int N, class... Args>
HWY_INLINE float* WithCount(std::size_t count, Args&&... args) {
  if constexpr (N > 1) {
    if (count < N) return WithCount<Unit, Kernel, N - 1>(count, args...);
  }
  return Kernel<Unit, N>::Run(args...);
}

template <class Unit, int NV>
struct LanesKernel {
  static float* Run(const AttentionCall& call, const Tile& tile, const ChunkRange& chunks, float* scratch,
                    TileState& state) {
    return ForwardLanes<Unit, NV>(call, tile, chunks, scratch, state);
  }
};
template <class Unit, int R>
struct RowsKernel {
  static float* Run(const AttentionCall& call, const Tile& tile, const ChunkRange& chunks, float* scratch,
                    TileState& state) {
    return ForwardRows<Unit, R>(call, tile, chunks, scratch, state);
  }
};

// A tile's rows over the chunks given, to the caller's output, or to a node of the merge tree where one is given.
template <class Unit>
void ForwardTile(const AttentionCall& call, const Tile& tile, const ChunkRange& chunks, float* node, float* scratch) {
  TileState state;
  const std::size_t places = PlacesOf<Unit>(tile);
  BeginTile<Unit>(call, tile, places, state);
  float* root = nullptr;
  if constexpr (Unit::kTiles) {
    const std::size_t sides = places / kTileSide;
    Unit::Begin();
    root = sides == 1   ? ForwardLanes<Unit, SideVectors(1)>(call, tile, chunks, scratch, state)
           : sides == 2 ? ForwardLanes<Unit, SideVectors(2)>(call, tile, chunks, scratch, state)
           : sides == 3 ? ForwardLanes<Unit, SideVectors(3)>(call, tile, chunks, scratch, state)
                        : ForwardLanes<Unit, SideVectors(4)>(call, tile, chunks, scratch, state);
    Unit::End();
  } else if (tile.rows <= Unit::kFewRows) {
    root = WithCount<Unit, RowsKernel, Unit::kFewRows>(static_cast<std::size_t>(tile.rows), call, tile, chunks, scratch,
                                                       state);
  } else {
    root = WithCount<Unit, LanesKernel, kTileVectors>(places / LaneCount(), call, tile, chunks, scratch, state);
  }
  if (node == nullptr) {
    if (root == nullptr) {
      root = scratch + ForwardScratch(call, tile).nodes;
      ClearNode<Unit>(call, tile, root);
    }
    StoreTile<Unit>(call, tile, state, root);
  } else if (root == nullptr) {
    ClearNode<Unit>(call, tile, node);
  } else {
    std::copy_n(root, NodeFloats<Unit>(call, tile), node);
  }
}

// Merges the nodes of a tile's blocks of chunks, in place, as the one tree over all chunks would, and stores the rows.
template <class Unit>
void MergeTile(const AttentionCall& call, const Tile& tile, float* nodes, std::int64_t count) {
  TileState state;
  BeginTile<Unit>(call, tile, PlacesOf<Unit>(tile), state);
  const std::size_t node = NodeFloats<Unit>(call, tile);
  const auto merge_all = [&](const auto& merger) HWY_ATTR {
    for (std::int64_t step = 1; step < count; step *= 2) {
      for (std::int64_t i = 0; i + step < count; i += 2 * step) {
        merger.Merge(nodes + static_cast<std::size_t>(i) * node, nodes + static_cast<std::size_t>(i + step) * node);
      }
    }
  };
  if (tile.rows <= Unit::kFewRows) {
    merge_all(RowNodes{OutputWidth<Unit>(call, tile)});
  } else {
    merge_all(LaneNodes{PlacesOf<Unit>(tile), OutputWidth<Unit>(call, tile)});
  }
  StoreTile<Unit>(call, tile, state, nodes);
}

inline std::size_t ScratchFloats(const AttentionCall& call, const Tile& tile) {
  return ForwardScratch(call, tile).total;
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
