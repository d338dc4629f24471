// Backward: the rows of a task on their way in and out.
//
// - In: a chunk's keys and values and a block's queries and dout, dense, as words; of each row shift, factor and delta.
// - Out: dq, dk and dv, scaled, added to what lies there where asked, each rounded once.
// Contract: delta is summed in double, element e in sum e % 8; each product is exact.

// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_ALGORITHM_BACKWARD_ROWS_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_ALGORITHM_BACKWARD_ROWS_INL_HPP
#undef MANYHEADS_ALGORITHM_BACKWARD_ROWS_INL_HPP
#else
#define MANYHEADS_ALGORITHM_BACKWARD_ROWS_INL_HPP
#endif

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "base/math.hpp"
#include "hwy/highway.h"
#include "kernels/algorithm/block_info-inl.hpp"
#include "kernels/algorithm/epilogue-inl.hpp"
#include "kernels/algorithm/lane_rows-inl.hpp"
#include "kernels/algorithm/pack_kv-inl.hpp"
#include "kernels/algorithm/pack_q-inl.hpp"
#include "kernels/algorithm/qk_scores-inl.hpp"
#include "kernels/algorithm/softmax-inl.hpp"
#include "kernels/backward.hpp"
#include "kernels/isa/exp2-inl.hpp"
#include "kernels/reference.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr std::size_t kGradLanes = static_cast<std::size_t>(kGradRows);
static_assert(BlockInfo::kMaxRows == kGradRows && kRunKeys == kGradRows);

HWY_INLINE std::size_t PaddedWidth(std::int64_t width) { return RoundUp(static_cast<std::size_t>(width), kMaxLanes); }

// dk, then dv, each padded to whole vectors.
inline std::size_t KeyGradFloats(const BackwardParams& params) {
  return PaddedWidth(params.d) + PaddedWidth(params.dv);
}

// The workspace of a task. Offsets in floats, each array at a multiple of 64 bytes.
// - key_words, q_rows, dout_rows: rows of words along the keys or queries, of one index each. For F32 the first are the
//   keys themselves.
// - scores, grads: tiles [key][64 rows]. For F32 they become the words of P and dS, else those lie behind them.
template <class Mma>
struct BackwardWorkspace {
  std::size_t flags, keys, values, key_words, packed_q, packed_dout, q_rows, dout_rows, scores, grads;
  std::size_t prob_words, grad_words, key_grads, stored, total;

  explicit BackwardWorkspace(const BackwardParams& params) {
    std::size_t at = 0;
    const auto take = [&at](std::size_t floats) {
      const std::size_t begin = at;
      at += RoundUp(floats, 16);
      return begin;
    };
    const std::size_t d = static_cast<std::size_t>(params.d), dv = static_cast<std::size_t>(params.dv);
    const std::size_t chunk = static_cast<std::size_t>(std::min(kChunkKeys, params.tk));
    constexpr bool kPairs = Mma::kValuesPerWord == 2;
    constexpr std::size_t kTileWords = Words<Mma>(kGradLanes) * kGradLanes;
    flags = take(1);
    keys = take(chunk * Words<Mma>(d));
    values = take(chunk * Words<Mma>(dv));
    key_words = kPairs ? take(Words<Mma>(chunk) * d) : keys;
    packed_q = take(Words<Mma>(d) * kGradLanes);
    packed_dout = take(Words<Mma>(dv) * kGradLanes);
    q_rows = take(Words<Mma>(kGradLanes) * PaddedWidth(params.d));
    dout_rows = take(Words<Mma>(kGradLanes) * PaddedWidth(params.dv));
    scores = take(kGradLanes * kGradLanes);
    grads = take(kGradLanes * kGradLanes);
    prob_words = kPairs ? take(kTileWords) : scores;
    grad_words = kPairs ? take(kTileWords) : grads;
    key_grads = kPairs ? take(kTileWords) : grads;
    // Rows on their way out: 64 of dq, twice, or one of dk and dv; and a row that lay there before.
    stored = take(std::max(2 * kGradLanes * d, KeyGradFloats(params)) + KeyGradFloats(params));
    total = at;
  }
};
template <class Mma>
std::size_t BackwardFloats(const BackwardParams& params) {
  return BackwardWorkspace<Mma>(params).total;
}

