// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_LINEAR_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_LINEAR_INL_HPP
#undef MANYHEADS_LINEAR_INL_HPP
#else
#define MANYHEADS_LINEAR_INL_HPP
#endif

#include <cmath>
#include <cstdint>

#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "kernels/algorithm/math-inl.hpp"
#include "kernels/algorithm/scores-inl.hpp"
#include "kernels/algorithm/tile-inl.hpp"
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
// Inputs summed before the next panel is read: a panel of this depth and the rows beside it stay in the first cache.
// Sums go on from y, so the depth does not touch the bits.
constexpr std::int64_t kLinearDepth = 256;

// How far ahead of its use a panel is fetched, in floats: weights that the second cache does not hold arrive in time.
constexpr std::size_t kLinearAhead = 512;

template <int M>
HWY_NOINLINE void LinearTile(const LinearCall& call, std::int64_t row, std::int64_t panel, std::int64_t from,
                             std::int64_t depth) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  const std::size_t width = kPanelVectors * n;
  const std::int64_t column = panel * static_cast<std::int64_t>(width);
  const bool whole = column + static_cast<std::int64_t>(width) <= call.out;
  const std::size_t valid = whole ? width : static_cast<std::size_t>(call.out - column);
  HWY_ALIGN float edge[HWY_MAX_BYTES / sizeof(float) * kPanelVectors];
  VF acc[M][kPanelVectors];
  if (from == 0) {
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
  const float* weights = call.packed + (panel * call.in + from) * static_cast<std::int64_t>(width);
  Accumulate<Floats>(call.x + row * call.x_stride + from, static_cast<std::size_t>(call.x_stride), 1, weights, width,
                     static_cast<std::size_t>(depth), acc, [&](std::size_t i) HWY_ATTR {
                       for (std::size_t at = 0; at < width; at += 16) {
                         hwy::Prefetch(weights + i * width + kLinearAhead + at);
                       }
                     });
  const bool last = from + depth == call.in;
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) {
    float* y = call.y + (row + m) * call.y_stride + column;
#pragma GCC unroll 8
    for (int v = 0; v < kPanelVectors; ++v) {
      const std::size_t at = static_cast<std::size_t>(v) * n;
      VF value = acc[m][v];
      if (last) {
        value = hn::Add(value, hn::LoadU(d, call.bias + column + static_cast<std::int64_t>(at)));
        if (call.epilogue == Epilogue::kRelu) value = MaxKeepsNaN(hn::Zero(d), value);
        if (call.epilogue == Epilogue::kGelu) value = Gelu(d, value);
        if (call.epilogue == Epilogue::kGeluTanh) value = GeluTanh(d, value);
      }
      hn::StoreU(value, d, whole ? y + at : edge + at);
    }
    if (!whole) {
      for (std::size_t i = 0; i < valid; ++i) y[i] = edge[i];
    }
  }
}

// Tiles of at most M rows over [begin, end), of nearly equal height: a lone last row would starve the multipliers.
template <int M>
HWY_INLINE void LinearRows(const LinearCall& call, std::int64_t rows, std::int64_t row, std::int64_t panel,
                           std::int64_t from, std::int64_t depth) {
  if constexpr (M == 1) {
    LinearTile<1>(call, row, panel, from, depth);
  } else {
    if (rows >= M) {
      LinearTile<M>(call, row, panel, from, depth);
    } else {
      LinearRows<M - 1>(call, rows, row, panel, from, depth);
    }
  }
}

void Linear(const LinearCall& call, std::int64_t row_begin, std::int64_t row_end, std::int64_t panel_begin,
            std::int64_t panel_end) {
  const std::int64_t tiles = (row_end - row_begin + kLinearRows - 1) / kLinearRows;
  for (std::int64_t from = 0; from == 0 || from < call.in; from += kLinearDepth) {
    const std::int64_t depth = call.in - from < kLinearDepth ? call.in - from : kLinearDepth;
    for (std::int64_t panel = panel_begin; panel < panel_end; ++panel) {
      std::int64_t row = row_begin;
      for (std::int64_t tile = 0; tile < tiles; ++tile) {
        const std::int64_t rows = (row_end - row + (tiles - tile) - 1) / (tiles - tile);
        LinearRows<kLinearRows>(call, rows, row, panel, from, depth);
        row += rows;
      }
    }
  }
}

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
