// Widening: words of 32 bits that hold two or four values, and the values in them.
//
// Contract: exact; every I8 is a BF16, every BF16, F16 and I8 an F32.

// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_ISA_WIDEN_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_ISA_WIDEN_INL_HPP
#undef MANYHEADS_ISA_WIDEN_INL_HPP
#else
#define MANYHEADS_ISA_WIDEN_INL_HPP
#endif

#include <bit>
#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/isa/load_store-inl.hpp"
#include "kernels/isa/vector-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// The bits of a value as BF16. Every I8 is one.
HWY_INLINE std::uint16_t Bf16Bits(bfloat16 value) { return value.bits; }
HWY_INLINE std::uint16_t Bf16Bits(std::int8_t value) {
  return static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(static_cast<float>(value)) >> 16);
}

// Words of two values each, the first in the low half: of floats that are BF16, or of two rows of values in memory's
// order.
HWY_INLINE VF PairsOf(VF first, VF second) {
  const hn::RebindToUnsigned<DF> du;
  return hn::BitCast(DF(), hn::Or(hn::ShiftRight<16>(hn::BitCast(du, first)), hn::BitCast(du, second)));
}
HWY_INLINE VF PairedValues(const std::int8_t* first, const std::int8_t* second) {
  return PairsOf(ValuesOf<DType::kI8>::Load(first), ValuesOf<DType::kI8>::Load(second));
}
HWY_INLINE VF PairedValues(const bfloat16* first, const bfloat16* second) {
  const hn::Rebind<std::uint16_t, DF> dh;
  const hn::RebindToUnsigned<DF> du;
  const auto low = hn::PromoteTo(du, hn::LoadU(dh, reinterpret_cast<const std::uint16_t*>(first)));
  const auto high = hn::PromoteTo(du, hn::LoadU(dh, reinterpret_cast<const std::uint16_t*>(second)));
  return hn::BitCast(DF(), hn::Or(low, hn::ShiftLeft<16>(high)));
}

// Loads NV vectors of words of pairs from two rows of values, in the cheapest order.
// - BF16, NV even: of each two vectors, the first holds the lower halves of all 128-bit blocks (SplitBlocks): one
//   instruction a vector at most.
// - I8: memory's order.
template <int NV>
HWY_INLINE void LoadPairs(const std::int8_t* first, const std::int8_t* second, VF (&to)[NV]) {
  const std::size_t n = hn::Lanes(DF());
#pragma GCC unroll 4
  for (std::size_t v = 0; v < NV; ++v) to[v] = PairedValues(first + v * n, second + v * n);
}
template <int NV>
HWY_INLINE void LoadPairs(const bfloat16* first, const bfloat16* second, VF (&to)[NV]) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
#if HWY_TARGET != HWY_SCALAR
  const hn::Repartition<std::uint16_t, DF> dh;
#pragma GCC unroll 4
  for (std::size_t v = 0; v < NV; v += 2) {
    const auto a = hn::LoadU(dh, reinterpret_cast<const std::uint16_t*>(first + v * n));
    const auto b = hn::LoadU(dh, reinterpret_cast<const std::uint16_t*>(second + v * n));
    to[v] = hn::BitCast(d, hn::InterleaveLower(dh, a, b));
    to[v + 1] = hn::BitCast(d, hn::InterleaveUpper(dh, a, b));
  }
#else
  for (std::size_t v = 0; v < NV; ++v) to[v] = PairedValues(first + v * n, second + v * n);
#endif
}

// Whether Widened makes F32 of two F16 a word.
constexpr bool kWidensF16 = HWY_TARGET == HWY_AVX3;
// What a word of memory holds, to be widened to words of an Mma, the first in its low bits.
enum class Held { kWord, kBF16, kF16, kI8, kI8Pairs };
constexpr std::size_t WordsIn(Held held) { return held == Held::kWord ? 1 : held == Held::kI8 ? 4 : 2; }

// The words that a word of each row widens to, ascending: lane l holds those of row l.
template <Held kHeld>
HWY_INLINE void Widened(VF words, VF (&to)[WordsIn(kHeld)]) {
  [[maybe_unused]] const DF d;
  [[maybe_unused]] const hn::RebindToSigned<DF> di;
  [[maybe_unused]] const auto word = hn::BitCast(di, words);
  if constexpr (kHeld == Held::kWord) {
    to[0] = words;
  } else if constexpr (kHeld == Held::kI8Pairs) {
    VF value[4];
    Widened<Held::kI8>(words, value);
    to[0] = PairsOf(value[0], value[1]);
    to[1] = PairsOf(value[2], value[3]);
#if HWY_TARGET == HWY_AVX3
  } else if constexpr (kHeld == Held::kF16) {
    alignas(64) static constexpr std::uint16_t kOrder[32] = {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30,
                                                             1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31};
    const __m512i halves = _mm512_permutexvar_epi16(_mm512_load_si512(kOrder), word.raw);
    to[0] = VF{_mm512_cvtph_ps(_mm512_castsi512_si256(halves))};
    to[1] = VF{_mm512_cvtph_ps(_mm512_extracti64x4_epi64(halves, 1))};
  } else if constexpr (kHeld == Held::kI8) {
    // A byte, its sign flipped, among the bits of a power of two is the power + 128 + the integer, exactly.
    const auto placed = [](__m512i bytes, int mask, float above) HWY_ATTR {
      const __m512i sum = _mm512_castps_si512(_mm512_set1_ps(above));
      constexpr int kFirstAndSecondXorThird = 0x6a;
      const __m512i byte = _mm512_ternarylogic_epi32(bytes, _mm512_set1_epi32(mask), sum, kFirstAndSecondXorThird);
      return VF{_mm512_sub_ps(_mm512_castsi512_ps(byte), _mm512_castsi512_ps(sum))};
    };
    constexpr float kLow = 8388608.0f + 128.0f;  // the byte's unit is bit 0
    constexpr float kHigh = 32768.0f + 128.0f;   // the byte's unit is bit 8
    const __m512i upper = _mm512_srli_epi32(word.raw, 16);
    to[0] = placed(word.raw, 0xff, kLow);
    to[1] = placed(word.raw, 0xff00, kHigh);
    to[2] = placed(upper, 0xff, kLow);
    to[3] = placed(upper, 0xff00, kHigh);
#endif
  } else if constexpr (kHeld == Held::kBF16) {
    to[0] = hn::BitCast(d, hn::ShiftLeft<16>(word));
    to[1] = hn::BitCast(d, hn::And(word, hn::Set(di, static_cast<std::int32_t>(0xffff0000u))));
  } else if constexpr (kHeld == Held::kI8) {
    to[0] = hn::ConvertTo(d, hn::ShiftRight<24>(hn::ShiftLeft<24>(word)));
    to[1] = hn::ConvertTo(d, hn::ShiftRight<24>(hn::ShiftLeft<16>(word)));
    to[2] = hn::ConvertTo(d, hn::ShiftRight<24>(hn::ShiftLeft<8>(word)));
    to[3] = hn::ConvertTo(d, hn::ShiftRight<24>(word));
  }
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