// Rows as words, dense: where they lie, or copied. A row has `words` words, 0 behind its last value.
template <class Mma, class At>
HWY_INLINE StridedRows DenseRows(DType type, const void* base, std::int64_t count, std::int64_t row_stride,
                                 std::int64_t step, std::int64_t width, std::size_t words, float* HWY_RESTRICT copy,
                                 At&& at) {
  constexpr DType kHeld = Mma::kValuesPerWord == 1 ? DType::kF32 : DType::kBF16;
  const std::size_t size = static_cast<std::size_t>(width);
  if (type == kHeld && step == 1 && row_stride == width && words * Mma::kValuesPerWord == size) {
    return {reinterpret_cast<const float*>(static_cast<const char*>(base) +
                                           at(0) * static_cast<std::int64_t>(sizeof(float) / Mma::kValuesPerWord)),
            words};
  }
  for (std::int64_t i = 0; i < count; ++i) {
    float* const to = copy + static_cast<std::size_t>(i) * words;
    const float* const row = Mma::Row(type, base, at(i), step, width, to);
    if (row != to) std::memcpy(to, row, Words<Mma>(size) * sizeof(float));
    std::fill(to + Words<Mma>(size), to + words, 0.0f);
  }
  return {copy, words};
}

// Rows of words that hold kValuesPerWord rows' values of one index each, `padded` words wide.
template <class Mma, class At>
HWY_INLINE StridedRows RowsTogether(DType type, const void* base, std::int64_t count, std::int64_t row_stride,
                                    std::int64_t step, std::int64_t width, std::size_t padded, float* HWY_RESTRICT copy,
                                    At&& at) {
  if constexpr (Mma::kValuesPerWord == 1) {
    return DenseRows<Mma>(type, base, count, row_stride, step, width, padded, copy, at);
  } else {
    const bfloat16* const values = static_cast<const bfloat16*>(base);
    PackRowPairs<bfloat16>([&](std::int64_t i) { return values + at(i); }, 0, count, step,
                           static_cast<std::size_t>(width), padded, copy);
    return {copy, padded};
  }
}

template <class Mma>
HWY_INLINE StridedRows ChunkKeys(const BackwardParams& params, const KeyChunk& chunk, std::int64_t count) {
  return DenseRows<Mma>(params.kv_type, params.k, count, params.k_stride[2], params.k_stride[3], params.d,
                        Words<Mma>(static_cast<std::size_t>(params.d)),
                        chunk.workspace + BackwardWorkspace<Mma>(params).keys,
                        [&](std::int64_t j) { return params.k_at(chunk.batch, chunk.kv_head, chunk.begin + j); });
}
template <class Mma>
HWY_INLINE StridedRows ChunkValues(const BackwardParams& params, const KeyChunk& chunk, std::int64_t count) {
  return DenseRows<Mma>(params.kv_type, params.v, count, params.v_stride[2], params.v_stride[3], params.dv,
                        Words<Mma>(static_cast<std::size_t>(params.dv)),
                        chunk.workspace + BackwardWorkspace<Mma>(params).values,
                        [&](std::int64_t j) { return params.v_at(chunk.batch, chunk.kv_head, chunk.begin + j); });
}

template <class Mma>
void LoadChunk(const BackwardParams& params, const KeyChunk& chunk) {
  const BackwardWorkspace<Mma> at(params);
  const std::int64_t count = chunk.end - chunk.begin;
  const StridedRows keys = ChunkKeys<Mma>(params, chunk, count);
  const StridedRows values = ChunkValues<Mma>(params, chunk, count);
  if constexpr (Mma::kValuesPerWord == 2) {
    RowsTogether<Mma>(params.kv_type, params.k, count, params.k_stride[2], params.k_stride[3], params.d,
                      static_cast<std::size_t>(params.d), chunk.workspace + at.key_words,
                      [&](std::int64_t j) { return params.k_at(chunk.batch, chunk.kv_head, chunk.begin + j); });
  }
  const std::size_t rows = static_cast<std::size_t>(count);
  const bool finite = AllFinite<Mma>(keys, rows, Words<Mma>(static_cast<std::size_t>(params.d))) &&
                      AllFinite<Mma>(values, rows, Words<Mma>(static_cast<std::size_t>(params.dv)));
  chunk.workspace[at.flags] = finite ? 1.0f : 0.0f;
}

