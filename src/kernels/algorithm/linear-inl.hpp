// The projections around attention.
//
//   y = activation(x W^T + b)
//
// Contract: W is packed in panels of columns (LinearParams). Each y is one chain of multiply-adds over k, ascending:
// the bits of a row do not depend on the other rows or on the threads.
// Cost: 2 K N FLOP a row. Few rows read each weight once; more rows read a panel's piece of linear_depth inputs from
// L2.

// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_ALGORITHM_LINEAR_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_ALGORITHM_LINEAR_INL_HPP
#undef MANYHEADS_ALGORITHM_LINEAR_INL_HPP
#else
#define MANYHEADS_ALGORITHM_LINEAR_INL_HPP
#endif

#include <cmath>
#include <cstdint>
#include <cstring>

#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "kernels/algorithm/activate-inl.hpp"
#include "kernels/tuning.hpp"
#include "kernels/isa/edge-inl.hpp"
#include "kernels/isa/mma_bf16-inl.hpp"
#include "kernels/isa/register_shape-inl.hpp"
#include "kernels/params.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Rows of x that are rounded to BF16 pairs at a time, and the workspace words for them (Tuning::linear_bf16_depth).
constexpr std::int64_t kBf16Rows = 4 * kLinearRows;
inline std::int64_t LinearBf16Words() { return kBf16Rows * (tuning().linear_bf16_depth / 2); }

// Prefetches a panel's words `distance` words ahead, so that weights that L2 does not hold arrive in time.
struct PrefetchPanel {
  HWY_INLINE void operator()(const float* here) const {
    for (std::size_t at = 0; at < width; at += 16) hwy::Prefetch(here + distance + at);
  }
  std::size_t width, distance;
};

// The same far ahead into L2 (Tuning::prefetch_to_l2): twice, since such a prefetch may be dropped, and then into L1.
struct PrefetchPanelToL2 {
  HWY_INLINE void operator()(const float* here) const {
    for (std::size_t at = 0; at < width; at += 16) {
      __builtin_prefetch(here + 4 * distance + at, 0, 2);
      __builtin_prefetch(here + 2 * distance + at, 0, 2);
      __builtin_prefetch(here + distance / 2 + at, 0, 3);
    }
  }
  std::size_t width, distance;
};
// Fewer rows have no time for it beside their multiplications.
constexpr int kRowsToPrefetchToL2 = 3;

// The products with each kind of packed weights: acc += x [M][depth], rows x_m words apart, times weights
// [words][width].
struct F32Weights {
  static constexpr bool kPairs = false;
  template <int M, int NV, class Prefetch>
  static HWY_INLINE void Sum(const float* HWY_RESTRICT x, std::size_t x_m, const float* HWY_RESTRICT weights,
                             std::size_t width, std::size_t depth, VF (&acc)[M][NV], Prefetch prefetch) {
    Accumulate<MmaF32>(x, x_m, 1, weights, width, depth, acc, prefetch);
  }
};

// BF16 widened to F32 in registers, which is exact: the bits are those of F32 weights of the same values.
struct WidenedWeights {
  static constexpr bool kPairs = false;
  template <int M, int NV, class Prefetch>
  static HWY_INLINE void Sum(const float* HWY_RESTRICT x, std::size_t x_m, const float* HWY_RESTRICT weights,
                             std::size_t width, std::size_t depth, VF (&acc)[M][NV], Prefetch prefetch) {
    const DF d;
    const hn::RebindToUnsigned<DF> du;
    const auto add = [&](std::size_t i, const auto& column) HWY_ATTR {
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) {
        const VF value = hn::Set(d, x[static_cast<std::size_t>(m) * x_m + i]);
#pragma GCC unroll 8
        for (int n = 0; n < NV; ++n) acc[m][n] = Fma(value, hn::BitCast(d, column[n]), acc[m][n]);
      }
    };
    for (std::size_t i = 0; i < depth; i += 2) {
      const std::uint32_t* words = reinterpret_cast<const std::uint32_t*>(weights) + i / 2 * width;
      hn::Vec<decltype(du)> word[NV], column[NV];
      prefetch(weights + i / 2 * width);
#pragma GCC unroll 8
      for (int n = 0; n < NV; ++n) {
        word[n] = hn::LoadU(du, words + static_cast<std::size_t>(n) * hn::Lanes(d));
        column[n] = hn::ShiftLeft<16>(word[n]);
      }
      add(i, column);
      if (i + 1 == depth) return;
#pragma GCC unroll 8
      for (int n = 0; n < NV; ++n) column[n] = hn::And(word[n], hn::Set(du, 0xffff0000u));
      add(i + 1, column);
    }
  }
};

