// Online softmax: the scores of a run become probabilities, in place.
//
//   p = 2^(score - m),  sum = sum + p
//
// Contract: m, the running maximum, is a whole number and moves by one rule (MoveMaximum) at fixed key positions; sum
// adds chains of 16 keys, one after the other. Prefill has queries in the lanes, decode keys, with the same bits.
// Cost: one exponential a score.

// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_ALGORITHM_SOFTMAX_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_ALGORITHM_SOFTMAX_INL_HPP
#undef MANYHEADS_ALGORITHM_SOFTMAX_INL_HPP
#else
#define MANYHEADS_ALGORITHM_SOFTMAX_INL_HPP
#endif

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "hwy/highway.h"
#include "kernels/algorithm/block_info-inl.hpp"
#include "kernels/algorithm/dropout-inl.hpp"
#include "kernels/algorithm/workspace-inl.hpp"
#include "kernels/isa/exp2-inl.hpp"
#include "kernels/isa/transpose-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// The rule of the running maximum. m moves to the run's largest score, rounded, where that exceeds m by more than
// kMaxSlack.
// - m is a whole number of powers of two: every rescaling is exact.
// - When it moves follows from the data at fixed key positions alone.
// Returns whether m moved in a lane. `factor` is what earlier sums and outputs are to be multiplied by.
HWY_INLINE bool MoveMaximum(VF top, VF& m, VF& factor) {
  const DF d;
  const auto moves = hn::Gt(top, hn::Add(m, hn::Set(d, kMaxSlack)));
  if (hn::AllFalse(d, moves)) return false;
  const VF next = hn::IfThenElse(moves, hn::Round(top), m);
  factor = PowerOfTwo(d, hn::Sub(m, next));
  m = next;
  return true;
}

// The probability -0 for a forbidden score: it tells the products to leave its value out.
HWY_INLINE VF MarkForbidden(VF score, VF prob) {
  const DF d;
  return hn::IfThenElse(hn::Eq(score, hn::Set(d, kForbidden)), hn::Neg(hn::Zero(d)), prob);
}

// Two such, as a word.
HWY_INLINE float ForbiddenPair() {
  const std::uint32_t bits = 0x80008000u;
  float pair;
  std::memcpy(&pair, &bits, sizeof(pair));
  return pair;
}

// Stores the probabilities of two neighbouring keys as one word of the pv product.
template <class Mma>
HWY_INLINE void StoreProbs(VF first, VF second, float* to) {
  hn::StoreU(Mma::Zip(first, second), DF(), to);
}

// The scales of a run's I8 values; null for other types.
HWY_INLINE const float* ValueScales(const QkvMask& params, const QueryBlock& q_block, std::int64_t begin,
                                    std::size_t keys, float* HWY_RESTRICT to) {
  if (params.v_scales == nullptr) return nullptr;
  params.copy_v_scales(q_block.batch, q_block.kv_head, begin, begin + static_cast<std::int64_t>(keys), to);
  return to;
}
HWY_INLINE bool ScalesFinite(const float* scales, std::size_t keys) {
  bool finite = true;
  for (std::size_t j = 0; scales != nullptr && j < keys; ++j) finite = finite && scales[j] * 0.0f == 0.0f;
  return finite;
}

// Replaces a run's scores by probabilities, p[word][lane], for the maxima m of NV vectors, and adds them to the sums l.
// Unless kPlain, after the sum:
// - dropout takes its own, if any;
// - each is multiplied by its value's scale, if any;
// - a forbidden key's becomes -0 where mask_nonfinite.
template <class Mma, int NV, bool kPlain>
HWY_INLINE void SoftmaxInLanes(const VF* m, float late_factor, const float* value_scales, const KeptInLanes* kept,
                               std::size_t run_offset, std::size_t keys, bool mask_nonfinite, std::size_t lanes,
                               float* HWY_RESTRICT scores, VF* l) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  ExpMinusMax<Mma> exp_minus_max[NV];
  VF sum[NV], chain[NV];
  bool far = false;
  for (int v = 0; v < NV; ++v) {
    sum[v] = hn::Zero(d);
    exp_minus_max[v] = {m[v], hn::Set(d, late_factor)};
    far = far || exp_minus_max[v].far();
  }
  for (std::size_t key = 0; far && key < keys; ++key) {
    for (std::size_t v = 0; v < NV; ++v) {
      float* at = scores + key * lanes + v * n;
      hn::StoreU(exp_minus_max[v].Nearer(hn::LoadU(d, at)), d, at);
    }
  }
  const auto prob = [&](std::size_t key, std::size_t v) HWY_ATTR {
    const VF x = hn::LoadU(d, scores + key * lanes + v * n);
    VF p = exp_minus_max[v](x);
    chain[v] = hn::Add(chain[v], p);
    if constexpr (!kPlain) {
      if (kept != nullptr) p = (*kept)(p, key, v);
      if (value_scales != nullptr) p = hn::Mul(p, hn::Set(d, value_scales[key]));
      if (mask_nonfinite) p = MarkForbidden(x, p);
    }
    return p;
  };
  for (std::size_t j = 0; j < keys;) {
    const std::size_t end = std::min<std::size_t>(keys, j + kChainKeys - (run_offset + j) % kChainKeys);
    for (int v = 0; v < NV; ++v) chain[v] = hn::Zero(d);
    for (; j + Mma::kValuesPerWord <= end; j += Mma::kValuesPerWord) {
#pragma GCC unroll 8
      for (std::size_t v = 0; v < NV; ++v) {
        float* to = scores + j / Mma::kValuesPerWord * lanes + v * n;
        if constexpr (Mma::kValuesPerWord == 1) {
          hn::StoreU(prob(j, v), d, to);
        } else {
          const VF first = prob(j, v);
          StoreProbs<Mma>(first, prob(j + 1, v), to);
        }
      }
    }
    if constexpr (Mma::kValuesPerWord == 2) {
      for (std::size_t v = 0; j < end && v < NV; ++v) {
        // A key behind the last may be another vector's, with values that are not finite.
        const VF none = mask_nonfinite ? hn::Neg(hn::Zero(d)) : hn::Zero(d);
        StoreProbs<Mma>(prob(j, v), none, scores + j / 2 * lanes + v * n);
      }
      j = end;
    }
    for (int v = 0; v < NV; ++v) sum[v] = hn::Add(sum[v], chain[v]);
  }
  for (int v = 0; v < NV; ++v) l[v] = hn::Add(l[v], sum[v]);
}

