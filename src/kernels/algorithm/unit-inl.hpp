// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_UNIT_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_UNIT_INL_HPP
#undef MANYHEADS_UNIT_INL_HPP
#else
#define MANYHEADS_UNIT_INL_HPP
#endif

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "hwy/highway.h"
#include "kernels/algorithm/rows-inl.hpp"

// What multiplies. Both products of attention are told once over a unit: its operands are words of 32 bits, each one
// F32, a pair of neighbouring BF16 or four I8, its sums F32 (of I8, I32).
HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// A row of `count` values as words of them: where it lies, or in scratch, the last word filled up with 0.
template <class Value>
HWY_INLINE const float* WordRow(const void* base, std::int64_t at, std::int64_t step, std::int64_t count,
                                float* scratch) {
  constexpr std::int64_t kTerms = sizeof(float) / sizeof(Value);
  const Value* from = static_cast<const Value*>(base) + at;
  if (step == 1 && count % kTerms == 0) return reinterpret_cast<const float*>(from);
  Value* to = reinterpret_cast<Value*>(scratch);
  for (std::int64_t i = 0; i < count; ++i) to[i] = from[i * step];
  for (std::int64_t i = count; i % kTerms != 0; ++i) to[i] = 0;
  return scratch;
}

// A row of BF16, or of I8 as such, as words of pairs.
HWY_INLINE const float* PairRow(DType type, const void* base, std::int64_t at, std::int64_t step, std::int64_t count,
                                float* scratch) {
  if (type != DType::kI8) return WordRow<std::uint16_t>(base, at, step, count, scratch);
  const std::int8_t* from = static_cast<const std::int8_t*>(base) + at;
  std::uint16_t* to = reinterpret_cast<std::uint16_t*>(scratch);
  for (std::int64_t i = 0; i < count; ++i) to[i] = Bf16Bits(from[i * step]);
  if (count % 2 != 0) to[count] = 0;
  return scratch;
}

// A unit whose sums begin at 0 and need no change: the operands are multiplied as they come.
struct PlainSums {
  static constexpr bool kBytes = false;  // rounds queries and weights to bytes (quads-inl.hpp)
  using Element = void;                  // of the keys and values that pairs are taken from as they lie

  template <class State>
  static HWY_INLINE VF Begin(const State& /*state*/, int /*row*/) {
    return hn::Zero(DF());
  }
  static HWY_INLINE VF Key(VF word) { return word; }
  template <class State>
  static HWY_INLINE VF Score(const State& /*state*/, int /*row*/, VF sum) {
    return sum;
  }
};

// The unit that multiplies many rows where this one multiplies few.
template <class FewRows>
struct ManyRowsOf {
  using Unit = FewRows;
};

// Fused multiply-adds of F32.
struct Floats : PlainSums {
  static constexpr std::size_t kTerms = 1;  // values in a word
  static constexpr bool kTiles = false;     // a step is one vector's, not a tile's (tiles-inl.hpp)
  static constexpr bool kRowsOnly = false;  // any number of rows passes over the keys few by few
  static constexpr int kFewRows = 8;        // up to so many rows pass over the keys one by one
  // Long sums are cut into chains, which keeps their error within the bounds of F32.
  static constexpr bool kChains = true;
  // The scale lies in the packed queries.
  static constexpr bool kScaledQueries = true;

  static HWY_INLINE VF MulAdd(VF a, VF b, VF sum) { return hn::MulAdd(a, b, sum); }

  // A row of `count` values as words: where it lies, or in scratch.
  static HWY_INLINE const float* Row(DType type, const void* base, std::int64_t at, std::int64_t step,
                                     std::int64_t count, float* scratch) {
    if (type == DType::kF32 && step == 1) return static_cast<const float*>(base) + at;
    CopyRow(type, base, at, step, count, scratch);
    return scratch;
  }
};

