// Both products of attention in F32 by tiles: operands are split into BF16 pieces a run at a time.
//
// Contract: a score or an output whose terms the pieces cannot hold is F32's own multiply-adds, decided value by value:
// what a row may not see changes no bit of it.
// Cost: the products are six times those of BF16; splitting reads each operand once for a query block.

// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_ALGORITHM_SPLIT_PRODUCTS_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_ALGORITHM_SPLIT_PRODUCTS_INL_HPP
#undef MANYHEADS_ALGORITHM_SPLIT_PRODUCTS_INL_HPP
#else
#define MANYHEADS_ALGORITHM_SPLIT_PRODUCTS_INL_HPP
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/algorithm/pack_kv-inl.hpp"
#include "kernels/isa/split_f32-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Splits rows [count][width] to [rows in whole tiles][pieces][words], 0 behind the last. Returns the rows, a bit each,
// that hold a value the pieces cannot; such values count as 0.
HWY_INLINE std::uint64_t SplitRows(const StridedRows& rows, std::size_t count, std::size_t width, float* to) {
  const DF d;
  const hn::RebindToUnsigned<DF> du;
  const hn::Rebind<std::uint16_t, DF> dh;
  const std::size_t n = hn::Lanes(d);
  const std::size_t words = SplitDepth(width) * kTileSide;
  std::fill(to, to + RoundUp(count, kTileSide) * ThreePieces::kPieces * words, 0.0f);
  std::uint64_t unsplit = 0;
  for (std::size_t j = 0; j < count; ++j) {
    const float* row = rows.data + j * rows.stride;
    std::uint16_t* halves = reinterpret_cast<std::uint16_t*>(to + j * ThreePieces::kPieces * words);
    HWY_ALIGN float last[kMaxLanes] = {};
    for (std::size_t i = 0; i < width; i += n) {
      if (i + n > width) std::copy(row + i, row + width, last);
      VF x = hn::LoadU(d, i + n > width ? last : row + i);
      const auto beyond = Unsplittable(x);
      if (!hn::AllFalse(d, beyond)) {
        unsplit |= std::uint64_t{1} << j;
        x = hn::IfThenZeroElse(beyond, x);
      }
      const Pieces3 pieces = Split(x);
      for (std::size_t p = 0; p < ThreePieces::kPieces; ++p) {
        const auto upper = hn::ShiftRight<16>(hn::BitCast(du, pieces.piece[p]));
        hn::StoreU(hn::DemoteTo(dh, hn::BitCast(hn::RebindToSigned<DF>(), upper)), dh, halves + p * 2 * words + i);
      }
    }
  }
  return unsplit;
}

// Splits columns [count][lanes] to [pieces][words of `whole` rows][lanes], rows `step` words apart, 0 behind the last.
// beyond(lost, row, lane) is called where a vector of a row, from a lane on, holds what the pieces cannot; such values
// count as 0.
template <class Beyond>
HWY_INLINE void SplitColumns(const float* columns, std::size_t count, std::size_t whole, std::size_t lanes, float* to,
                             std::size_t step, Beyond&& beyond) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  const std::size_t words = SplitDepth(whole) * kTileSide;
  const auto taken = [&](std::size_t row, std::size_t lane) HWY_ATTR {
    if (row >= count) return Split(hn::Zero(d));
    VF x = hn::LoadU(d, columns + row * lanes + lane);
    const auto lost = Unsplittable(x);
    if (!hn::AllFalse(d, lost)) {
      beyond(lost, row, lane);
      x = hn::IfThenZeroElse(lost, x);
    }
    return Split(x);
  };
  for (std::size_t w = 0; w < words; ++w) {
    for (std::size_t lane = 0; lane < lanes; lane += n) {
      const Pieces3 first = taken(2 * w, lane);
      const Pieces3 second = taken(2 * w + 1, lane);
      for (std::size_t p = 0; p < ThreePieces::kPieces; ++p) {
        hn::StoreU(PieceWord(first.piece[p], second.piece[p]), d, to + (p * words + w) * step + lane);
      }
    }
  }
}

// Splits values [keys][width] to rows [width in whole tiles][pieces][words of keys], 0 behind the last. Returns the
// keys, a bit each, with a value that the pieces cannot hold. `squares` has room for the words of a piece.
HWY_INLINE std::uint64_t SplitValues(const StridedRows& values, std::size_t keys, std::size_t width, float* squares,
                                     float* to) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  const std::size_t words = SplitDepth(keys) * kTileSide;
  const std::size_t pairs = (keys + 1) / 2;
  std::uint64_t unsplit = 0;
  for (std::size_t p = 0; p < ThreePieces::kPieces; ++p) {
    for (std::size_t w = 0; w < pairs; ++w) {
      HWY_ALIGN float last[2][kMaxLanes] = {};
      for (std::size_t i = 0; i < width; i += n) {
        VF piece[2];
        for (std::size_t half = 0; half < 2; ++half) {
          const std::size_t key = 2 * w + half;
          const float* row = values.data + key * values.stride + i;
          if (key < keys && i + n > width) std::copy(row, row + (width - i), last[half]);
          VF x = key >= keys ? hn::Zero(d) : hn::LoadU(d, i + n > width ? last[half] : row);
          const auto lost = Unsplittable(x);
          if (!hn::AllFalse(d, lost)) {
            unsplit |= std::uint64_t{1} << key;
            x = hn::IfThenZeroElse(lost, x);
          }
          piece[half] = Split(x).piece[p];
        }
        hn::StoreU(PieceWord(piece[0], piece[1]), d, squares + w * RoundUp(width, n) + i);
      }
    }
    AmxValues(WordRows{{squares, RoundUp(width, n)}}, pairs, width, words, ThreePieces::kPieces * words,
              to + p * words);
  }
  return unsplit;
}

// Adds to output[width][lanes] the products that the pieces could not hold: keys ascending, F32 multiply-adds. A
// forbidden key, of probability -0, has none.
HWY_INLINE void AddUnsplitProducts(const StridedRows& values, const float* probs, std::size_t keys, std::size_t width,
                                   std::size_t lanes, std::uint64_t unsplit, float* output) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  for (std::size_t key = 0; key < keys; ++key) {
    if ((unsplit >> key & 1) == 0) continue;
    for (std::size_t lane = 0; lane < lanes; lane += n) {
      const VF prob = hn::LoadU(d, probs + key * lanes + lane);
      const auto beyond = Unsplittable(prob);
      for (std::size_t i = 0; i < width; ++i) {
        const VF value = hn::Set(d, values.data[key * values.stride + i]);
        float* const to = output + i * lanes + lane;
        const VF sum = hn::LoadU(d, to);
        const VF more = Fma(VisibleOnly<MmaF32>(prob, value), prob, sum);
        hn::StoreU(hn::IfThenElse(hn::Or(beyond, Unsplittable(value)), more, sum), d, to);
      }
    }
  }
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