// sum over e of x[e] y[e], in double: each product is exact, and element e goes to sum e % 8.
HWY_INLINE double ExactDot(DType x_type, const void* x, std::int64_t x_at, std::int64_t x_step, DType y_type,
                           const void* y, std::int64_t y_at, std::int64_t y_step, std::int64_t width) {
  constexpr std::int64_t kSegmentFloats = 256;
  constexpr std::int64_t kSums = 8;
  HWY_ALIGN float xs[kSegmentFloats], ys[kSegmentFloats];
  double sums[kSums] = {};
  for (std::int64_t from = 0; from < width; from += kSegmentFloats) {
    const std::int64_t count = std::min(kSegmentFloats, width - from);
    CopyRow(x_type, x, x_at + from * x_step, x_step, count, xs);
    CopyRow(y_type, y, y_at + from * y_step, y_step, count, ys);
    std::int64_t e = 0;
    for (; e + kSums <= count; e += kSums) {
      for (std::int64_t s = 0; s < kSums; ++s) {
        sums[s] += static_cast<double>(xs[e + s]) * static_cast<double>(ys[e + s]);
      }
    }
    for (std::int64_t s = 0; e < count; ++e, ++s) sums[s] += static_cast<double>(xs[e]) * static_cast<double>(ys[e]);
  }
  return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

// From so far on, in base 2, a row's lse is too coarse for its probabilities: rounded, it moves them by 2^-15 or more.
constexpr double kCoarseLse = 1024;

// A score, late_factor included, less its row's maximum or shift: one rounding.
template <class Mma>
HWY_INLINE VF Less(VF score, float late_factor, VF shift) {
  if constexpr (Mma::kScaledQueries) {
    return hn::Sub(score, shift);
  } else {
    return Fms(score, hn::Set(DF(), late_factor), shift);
  }
}

// Maxima and sums of a block's rows over their keys, as the forward has them: of the scores that the backward computes
// again, however coarse those are.
template <class Mma>
HWY_NOINLINE void RowStatesAgain(const BackwardParams& params, const QueryBlock& q_block, float* HWY_RESTRICT workspace,
                                 float* HWY_RESTRICT maximum, float* HWY_RESTRICT sum) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  const BackwardWorkspace<Mma> at(params);
  BlockInfo info;
  BeginBlock<Mma>(params, q_block, kGradLanes, info);
  PackQ<Mma>(params, q_block, kGradLanes, workspace + at.packed_q, info);
  float* const scores = workspace + at.scores;
  std::fill_n(maximum, kGradLanes, kNoMaximum);
  std::fill_n(sum, kGradLanes, 0.0f);
  AttentionMask(params).each_run(
      q_block, info.range, [&](std::int64_t begin, std::int64_t end, bool partly_masked) HWY_ATTR {
        const StridedRows keys = KRows<Mma>(params, q_block, begin, end, workspace + at.keys);
        for (std::size_t lane = 0; static_cast<std::int64_t>(lane) < q_block.rows; lane += n) {
          VF top[1];
          PrefillScores<Mma, 1>(params, q_block, info, kGradLanes, lane, keys, begin, end, partly_masked, scores + lane,
                                top, [](std::size_t, std::size_t) {});
          VF m = hn::LoadU(d, maximum + lane), l = hn::LoadU(d, sum + lane), of_run = hn::Zero(d), factor;
          if (MoveMaximum(top[0], m, factor)) l = hn::Mul(l, factor);
          for (std::size_t key = 0; key < static_cast<std::size_t>(end - begin); ++key) {
            const VF x = Less<Mma>(hn::LoadU(d, scores + key * kGradLanes + lane), info.late_factor, m);
            of_run = hn::Add(of_run, Exp2(MaxKeepsNaN(hn::Set(d, -200.0f), x)));
          }
          hn::StoreU(m, d, maximum + lane);
          hn::StoreU(hn::Add(l, of_run), d, sum + lane);
        }
      });
}