#if HWY_TARGET == HWY_AVX3
// Dot products of pairs of BF16 (vdpbf16ps): each product exact, the two added to the sum one after the other;
// denormals count as 0. As an instruction by name, since this target's own set does not include it.
struct Pairs : PlainSums {
  using Element = bfloat16;
  static constexpr std::size_t kTerms = 2;
  static constexpr bool kTiles = false;
  static constexpr bool kRowsOnly = false;
  static constexpr int kFewRows = 8;
  static constexpr bool kChains = false;
  static constexpr bool kScaledQueries = false;

  static HWY_INLINE VF MulAdd(VF a, VF b, VF sum) {
    asm("vdpbf16ps %2, %1, %0" : "+v"(sum.raw) : "v"(a.raw), "v"(b.raw));
    return sum;
  }

  static HWY_INLINE const float* Row(DType type, const void* base, std::int64_t at, std::int64_t step,
                                     std::int64_t count, float* scratch) {
    return PairRow(type, base, at, step, count, scratch);
  }

  // BF16 of `low` and `high`, rounded to nearest even, as neighbours: a lane's two values in one word.
  static HWY_INLINE VF Zip(VF low, VF high) {
    alignas(64) static constexpr std::uint16_t kOrder[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                             8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    return VF{_mm512_castsi512_ps(
        _mm512_permutexvar_epi16(_mm512_load_si512(kOrder), _mm512_castps_si512(Pack(low, high).raw)))};
  }
  // The same in memory's order: all of `low`, then all of `high`.
  static HWY_INLINE VF Pack(VF low, VF high) {
    VF both;
    asm("vcvtne2ps2bf16 %1, %2, %0" : "=v"(both.raw) : "v"(low.raw), "v"(high.raw));
    return both;
  }
};

// The same products where keys and values are I8: few rows make them BF16 on their way into the registers.
struct BytePairs : Pairs {
  using Element = std::int8_t;
};
template <>
struct ManyRowsOf<BytePairs> {
  using Unit = Pairs;  // which read copies
};
#endif

template <class Unit>
constexpr std::size_t Words(std::size_t values) {
  return (values + Unit::kTerms - 1) / Unit::kTerms;
}

// The halves of a weight's words that say "forbidden" (-0) as a mask for the words they are multiplied with.
template <class Unit>
HWY_INLINE VF VisibleOnly(VF weight, VF value) {
  const DF d;
  const hn::RebindToUnsigned<DF> du;
  const auto words = hn::BitCast(du, weight);
  if constexpr (Unit::kTerms == 1) {
    return hn::IfThenZeroElse(hn::RebindMask(d, hn::Eq(words, hn::Set(du, 0x80000000u))), value);
  } else {
    const auto sign = hn::Set(du, 0x8000u);
    const auto low = hn::VecFromMask(du, hn::Eq(hn::And(words, hn::Set(du, 0xffffu)), sign));
    const auto high = hn::VecFromMask(du, hn::Eq(hn::ShiftRight<16>(words), sign));
    const auto forbidden = hn::Or(hn::And(low, hn::Set(du, 0xffffu)), hn::ShiftLeft<16>(high));
    return hn::BitCast(d, hn::AndNot(forbidden, hn::BitCast(du, value)));
  }
}

// A unit for values that are not finite beside forbidden keys: their product, 0 times NaN, would reach the sum. Such
// values count as 0, which changes no bit of a finite sum. The weights are the second operand, or the first.
template <class Unit>
struct WeightsSecond : Unit {
  static HWY_INLINE VF MulAdd(VF value, VF weight, VF sum) {
    return Unit::MulAdd(VisibleOnly<Unit>(weight, value), weight, sum);
  }
};
template <class Unit>
struct WeightsFirst : Unit {
  static HWY_INLINE VF MulAdd(VF weight, VF value, VF sum) {
    return Unit::MulAdd(weight, VisibleOnly<Unit>(weight, value), sum);
  }
};

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
