// Scores: the products q k^T of a query block with a run of keys, with bias and mask applied.
//
// - Prefill, S^T = K Q^T: queries in the lanes, so that masks, maxima and sums are vertical.
// - Decode, S = Q K^T: keys in the lanes.
// Contract: the two forms give the same bits. A score is one chain over D. MmaF32 sums runs of D
// (DepthRun), or in double over a short D.
// Cost: 2 D FLOP for each query and key.

// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_ALGORITHM_QK_SCORES_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_ALGORITHM_QK_SCORES_INL_HPP
#undef MANYHEADS_ALGORITHM_QK_SCORES_INL_HPP
#else
#define MANYHEADS_ALGORITHM_QK_SCORES_INL_HPP
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/algorithm/bias_mask-inl.hpp"
#include "kernels/algorithm/block_info-inl.hpp"
#include "kernels/algorithm/lane_rows-inl.hpp"
#include "kernels/algorithm/prefetch-inl.hpp"
#include "kernels/algorithm/split_products-inl.hpp"
#include "kernels/isa/mma_amx-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// sum[m][lane] = M broadcast rows times the vectors of columns[word][lanes]. Word i of row m lies at m * stride + i *
// step. `width` is the number of values in a row; `factor` multiplies sums taken in double.
template <class Mma, int M, int NV>
HWY_INLINE void Products(const float* HWY_RESTRICT rows, std::size_t stride, std::size_t step,
                         const float* HWY_RESTRICT columns, std::size_t lanes, std::size_t width, double factor,
                         VF (&sum)[M][NV]) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  if (InDouble<Mma>(width)) {
#if HWY_HAVE_FLOAT64 && HWY_TARGET != HWY_SCALAR
    const hn::Repartition<double, DF> dd;  // each product is exact, so that fusing would change nothing
    const hn::Rebind<float, decltype(dd)> half;
    const auto times = hn::Set(dd, factor);
    for (std::size_t m = 0; m < M; ++m) {
      for (std::size_t v = 0; v < NV; ++v) {
        auto low = hn::Zero(dd), high = hn::Zero(dd);
        for (std::size_t i = 0; i < width; ++i) {
          const auto a = hn::Set(dd, static_cast<double>(rows[m * stride + i * step]));
          const float* const at = columns + i * lanes + v * n;
          low = hn::Add(low, hn::Mul(a, hn::PromoteTo(dd, hn::LoadU(half, at))));
          high = hn::Add(high, hn::Mul(a, hn::PromoteTo(dd, hn::LoadU(half, at + n / 2))));
        }
        sum[m][v] = hn::Combine(d, hn::DemoteTo(half, hn::Mul(high, times)), hn::DemoteTo(half, hn::Mul(low, times)));
      }
    }
#else
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
#endif
    return;
  }
  if constexpr (Mma::kChains) {
    SumInRuns<Mma>(rows, stride, step, columns, lanes, 0, width, DepthRun(width), sum);
  } else {
    Clear(sum);
    Accumulate<Mma>(rows, stride, step, columns, lanes, Words<Mma>(width), sum);
  }
}

// Products of M keys with NV vectors of queries, to scores[key][lane]; words and keys are `lanes` apart. `best` takes
// each lane's largest.
template <class Mma, int M, int NV>
HWY_INLINE void PrefillScoresOfKeys(const float* HWY_RESTRICT packed, std::size_t lanes, const StridedRows& keys,
                                    std::size_t key, std::size_t width, double factor, float* HWY_RESTRICT scores,
                                    VF (&best)[NV]) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  VF sum[M][NV];
  Products<Mma>(keys.data + key * keys.stride, keys.stride, 1, packed, lanes, width, factor, sum);
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) {
      hn::StoreU(sum[m][v], d, scores + (key + static_cast<std::size_t>(m)) * lanes + static_cast<std::size_t>(v) * n);
      best[v] = hn::Max(sum[m][v], best[v]);
    }
  }
}

