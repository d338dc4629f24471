// Projections of F32 by tiles: weights are split into BF16 pieces once, rows of x on their way into the tiles.
//
//   y = activation(x W^T + b)
//
// Contract: inputs are summed kSplitInputs at a time. Of each such sum come the products of pieces first
// (split_f32-inl.hpp), then, inputs ascending, multiply-adds of x that the pieces cannot hold and of such weights. The
// bits of a y depend on its row and its column alone.
// Cost: six products of BF16 for one of F32. A panel's pieces are read once for kSplitRows rows.

// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_ALGORITHM_LINEAR_TILES_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_ALGORITHM_LINEAR_TILES_INL_HPP
#undef MANYHEADS_ALGORITHM_LINEAR_TILES_INL_HPP
#else
#define MANYHEADS_ALGORITHM_LINEAR_TILES_INL_HPP
#endif

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/algorithm/activate-inl.hpp"
#include "kernels/algorithm/split_products-inl.hpp"
#include "kernels/isa/edge-inl.hpp"
#include "kernels/isa/register_shape-inl.hpp"
#include "kernels/params.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr std::size_t kSplitInputs = 256;  // the bits follow from it
constexpr std::size_t kSplitRows = 128;    // rows of x whose pieces lie in the workspace
constexpr std::size_t kSplitPanel = 2 * kTileSide;

// A panel's pieces [pieces of kSplitInputs][piece][words][kSplitPanel], and behind them a bit for each input with a
// weight that they cannot hold.
inline std::size_t SplitPanelWords(std::int64_t in) {
  const std::size_t inputs = static_cast<std::size_t>(in);
  return RoundUp(SplitWords(inputs) * kSplitPanel + (inputs + 63) / 64 * 2, kTileSide);
}
inline std::int64_t SplitLinearFloats() {
  return static_cast<std::int64_t>(kSplitRows * (SplitWords(kSplitInputs) + kSplitPanel));
}

// The packed F32 weights of a panel's inputs, as vectors; null behind the last column.
struct F32Columns {
  const LinearParams& params;
  std::size_t column;

  HWY_INLINE const float* operator()(std::size_t input, std::size_t at) const {
    const std::size_t width = kPanelVectors * LaneCount();
    const std::size_t i = column + at;
    if (i >= static_cast<std::size_t>(params.out)) return nullptr;
    return params.packed + (i / width * static_cast<std::size_t>(params.in) + input) * width + i % width;
  }
};

// Calls body(from, count) for each kSplitInputs inputs; once where there are none.
template <class Body>
HWY_INLINE void ForSplitInputs(std::size_t in, Body&& body) {
  std::size_t from = 0;
  do {
    body(from, std::min(kSplitInputs, in - from));
    from += kSplitInputs;
  } while (from < in);
}

template <class Mma>  // for a function of each unit
void SplitWeights(const LinearParams& params, std::int64_t panel_begin, std::int64_t panel_end, float* split) {
  const std::size_t width = kPanelVectors * LaneCount();
  const std::size_t in = static_cast<std::size_t>(params.in);
  for (std::int64_t p = panel_begin; p < panel_end; ++p) {
    float* const to = split + static_cast<std::size_t>(p) * SplitPanelWords(params.in);
    std::uint64_t* const beyond = reinterpret_cast<std::uint64_t*>(to + SplitWords(in) * kSplitPanel);
    std::fill_n(beyond, (in + 63) / 64, std::uint64_t{0});
    const F32Columns columns{params, static_cast<std::size_t>(p) * kSplitPanel};
    ForSplitInputs(in, [&](std::size_t from, std::size_t count) HWY_ATTR {
      float* const pieces = to + SplitWords(from) * kSplitPanel;
      for (std::size_t at = 0; at < kSplitPanel; at += width) {
        const float* const packed = columns(from, at);
        SplitColumns(packed, packed == nullptr ? 0 : count, count, width, pieces + at, kSplitPanel,
                     [&](const auto& /*lost*/, std::size_t row, std::size_t /*lane*/) {
                       beyond[(from + row) / 64] |= std::uint64_t{1} << (from + row) % 64;
                     });
      }
    });
  }
}

