// pv product: probabilities times values, added to the outputs of the row states.
//
//   O = O + P V
//
// Contract: prefill keeps queries in the lanes, decode values; the bits are the same. A run sums in chains of 16 keys
// (MmaF32), or in the Mma's own order.
// Cost: 2 Dv FLOP for each query and key. Decode reads values from where they lie where it can (PvInPlace).

// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_ALGORITHM_PV_PRODUCT_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_ALGORITHM_PV_PRODUCT_INL_HPP
#undef MANYHEADS_ALGORITHM_PV_PRODUCT_INL_HPP
#else
#define MANYHEADS_ALGORITHM_PV_PRODUCT_INL_HPP
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "hwy/highway.h"
#include "kernels/algorithm/pack_kv-inl.hpp"
#include "kernels/isa/mma-inl.hpp"
#include "kernels/isa/register_shape-inl.hpp"
#include "kernels/isa/widen-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// output[m][lane] (+)= sum over words i, ascending, of a[m][i] * b[i][lane]. `run_offset` is the first key's offset in
// its run.
template <class Mma, int NV, int M, class Prefetch = NoPrefetch>
HWY_INLINE void PvProduct(const float* HWY_RESTRICT a, std::size_t a_m, std::size_t a_i, const float* HWY_RESTRICT b,
                          std::size_t b_i, std::size_t run_offset, std::size_t words, bool first_in_chunk,
                          std::size_t out_step, float* HWY_RESTRICT output, Prefetch&& prefetch = {}) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  VF acc[M][NV];
  const auto at = [&](int m, int v) HWY_ATTR {
    return output + static_cast<std::size_t>(m) * out_step + static_cast<std::size_t>(v) * n;
  };
  if constexpr (Mma::kChains) {
    SumInRuns<Mma>(a, a_m, a_i, b, b_i, run_offset, words, kChainKeys, acc, prefetch);
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) {
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) {
        hn::StoreU(first_in_chunk ? acc[m][v] : hn::Add(hn::LoadU(d, at(m, v)), acc[m][v]), d, at(m, v));
      }
    }
  } else {
    if (first_in_chunk) {
      Clear(acc);
    } else {
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) {
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) acc[m][v] = hn::LoadU(d, at(m, v));
      }
    }
    Accumulate<Mma>(a, a_m, a_i, b, b_i, words, acc, prefetch);
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) {
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) hn::StoreU(acc[m][v], d, at(m, v));
    }
  }
}

// PvProduct for `width` values, where a word holds values of one index.
template <class Mma, int NV>
HWY_INLINE void PvProducts(const StridedRows& values, const float* HWY_RESTRICT probs, std::size_t run_offset,
                           std::size_t words, bool first_in_chunk, std::size_t width, std::size_t lanes,
                           float* HWY_RESTRICT output) {
  constexpr int kRows = MmaRowsBeside<NV>();
  std::size_t i = 0;
  for (; i + kRows <= width; i += kRows) {
    PvProduct<Mma, NV, kRows>(values.data + i, 1, values.stride, probs, lanes, run_offset, words, first_in_chunk, lanes,
                              output + i * lanes);
  }
  for (; i < width; ++i) {
    PvProduct<Mma, NV, 1>(values.data + i, 1, values.stride, probs, lanes, run_offset, words, first_in_chunk, lanes,
                          output + i * lanes);
  }
}

// Not inline: beside the code of masks the compiler would keep the sums in memory.
template <class Mma, int NV>
HWY_NOINLINE void PvProductsOutOfLine(const StridedRows& values, const float* HWY_RESTRICT probs,
                                      std::size_t run_offset, std::size_t words, bool first_in_chunk, std::size_t width,
                                      std::size_t lanes, float* HWY_RESTRICT output) {
  PvProducts<Mma, NV>(values, probs, run_offset, words, first_in_chunk, width, lanes, output);
}

// Packs probabilities as words in place: each row's at its front.
template <class Mma, int R>
HWY_INLINE void PackProbs(float* HWY_RESTRICT scores) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  constexpr std::size_t kRun = static_cast<std::size_t>(kRunKeys);
  for (std::size_t i = 0; i < R * kRun; i += 2 * n) {
    hn::StoreU(Mma::Pack(hn::LoadU(d, scores + i), hn::LoadU(d, scores + i + n)), d,
               scores + i / kRun * kRun + i % kRun / 2);
  }
}

// A run's values in the caller's memory: `chains` is where the keys of each chain begin, as if the run were whole; rows
// are `stride` values apart.
template <class Element>
struct ValuesInPlace {
  std::size_t chain_end(std::size_t key) const {
    constexpr std::size_t kChain = static_cast<std::size_t>(kChainKeys);
    return std::min(keys, ((run_offset + key) / kChain + 1) * kChain - run_offset);
  }
  const Element* chain(std::size_t key) const {
    return chains[(run_offset + key) / static_cast<std::size_t>(kChainKeys)];
  }

