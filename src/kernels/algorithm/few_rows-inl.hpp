// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_FEW_ROWS_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_FEW_ROWS_INL_HPP
#undef MANYHEADS_FEW_ROWS_INL_HPP
#else
#define MANYHEADS_FEW_ROWS_INL_HPP
#endif

#include <algorithm>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/algorithm/fetch-inl.hpp"
#include "kernels/algorithm/lanes-inl.hpp"
#include "kernels/algorithm/merge-inl.hpp"
#include "kernels/algorithm/scores-inl.hpp"
#include "kernels/kernel_table.hpp"

// The forward for a few rows, as in decoding: keys and values lie in the lanes, and the next run is fetched meanwhile. The
// chains of operations are those of ForwardLanes, and so are the bits.
HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Vectors of keys or values beside R broadcast rows, so that sums and operands fit the registers.
template <int R>
constexpr int VectorsBeside() {
  return R * 4 <= kTileRows * kTileVectors ? 4 : R * 2 <= kTileRows * kTileVectors ? 2 : 1;
}

// The keys and values of [begin, end), a run or less, as stretches; returns how many.
HWY_INLINE std::size_t StretchesOf(const AttentionCall& call, const Tile& tile, std::int64_t begin, std::int64_t end,
                                   Stretch* to) {
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
    for (; i < d_words; ++i) to[i] = hn::GetLane(change(hn::Set(d, WordAt(row + i))));
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
      for (std::size_t r = 0; state.adds && r < R; ++r) AddedRow(call, tile, state, r, begin, end, added + r * kRun);
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
        if (!state.documents) continue;
        with_ids(call.k_documents, tile.batch, begin, [&](const auto* ids, std::int64_t step) {
          float* to = scores + r * kRun;
          for (std::size_t j = 0; j < count; ++j) {
            to[j] = ids[static_cast<std::int64_t>(j) * step] == state.document[r] ? to[j] : kForbidden;
          }
        });
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
        VF p = Exp2<kLeastWeight>(d, Unit::Shifted(x, late_factor, m));
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

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