// Adds to sums [rows][kSplitPanel] what the pieces could not hold: of the rows with a bit in `unsplit`, and of the
// weights with a bit in `beyond`.
HWY_INLINE void AddUnsplitInputs(const F32Columns& columns, const float* HWY_RESTRICT x, std::size_t x_stride,
                                 std::size_t rows, std::size_t from, std::size_t count,
                                 const std::uint64_t* HWY_RESTRICT unsplit, const std::uint64_t* HWY_RESTRICT beyond,
                                 float* HWY_RESTRICT sums) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  // Calls body(i) for each of so many bits that is set, ascending.
  const auto each = [](const std::uint64_t* words, std::size_t bits, auto&& body) HWY_ATTR {
    for (std::size_t i = 0; i < bits; i += 64) {
      for (std::uint64_t left = words[i / 64]; left != 0; left &= left - 1) {
        body(i + static_cast<std::size_t>(std::countr_zero(left)));
      }
    }
  };
  each(unsplit, rows, [&](std::size_t r) HWY_ATTR {
    for (std::size_t k = 0; k < count; ++k) {
      const float value = x[r * x_stride + k];
      if (!BeyondPieces(value)) continue;
      for (std::size_t at = 0; at < kSplitPanel; at += n) {
        const float* const weights = columns(from + k, at);
        float* const sum = sums + r * kSplitPanel + at;
        if (weights != nullptr) hn::StoreU(Fma(hn::Set(d, value), hn::LoadU(d, weights), hn::LoadU(d, sum)), d, sum);
      }
    }
  });
  static_assert(kSplitInputs % 64 == 0);
  each(beyond + from / 64, count, [&](std::size_t k) HWY_ATTR {
    for (std::size_t at = 0; at < kSplitPanel; at += n) {
      const float* const packed = columns(from + k, at);
      if (packed == nullptr) continue;
      const VF weights = hn::LoadU(d, packed);
      const auto lost = Unsplittable(weights);
      for (std::size_t r = 0; r < rows; ++r) {
        const float value = x[r * x_stride + k];
        if (BeyondPieces(value)) continue;
        float* const to = sums + r * kSplitPanel + at;
        const VF sum = hn::LoadU(d, to);
        hn::StoreU(hn::IfThenElse(lost, Fma(hn::Set(d, value), weights, sum), sum), d, to);
      }
    }
  });
}