// Adds the probabilities of decode's rows, [row][64] from `run_offset` on, to their sums l, in the order of
// SoftmaxInLanes: chains of 16 keys, one after the other. A lane takes a chain.
HWY_INLINE void AddChains(const float* HWY_RESTRICT probs, std::size_t rows, std::size_t run_offset,
                          float* HWY_RESTRICT l) {
  constexpr std::size_t kRun = static_cast<std::size_t>(kRunKeys);
  constexpr std::size_t kChain = static_cast<std::size_t>(kChainKeys);
  HWY_ALIGN float sums[kDecodeRows * kRun / kChain];
  if (run_offset == 0) {
    const DF d;
    const std::size_t n = hn::Lanes(d);
    for (std::size_t first = 0; first < rows * kRun / kChain; first += n) {
      ScatteredRows chains;
      for (std::size_t c = 0; c < n; ++c) chains.at[c] = probs + (first + c) * kChain;
      VF sum = hn::Zero(d);
      for (std::size_t i = 0; i < kChain; i += 4) {
        VF block[4];
        for (std::size_t j = 0; j < 4; ++j) block[j] = chains.Blocks(j, i);
        TransposeBlocks(block);
        for (std::size_t j = 0; j < 4; ++j) sum = hn::Add(sum, block[j]);
      }
      hn::Store(sum, d, sums + first);
    }
  } else {  // the run is cut at its front
    for (std::size_t c = 0; c < rows * kRun / kChain; ++c) sums[c] = 0.0f;
    for (std::size_t r = 0; r < rows; ++r) {
      for (std::size_t i = run_offset; i < kRun; ++i) sums[(r * kRun + i) / kChain] += probs[r * kRun + i - run_offset];
    }
  }
  for (std::size_t r = 0; r < rows; ++r) {
    float sum = 0;
    for (std::size_t c = 0; c < kRun / kChain; ++c) sum += sums[r * (kRun / kChain) + c];
    l[r] += sum;
  }
}

// Replaces the scores of `count` keys, [row][64] from `run_offset` in their run on, by probabilities.
// - First the maxima of the row states move, then the sums take the probabilities, then these take their values'
//   scales, if any.
// - A forbidden key's becomes -0 where mask_nonfinite.
template <class Mma>
HWY_NOINLINE void SoftmaxInRows(const BlockInfo& info, std::size_t rows, std::size_t run_offset, std::size_t count,
                                bool mask_nonfinite, bool first_in_chunk, const float* value_scales, std::size_t width,
                                float* HWY_RESTRICT states, float* HWY_RESTRICT scores) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  constexpr std::size_t kRun = static_cast<std::size_t>(kRunKeys);
  const VF forbidden = hn::Set(d, kForbidden);
  const VF late_factor = hn::Set(d, info.late_factor);
  const VF last = hn::Set(d, static_cast<float>(count));
  const VF none = mask_nonfinite ? hn::Neg(hn::Zero(d)) : hn::Zero(d);
  float* output = states + 2 * kDecodeRows;
  for (std::size_t r = 0; r < rows; ++r) {
    float* row = scores + r * kRun;
    VF best = forbidden;
    for (std::size_t i = 0; i < count; i += n) {
      VF x = hn::LoadU(d, row + i);
      if (count < kRun) {  // lanes behind the last key
        x = hn::IfThenElse(hn::Lt(hn::Iota(d, static_cast<float>(i)), last), x, forbidden);
        hn::StoreU(x, d, row + i);
      }
      best = hn::Max(x, best);
    }
    VF top = hn::MaxOfLanes(d, best);
    if (!Mma::kScaledQueries) top = hn::Mul(top, late_factor);
    VF m = hn::Set(d, states[r]);
    VF factor;
    if (MoveMaximum(top, m, factor)) {
      states[r] = hn::GetLane(m);
      if (!first_in_chunk) {
        states[kDecodeRows + r] = hn::GetLane(hn::Mul(hn::Set(d, states[kDecodeRows + r]), factor));
        for (std::size_t i = r * width; i < (r + 1) * width; i += n) {
          hn::StoreU(hn::Mul(hn::LoadU(d, output + i), factor), d, output + i);
        }
      }
    }
    const ExpMinusMax<Mma> exp_minus_max(m, late_factor);
    const bool far = exp_minus_max.far();
    std::size_t i = 0;
    for (; i < count; i += n) {
      const VF x = hn::LoadU(d, row + i);
      VF p = exp_minus_max(far ? exp_minus_max.Nearer(x) : x);
      if (mask_nonfinite) p = MarkForbidden(x, p);
      hn::StoreU(p, d, row + i);
    }
    for (; i < kRun; i += n) hn::StoreU(none, d, row + i);  // vectors behind the last key: the chains read them
  }
  AddChains(scores, rows, run_offset, states + kDecodeRows);
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
