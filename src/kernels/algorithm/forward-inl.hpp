// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_FORWARD_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_FORWARD_INL_HPP
#undef MANYHEADS_FORWARD_INL_HPP
#else
#define MANYHEADS_FORWARD_INL_HPP
#endif

#include <bit>
#include <cmath>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/algorithm/scores-inl.hpp"
#include "kernels/kernel_table.hpp"

// The fused forward: online softmax over runs of 64 keys, chunks of 512, chunks merged in a fixed tree. What a lane
// computes depends on its own row only, at fixed key positions: a run or chunk that is skipped leaves the same bits as
// one whose keys are all forbidden to the row.
HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Where a tile's working memory lies in the scratch block of its worker. Sizes in floats, each rounded up to 64 bytes.
struct ForwardScratch {
  std::size_t packed, keys, values, scores, added, nodes, node, total;

  ForwardScratch(const AttentionCall& call, std::size_t lanes) {
    std::size_t at = 0;
    const auto take = [&at](std::size_t floats) {
      const std::size_t begin = at;
      at += (floats + 15) / 16 * 16;
      return begin;
    };
    const std::size_t d = static_cast<std::size_t>(call.d);
    const std::size_t dv = static_cast<std::size_t>(call.dv);
    packed = take(d * lanes);
    keys = take(kRunKeys * d);
    values = take(kRunKeys * dv);
    scores = take(kRunKeys * lanes);
    added = take(call.bias != nullptr || call.allowed != nullptr || call.q_documents.data != nullptr ? kRunKeys * lanes
                                                                                                     : 0);
    // A node of the merge tree: maximum, sum, and the unnormalised output [Dv][lanes]. The tree holds one open node a
    // level, and the chunk under way.
    node = (2 + dv) * lanes;
    const std::uint64_t chunks = static_cast<std::uint64_t>(call.tk / kChunkKeys + 1);
    nodes = take(node * static_cast<std::size_t>(std::bit_width(chunks) + 2));
    total = at;
  }
};

HWY_INLINE bool AllFinite(const Rows& rows, std::size_t count, std::size_t width) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  // 0 * x is 0 for a finite x and NaN for the others.
  VF sum = hn::Zero(d);
  float rest = 0;
  for (std::size_t j = 0; j < count; ++j) {
    const float* row = rows.data + j * rows.stride;
    std::size_t i = 0;
    for (; i + n <= width; i += n) sum = hn::MulAdd(hn::LoadU(d, row + i), hn::Zero(d), sum);
    for (; i < width; ++i) rest += row[i] * 0.0f;
  }
  return rest == 0.0f && hn::AllFalse(d, hn::IsNaN(sum));
}

// output[dv][lane] (+)= sum over the run's keys, ascending, of values[key][dv] * p[key][lane]. `place` is the first
// key's place in its run.
template <int NV, int M>
HWY_INLINE void AddValues(const Rows& values, const float* HWY_RESTRICT p, std::size_t place, std::size_t keys,
                          std::size_t first, bool fresh, float* HWY_RESTRICT output) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  const std::size_t lanes = NV * n;
  VF acc[M][NV];
  SumInRuns<M, NV>(d, values.data + first, 1, values.stride, p, lanes, place, keys, kChainKeys, acc);
  float* to = output + first * lanes;
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) {
      float* at = to + static_cast<std::size_t>(m) * lanes + static_cast<std::size_t>(v) * n;
      hn::StoreU(fresh ? acc[m][v] : hn::Add(hn::LoadU(d, at), acc[m][v]), d, at);
    }
  }
}