template <class Mma>
void LinearTiles(const LinearParams& params, std::int64_t row_begin, std::int64_t row_end, std::int64_t panel_begin,
                 std::int64_t panel_end, float* HWY_RESTRICT workspace) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  const std::size_t in = static_cast<std::size_t>(params.in);
  const std::size_t x_stride = static_cast<std::size_t>(params.x_stride);
  float* const pieces = workspace;
  float* const sums = workspace + kSplitRows * SplitWords(kSplitInputs);
  Mma::Begin();
  for (std::int64_t row = row_begin; row < row_end; row += static_cast<std::int64_t>(kSplitRows)) {
    const std::size_t rows = std::min(kSplitRows, static_cast<std::size_t>(row_end - row));
    ForSplitInputs(in, [&](std::size_t from, std::size_t count) HWY_ATTR {
      const float* const x = params.x + row * params.x_stride + from;
      std::uint64_t unsplit[kSplitRows / 64] = {};
      for (std::size_t r = 0; r < rows; r += 64) {
        unsplit[r / 64] = SplitRows({x + r * x_stride, x_stride}, std::min<std::size_t>(64, rows - r), count,
                                    pieces + r * SplitWords(count));
      }
      for (std::int64_t p = panel_begin; p < panel_end; ++p) {
        const std::size_t column = static_cast<std::size_t>(p) * kSplitPanel;
        const std::size_t valid = std::min(kSplitPanel, static_cast<std::size_t>(params.out) - column);
        const F32Columns columns{params, column};
        float* const y = params.y + row * params.y_stride + static_cast<std::int64_t>(column);
        for (std::size_t r = 0; from > 0 && r < rows; ++r) {
          std::copy_n(y + static_cast<std::int64_t>(r) * params.y_stride, valid, sums + r * kSplitPanel);
        }
        const float* const split = params.split + static_cast<std::size_t>(p) * SplitPanelWords(params.in);
        AmxProducts<Mma, ThreePieces>(pieces, SplitWords(count), split + SplitWords(from) * kSplitPanel, kSplitPanel,
                                      SplitDepth(count), sums, kSplitPanel, RoundUp(rows, kTileSide), kSplitPanel,
                                      from == 0);
        AddUnsplitInputs(columns, x, x_stride, rows, from, count, unsplit,
                         reinterpret_cast<const std::uint64_t*>(split + SplitWords(in) * kSplitPanel), sums);
        const bool last = from + count == in;
        for (std::size_t r = 0; r < rows; ++r) {
          float* const to = y + static_cast<std::int64_t>(r) * params.y_stride;
          for (std::size_t at = 0; at < valid; at += n) {
            VF value = hn::LoadU(d, sums + r * kSplitPanel + at);
            if (last) value = hn::Add(value, hn::LoadU(d, params.bias + column + at));
            if (at + n <= valid) {
              hn::StoreU(value, d, to + at);
            } else {
              StoreFirst(value, to + at, static_cast<std::int64_t>(valid - at));
            }
          }
        }
        if (last && params.activation != Activation::kNone) {
          Activate(params, static_cast<std::int64_t>(column), static_cast<std::int64_t>(valid), row,
                   row + static_cast<std::int64_t>(rows));
        }
      }
    });
  }
  Mma::End();
}

template <class Mma>
double SplitProductsProbe(std::int64_t rounds, float* value) {
  constexpr std::size_t kInputs = 64;
  HWY_ALIGN float a[kSplitPanel * SplitWords(kInputs)], b[SplitWords(kInputs) * kSplitPanel];
  HWY_ALIGN float sums[kSplitPanel * kSplitPanel];
  const hn::RebindToUnsigned<DF> du;
  const VF pairs = hn::BitCast(DF(), hn::Set(du, *value > 0 ? 0x3a803a80u : 0x3a813a81u));  // the sums stay finite
  const std::size_t n = hn::Lanes(DF());
  for (float* operand : {a, b}) {
    for (std::size_t i = 0; i < kSplitPanel * SplitWords(kInputs); i += n) hn::Store(pairs, DF(), operand + i);
  }
  Mma::Begin();
  for (std::int64_t r = 0; r < rounds; ++r) {
    AmxProducts<Mma, ThreePieces>(a, SplitWords(kInputs), b, kSplitPanel, SplitDepth(kInputs), sums, kSplitPanel,
                                  kSplitPanel, kSplitPanel, true);
  }
  Mma::End();
  *value = sums[0];
  return 2.0 * static_cast<double>(kSplitPanel * kSplitPanel * kInputs) * static_cast<double>(rounds);
}

template <class Mma>
SplitLinearKernels TileLinearKernels() {
  return {.linear = {.panel = static_cast<std::int64_t>(kSplitPanel),
                     .block_rows = static_cast<std::int64_t>(2 * kTileSide),
                     .rounds_rows_to_bf16 = false,
                     .workspace_floats = SplitLinearFloats(),
                     .linear = LinearTiles<Mma>},
          .split_weights = SplitWeights<Mma>,
          .split_words = SplitPanelWords,
          .probe = SplitProductsProbe<Mma>};
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