  const Element* chains[kRunKeys / kChainKeys];
  std::size_t stride, run_offset, keys;
};

// Adds probabilities of R rows times values of keys [key, last) to NV vectors of sums. The values, from `from` on,
// become the Mma's words on their way into the registers.
template <class Mma, class Values, int NV, int R, class Prefetch>
HWY_INLINE void PvChain(const float* HWY_RESTRICT probs, const typename Values::Element* from, std::size_t stride,
                        std::size_t key, std::size_t last, VF (&sum)[R][NV], Prefetch&& prefetch) {
  constexpr std::size_t kRun = static_cast<std::size_t>(kRunKeys);
  constexpr std::size_t kValuesPerWord = Mma::kValuesPerWord;
  while (key < last) {
    prefetch(nullptr);
    for (const std::size_t stop = std::min(last, key + kKeysPerPrefetch<Mma>); key < stop; key += kValuesPerWord) {
      VF value[NV];
      if constexpr (kValuesPerWord == 1) {
        LoadVectors<Values>(from, value);
      } else {
        LoadPairs<NV>(from, from + stride, value);
      }
      from += kValuesPerWord * stride;
#pragma GCC unroll 8
      for (std::size_t r = 0; r < R; ++r) {
        const float* at = probs + r * kRun + key / kValuesPerWord;
        const VF prob = hn::Set(DF(), kValuesPerWord == 1 ? *at : WordAt(at));
#pragma GCC unroll 4
        for (std::size_t v = 0; v < NV; ++v) sum[r][v] = Mma::MulAdd(prob, value[v], sum[r][v]);
      }
    }
  }
}

// PvProduct of NV vectors over one chain; `total` holds the sums of the run's earlier chains. It goes chain by chain,
// not vector by vector: what was prefetched first is read first, before later lines displace it from L1.
template <class Mma, class Values, int NV, int R, class Prefetch>
HWY_INLINE void PvChainInPlace(const float* HWY_RESTRICT probs, const ValuesInPlace<typename Values::Element>& values,
                               std::size_t key, std::size_t i, bool first_in_chunk, std::size_t width,
                               float* HWY_RESTRICT total, float* HWY_RESTRICT output, Prefetch&& prefetch) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  const std::size_t last = values.chain_end(key);
  VF sum[R][NV];
  Clear(sum);
  PvChain<Mma, Values, NV, R>(probs, values.chain(key) + i, values.stride, key, last, sum, prefetch);
#pragma GCC unroll 8
  for (std::size_t r = 0; r < R; ++r) {
    float* so_far = total + r * width;
    float* to = output + r * width;
    if (key > 0) {
#pragma GCC unroll 4
      for (std::size_t v = 0; v < NV; ++v) sum[r][v] = hn::Add(hn::LoadU(d, so_far + v * n), sum[r][v]);
    }
    if (last < values.keys) {
#pragma GCC unroll 4
      for (std::size_t v = 0; v < NV; ++v) hn::StoreU(sum[r][v], d, so_far + v * n);
      continue;
    }
    InOrder<Values>(sum[r]);
#pragma GCC unroll 4
    for (std::size_t v = 0; v < NV; ++v) {
      hn::StoreU(first_in_chunk ? sum[r][v] : hn::Add(hn::LoadU(d, to + v * n), sum[r][v]), d, to + v * n);
    }
  }
}

// PvProduct of NV vectors for BF16 pairs: an even number of keys from an even offset on, and probabilities as words.
template <class Mma, class Values, int NV, int R, class Prefetch>
HWY_INLINE void PvPairsInPlace(const float* HWY_RESTRICT probs, const ValuesInPlace<typename Values::Element>& values,
                               std::size_t i, bool first_in_chunk, std::size_t width, float* HWY_RESTRICT output,
                               Prefetch&& prefetch) {
  constexpr bool kInBlocks = std::is_same_v<typename Mma::Element, bfloat16>;
  const DF d;
  const std::size_t n = hn::Lanes(d);
  VF sum[R][NV];
#pragma GCC unroll 8
  for (std::size_t r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (std::size_t v = 0; v < NV; ++v)
      sum[r][v] = first_in_chunk ? hn::Zero(d) : hn::LoadU(d, output + r * width + v * n);
#pragma GCC unroll 4
    for (std::size_t v = 0; kInBlocks && v < NV; v += 2) SplitBlocks(sum[r][v], sum[r][v + 1]);
  }
  for (std::size_t key = 0; key < values.keys; key = values.chain_end(key)) {
    PvChain<Mma, Values, NV, R>(probs, values.chain(key) + i, values.stride, key, values.chain_end(key), sum, prefetch);
  }
#pragma GCC unroll 8
  for (std::size_t r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (std::size_t v = 0; kInBlocks && v < NV; v += 2) JoinBlocks(sum[r][v], sum[r][v + 1]);
#pragma GCC unroll 4
    for (std::size_t v = 0; v < NV; ++v) hn::StoreU(sum[r][v], d, output + r * width + v * n);
  }
}