// The same where a value is not finite and a key forbidden to some lane: such a product is left out, since 0 * NaN
// would reach the lane. Forbidden keys carry p = -0; skipping them changes no bit of a finite sum but the zero's sign.
template <int NV>
HWY_INLINE void AddVisibleValues(const Rows& values, const float* HWY_RESTRICT p, std::size_t place, std::size_t keys,
                                 std::size_t width, bool fresh, float* HWY_RESTRICT output) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  const std::size_t lanes = NV * n;
  const hn::RebindToSigned<DF> di;
  for (std::size_t i = 0; i < width; ++i) {
    for (int v = 0; v < NV; ++v) {
      VF total = hn::Zero(d);
      VF acc = hn::Zero(d);
      for (std::size_t j = 0; j < keys; ++j) {
        if (j > 0 && (place + j) % kChainKeys == 0) {
          total = hn::Add(total, acc);
          acc = hn::Zero(d);
        }
        const VF weight = hn::LoadU(d, p + j * lanes + static_cast<std::size_t>(v) * n);
        const VF sum = hn::MulAdd(hn::Set(d, values.data[j * values.stride + i]), weight, acc);
        const auto forbidden =
            hn::RebindMask(d, hn::Eq(hn::BitCast(di, weight), hn::Set(di, static_cast<std::int32_t>(0x80000000u))));
        acc = hn::IfThenElse(forbidden, acc, sum);
      }
      float* at = output + i * lanes + static_cast<std::size_t>(v) * n;
      total = hn::Add(total, acc);
      hn::StoreU(fresh ? total : hn::Add(hn::LoadU(d, at), total), d, at);
    }
  }
}

// Chunks merged in the binary tree over their numbers, in which a missing chunk counts as empty: the shape does not
// depend on which chunks a tile happened to read.
template <int NV>
class MergeTree {
 public:
  MergeTree(float* nodes, std::size_t node, std::size_t width) : nodes_(nodes), node_(node), width_(width) {}

  // The node to fill for a chunk: m [lanes], l [lanes], output [width][lanes]. Nodes whose common subtree does not
  // reach the chunk are complete and merged first.
  float* open(std::int64_t chunk) {
    while (count_ >= 2 && level(last_[count_ - 2], last_[count_ - 1]) < level(last_[count_ - 1], chunk)) merge_top();
    last_[count_++] = chunk;
    return nodes_ + static_cast<std::size_t>(count_ - 1) * node_;
  }
  // Merges all that is left; null when no chunk was opened.
  float* close() {
    while (count_ >= 2) merge_top();
    return count_ == 1 ? nodes_ : nullptr;
  }

 private:
  static int level(std::int64_t a, std::int64_t b) { return std::bit_width(static_cast<std::uint64_t>(a ^ b)); }

  void merge_top() {
    const DF d;
    const std::size_t n = hn::Lanes(d);
    const std::size_t lanes = NV * n;
    float* a = nodes_ + static_cast<std::size_t>(count_ - 2) * node_;
    const float* b = a + node_;
    VF fa[NV], fb[NV];
    for (int v = 0; v < NV; ++v) {
      const std::size_t at = static_cast<std::size_t>(v) * n;
      const VF ma = hn::LoadU(d, a + at);
      const VF mb = hn::LoadU(d, b + at);
      const VF m = hn::Max(ma, mb);
      fa[v] = PowerOfTwo(d, hn::Sub(ma, m));
      fb[v] = PowerOfTwo(d, hn::Sub(mb, m));
      hn::StoreU(m, d, a + at);
    }
    // Row 1 is the sum, the rows behind it the output: scaled alike.
    for (std::size_t row = 1; row < 2 + width_; ++row) {
      for (int v = 0; v < NV; ++v) {
        const std::size_t at = row * lanes + static_cast<std::size_t>(v) * n;
        hn::StoreU(hn::MulAdd(hn::LoadU(d, a + at), fa[v], hn::Mul(hn::LoadU(d, b + at), fb[v])), d, a + at);
      }
    }
    last_[count_ - 2] = last_[count_ - 1];
    --count_;
  }

  float* nodes_;
  std::size_t node_;
  std::size_t width_;
  int count_ = 0;
  std::int64_t last_[64];
};