// The same products of all of a run's keys by tiles of pieces. What the pieces cannot hold, keys or queries, is
// multiplied as F32.
template <class Mma, int NV>
HWY_INLINE void SplitScores(const BlockInfo& info, std::size_t lanes, const StridedRows& keys, std::size_t count,
                            std::size_t width, float* HWY_RESTRICT scores) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  const std::uint64_t unsplit = SplitRows(keys, count, width, info.split_keys);
  AmxProducts<typename Mma::Tiles, ThreePieces>(info.split_keys, SplitWords(width), info.split_queries, lanes,
                                                SplitDepth(width), scores, lanes, RoundUp(count, kTileSide), lanes,
                                                true);
  if (unsplit == 0 && !info.unsplit_queries) return;
  for (std::size_t j = 0; j < count; ++j) {
    VF sum[1][NV];
    Products<MmaF32, 1, NV>(keys.data + j * keys.stride, keys.stride, 1, info.packed, lanes, width, info.sum_factor,
                            sum);
    for (std::size_t v = 0; v < NV; ++v) {
      float* const to = scores + j * lanes + v * n;
      const auto whole = hn::Eq(hn::LoadU(d, info.unsplit_lanes + v * n), hn::Set(d, 1.0f));
      const VF tile = (unsplit >> j & 1) != 0 ? sum[0][v] : hn::LoadU(d, to);
      hn::StoreU(hn::IfThenElse(whole, sum[0][v], tile), d, to);
    }
  }
}

// Scores of keys [begin, end) and NV vectors of queries from `row` on, of a block `lanes` wide, to scores[key][lane].
// - In base 2, but for late_factor; forbidden ones are -inf. `maximum` is each lane's largest.
// - partly_masked: some lane may not see some key.
// - prefetch(keys, vectors) is called with what is multiplied next.
template <class Mma, int NV, class Prefetch>
HWY_INLINE void PrefillScores(const QkvMask& params, const QueryBlock& q_block, const BlockInfo& info,
                              std::size_t lanes, std::size_t row, const StridedRows& keys, std::int64_t begin,
                              std::int64_t end, bool partly_masked, float* HWY_RESTRICT scores, VF (&maximum)[NV],
                              Prefetch&& prefetch) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  constexpr std::size_t kVectors = NV;
  const std::size_t count = static_cast<std::size_t>(end - begin);
  const std::size_t width = static_cast<std::size_t>(params.d);
  const VF forbidden = hn::Set(d, kForbidden);
  VF best[NV];
  for (int v = 0; v < NV; ++v) best[v] = forbidden;

  if constexpr (Mma::kAmx) {
    prefetch(count, kVectors);
    if constexpr (Mma::kSplits) {
      SplitScores<Mma, NV>(info, lanes, keys, count, width, scores);
    } else {
      const std::size_t depth = (Words<Mma>(width) + kTileSide - 1) / kTileSide;
      const std::size_t rows = (count + kTileSide - 1) / kTileSide * kTileSide;
      AmxProducts<Mma>(keys.data, keys.stride, info.packed, lanes, depth, scores, lanes, rows, lanes, true);
    }
    for (std::size_t j = 0; j < count; ++j) {
      for (int v = 0; v < NV; ++v) {
        best[v] = hn::Max(hn::LoadU(d, scores + j * lanes + static_cast<std::size_t>(v) * n), best[v]);
      }
    }
  } else {
    constexpr std::size_t kRows = MmaRowsBeside<NV>();
    const float* packed = info.packed + row;
    MemoryRange ahead[2 * BlockInfo::kMaxRows];
    Prefetcher<> prefetch_bias(ahead, NextRunBiasRanges(params, q_block, info, row, kVectors * n, begin, ahead),
                               (count + kRows - 1) / kRows);
    for (std::size_t j = 0; j < count && count >= kRows; j += kRows) {
      prefetch_bias(nullptr);
      prefetch(kRows, kVectors);
      // The last rows may be taken twice: they come out the same.
      PrefillScoresOfKeys<Mma, kRows, NV>(packed, lanes, keys, std::min(j, count - kRows), width, info.sum_factor,
                                          scores, best);
    }
    for (std::size_t j = 0; j < count && count < kRows; ++j) {
      PrefillScoresOfKeys<Mma, 1, NV>(packed, lanes, keys, j, width, info.sum_factor, scores, best);
    }
  }

  if (partly_masked || info.score_mod || info.scaled_keys) {
    VF masked[NV];
    for (int v = 0; v < NV; ++v) masked[v] = best[v];
    MaskScoresInLanes<NV>(params, q_block, info, lanes, row, begin, end, scores, masked);
    for (int v = 0; v < NV; ++v) best[v] = masked[v];
  }
  for (int v = 0; v < NV; ++v) {
    maximum[v] = Mma::kScaledQueries ? best[v] : hn::Mul(best[v], hn::Set(d, info.late_factor));
  }
}

