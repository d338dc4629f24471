// The weights of one head for up to 64 rows, and what scores need to know of every one of them.
//
//   p = exp2(score - shift) / sum of the row
//
// Contract: the scores are those of prefill in F32. Sums along keys: chains of 64 keys in F32, runs in double; over rows
// and diagonals as in head_pass-inl.hpp.
// Cost: one product, one power, one logarithm and about forty instructions more a vector of weights.

// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_ALGORITHM_SCORE_PASS_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_ALGORITHM_SCORE_PASS_INL_HPP
#undef MANYHEADS_ALGORITHM_SCORE_PASS_INL_HPP
#else
#define MANYHEADS_ALGORITHM_SCORE_PASS_INL_HPP
#endif

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/algorithm/head_pass-inl.hpp"
#include "kernels/score_pass.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

static_assert(kScoreStride == static_cast<std::int64_t>(kPassStride) &&
              kScorePadding == static_cast<std::int64_t>(kPassPadding));

// log2 x for a positive normal x: relative error below 3 * 2^-24 of the larger of it and its whole part. With x = 2^e (1 +
// t), 1 + t between sqrt(1/2) and sqrt(2), log2(1 + t) / t is a polynomial fitted for the least relative error.
HWY_INLINE VF Log2(VF x) {
  const DF d;
  const hn::RebindToSigned<DF> di;
  const auto bits = hn::BitCast(di, x);
  const auto whole = hn::ShiftRight<23>(hn::Sub(bits, hn::Set(di, 0x3f3504f3)));
  const VF t = hn::Sub(hn::BitCast(d, hn::Sub(bits, hn::ShiftLeft<23>(whole))), hn::Set(d, 1.0f));
  VF p = hn::Set(d, 0x1.01b476p-3f);
  p = Fma(p, t, hn::Set(d, -0x1.a87be0p-3f));
  p = Fma(p, t, hn::Set(d, 0x1.b9c972p-3f));
  p = Fma(p, t, hn::Set(d, -0x1.e95c18p-3f));
  p = Fma(p, t, hn::Set(d, 0x1.26d382p-2f));
  p = Fma(p, t, hn::Set(d, -0x1.715c4ep-2f));
  p = Fma(p, t, hn::Set(d, 0x1.ec73d6p-2f));
  p = Fma(p, t, hn::Set(d, -0x1.715470p-1f));
  p = Fma(p, t, hn::Set(d, 0x1.715476p+0f));
  return Fma(p, t, hn::ConvertTo(d, whole));
}

// Adds a vector of F32 to doubles.
HWY_INLINE void AddTo(VF x, double* to) {
  const DF d;
  HWY_ALIGN float lanes[kMaxLanes];
  hn::Store(x, d, lanes);
  for (std::size_t l = 0; l < hn::Lanes(d); ++l) to[l] += static_cast<double>(lanes[l]);
}

// What a block's rows carry from run to run.
struct ScorePassRows {
  HWY_ALIGN float scale[kPassLanes];     // 1 / sum
  HWY_ALIGN float query[kPassLanes];     // place of the row
  HWY_ALIGN float distance[kPassLanes];  // mean
};

// Divides the weights of a run of `count` keys, and reads them. `entropy` gathers p log2 p.
HWY_INLINE void ReadRun(float* HWY_RESTRICT tile, std::int64_t first_key, std::size_t count, std::size_t vectors,
                        const bool* HWY_RESTRICT left_out, float even, const ScorePassRows& rows,
                        const ScorePassOutputs& out) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  const VF share = hn::Set(d, 0.9999f), rest = hn::Set(d, even);
  for (std::size_t v = 0; v < vectors; ++v) {
    const VF scale = hn::Load(d, rows.scale + v * n), query = hn::Load(d, rows.query + v * n);
    VF entropy = hn::Zero(d), distance = hn::Zero(d);
    VF largest = hn::LoadU(d, out.largest + v * n), largest_key = hn::LoadU(d, out.largest_key + v * n);
    VF place = hn::Set(d, static_cast<float>(first_key));
    for (std::size_t key = 0; key < count; ++key, place = hn::Add(place, hn::Set(d, 1.0f))) {
      float* const at = tile + key * kPassStride + v * n;
      const VF p = hn::Mul(hn::LoadU(d, at), scale);
      hn::StoreU(p, d, at);
      const VF smooth = Fma(p, share, rest);
      entropy = Fma(smooth, Log2(smooth), entropy);
      distance = Fma(p, hn::Abs(hn::Sub(query, place)), distance);
      if (left_out[first_key + static_cast<std::int64_t>(key)]) continue;
      const auto larger = hn::Gt(p, largest);
      largest = hn::IfThenElse(larger, p, largest);
      largest_key = hn::IfThenElse(larger, place, largest_key);
    }
    AddTo(entropy, out.entropy + v * n);
    AddTo(distance, out.distance + v * n);
    hn::StoreU(largest, d, out.largest + v * n);
    hn::StoreU(largest_key, d, out.largest_key + v * n);
  }
}

