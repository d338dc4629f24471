// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_SCORES_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_SCORES_INL_HPP
#undef MANYHEADS_SCORES_INL_HPP
#else
#define MANYHEADS_SCORES_INL_HPP
#endif

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "hwy/highway.h"
#include "kernels/algorithm/added-inl.hpp"
#include "kernels/algorithm/fetch-inl.hpp"
#include "kernels/algorithm/math-inl.hpp"
#include "kernels/algorithm/pack-inl.hpp"
#include "kernels/algorithm/tile-inl.hpp"
#include "kernels/algorithm/tile_state-inl.hpp"
#include "kernels/algorithm/tiles-inl.hpp"
#include "kernels/kernel_table.hpp"
#include "kernels/mask.hpp"

// From queries and keys to scores in base 2, in two forms with the same bits. Many queries lie in the vector lanes,
// S^T = K Q^T, so that masks, maxima and sums are vertical; for a few of them the keys do, S = Q K^T.
HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// From products to scores, whatever lies in the lanes.
struct ScoreRule {
  ScoreRule(const AttentionCall& call, const TileState& state, bool adds_extra)
      : rich(state.rich),
        adds(adds_extra),
        scaled_keys(state.scaled_keys),
        bias(call.bias != nullptr),
        alibi(call.alibi != nullptr),
        extreme(state.extreme),
        factor(state.score_factor),
        cap(state.cap) {}

  // `key_scale` is the keys' own, `extra` the bias or what AddedRow gave, -inf for forbidden keys; ALiBi is -slope *
  // |distance + place|.
  HWY_INLINE VF operator()(VF x, VF key_scale, VF extra, VF slope, VF distance, VF place) const {
    const DF d;
    const VF log2e = hn::Set(d, kLog2e);
    if (scaled_keys) x = hn::Mul(x, key_scale);
    if (rich) {
      if (factor != 1.0f) x = hn::Mul(x, hn::Set(d, factor));
      if (extreme) {  // must not turn a finite score into an infinite one; in base 2 still finite
        const VF huge = hn::Set(d, 2.0e38f);
        x = MaxKeepsNaN(hn::Neg(huge), MinKeepsNaN(huge, x));
        if (cap == 0) x = hn::Mul(x, log2e);
      }
      if (cap > 0) {
        const VF full = hn::Set(d, static_cast<float>(static_cast<double>(cap) * 1.44269504088896340736));
        x = hn::Mul(full, Tanh(d, hn::Mul(x, hn::Set(d, 1.0f / cap))));
      }
      // Both at once: each addition to a large score rounds it anew.
      if (bias) {
        if (alibi) {
          x = hn::Add(x, hn::NegMulAdd(slope, hn::Abs(hn::Add(distance, place)), hn::Mul(extra, log2e)));
        } else {
          x = hn::MulAdd(extra, log2e, x);
        }
      } else if (alibi) {
        x = hn::NegMulAdd(slope, hn::Abs(hn::Add(distance, place)), x);
      }
      x = MaxKeepsNaN(hn::Set(d, kLowestScore), x);
    }
    if (adds) x = hn::IfThenElse(hn::Eq(extra, hn::Set(d, kForbidden)), hn::Set(d, kForbidden), x);
    return x;
  }

  // Whether a bias is all that it can come to.
  bool plain() const { return !scaled_keys && !alibi && !extreme && cap == 0; }

  bool rich, adds, scaled_keys, bias, alibi, extreme;
  float factor, cap;
};

// A key's place in a run that begins at `begin`, as far as it lies there.
HWY_INLINE float PlaceOf(std::int64_t key, std::int64_t begin) {
  return static_cast<float>(std::min(std::max(key - begin, std::int64_t{0}), kRunKeys));
}

// A row's part in the scores of a run that begins at `begin`: its keys' places, and ALiBi's terms.
struct RowRule {
  RowRule(const AttentionCall& call, const Tile& tile, const TileState& state, std::size_t r, std::int64_t begin)
      : first(PlaceOf(state.begin[r], begin)), last(PlaceOf(state.end[r], begin)) {
    if (call.alibi != nullptr) {
      slope = call.alibi[state.head[r] * call.alibi_stride] * kLog2e;
      // Counted from the run's first key, so that a run cut by the mask rounds alike.
      distance = static_cast<float>(begin / kRunKeys * kRunKeys - state.query[r] - call.diagonal(tile.batch));
    }
  }
  float first, last;
  float slope = 0, distance = 0;
};

