// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_LINEAR_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_LINEAR_INL_HPP
#undef MANYHEADS_LINEAR_INL_HPP
#else
#define MANYHEADS_LINEAR_INL_HPP
#endif

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "kernels/algorithm/math-inl.hpp"
#include "kernels/algorithm/scores-inl.hpp"
#include "kernels/algorithm/tile-inl.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/kernel_table.hpp"

// The projections around attention: y = epilogue(x W^T + b), and LayerNorm over rows.
HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr int kPanelVectors = 2;
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_SSE4 || HWY_TARGET == HWY_SSSE3
constexpr int kLinearRows = 6;
#else
constexpr int kLinearRows = 12;
#endif
// Inputs summed before the next panel is read: a panel of this depth and the rows beside it stay in the second cache.
// Where a sum goes on from y, rows of y a power of two apart meet in few lines of a cache: depth pays. Sums go on in
// the same order, so it does not touch the bits. It is even: pairs stay together.
constexpr std::int64_t kLinearDepth = 2048;
// The same for rows that are rounded to pairs first, in the worker's scratch: so many of them, and their words.
constexpr std::int64_t kPairsDepth = 1536;
constexpr std::int64_t kPairsRows = 4 * kLinearRows, kPairsWords = kPairsRows * kPairsDepth / 2;
// How far ahead of its use a panel is fetched, in words: weights that the second cache does not hold arrive in time.
constexpr std::size_t kLinearAhead = 2048;

// A panel's words far ahead of those that a step reads.
struct FetchPanel {
  HWY_INLINE void operator()(const float* here) const {
    for (std::size_t at = 0; at < width; at += 16) hwy::Prefetch(here + kLinearAhead + at);
  }
  std::size_t width;
};

// The same for processors that fetch far into the second cache (fetches_into_second_cache): asked for twice, since such
// a fetch may be dropped, and then into the first.
struct FetchPanelTwice {
  HWY_INLINE void operator()(const float* here) const {
    for (std::size_t at = 0; at < width; at += 16) {
      __builtin_prefetch(here + 4 * kLinearAhead + at, 0, 2);
      __builtin_prefetch(here + 2 * kLinearAhead + at, 0, 2);
      __builtin_prefetch(here + kLinearAhead / 2 + at, 0, 3);
    }
  }
  std::size_t width;
};
// Fewer rows have no time for that beside their multiplications.
constexpr int kRowsToFetchTwice = 3;

// What a projection's weights are kept as, and how they multiply: sums over x [M rows][depth], x_m words apart, times
// weights [words][width].
struct F32Weights {
  static constexpr bool kPairs = false;
  template <int M, int NV, class Fetch>
  static HWY_INLINE void Sum(const float* HWY_RESTRICT x, std::size_t x_m, const float* HWY_RESTRICT weights,
                             std::size_t width, std::size_t depth, VF (&acc)[M][NV], Fetch fetch) {
    Accumulate<Floats>(x, x_m, 1, weights, width, depth, acc, fetch);
  }
};

