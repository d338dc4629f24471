// F32 products by tiles of BF16: each value is three BF16 pieces, and six of the nine products of two values' pieces
// are summed in each block of 32 values, the smallest first.
//
//   x = x0 + x1 + x2,   x y = x0 y2 + x2 y0 + x1 y1 + x0 y1 + x1 y0 + x0 y0 + rest
//
// Contract: the three pieces are x to the last bit where 2^-96 <= |x| < 2^63, or x is 0. The rest is about
// 2^-24 |x y| at most: |x1| <= 2^-8 |x| and |x2| <= 2^-17 |x|. Values beyond are 0 here, and multiplied as F32 by the
// caller: so no product of two pieces leaves F32, and a sum overflows to the infinity that F32 gives it.
// Cost: six products of BF16 for one of F32, a dozen instructions for each vector of values.

// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_ISA_SPLIT_F32_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_ISA_SPLIT_F32_INL_HPP
#undef MANYHEADS_ISA_SPLIT_F32_INL_HPP
#else
#define MANYHEADS_ISA_SPLIT_F32_INL_HPP
#endif

#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/isa/mma_amx-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

struct ThreePieces {
  static constexpr std::size_t kPieces = 3, kPairs = 6;
  static constexpr std::size_t kOfA[6] = {0, 2, 1, 0, 1, 0}, kOfB[6] = {2, 0, 1, 1, 0, 0};
};

constexpr float kLeastSplit = 0x1p-96f, kMostSplit = 0x1p63f;

// Blocks of 16 words of pairs that hold so many values.
constexpr std::size_t SplitDepth(std::size_t values) { return (values + 2 * kTileSide - 1) / (2 * kTileSide); }
// Words of all pieces of so many values.
constexpr std::size_t SplitWords(std::size_t values) { return ThreePieces::kPieces * SplitDepth(values) * kTileSide; }

// F32 by tiles. Operands come as F32 and are split on their way into the tiles.
template <class TileMma>
struct MmaF32Tiles : MmaF32 {
  using Tiles = TileMma;
  static constexpr bool kAmx = true;
  static constexpr bool kSplits = true;
  static constexpr int kDecodeRows = 0;
  static constexpr bool kChains = false;
  static void Begin() { TileMma::Begin(); }
  static void End() { TileMma::End(); }
};

// The pieces of x, as the upper halves of their words.
struct Pieces3 {
  VF piece[3];
};
HWY_INLINE Pieces3 Split(VF x) {
  const DF d;
  const hn::RebindToUnsigned<DF> du;
  const auto rounded = [&](VF value) HWY_ATTR {
    return hn::BitCast(d, hn::ShiftLeft<16>(RoundedToBf16(hn::BitCast(du, value))));
  };
  const VF x0 = rounded(x);
  const VF rest = hn::Sub(x, x0);
  const VF x1 = rounded(rest);
  return {{x0, x1, hn::Sub(rest, x1)}};  // eight bits are left: the last is exact
}
// Which lanes hold what the pieces cannot.
HWY_INLINE auto Unsplittable(VF x) {
  const DF d;
  const VF magnitude = hn::Abs(x);
  const auto fits = hn::And(hn::Ge(magnitude, hn::Set(d, kLeastSplit)), hn::Lt(magnitude, hn::Set(d, kMostSplit)));
  return hn::Not(hn::Or(fits, hn::Eq(x, hn::Zero(d))));
}
HWY_INLINE bool BeyondPieces(float x) {
  const float magnitude = x < 0 ? -x : x;
  return !(x == 0 || (magnitude >= kLeastSplit && magnitude < kMostSplit));
}
// A word of two pieces: `first` in its lower half.
HWY_INLINE VF PieceWord(VF first, VF second) {
  const DF d;
  const hn::RebindToUnsigned<DF> du;
  return hn::BitCast(d, hn::Or(hn::ShiftRight<16>(hn::BitCast(du, first)), hn::BitCast(du, second)));
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