// products[m][lane] of M broadcast rows, word i of row m at m * stride + i * step, with the vectors of
// columns[word][lanes]; `width` values in a row, and `factor` on those that are summed in double.
template <class Unit, int M, int NV>
HWY_INLINE void Products(const float* HWY_RESTRICT rows, std::size_t stride, std::size_t step,
                         const float* HWY_RESTRICT columns, std::size_t lanes, std::size_t width, double factor,
                         VF (&sum)[M][NV]) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  if (InDouble<Unit>(width)) {
    HWY_ALIGN float rounded[NV * kMaxLanes];
    double exact[NV * kMaxLanes];
    for (std::size_t m = 0; m < M; ++m) {
      for (std::size_t lane = 0; lane < NV * n; ++lane) exact[lane] = 0;
      for (std::size_t i = 0; i < width; ++i) {
        const double a = static_cast<double>(rows[m * stride + i * step]);
        for (std::size_t lane = 0; lane < NV * n; ++lane) {
          exact[lane] += a * static_cast<double>(columns[i * lanes + lane]);
        }
      }
      for (std::size_t lane = 0; lane < NV * n; ++lane) rounded[lane] = static_cast<float>(exact[lane] * factor);
      for (int v = 0; v < NV; ++v) sum[m][v] = hn::Load(d, rounded + static_cast<std::size_t>(v) * n);
    }
    return;
  }
  if constexpr (Unit::kChains) {
    SumInRuns<Unit>(rows, stride, step, columns, lanes, 0, width, DepthRun(width), sum);
  } else {
    Clear(sum);
    Accumulate<Unit>(rows, stride, step, columns, lanes, Words<Unit>(width), sum);
  }
}

// Products of M keys with the queries of NV vectors of a tile, to scores[key][lane]; `lanes` between two words or keys.
template <class Unit, int M, int NV>
HWY_INLINE void ScoreKeys(const float* HWY_RESTRICT packed, std::size_t lanes, const Rows& keys, std::size_t key,
                          std::size_t width, double factor, float* HWY_RESTRICT scores, VF (&best)[NV]) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  VF sum[M][NV];
  Products<Unit>(keys.data + key * keys.stride, keys.stride, 1, packed, lanes, width, factor, sum);
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) {
      hn::StoreU(sum[m][v], d, scores + (key + static_cast<std::size_t>(m)) * lanes + static_cast<std::size_t>(v) * n);
      best[v] = hn::Max(sum[m][v], best[v]);
    }
  }
}

// MaskScores of a vector of rows for the usual ones, without a question a key: a bias, a bool mask or both. Returns the
// largest score.
template <bool kBias, bool kAllowed>
HWY_INLINE VF AddToLanes(BiasLanes& bias, BitsInTurn in_turn, VF factor, std::size_t count, std::size_t lanes,
                         float* HWY_RESTRICT scores) {
  const DF d;
  const VF forbidden = hn::Set(d, kForbidden);
  VF top = forbidden;
  // Inline: as a function of its own, which a compiler may make of it, it took a tenth of a biased call.
  const auto add = [&](std::size_t key, VF extra) HWY_ATTR __attribute__((always_inline)) {
    float* to = scores + key * lanes;
    VF x = hn::LoadU(d, to);
    if constexpr (kBias) {
      x = hn::MulAdd(extra, hn::Set(d, kLog2e), hn::Mul(x, factor));
      x = MaxKeepsNaN(hn::Set(d, kLowestScore), x);
      x = hn::IfThenElse(hn::Eq(extra, forbidden), forbidden, x);
    }
    if constexpr (kAllowed) x = hn::IfThenElse(in_turn(key), x, forbidden);
    hn::StoreU(x, d, to);
    top = hn::Max(x, top);
  };
  std::size_t key = 0;
#if HWY_TARGET != HWY_SCALAR
  if constexpr (kBias) {
    const std::size_t n = hn::Lanes(d);
    for (; key + n <= count; key += n) {
      VF square[kMaxLanes];
      bias.Square(key, square);
#pragma GCC unroll 16
      for (std::size_t j = 0; j < n; ++j) add(key + j, square[j]);
    }
  }
#endif
  for (; key < count; ++key) add(key, kBias ? bias(key) : hn::Zero(d));
  return top;
}