HWY_INLINE void AddVariance(const float* HWY_RESTRICT tile, std::int64_t first_key, std::size_t count,
                            std::size_t vectors, const ScorePassRows& rows, double* variance) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  for (std::size_t v = 0; v < vectors; ++v) {
    const VF query = hn::Load(d, rows.query + v * n), mean = hn::Load(d, rows.distance + v * n);
    VF sum = hn::Zero(d), place = hn::Set(d, static_cast<float>(first_key));
    for (std::size_t key = 0; key < count; ++key, place = hn::Add(place, hn::Set(d, 1.0f))) {
      const VF from_mean = hn::Sub(hn::Abs(hn::Sub(query, place)), mean);
      sum = Fma(hn::Mul(from_mean, from_mean), hn::LoadU(d, tile + key * kPassStride + v * n), sum);
    }
    AddTo(sum, variance + v * n);
  }
}

inline void ScorePass(const HeadPassParams& params, std::int64_t row, std::int64_t block_rows, const bool* left_out,
                      const ScorePassOutputs& out, float* workspace) {
  const QueryBlock q_block{0, 0, row, block_rows};
  const ForwardWorkspace at(params, kPassRows);
  const std::size_t n = LaneCount();
  BlockInfo info;
  BeginBlock<MmaF32>(params, q_block, kPassLanes, info);
  PackQ<MmaF32>(params, q_block, kPassLanes, workspace + at.packed, info);
  float* const scores = workspace + at.scores;
  const std::int64_t runs = runs_of(params.tk);
  const std::size_t vectors = RoundUp(static_cast<std::size_t>(block_rows), n) / n;
  // What no run writes is 0.
  const auto clear = [&out](std::int64_t begin, std::int64_t end) {
    if (begin < end) std::fill_n(out.tiles + begin * kScoreTile, (end - begin) * kScoreTile, 0.0f);
  };
  const bool all_rows = vectors * n == kPassLanes;
  if (!all_rows) clear(0, runs);
  HeadPassRows pass;
  std::copy_n(params.shift + row, block_rows, pass.shift);
  std::fill_n(pass.factor, block_rows, 1.0f);
  std::fill_n(out.sum, kPassLanes, 0.0);
  HeadPassOutputs sums;
  sums.sum = out.sum;
  std::int64_t begin_run = runs, end_run = 0;
  AttentionMask(params).each_run(
      q_block, info.range, [&](std::int64_t begin, std::int64_t end, bool partly_masked) HWY_ATTR {
        const std::int64_t run = begin / kRunKeys;
        begin_run = std::min(begin_run, run);
        end_run = std::max(end_run, run + 1);
        const StridedRows keys = KRows<MmaF32>(params, q_block, begin, end, workspace + at.keys);
        const auto score = [&]<int NV>(std::integral_constant<int, NV>, std::size_t v) HWY_ATTR {
          VF top[NV];
          PrefillScores<MmaF32, NV>(params, q_block, info, kPassLanes, v * n, keys, begin, end, partly_masked,
                                    scores + v * n, top, [](std::size_t, std::size_t) {});
        };
        std::size_t v = 0;
        for (; v + kBlockVectors <= vectors; v += kBlockVectors) {
          score(std::integral_constant<int, kBlockVectors>(), v);
        }
        for (; v < vectors; ++v) score(std::integral_constant<int, 1>(), v);
        if (end - begin < kRunKeys) clear(run, run + 1);
        float* const tile = out.tiles + run * kScoreTile + kScorePadding;
        HWY_ALIGN float best[kPassLanes] = {};
        for (v = 0; v < vectors; ++v) {
          WeightsOfVector(scores, v * n, static_cast<std::size_t>(begin % kRunKeys),
                          static_cast<std::size_t>(end - begin), pass, sums, run, tile, best);
        }
      });

  clear(0, std::min(begin_run, runs));
  clear(end_run, runs);

  ScorePassRows rows;
  for (std::size_t r = 0; r < kPassLanes; ++r) {
    rows.scale[r] = out.sum[r] > 0 ? static_cast<float>(1 / out.sum[r]) : 0.0f;
    rows.query[r] = static_cast<float>(row + static_cast<std::int64_t>(r));
    out.largest[r] = out.largest_key[r] = -1.0f;
    out.entropy[r] = out.distance[r] = out.variance[r] = 0;
  }
  std::fill_n(out.columns, runs * kRunKeys, 0.0f);
  std::fill_n(out.distances, (runs + 1) * kRunKeys, 0.0f);
  const float even = 0.0001f / static_cast<float>(params.tk);
  const auto keys_of = [&](std::int64_t run) {
    return static_cast<std::size_t>(std::min(kRunKeys, params.tk - run * kRunKeys));
  };
  for (std::int64_t run = 0; run < runs; ++run) {
    float* const tile = out.tiles + run * kScoreTile + kScorePadding;
    ReadRun(tile, run * kRunKeys, keys_of(run), vectors, left_out, even, rows, out);
    if (run < begin_run || run >= end_run) continue;
    AddColumns(tile, out.columns + run * kRunKeys);
    AddDistances(tile, out.distances + (runs - 1 - run) * kRunKeys);
  }
  for (std::size_t r = 0; r < kPassLanes; ++r) {
    out.entropy[r] *= -0.693147180559945309417;
    rows.distance[r] = static_cast<float>(out.distance[r]);
  }
  for (std::int64_t run = begin_run; run < end_run; ++run) {
    AddVariance(out.tiles + run * kScoreTile + kScorePadding, run * kRunKeys, keys_of(run), vectors, rows, out.variance);
  }
}