template <int NV>
HWY_INLINE void StoreOutput(const AttentionCall& call, const Tile& tile, const TileState& state, float* root) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  const std::size_t lanes = NV * n;
  const std::size_t dv = static_cast<std::size_t>(call.dv);
  HWY_ALIGN float inverse[TileState::kMaxRows];
  for (std::size_t r = 0; r < lanes; ++r) {
    const bool real = static_cast<std::int64_t>(r) < tile.rows;
    const double sum = root != nullptr ? static_cast<double>(root[lanes + r]) : 0.0;
    inverse[r] = 0.0f;
    if (!real) continue;
    const double sink = call.sinks != nullptr ? static_cast<double>(call.sinks[state.head[r] * call.sinks_stride])
                                              : -std::numeric_limits<double>::infinity();
    double lse = sink;
    if (sum != 0.0) {  // 0 only where every key is forbidden: the largest score contributes at least 2^-1/2
      const double m = static_cast<double>(root[r]);
      const double keys = m <= static_cast<double>(kLowestScore)
                              ? -static_cast<double>(std::numeric_limits<float>::max())
                              : (m + std::log2(sum)) * 0.693147180559945309417;
      double share = 1;  // of the keys beside the sink
      lse = keys;
      if (call.sinks != nullptr) {
        share = 1.0 / (1.0 + std::exp(sink - keys));
        lse = sink > keys ? sink + std::log1p(std::exp(keys - sink)) : keys + std::log1p(std::exp(sink - keys));
      }
      if (std::isnan(sum)) lse = sum;
      inverse[r] = static_cast<float>(share / sum);
    }
    if (call.lse != nullptr) {
      call.lse[tile.batch * call.lse_stride[0] + state.head[r] * call.lse_stride[1] +
               state.query[r] * call.lse_stride[2]] = static_cast<float>(lse);
    }
  }
  float* output = root != nullptr ? root + 2 * lanes : nullptr;
  for (std::size_t i = 0; output != nullptr && i < dv; ++i) {
    for (int v = 0; v < NV; ++v) {
      float* at = output + i * lanes + static_cast<std::size_t>(v) * n;
      const VF scale = hn::Load(d, inverse + static_cast<std::size_t>(v) * n);
      // + 0 turns the -0 of a row of -0 products into the 0 that a longer sum gives. A row without keys has scale 0.
      const VF y = hn::Add(hn::Mul(hn::LoadU(d, at), scale), hn::Zero(d));
      hn::StoreU(hn::IfThenElse(hn::Eq(scale, hn::Zero(d)), hn::Zero(d), y), d, at);
    }
  }
  for (std::int64_t r = 0; r < tile.rows; ++r) {
    const std::size_t lane = static_cast<std::size_t>(r);
    const std::int64_t at = tile.batch * call.out_stride[0] + state.head[lane] * call.out_stride[1] +
                            state.query[lane] * call.out_stride[2];
    const std::int64_t step = call.out_stride[3];
    const auto value = [&](std::size_t i) { return output != nullptr ? output[i * lanes + lane] : 0.0f; };
    if (call.out_type == DType::kF32) {
      float* to = static_cast<float*>(call.out) + at;
      for (std::size_t i = 0; i < dv; ++i) to[static_cast<std::int64_t>(i) * step] = value(i);
    } else if (call.out_type == DType::kBF16) {
      bfloat16* to = static_cast<bfloat16*>(call.out) + at;
      for (std::size_t i = 0; i < dv; ++i) to[static_cast<std::int64_t>(i) * step] = bfloat16(value(i));
    } else {
      float16* to = static_cast<float16*>(call.out) + at;
      for (std::size_t i = 0; i < dv; ++i) to[static_cast<std::int64_t>(i) * step] = float16(value(i));
    }
  }
}