// BF16 weights times BF16 pairs of x, by the Mma that multiplies them.
template <class PairsMma>
struct PairedWeights {
  static constexpr bool kPairs = true;
  using Mma = PairsMma;
  template <int M, int NV, class Prefetch>
  static HWY_INLINE void Sum(const float* HWY_RESTRICT x, std::size_t x_m, const float* HWY_RESTRICT weights,
                             std::size_t width, std::size_t depth, VF (&acc)[M][NV], Prefetch prefetch) {
    Accumulate<Mma>(x, x_m, 1, weights, width, Words<Mma>(depth), acc, prefetch);
  }
};

// One panel and the inputs [from, from + depth) of all rows, as words.
struct LinearStep {
  std::int64_t panel = 0;
  std::int64_t from = 0, depth = 0;
  const float* weights = nullptr;  // [words][panel]
  const float* x = nullptr;        // of row `first`
  std::size_t x_stride = 0;
  std::int64_t first = 0;
  bool prefetch_to_l2 = false;
  std::size_t prefetch_words = 0;
};

template <class Weights, int M>
HWY_NOINLINE void LinearBlock(const LinearParams& params, const LinearStep& step, std::int64_t row) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  const std::size_t width = kPanelVectors * n;
  const std::int64_t column = step.panel * static_cast<std::int64_t>(width);
  const bool whole = column + static_cast<std::int64_t>(width) <= params.out;
  const std::size_t valid = whole ? width : static_cast<std::size_t>(params.out - column);
  HWY_ALIGN float edge[HWY_MAX_BYTES / sizeof(float) * kPanelVectors];
  VF acc[M][kPanelVectors];
  if (step.from == 0) {
    Clear(acc);
  } else {
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) {
      const float* y = params.y + (row + m) * params.y_stride + column;
      if (!whole) {
        for (std::size_t i = 0; i < width; ++i) edge[i] = i < valid ? y[i] : 0.0f;
        y = edge;
      }
#pragma GCC unroll 8
      for (int v = 0; v < kPanelVectors; ++v) acc[m][v] = hn::LoadU(d, y + static_cast<std::size_t>(v) * n);
    }
  }
  const auto sum = [&](auto prefetch) HWY_ATTR {
    Weights::Sum(step.x + static_cast<std::size_t>(row - step.first) * step.x_stride, step.x_stride, step.weights,
                 width, static_cast<std::size_t>(step.depth), acc, prefetch);
  };
  if (M >= kRowsToPrefetchToL2 && step.prefetch_to_l2) {
    sum(PrefetchPanelToL2{width, step.prefetch_words});
  } else {
    sum(PrefetchPanel{width, step.prefetch_words});
  }
  const bool last = step.from + step.depth == params.in;
  if constexpr (Weights::kPairs) {
    if (last && params.rounded != nullptr) {
      const VF bias[2] = {hn::LoadU(d, params.bias + column), hn::LoadU(d, params.bias + column + n)};
      static_assert(kPanelVectors == 2);
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) {
        const VF pairs = Weights::Mma::Pack(hn::Add(acc[m][0], bias[0]), hn::Add(acc[m][1], bias[1]));
        bfloat16* to = params.rounded + (row + m) * params.rounded_stride + column;
        hn::StoreU(pairs, d, whole ? reinterpret_cast<float*>(to) : edge);
        if (!whole) std::memcpy(static_cast<void*>(to), edge, valid * sizeof(bfloat16));
      }
      return;
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) {
    float* y = params.y + (row + m) * params.y_stride + column;
#pragma GCC unroll 8
    for (int v = 0; v < kPanelVectors; ++v) {
      const std::size_t at = static_cast<std::size_t>(v) * n;
      VF value = acc[m][v];
      if (last) value = hn::Add(value, hn::LoadU(d, params.bias + column + static_cast<std::int64_t>(at)));
      hn::StoreU(value, d, whole ? y + at : edge + at);
    }
    if (!whole) {
      for (std::size_t i = 0; i < valid; ++i) y[i] = edge[i];
    }
  }
  if (last && params.activation != Activation::kNone) {
    Activate(params, column, static_cast<std::int64_t>(valid), row, row + M);
  }
}

template <class Weights, int M>
HWY_INLINE void LinearBlockOf(const LinearParams& params, const LinearStep& step, std::int64_t rows, std::int64_t row) {
  if constexpr (M == 1) {
    LinearBlock<Weights, 1>(params, step, row);
  } else {
    if (rows >= M) {
      LinearBlock<Weights, M>(params, step, row);
    } else {
      LinearBlockOf<Weights, M - 1>(params, step, rows, row);
    }
  }
}

// Register tiles over rows [begin, end), of nearly equal height: a lone last row would starve the multipliers.
template <class Weights>
HWY_INLINE void LinearBlocks(const LinearParams& params, const LinearStep& step, std::int64_t begin, std::int64_t end) {
  for (std::int64_t blocks = (end - begin + kLinearRows - 1) / kLinearRows; blocks > 0; --blocks) {
    const std::int64_t rows = (end - begin + blocks - 1) / blocks;
    LinearBlockOf<Weights, kLinearRows>(params, step, rows, begin);
    begin += rows;
  }
}