// P = exp2(score - shift) factor.
struct RowFactor {
  double shift, factor;
};
constexpr RowFactor kNoNumber{0, std::numeric_limits<double>::quiet_NaN()};

// From a row's lse in base 2. A row without a key has none, and no mass.
HWY_INLINE RowFactor FactorOfLse(double lse) {
  if (lse == -std::numeric_limits<double>::infinity()) return {0, 0};
  if (!(lse < std::numeric_limits<double>::infinity())) return kNoNumber;
  const double shift = std::floor(lse + 0.5);
  return {shift, base::exp2(shift - lse)};
}
// From its maximum and sum. A row whose scores stopped at an end of F32's range has lost them, unless its keys share
// one bias (padding), and count alike.
HWY_INLINE RowFactor FactorOfState(const BackwardParams& params, std::int64_t b, std::int64_t h, std::int64_t i,
                                   float maximum, float sum) {
  if (sum == 0.0f) return {0, 0};  // it sees no key, and its lse is its sink
  if (!(sum < std::numeric_limits<float>::infinity()) || !(maximum < kFarthestScore)) return kNoNumber;
  if (maximum <= -kFarthestScore && !one_bias(params, b, h, i)) return kNoNumber;
  double total = static_cast<double>(sum);
  if (params.sinks != nullptr) {
    const double sink = static_cast<double>(params.sinks[h * params.sinks_stride]) * base::kLog2e;
    total += base::exp2(sink - static_cast<double>(maximum));
  }
  return {static_cast<double>(maximum), 1.0 / total};
}

// Queries [begin, end) of one head, `begin` a multiple of kGradRows.
template <class Mma>
void PrepareRows(const BackwardParams& params, const KeyChunk& of, std::int64_t h, std::int64_t begin,
                 std::int64_t end) {
  const std::int64_t b = of.batch, group_row = h % params.group() * params.queries(b);
  for (std::int64_t first = begin; first < end; first += kGradRows) {
    const QueryBlock q_block{b, of.kv_head, group_row + first, std::min(kGradRows, end - first)};
    HWY_ALIGN float maximum[kGradLanes], sum[kGradLanes];
    bool again = false;
    for (std::int64_t i = first; i < first + q_block.rows; ++i) {
      const std::int64_t at = params.grad_row(b, h, i);
      double delta = ExactDot(params.dout_type, params.dout, params.dout_at(b, h, i), params.dout_stride[3],
                              params.out_type, params.out, params.out_at(b, h, i), params.out_stride[3], params.dv);
      if (params.dlse != nullptr) delta -= static_cast<double>(params.dlse[params.dlse_at(b, h, i)]);
      params.delta[at] = static_cast<float>(delta);
      const double lse = static_cast<double>(params.lse[params.lse_at(b, h, i)]) * base::kLog2e;
      RowFactor row{};
      if (std::isfinite(lse) && std::fabs(lse) >= kCoarseLse) {
        if (!again) RowStatesAgain<Mma>(params, q_block, of.workspace, maximum, sum);
        again = true;
        row = FactorOfState(params, b, h, i, maximum[i - first], sum[i - first]);
      } else {
        row = FactorOfLse(lse);
      }
      params.shift[at] = static_cast<float>(row.shift);
      params.factor[at] = static_cast<float>(row.factor);
    }
  }
}

// Multiplies by the scale, in double where F32 has it coarsely or not at all.
HWY_INLINE void ScaleRow(double scale, std::size_t width, float* HWY_RESTRICT row) {
  const double magnitude = std::fabs(scale);
  if (magnitude < 1e30 && magnitude > 1e-30) {
    const float factor = static_cast<float>(scale);
    for (std::size_t e = 0; e < width; ++e) row[e] *= factor;
  } else {
    for (std::size_t e = 0; e < width; ++e) row[e] = static_cast<float>(static_cast<double>(row[e]) * scale);
  }
}

