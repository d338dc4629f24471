// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_ROW_WEIGHTS_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_ROW_WEIGHTS_INL_HPP
#undef MANYHEADS_ROW_WEIGHTS_INL_HPP
#else
#define MANYHEADS_ROW_WEIGHTS_INL_HPP
#endif

#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/algorithm/merge-inl.hpp"
#include "kernels/algorithm/scores-inl.hpp"
#include "kernels/algorithm/weigh-inl.hpp"
#include "kernels/kernel_table.hpp"

// What a few rows do between their two products: masks and the softmax over a run of keys, keys in the lanes. Compiled
// once for any number of rows.
HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Adds the weights of some rows, [row][64] from `place` on, to their sums l, in the order of LaneWeights: chains of 16
// keys, one after the other. A lane takes a chain.
HWY_INLINE void AddChains(const float* HWY_RESTRICT weights, std::size_t rows, std::size_t place,
                          float* HWY_RESTRICT l) {
  constexpr std::size_t kRun = static_cast<std::size_t>(kRunKeys);
  constexpr std::size_t kChain = static_cast<std::size_t>(kChainKeys);
  HWY_ALIGN float sums[kFewRows * kRun / kChain];
#if HWY_TARGET != HWY_SCALAR
  if (place == 0) {
    const DF d;
    const std::size_t n = hn::Lanes(d);
    for (std::size_t first = 0; first < rows * kRun / kChain; first += n) {
      ScatteredRows chains;
      for (std::size_t c = 0; c < n; ++c) chains.at[c] = weights + (first + c) * kChain;
      VF sum = hn::Zero(d);
      for (std::size_t i = 0; i < kChain; i += 4) {
        VF block[4];
        for (std::size_t j = 0; j < 4; ++j) block[j] = chains.Blocks(j, i);
        TransposeBlocks(block);
        for (std::size_t j = 0; j < 4; ++j) sum = hn::Add(sum, block[j]);
      }
      hn::Store(sum, d, sums + first);
    }
  } else  // the run is cut at its begin
#endif
  {
    for (std::size_t c = 0; c < rows * kRun / kChain; ++c) sums[c] = 0.0f;
    for (std::size_t r = 0; r < rows; ++r) {
      for (std::size_t i = place; i < kRun; ++i) sums[(r * kRun + i) / kChain] += weights[r * kRun + i - place];
    }
  }
  for (std::size_t r = 0; r < rows; ++r) {
    float sum = 0;
    for (std::size_t c = 0; c < kRun / kChain; ++c) sum += sums[r * (kRun / kChain) + c];
    l[r] += sum;
  }
}

// From products to scores of keys [begin, end), a run or less, in scores[row][64]; -inf where a row may not see a key.
inline HWY_NOINLINE void RowScores(const AttentionCall& call, const Tile& tile, const TileState& state,
                                   std::size_t rows, std::int64_t begin, std::int64_t end, float* HWY_RESTRICT added,
                                   float* HWY_RESTRICT scores) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  constexpr std::size_t kRun = static_cast<std::size_t>(kRunKeys);
  const std::size_t count = static_cast<std::size_t>(end - begin);
  const VF forbidden = hn::Set(d, kForbidden);
  const VF place = hn::Set(d, static_cast<float>(begin % kRunKeys));
  const ScoreRule rule(call, state, state.adds);
  HWY_ALIGN float key_scales[kRun] = {};
  if (state.scaled_keys) call.copy_k_scales(tile.batch, tile.kv_head, begin, end, key_scales);
  for (std::size_t r = 0; state.adds && r < rows; ++r) AddedRow(call, tile, state, r, begin, end, added + r * kRun);
  for (std::size_t r = 0; r < rows; ++r) {
    const RowRule row(call, tile, state, r, begin);
    for (std::size_t i = 0; i < kRun; i += n) {
      const VF here = hn::Iota(d, static_cast<float>(i));
      const VF extra = state.adds ? hn::LoadU(d, added + r * kRun + i) : hn::Zero(d);
      VF x = rule(hn::LoadU(d, scores + r * kRun + i), hn::Load(d, key_scales + i), extra, hn::Set(d, row.slope),
                  hn::Set(d, row.distance), hn::Add(here, place));
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

// The same where keys have factors and nothing else is to do.
HWY_INLINE void ScaleRows(const AttentionCall& call, const Tile& tile, std::size_t rows, std::int64_t begin,
                          std::int64_t end, float* HWY_RESTRICT scores) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  constexpr std::size_t kRun = static_cast<std::size_t>(kRunKeys);
  HWY_ALIGN float factors[kRun] = {};
  call.copy_k_scales(tile.batch, tile.kv_head, begin, end, factors);
  for (std::size_t i = 0; i < kRun; i += n) {
    const VF factor = hn::Load(d, factors + i);
    for (std::size_t at = i; at < rows * kRun; at += kRun) {
      hn::StoreU(hn::Mul(hn::LoadU(d, scores + at), factor), d, scores + at);
    }
  }
}

// Weights in place of the scores of `count` keys, [row][64], from `place` in their run on, and -0 for forbidden ones
// where `guard` asks for it. The node's maxima move first, and its sums take the weights; these take the values'
// scales, if any.
template <class Unit>
HWY_NOINLINE void RowWeights(const TileState& state, std::size_t rows, std::size_t place, std::size_t count, bool guard,
                             bool fresh, const float* value_scales, std::size_t width, float* HWY_RESTRICT node,
                             float* HWY_RESTRICT scores) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  constexpr std::size_t kRun = static_cast<std::size_t>(kRunKeys);
  const VF forbidden = hn::Set(d, kForbidden);
  const VF late_factor = hn::Set(d, state.late_factor);
  const VF last = hn::Set(d, static_cast<float>(count));
  float* output = node + 2 * kFewRows;
  for (std::size_t r = 0; r < rows; ++r) {
    float* row = scores + r * kRun;
    VF best = forbidden;
    for (std::size_t i = 0; i < kRun; i += n) {
      VF x = hn::LoadU(d, row + i);
      if (count < kRun) {  // lanes behind the last key
        x = hn::IfThenElse(hn::Lt(hn::Iota(d, static_cast<float>(i)), last), x, forbidden);
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
    const Weigher<Unit> weigh(m, late_factor);
    const bool far = weigh.far();
    for (std::size_t i = 0; i < kRun; i += n) {
      const VF x = hn::LoadU(d, row + i);
      VF p = weigh(far ? weigh.Nearer(x) : x);
      if (guard) p = hn::IfThenElse(hn::Eq(x, forbidden), hn::Neg(hn::Zero(d)), p);
      hn::StoreU(p, d, row + i);
    }
  }
  AddChains(scores, rows, place, node + kFewRows);
  if (value_scales != nullptr) {
    const hn::RebindToUnsigned<DF> du;
    for (std::size_t i = 0; i < rows * kRun; i += n) {
      const VF p = hn::LoadU(d, scores + i);
      const auto kept = hn::RebindMask(d, hn::Eq(hn::BitCast(du, p), hn::Set(du, 0x80000000u)));
      hn::StoreU(hn::IfThenElse(kept, p, hn::Mul(p, hn::Load(d, value_scales + i % kRun))), d, scores + i);
    }
  }
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