// Four rows at a time, so that a sum is loaded and stored once for them.
inline void AddProducts(const float* x, std::int64_t stride, std::int64_t rows, std::int64_t d, double* sum,
                        double* products, double* wide) {
  constexpr std::int64_t kRows = kProductRows;
  const hn::ScalableTag<double> dd;
  const auto n = static_cast<std::int64_t>(hn::Lanes(dd));
  const auto add = [&]<int R>(std::integral_constant<int, R>, const float* from) HWY_ATTR {
    for (int r = 0; r < R; ++r) {
      for (std::int64_t i = 0; i < d; ++i) {
        wide[r * d + i] = static_cast<double>(from[r * stride + i]);
        sum[i] += wide[r * d + i];
      }
    }
    for (std::int64_t i = 0; i < d; ++i) {
      double* const to = products + i * d;
      hn::Vec<decltype(dd)> own[R];
      for (int r = 0; r < R; ++r) own[r] = hn::Set(dd, wide[r * d + i]);
      std::int64_t j = 0;
      for (; j <= i && j + n <= d; j += n) {
        auto product = hn::LoadU(dd, to + j);
        for (int r = 0; r < R; ++r) product = hn::MulAdd(own[r], hn::LoadU(dd, wide + r * d + j), product);
        hn::StoreU(product, dd, to + j);
      }
      for (; j <= i; ++j) {
        for (int r = 0; r < R; ++r) to[j] = std::fma(wide[r * d + i], wide[r * d + j], to[j]);
      }
    }
  };
  for (; rows >= kRows; rows -= kRows, x += kRows * stride) add(std::integral_constant<int, kRows>(), x);
  for (; rows > 0; --rows, x += stride) add(std::integral_constant<int, 1>(), x);
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