// BF16 made F32 in registers, which is exact: the bits are those of F32 weights of the same values.
struct WidenedWeights {
  static constexpr bool kPairs = false;
  template <int M, int NV, class Fetch>
  static HWY_INLINE void Sum(const float* HWY_RESTRICT x, std::size_t x_m, const float* HWY_RESTRICT weights,
                             std::size_t width, std::size_t depth, VF (&acc)[M][NV], Fetch fetch) {
    const DF d;
    const hn::RebindToUnsigned<DF> du;
    const auto add = [&](std::size_t i, const auto& column) HWY_ATTR {
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) {
        const VF value = hn::Set(d, x[static_cast<std::size_t>(m) * x_m + i]);
#pragma GCC unroll 8
        for (int n = 0; n < NV; ++n) acc[m][n] = hn::MulAdd(value, hn::BitCast(d, column[n]), acc[m][n]);
      }
    };
    for (std::size_t i = 0; i < depth; i += 2) {
      const std::uint32_t* words = reinterpret_cast<const std::uint32_t*>(weights) + i / 2 * width;
      hn::Vec<decltype(du)> word[NV], column[NV];
      fetch(weights + i / 2 * width);
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

#if HWY_TARGET == HWY_AVX3
// BF16 times x of BF16 pairs.
struct PairedWeights {
  static constexpr bool kPairs = true;
  template <int M, int NV, class Fetch>
  static HWY_INLINE void Sum(const float* HWY_RESTRICT x, std::size_t x_m, const float* HWY_RESTRICT weights,
                             std::size_t width, std::size_t depth, VF (&acc)[M][NV], Fetch fetch) {
    Accumulate<Pairs>(x, x_m, 1, weights, width, Words<Pairs>(depth), acc, fetch);
  }
};
#endif

// One panel over the inputs [from, from + depth) of all rows, as words.
struct LinearStep {
  std::int64_t panel = 0;
  std::int64_t from = 0, depth = 0;
  const float* weights = nullptr;  // [words][panel]
  const float* x = nullptr;        // of row `first`
  std::size_t x_stride = 0;
  std::int64_t first = 0;
  bool fetch_twice = false;
};

// The activation of rows [begin, end) of a panel's finished sums, tile by tile while they are near. In a loop of its
// own: unrolled with the tile its steps neither overlap nor fit where the processor keeps decoded instructions.
HWY_NOINLINE void Activate(const LinearCall& call, std::int64_t panel, std::int64_t begin, std::int64_t end) {
  const DF d;
  const std::int64_t n = static_cast<std::int64_t>(hn::Lanes(d));
  const std::int64_t column = panel * kPanelVectors * n;
  const std::int64_t columns = call.out - column < kPanelVectors * n ? call.out - column : kPanelVectors * n;
  const auto each = [&](const auto& function) HWY_ATTR {
    for (std::int64_t r = begin; r < end; ++r) {
      float* y = call.y + r * call.y_stride + column;
      std::int64_t i = 0;
      for (; i + n <= columns; i += n) hn::StoreU(function(hn::LoadU(d, y + i)), d, y + i);
      if (i == columns) continue;
      HWY_ALIGN float edge[kMaxLanes] = {};
      std::copy_n(y + i, columns - i, edge);
      hn::Store(function(hn::Load(d, edge)), d, edge);
      std::copy_n(edge, columns - i, y + i);
    }
  };
  if (call.epilogue == Epilogue::kRelu) each([&](VF x) HWY_ATTR { return MaxKeepsNaN(hn::Zero(d), x); });
  if (call.epilogue == Epilogue::kGelu) each([&](VF x) HWY_ATTR { return Gelu(d, x); });
  if (call.epilogue == Epilogue::kGeluTanh) each([&](VF x) HWY_ATTR { return GeluTanh(d, x); });
}

template <class Weights, int M>
HWY_NOINLINE void LinearTile(const LinearCall& call, const LinearStep& step, std::int64_t row) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  const std::size_t width = kPanelVectors * n;
  const std::int64_t column = step.panel * static_cast<std::int64_t>(width);
  const bool whole = column + static_cast<std::int64_t>(width) <= call.out;
  const std::size_t valid = whole ? width : static_cast<std::size_t>(call.out - column);
  HWY_ALIGN float edge[HWY_MAX_BYTES / sizeof(float) * kPanelVectors];
  VF acc[M][kPanelVectors];
  if (step.from == 0) {
    Clear(acc);
  } else {
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) {
      const float* y = call.y + (row + m) * call.y_stride + column;
      if (!whole) {
        for (std::size_t i = 0; i < width; ++i) edge[i] = i < valid ? y[i] : 0.0f;
        y = edge;
      }
#pragma GCC unroll 8
      for (int v = 0; v < kPanelVectors; ++v) acc[m][v] = hn::LoadU(d, y + static_cast<std::size_t>(v) * n);
    }
  }
  const auto sum = [&](auto fetch) HWY_ATTR {
    Weights::Sum(step.x + static_cast<std::size_t>(row - step.first) * step.x_stride, step.x_stride, step.weights,
                 width, static_cast<std::size_t>(step.depth), acc, fetch);
  };
  if (M >= kRowsToFetchTwice && step.fetch_twice) {
    sum(FetchPanelTwice{width});
  } else {
    sum(FetchPanel{width});
  }
  const bool last = step.from + step.depth == call.in;
#if HWY_TARGET == HWY_AVX3
  if constexpr (Weights::kPairs) {
    if (last && call.rounded != nullptr) {
      const VF bias[2] = {hn::LoadU(d, call.bias + column), hn::LoadU(d, call.bias + column + n)};
      static_assert(kPanelVectors == 2);
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) {
        const VF pairs = Pairs::Pack(hn::Add(acc[m][0], bias[0]), hn::Add(acc[m][1], bias[1]));
        bfloat16* to = call.rounded + (row + m) * call.rounded_stride + column;
        hn::StoreU(pairs, d, whole ? reinterpret_cast<float*>(to) : edge);
        if (!whole) std::memcpy(static_cast<void*>(to), edge, valid * sizeof(bfloat16));
      }
      return;
    }
  }