// From products to scores of keys [begin, end), as ScoreRun has them: what stands between, and -inf where a row may not
// see a key. `best` holds the largest of each lane's products, and of its scores then. A function of its own: in one
// with the products it costs them registers.
template <int NV>
HWY_NOINLINE void MaskScores(const AttentionCall& call, const Tile& tile, const TileState& state, std::size_t lanes,
                             std::size_t row, std::int64_t begin, std::int64_t end, float* HWY_RESTRICT scores,
                             VF (&best)[NV]) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  const std::size_t count = static_cast<std::size_t>(end - begin);
  const VF forbidden = hn::Set(d, kForbidden);
  const bool cut = begin < state.range.all.begin || end > state.range.all.end;
  const bool allowed = call.allowed != nullptr;
  const bool only_masks = !state.rich && !state.scaled_keys && !allowed;
  const ScoreRule rule(call, state, call.bias != nullptr);
  const hn::RebindToSigned<DF> di;
  float key_scales[kRunKeys] = {};
  if (state.scaled_keys) call.copy_k_scales(tile.batch, tile.kv_head, begin, end, key_scales);
  std::int32_t key_low[kRunKeys];
  std::int32_t key_high[kRunKeys];
  IdRange key_documents;
  if (state.documents) {
    key_documents = id_range(call.k_documents, tile.batch, begin, end);
    with_ids(call.k_documents, tile.batch, begin, [&](const auto* ids, std::int64_t step) {
      for (std::size_t key = 0; key < count; ++key) {
        const std::int64_t id = ids[static_cast<std::int64_t>(key) * step];
        key_low[key] = static_cast<std::int32_t>(id);
        key_high[key] = static_cast<std::int32_t>(id >> 32);
      }
    });
  }
  for (int v = 0; v < NV; ++v) {
    const std::size_t at = static_cast<std::size_t>(v) * n;
    const std::size_t vector = row / n + static_cast<std::size_t>(v);
    const IdRange& ids = state.vector_ids[vector];
    const bool one_document = ids.low == ids.high && key_documents.low == ids.low && key_documents.high == ids.low;
    const bool documents = state.documents && !one_document;
    // Keys that all the lanes see, where nothing is asked but that: their scores stay.
    std::size_t seen = count;
    std::size_t seen_end = count;
    if (only_masks && !documents) {
      const KeyRange& all = state.vector_all[vector];
      if (all.begin <= begin && all.end >= end) continue;
      if (all.begin < std::min(all.end, end) && all.end > begin) {
        seen = static_cast<std::size_t>(std::max(all.begin - begin, std::int64_t{0}));
        seen_end = static_cast<std::size_t>(std::min(all.end, end) - begin);
      }
    }
    HWY_ALIGN float row_first[kMaxLanes];
    HWY_ALIGN float row_last[kMaxLanes];
    for (std::size_t l = 0; l < n; ++l) {  // by itself, so that it becomes vectors
      row_first[l] = PlaceOf(state.begin[row + at + l], begin);
      row_last[l] = PlaceOf(state.end[row + at + l], begin);
    }
    HWY_ALIGN float row_slope[kMaxLanes] = {};
    HWY_ALIGN float row_distance[kMaxLanes] = {};
    for (std::size_t l = 0; call.alibi != nullptr && l < n; ++l) {
      const RowRule of_row(call, tile, state, row + at + l, begin);
      row_slope[l] = of_row.slope;
      row_distance[l] = of_row.distance;
    }
    HWY_ALIGN std::int32_t row_low[kMaxLanes] = {};
    HWY_ALIGN std::int32_t row_high[kMaxLanes] = {};
    for (std::size_t l = 0; documents && l < n; ++l) {
      row_low[l] = static_cast<std::int32_t>(state.document[row + at + l]);
      row_high[l] = static_cast<std::int32_t>(state.document[row + at + l] >> 32);
    }
    const auto document_low = hn::Load(di, row_low);
    const auto document_high = hn::Load(di, row_high);
    HWY_ALIGN std::uint32_t allowed_low[kMaxLanes] = {};
    HWY_ALIGN std::uint32_t allowed_high[kMaxLanes] = {};
    for (std::size_t l = 0; allowed && l < n; ++l) {
      const std::uint64_t bits = AllowedBits(call, tile, state, row + at + l, begin, end);
      allowed_low[l] = static_cast<std::uint32_t>(bits);
      allowed_high[l] = static_cast<std::uint32_t>(bits >> 32);
    }
    BitsInTurn in_turn(allowed_low, allowed_high);
    BiasLanes bias(call, tile, state, row + at, begin, count);
    if (rule.plain() && !cut && !documents && (allowed || rule.bias)) {
      const VF factor = hn::Set(d, state.score_factor);
      best[v] = !allowed    ? AddToLanes<true, false>(bias, in_turn, factor, count, lanes, scores + at)
                : rule.bias ? AddToLanes<true, true>(bias, in_turn, factor, count, lanes, scores + at)
                            : AddToLanes<false, true>(bias, in_turn, factor, count, lanes, scores + at);
      continue;
    }
    const VF first = hn::Load(d, row_first);
    const VF last = hn::Load(d, row_last);
    const VF slope = hn::Load(d, row_slope);
    const VF distance = hn::Load(d, row_distance);
    VF top = forbidden;
    for (std::size_t key = seen; key < seen_end; ++key) top = hn::Max(hn::LoadU(d, scores + key * lanes + at), top);
    const std::size_t parts[2][2] = {{0, seen}, {seen_end, count}};
    for (const auto& part : parts) {
      for (std::size_t key = part[0]; key < part[1]; ++key) {
        float* to = scores + key * lanes + at;
        const VF extra = rule.bias ? bias(key) : hn::Zero(d);
        const VF place = hn::Set(d, static_cast<float>(static_cast<std::int64_t>(key) + begin % kRunKeys));
        const VF key_scale = hn::Set(d, key_scales[key]);
        VF x = rule(hn::LoadU(d, to), key_scale, extra, slope, distance, place);
        if (cut) {
          const VF here = hn::Set(d, static_cast<float>(key));
          x = hn::IfThenElse(hn::And(hn::Ge(here, first), hn::Lt(here, last)), x, forbidden);
        }
        if (allowed) x = hn::IfThenElse(in_turn(key), x, forbidden);
        if (documents) {
          const auto same = hn::And(hn::Eq(hn::Set(di, key_low[key]), document_low),
                                    hn::Eq(hn::Set(di, key_high[key]), document_high));
          x = hn::IfThenElse(hn::RebindMask(d, same), x, forbidden);
        }
        hn::StoreU(x, d, to);
        top = hn::Max(x, top);
      }
    }
    best[v] = top;
  }
}