// Calls f(vectors, i) for columns i of `width`, kMost vectors at a time and the rest kLeast at a time.
template <int kMost, int kLeast, class F>
HWY_INLINE void EachColumns(std::size_t width, F&& f) {
  const std::size_t n = LaneCount();
  std::size_t i = 0;
  for (; i + kMost * n <= width; i += kMost * n) f(std::integral_constant<int, kMost>(), i);
  for (; i < width; i += kLeast * n) f(std::integral_constant<int, kLeast>(), i);
}

// PvProduct over the whole width, with values read from where they lie. Returns false, and does nothing, unless
// - the values are dense, in whole vectors, and of a type that the target widens or multiplies as it is;
// - no value needs masking (`mask_nonfinite`).
// A chain lies in one page, since pages hold whole chains. Overwrites `probs`; `total` has room for R rows.
template <class Mma, int R, class Prefetch>
HWY_INLINE bool PvInPlace(const QkvMask& params, const QueryBlock& q_block, std::int64_t begin, std::size_t keys,
                          float* HWY_RESTRICT probs, bool first_in_chunk, float* HWY_RESTRICT total,
                          float* HWY_RESTRICT output, Prefetch&& prefetch) {
  constexpr int kVectors = VectorsBeside<R>();
  constexpr int kLeast = std::is_same_v<typename Mma::Element, bfloat16> ? 2 : 1;  // vectors at a time
  const std::size_t width = static_cast<std::size_t>(params.dv);
  if (kVectors < kLeast || params.packed_v != nullptr || params.v_stride[3] != 1 ||
      width % (kLeast * LaneCount()) != 0 || keys % Mma::kValuesPerWord != 0)
    return false;
  bool done = false;
  WithType(params.kv_type, [&]<class Values>(Values) HWY_ATTR {
    using Element = typename Values::Element;
    constexpr bool kPairs = Mma::kValuesPerWord == 2 && std::is_same_v<Element, typename Mma::Element>;
    if constexpr (kVectors >= kLeast && (kPairs || (Mma::kValuesPerWord == 1 && Values::kWhole))) {
      ValuesInPlace<Element> values{
          {}, static_cast<std::size_t>(params.v_stride[2]), static_cast<std::size_t>(begin % kRunKeys), keys};
      for (std::int64_t key = begin; key < begin + static_cast<std::int64_t>(keys);
           key = (key / kChainKeys + 1) * kChainKeys) {
        values.chains[key % kRunKeys / kChainKeys] =
            static_cast<const Element*>(params.v) + params.v_at(q_block.batch, q_block.kv_head, key);
      }
      if constexpr (kPairs) {
        PackProbs<Mma, R>(probs);
        EachColumns<kVectors, kLeast>(
            width, [&]<int kCount>(std::integral_constant<int, kCount>, std::size_t i) HWY_ATTR {
              PvPairsInPlace<Mma, Values, kCount, R>(probs, values, i, first_in_chunk, width, output + i, prefetch);
            });
      } else {
        for (std::size_t key = 0; key < keys; key = values.chain_end(key)) {
          EachColumns<kVectors, 1>(width, [&]<int kCount>(std::integral_constant<int, kCount>, std::size_t i) HWY_ATTR {
            PvChainInPlace<Mma, Values, kCount, R>(probs, values, key, i, first_in_chunk, width, total + i, output + i,
                                                   prefetch);
          });
        }
      }
      done = true;
    }
  });
  return done;
}

// output[row] (+)= probs[row] * values, `width` wide, for a run's probabilities in scores[row][64], of `count` keys
// from `run_offset` on, and its values as words. Overwrites `scores`. `mask_nonfinite` as for SoftmaxInLanes.
template <class Mma, int R, class Prefetch>
HWY_INLINE void PvInRows(const StridedRows& values, std::size_t run_offset, std::size_t count, bool mask_nonfinite,
                         bool first_in_chunk, std::size_t width, float* HWY_RESTRICT scores, float* HWY_RESTRICT output,
                         Prefetch&& prefetch) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  constexpr std::size_t kRun = static_cast<std::size_t>(kRunKeys);
  constexpr int kVectors = VectorsBeside<R>();
  if constexpr (Mma::kValuesPerWord == 2) PackProbs<Mma, R>(scores);
  const auto add = [&]<class U>(U) HWY_ATTR {
    const std::size_t words = Words<Mma>(count);
    std::size_t i = 0;
    for (; i + kVectors * n <= width; i += kVectors * n) {
      PvProduct<U, kVectors, R>(scores, kRun, 1, values.data + i, values.stride, run_offset, words, first_in_chunk,
                                width, output + i, prefetch);
    }
    for (; i < width; i += n) {
      PvProduct<U, 1, R>(scores, kRun, 1, values.data + i, values.stride, run_offset, words, first_in_chunk, width,
                         output + i, prefetch);
    }
  };
  if (mask_nonfinite) {
    add(ProbsFirst<Mma>());
  } else {
    add(Mma());
  }
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