template <int NV>
HWY_NOINLINE void ForwardTile(const AttentionCall& call, const Tile& tile, float* scratch) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  const std::size_t lanes = NV * n;
  const std::size_t dv = static_cast<std::size_t>(call.dv);
  const ForwardScratch at(call, lanes);
  TileState state;
  BeginTile(call, tile, lanes, scratch + at.packed, state);
  const std::int64_t k_at = tile.batch * call.k_stride[0] + tile.kv_head * call.k_stride[1];
  const std::int64_t v_at = tile.batch * call.v_stride[0] + tile.kv_head * call.v_stride[1];
  float* scores = scratch + at.scores;
  MergeTree<NV> tree(scratch + at.nodes, at.node, dv);

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

  for_each_run(call, tile, state.range, [&](std::int64_t begin, std::int64_t end, bool some) HWY_ATTR {
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

    const Rows k_rows = DenseRows(call.type, call.k, k_at, call.k_stride, begin, end, call.d, scratch + at.keys);
    VF top[NV];
    ScoreRun<NV>(call, tile, state, k_rows, begin, end, some, scratch + at.added, scores, top);

    for (int v = 0; v < NV; ++v) {
      const auto moves = hn::Gt(top[v], hn::Add(m[v], hn::Set(d, kMaxSlack)));
      if (hn::AllFalse(d, moves)) continue;
      const VF next = hn::IfThenElse(moves, hn::Round(top[v]), m[v]);
      if (!fresh) {
        const VF factor = PowerOfTwo(d, hn::Sub(m[v], next));
        l[v] = hn::Mul(l[v], factor);
        for (std::size_t i = 0; i < dv; ++i) {
          float* o = output + i * lanes + static_cast<std::size_t>(v) * n;
          hn::StoreU(hn::Mul(hn::LoadU(d, o), factor), d, o);
        }
      }
      m[v] = next;
    }

    const Rows v_rows = DenseRows(call.type, call.v, v_at, call.v_stride, begin, end, call.dv, scratch + at.values);
    const bool guard = masked && !AllFinite(v_rows, keys, dv);
    const std::size_t place = static_cast<std::size_t>(begin % kRunKeys);
    VF sum[NV], chain[NV];
    for (int v = 0; v < NV; ++v) sum[v] = chain[v] = hn::Zero(d);
    for (std::size_t j = 0; j < keys; ++j) {
      if ((place + j) % kChainKeys == 0) {
        for (int v = 0; v < NV; ++v) {
          sum[v] = hn::Add(sum[v], chain[v]);
          chain[v] = hn::Zero(d);
        }
      }
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) {
        float* to = scores + j * lanes + static_cast<std::size_t>(v) * n;
        const VF x = hn::LoadU(d, to);
        VF p = Exp2(d, hn::Sub(x, m[v]));
        chain[v] = hn::Add(chain[v], p);
        if (guard) p = hn::IfThenElse(hn::Eq(x, hn::Set(d, kForbidden)), hn::Neg(hn::Zero(d)), p);
        hn::StoreU(p, d, to);
      }
    }
    for (int v = 0; v < NV; ++v) l[v] = hn::Add(l[v], hn::Add(sum[v], chain[v]));

    if (guard) {
      AddVisibleValues<NV>(v_rows, scores, place, keys, dv, fresh, output);
    } else {
      std::size_t i = 0;
      for (; i + kTileRows <= dv; i += kTileRows)
        AddValues<NV, kTileRows>(v_rows, scores, place, keys, i, fresh, output);
      for (; i < dv; ++i) AddValues<NV, 1>(v_rows, scores, place, keys, i, fresh, output);
    }
  });
  end_chunk();
  StoreOutput<NV>(call, tile, state, tree.close());
}

inline std::size_t ScratchFloats(const AttentionCall& call) {
  return ForwardScratch(call, kTileVectors * LaneCount()).total;
}

// The tile with just as many vectors as its rows need.
template <template <int> class Kernel>
HWY_INLINE void WithVectors(const AttentionCall& call, const Tile& tile, float* scratch) {
  const std::size_t vectors = (static_cast<std::size_t>(tile.rows) + LaneCount() - 1) / LaneCount();
  switch (vectors) {
    case 1:
      return Kernel<1>::Run(call, tile, scratch);
    case 2:
      return Kernel<2>::Run(call, tile, scratch);
    case 3:
      return Kernel<3>::Run(call, tile, scratch);
    default:
      return Kernel<kTileVectors>::Run(call, tile, scratch);
  }
}

template <int NV>
struct ForwardKernel {
  static void Run(const AttentionCall& call, const Tile& tile, float* scratch) { ForwardTile<NV>(call, tile, scratch); }
};

void Forward(const AttentionCall& call, const Tile& tile, float* scratch) {
  WithVectors<ForwardKernel>(call, tile, scratch);
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