// Products of R queries with K vectors of keys, word by word as the keys come, in the order of Products.
template <class Mma, int R, int K>
struct WordProducts {
  WordProducts(const BlockInfo& info, const float* rows, std::size_t width, std::size_t words_of_row)
      : queries(rows), words(words_of_row), run(DepthRun(width)) {
    for (int r = 0; r < R; ++r) {
      for (int k = 0; k < K; ++k) {
        chain[r][k] = Mma::Begin(info, r);
        total[r][k] = hn::Zero(DF());
      }
    }
  }
  HWY_INLINE void operator()(std::size_t word, const VF (&vectors)[K]) {
    if (Mma::kChains && (word & (run - 1)) == 0 && word > 0) {  // run is a power of two
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
        for (int k = 0; k < K; ++k) {
          total[r][k] = word == run ? chain[r][k] : hn::Add(total[r][k], chain[r][k]);
          chain[r][k] = hn::Zero(DF());
        }
      }
    }
    VF key[K];
#pragma GCC unroll 4
    for (int k = 0; k < K; ++k) key[k] = Mma::Key(vectors[k]);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const float* at = queries + word * R + static_cast<std::size_t>(r);
      const VF query = hn::Set(DF(), Mma::kValuesPerWord == 1 ? *at : WordAt(at));
#pragma GCC unroll 4
      for (int k = 0; k < K; ++k) chain[r][k] = Mma::MulAdd(key[k], query, chain[r][k]);
    }
  }
  HWY_INLINE VF sum(int r, int k) const {
    return !Mma::kChains || words <= run ? chain[r][k] : hn::Add(total[r][k], chain[r][k]);
  }

  const float* queries;
  std::size_t words, run;
  VF chain[R][K], total[R][K];
};

// Products of R queries with K vectors of keys, to scores[row][64]. Keys are multiplied on their way into the lanes:
// through memory, loads would wait for stores that merely share the low bits of the address.
template <class Mma, int R, int K, class Prefetch>
HWY_INLINE void DecodeScores(const QkvMask& params, const BlockInfo& info, const LaneRows (&keys)[K],
                             const float* HWY_RESTRICT queries, std::size_t words, float* HWY_RESTRICT packed,
                             float* HWY_RESTRICT scores, Prefetch&& prefetch) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  const std::size_t width = static_cast<std::size_t>(params.d);
  if (InDouble<Mma>(width)) {
    for (std::size_t k = 0; k < K && keys[k].count > 0; ++k) {
      VF sum[R][1];
      PackLanes<Mma>(params.kv_type, params.k, keys[k], params.k_stride[3], params.d, n, packed,
                     [](VF x) { return x; });
      Products<Mma>(queries, 1, R, packed, n, width, info.sum_factor, sum);
      for (int r = 0; r < R; ++r) hn::StoreU(sum[r][0], d, scores + r * kRunKeys + k * n);
    }
    return;
  }
  WordProducts<Mma, R, K> products(info, queries, width, words);
  EachWord<Mma>(params.kv_type, params.k, keys, params.k_stride[3], params.d, products, prefetch);
  for (int r = 0; r < R; ++r) {
    for (int k = 0; k < K; ++k) {
      hn::StoreU(Mma::Score(info, r, products.sum(r, k)), d, scores + r * kRunKeys + static_cast<std::size_t>(k) * n);
    }
  }
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