// Writes a row of a gradient, or adds it to what lies there. Overwrites `row`; `before` has room for it.
HWY_INLINE void StoreGrad(const BackwardParams& params, const Gradient& gradient, std::int64_t at, std::int64_t width,
                          float* HWY_RESTRICT row, float* HWY_RESTRICT before) {
  if (params.accumulate) {
    CopyRow(gradient.type, gradient.data, at, gradient.stride[3], width, before);
    for (std::int64_t e = 0; e < width; ++e) row[e] += before[e];
  }
  StoreRow(gradient.type, gradient.data, at, gradient.stride[3], width, row);
}

template <class Mma>
void StoreQueries(const BackwardParams& params, const QueryBlock& q_block, const float* high, const float* low,
                  float* workspace) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  const std::size_t width = static_cast<std::size_t>(params.d);
  const std::int64_t queries = params.queries(q_block.batch);
  const std::int64_t h = q_block.kv_head * params.group() + q_block.row / queries, i = q_block.row % queries;
  float* const rows = workspace + BackwardWorkspace<Mma>(params).stored;  // [64][D]
  float* const sums = rows + kGradLanes * width;                          // [D][64]
  float* const before = sums + kGradLanes * width;                        // [D]
  if (high == nullptr) {
    std::fill_n(rows, kGradLanes * width, 0.0f);
  } else {
    for (std::size_t at = 0; at < width * kGradLanes; at += n) {
      VF sum = hn::LoadU(d, high + at);
      if (low != nullptr) {
        // What rounding took from a sum beyond F32 is no number.
        const auto finite = hn::Eq(hn::Sub(sum, sum), hn::Zero(d));
        sum = hn::IfThenElse(finite, hn::Add(sum, hn::LoadU(d, low + at)), sum);
      }
      hn::StoreU(sum, d, sums + at);
    }
    for (std::size_t first = 0; static_cast<std::int64_t>(first) < q_block.rows; first += n) {
      LaneRows lanes;
      for (std::size_t r = first; r < first + n && static_cast<std::int64_t>(r) < q_block.rows; ++r) {
        lanes.at[lanes.count++] = static_cast<std::int64_t>(r * width);
      }
      UnpackLanes(DType::kF32, rows, lanes, 1, params.d, kGradLanes, sums + first, sums + first,
                  [](VF x, VF) { return x; });
    }
  }
  for (std::int64_t r = 0; r < q_block.rows; ++r) {
    float* const row = rows + static_cast<std::size_t>(r) * width;
    ScaleRow(params.scale, width, row);
    StoreGrad(params, params.dq, params.dq_at(q_block.batch, h, i + r), params.d, row, before);
  }
}

template <class Mma>
void StoreKeys(const BackwardParams& params, const KeyChunk& chunk, float* keys) {
  const std::size_t step = KeyGradFloats(params);
  const std::size_t d_floats = PaddedWidth(params.d);
  float* const row = chunk.workspace + BackwardWorkspace<Mma>(params).stored;
  float* const before = row + step;
  for (std::int64_t j = chunk.begin; j < chunk.end; ++j) {
    if (keys != nullptr) {
      std::copy_n(keys + static_cast<std::size_t>(j - chunk.begin) * step, step, row);
    } else {
      std::fill_n(row, step, 0.0f);
    }
    if (params.dk.defined()) {
      ScaleRow(params.scale, static_cast<std::size_t>(params.d), row);
      StoreGrad(params, params.dk, params.key_at(params.dk.stride, chunk.batch, chunk.kv_head, j), params.d, row,
                before);
    }
    if (params.dvalue.defined()) {
      StoreGrad(params, params.dvalue, params.key_at(params.dvalue.stride, chunk.batch, chunk.kv_head, j), params.dv,
                row + d_floats, before);
    }
  }
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