// Scores of keys [begin, end) against NV vectors of a tile of `lanes` from row `row` on, queries in the lanes, in base
// 2 but for late_factor, to scores[key][lane], forbidden ones -inf; `maximum` takes each lane's largest. `some` where
// some lane may not see some key; `meanwhile` is told of the keys and vectors multiplied.
template <class Unit, int NV, class Meanwhile>
HWY_INLINE void ScoreRun(const AttentionCall& call, const Tile& tile, const TileState& state, std::size_t lanes,
                         std::size_t row, const Rows& keys, std::int64_t begin, std::int64_t end, bool some,
                         float* HWY_RESTRICT scores, VF (&maximum)[NV], Meanwhile&& meanwhile) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  constexpr std::size_t kVectors = NV;
  const std::size_t count = static_cast<std::size_t>(end - begin);
  const std::size_t width = static_cast<std::size_t>(call.d);
  const VF forbidden = hn::Set(d, kForbidden);
  VF best[NV];
  for (int v = 0; v < NV; ++v) best[v] = forbidden;

  if constexpr (Unit::kTiles) {
    meanwhile(count, kVectors);
    const std::size_t depth = (Words<Unit>(width) + kTileSide - 1) / kTileSide;
    const std::size_t rows = (count + kTileSide - 1) / kTileSide * kTileSide;
    TileProducts<Unit>(keys.data, keys.stride, state.packed, lanes, depth, scores, lanes, rows, lanes, true);
    for (std::size_t j = 0; j < count; ++j) {
      for (int v = 0; v < NV; ++v) {
        best[v] = hn::Max(hn::LoadU(d, scores + j * lanes + static_cast<std::size_t>(v) * n), best[v]);
      }
    }
  } else {
    constexpr std::size_t kRows = RowsBeside<NV>();
    const float* packed = state.packed + row;
    Stretch ahead[2 * TileState::kMaxRows];
    Fetcher<> fetch(ahead, AddedAhead(call, tile, state, row, kVectors * n, begin, ahead), (count + kRows - 1) / kRows);
    for (std::size_t j = 0; j < count && count >= kRows; j += kRows) {
      fetch(nullptr);
      meanwhile(kRows, kVectors);
      // The last rows may be taken twice: they come out the same.
      ScoreKeys<Unit, kRows, NV>(packed, lanes, keys, std::min(j, count - kRows), width, state.sum_factor, scores,
                                  best);
    }
    for (std::size_t j = 0; j < count && count < kRows; ++j) {
      ScoreKeys<Unit, 1, NV>(packed, lanes, keys, j, width, state.sum_factor, scores, best);
    }
  }

  if (some || state.rich || state.scaled_keys) {
    VF masked[NV];
    for (int v = 0; v < NV; ++v) masked[v] = best[v];
    MaskScores<NV>(call, tile, state, lanes, row, begin, end, scores, masked);
    for (int v = 0; v < NV; ++v) best[v] = masked[v];
  }
  for (int v = 0; v < NV; ++v) {
    maximum[v] = Unit::kScaledQueries ? best[v] : hn::Mul(best[v], hn::Set(d, state.late_factor));
  }
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