// Calls body(from, depth) for the inputs in even pieces of at most `most`; once where there are none.
template <class Body>
HWY_INLINE void ForDepths(std::int64_t in, std::int64_t most, Body&& body) {
  const std::int64_t pieces = in > most ? (in + most - 1) / most : 1;
  const std::int64_t depth = ((in + pieces - 1) / pieces + 1) / 2 * 2;
  std::int64_t from = 0;
  do {
    body(from, in - from < depth ? in - from : depth);
    from += depth;
  } while (from < in);
}

template <class Weights>
void LinearF32(const LinearParams& params, std::int64_t row_begin, std::int64_t row_end, std::int64_t panel_begin,
               std::int64_t panel_end) {
  const std::int64_t terms = params.type == DType::kBF16 ? 2 : 1;
  const std::int64_t width = kPanelVectors * static_cast<std::int64_t>(LaneCount());
  // Few rows read each weight once: in one piece.
  const Tuning& tuned = tuning();
  const std::int64_t most = row_end - row_begin <= kLinearRows ? params.in : tuned.linear_depth;
  ForDepths(params.in, most, [&](std::int64_t from, std::int64_t depth) HWY_ATTR {
    for (std::int64_t panel = panel_begin; panel < panel_end; ++panel) {
      LinearBlocks<Weights>(
          params,
          {.panel = panel,
           .from = from,
           .depth = depth,
           .weights = params.packed + (panel * ((params.in + terms - 1) / terms) + from / terms) * width,
           .x = params.x + from,
           .x_stride = static_cast<std::size_t>(params.x_stride),
           .prefetch_to_l2 = tuned.prefetch_to_l2 != 0,
           .prefetch_words = static_cast<std::size_t>(tuned.linear_prefetch_words)},
          row_begin, row_end);
    }
  });
}

void Linear(const LinearParams& params, std::int64_t row_begin, std::int64_t row_end, std::int64_t panel_begin,
            std::int64_t panel_end, float*) {
  if (params.type == DType::kBF16) return LinearF32<WidenedWeights>(params, row_begin, row_end, panel_begin, panel_end);
  LinearF32<F32Weights>(params, row_begin, row_end, panel_begin, panel_end);
}

// The same by dot products of BF16 pairs, where weights are BF16: x is rounded to BF16 too, a block of rows at a time.
template <class Mma>
void LinearBf16(const LinearParams& params, std::int64_t row_begin, std::int64_t row_end, std::int64_t panel_begin,
                std::int64_t panel_end, float* HWY_RESTRICT narrow) {
  if (params.type != DType::kBF16) return Linear(params, row_begin, row_end, panel_begin, panel_end, nullptr);
  const DF d;
  const std::int64_t n = static_cast<std::int64_t>(hn::Lanes(d));
  const std::int64_t width = kPanelVectors * n;
  const Tuning& tuned = tuning();
  for (std::int64_t begin = row_begin; begin < row_end;) {
    const std::int64_t rows = row_end - begin < kBf16Rows ? row_end - begin : kBf16Rows;
    const std::int64_t most = LinearBf16Words() / rows / n * n * 2;  // as deep as the workspace holds for so many rows
    ForDepths(params.in, most, [&](std::int64_t from, std::int64_t depth) HWY_ATTR {
      const std::int64_t stride = (depth + 2 * n - 1) / (2 * n) * n;
      for (std::int64_t row = 0; row < rows; ++row) {
        const float* x = params.x + (begin + row) * params.x_stride + from;
        for (std::int64_t i = 0; i < depth; i += 2 * n) {
          HWY_ALIGN float edge[2 * kMaxLanes];
          const float* values = x + i;
          if (depth - i < 2 * n) {
            for (std::int64_t j = 0; j < 2 * n; ++j) edge[j] = i + j < depth ? values[j] : 0.0f;
            values = edge;
          }
          hn::StoreU(Mma::Pack(hn::LoadU(d, values), hn::LoadU(d, values + n)), d, narrow + row * stride + i / 2);
        }
      }
      for (std::int64_t panel = panel_begin; panel < panel_end; ++panel) {
        LinearBlocks<PairedWeights<Mma>>(params,
                                         {.panel = panel,
                                          .from = from,
                                          .depth = depth,
                                          .weights = params.packed + (panel * ((params.in + 1) / 2) + from / 2) * width,
                                          .x = narrow,
                                          .x_stride = static_cast<std::size_t>(stride),
                                          .first = begin,
                                          .prefetch_to_l2 = tuned.prefetch_to_l2 != 0,
                                          .prefetch_words = static_cast<std::size_t>(tuned.linear_prefetch_words)},
                                         begin, begin + rows);
      }
    });
    begin += rows;
  }
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