#endif
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) {
    float* y = call.y + (row + m) * call.y_stride + column;
#pragma GCC unroll 8
    for (int v = 0; v < kPanelVectors; ++v) {
      const std::size_t at = static_cast<std::size_t>(v) * n;
      VF value = acc[m][v];
      if (last) value = hn::Add(value, hn::LoadU(d, call.bias + column + static_cast<std::int64_t>(at)));
      hn::StoreU(value, d, whole ? y + at : edge + at);
    }
    if (!whole) {
      for (std::size_t i = 0; i < valid; ++i) y[i] = edge[i];
    }
  }
  if (last && call.epilogue != Epilogue::kNone) Activate(call, step.panel, row, row + M);
}

template <class Weights, int M>
HWY_INLINE void LinearTileOf(const LinearCall& call, const LinearStep& step, std::int64_t rows, std::int64_t row) {
  if constexpr (M == 1) {
    LinearTile<Weights, 1>(call, step, row);
  } else {
    if (rows >= M) {
      LinearTile<Weights, M>(call, step, row);
    } else {
      LinearTileOf<Weights, M - 1>(call, step, rows, row);
    }
  }
}

// Tiles over rows [begin, end), of nearly equal height: a lone last row would starve the multipliers.
template <class Weights>
HWY_INLINE void LinearTiles(const LinearCall& call, const LinearStep& step, std::int64_t begin, std::int64_t end) {
  for (std::int64_t tiles = (end - begin + kLinearRows - 1) / kLinearRows; tiles > 0; --tiles) {
    const std::int64_t rows = (end - begin + tiles - 1) / tiles;
    LinearTileOf<Weights, kLinearRows>(call, step, rows, begin);
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
void LinearFloats(const LinearCall& call, std::int64_t row_begin, std::int64_t row_end, std::int64_t panel_begin,
                  std::int64_t panel_end) {
  const std::int64_t terms = call.type == DType::kBF16 ? 2 : 1;
  const std::int64_t width = kPanelVectors * static_cast<std::int64_t>(LaneCount());
  // Few rows read each weight once: in one go.
  const std::int64_t most = row_end - row_begin <= kLinearRows ? call.in : kLinearDepth;
  const bool twice = fetches_into_second_cache();
  ForDepths(call.in, most, [&](std::int64_t from, std::int64_t depth) HWY_ATTR {
    for (std::int64_t panel = panel_begin; panel < panel_end; ++panel) {
      LinearTiles<Weights>(call,
                           {.panel = panel,
                            .from = from,
                            .depth = depth,
                            .weights = call.packed + (panel * ((call.in + terms - 1) / terms) + from / terms) * width,
                            .x = call.x + from,
                            .x_stride = static_cast<std::size_t>(call.x_stride),
                            .fetch_twice = twice},
                           row_begin, row_end);
    }
  });
}

void Linear(const LinearCall& call, std::int64_t row_begin, std::int64_t row_end, std::int64_t panel_begin,
            std::int64_t panel_end, float*) {
  if (call.type == DType::kBF16) return LinearFloats<WidenedWeights>(call, row_begin, row_end, panel_begin, panel_end);
  LinearFloats<F32Weights>(call, row_begin, row_end, panel_begin, panel_end);
}

#if HWY_TARGET == HWY_AVX3
// The same with the dot product of pairs for BF16 weights: x is rounded to BF16 too, a block of rows at a time.
void LinearBf16(const LinearCall& call, std::int64_t row_begin, std::int64_t row_end, std::int64_t panel_begin,
                std::int64_t panel_end, float* HWY_RESTRICT narrow) {
  if (call.type != DType::kBF16) return Linear(call, row_begin, row_end, panel_begin, panel_end, nullptr);
  const DF d;
  const std::int64_t n = static_cast<std::int64_t>(hn::Lanes(d));
  const std::int64_t width = kPanelVectors * n;
  const bool twice = fetches_into_second_cache();
  for (std::int64_t begin = row_begin; begin < row_end;) {
    const std::int64_t rows = row_end - begin < kPairsRows ? row_end - begin : kPairsRows;
    const std::int64_t most = kPairsWords / rows / n * n * 2;  // as deep as the rows have room for
    ForDepths(call.in, most, [&](std::int64_t from, std::int64_t depth) HWY_ATTR {
      const std::int64_t stride = (depth + 2 * n - 1) / (2 * n) * n;
      for (std::int64_t row = 0; row < rows; ++row) {
        const float* x = call.x + (begin + row) * call.x_stride + from;
        for (std::int64_t i = 0; i < depth; i += 2 * n) {
          HWY_ALIGN float edge[2 * kMaxLanes];
          const float* values = x + i;
          if (depth - i < 2 * n) {
            for (std::int64_t j = 0; j < 2 * n; ++j) edge[j] = i + j < depth ? values[j] : 0.0f;
            values = edge;
          }
          hn::StoreU(Pairs::Pack(hn::LoadU(d, values), hn::LoadU(d, values + n)), d, narrow + row * stride + i / 2);
        }
      }
      for (std::int64_t panel = panel_begin; panel < panel_end; ++panel) {
        LinearTiles<PairedWeights>(call,
                                   {.panel = panel,
                                    .from = from,
                                    .depth = depth,
                                    .weights = call.packed + (panel * ((call.in + 1) / 2) + from / 2) * width,
                                    .x = narrow,
                                    .x_stride = static_cast<std::size_t>(stride),
                                    .first = begin,
                                    .fetch_twice = twice},
                                   begin, begin + rows);
      }
    });
    begin += rows;
  }
}
#endif

void LayerNorm(const LayerNormCall& call, std::int64_t row_begin, std::int64_t row_end) {
  const DF d;
  const std::int64_t n = static_cast<std::int64_t>(hn::Lanes(d));
  const std::int64_t whole = call.size / n * n;
  const auto sum_lanes = [&](VF v) HWY_ATTR { return hn::GetLane(hn::SumOfLanes(d, v)); };
  for (std::int64_t row = row_begin; row < row_end; ++row) {
    const float* x = call.x + row * call.x_stride;
    const float* r = call.residual != nullptr ? call.residual + row * call.residual_stride : nullptr;
    float* y = call.y + row * call.y_stride;
    VF sums = hn::Zero(d);
    float rest = 0;
    for (std::int64_t i = 0; i < whole; i += n) {
      VF value = hn::LoadU(d, x + i);
      if (r != nullptr) value = hn::Add(value, hn::LoadU(d, r + i));
      hn::StoreU(value, d, y + i);
      sums = hn::Add(sums, value);
    }
    for (std::int64_t i = whole; i < call.size; ++i) {
      y[i] = r != nullptr ? x[i] + r[i] : x[i];
      rest += y[i];
    }
    const float mean = (sum_lanes(sums) + rest) / static_cast<float>(call.size);
    sums = hn::Zero(d);
    rest = 0;
    for (std::int64_t i = 0; i < whole; i += n) {
      const VF off = hn::Sub(hn::LoadU(d, y + i), hn::Set(d, mean));
      sums = hn::MulAdd(off, off, sums);
    }
    for (std::int64_t i = whole; i < call.size; ++i) rest += (y[i] - mean) * (y[i] - mean);
    const float variance = (sum_lanes(sums) + rest) / static_cast<float>(call.size);
    const float inverse = 1.0f / std::sqrt(variance + call.epsilon);
    for (std::int64_t i = 0; i < whole; i += n) {
      const VF off = hn::Mul(hn::Sub(hn::LoadU(d, y + i), hn::Set(d, mean)), hn::Set(d, inverse));
      hn::StoreU(hn::MulAdd(off, hn::LoadU(d, call.gamma + i), hn::LoadU(d, call.beta + i)), d, y + i);
    }
    for (std::int64_t i = whole; i < call.size; ++i) {
      y[i] = (y[i] - mean) * inverse * call.gamma[i] + call.beta[i];
    }
  }
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
