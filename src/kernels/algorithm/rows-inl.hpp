// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_ROWS_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_ROWS_INL_HPP
#undef MANYHEADS_ROWS_INL_HPP
#else
#define MANYHEADS_ROWS_INL_HPP
#endif

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include <manyheads/half.hpp>
#include <manyheads/tensor.hpp>

#include "hwy/highway.h"

// Rows of the caller's memory, of any type and stride, in and out; and their transposition between rows and lanes.
HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using DF = hn::ScalableTag<float>;
using VF = hn::Vec<DF>;

constexpr std::size_t kMaxLanes = 16;

inline std::size_t LaneCount() { return hn::Lanes(DF()); }

// A word of the caller's memory: two neighbours of BF16 need not lie on a multiple of four bytes.
HWY_INLINE float WordAt(const float* at) {
  float word;
  std::memcpy(&word, static_cast<const void*>(at), sizeof(word));
  return word;
}

// The values of two vectors in turn, those of the lower lanes to the first.
HWY_INLINE void Interleave([[maybe_unused]] VF& even, [[maybe_unused]] VF& odd) {
#if HWY_TARGET == HWY_AVX3
  const __m512i order = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const __m512 lower = _mm512_permutex2var_ps(even.raw, order, odd.raw);
  odd = VF{_mm512_permutex2var_ps(even.raw, _mm512_add_epi32(order, _mm512_set1_epi32(8)), odd.raw)};
  even = VF{lower};
#elif HWY_TARGET != HWY_SCALAR
  const DF d;
  const VF lower = hn::InterleaveLower(d, even, odd);  // of each block of four
  const VF upper = hn::InterleaveUpper(d, even, odd);
#if HWY_TARGET == HWY_AVX2
  even = hn::ConcatLowerLower(d, upper, lower);
  odd = hn::ConcatUpperUpper(d, upper, lower);
#else
  even = lower;
  odd = upper;
#endif
#endif
}

// A vector of neighbouring values of a type, as F32; kWhole where the target converts them as vectors.
template <DType kType>
struct ValuesOf;
template <>
struct ValuesOf<DType::kF32> {
  using Element = float;
  static constexpr bool kWhole = true;
  static HWY_INLINE VF Load(const Element* from) { return hn::LoadU(DF(), from); }
};
template <>
struct ValuesOf<DType::kBF16> {
  using Element = bfloat16;
  static constexpr bool kWhole = true;
  static HWY_INLINE VF Load(const Element* from) {
    const hn::Rebind<std::uint16_t, DF> dh;
    const auto bits = hn::LoadU(dh, reinterpret_cast<const std::uint16_t*>(from));
    return hn::BitCast(DF(), hn::ShiftLeft<16>(hn::PromoteTo(hn::RebindToUnsigned<DF>(), bits)));
  }
};
template <>
struct ValuesOf<DType::kI8> {
  using Element = std::int8_t;
  static constexpr bool kWhole = true;
  static HWY_INLINE VF Load(const Element* from) {
    const hn::Rebind<std::int8_t, DF> db;
    return hn::ConvertTo(DF(), hn::PromoteTo(hn::RebindToSigned<DF>(), hn::LoadU(db, from)));
  }
};
template <>
struct ValuesOf<DType::kF16> {
  using Element = float16;
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_NEON
  // Targets that convert in hardware: Highway's software conversion has no infinities.
  static constexpr bool kWhole = true;
  static HWY_INLINE VF Load(const Element* from) {
    const hn::Rebind<hwy::float16_t, DF> dh;
    return hn::PromoteTo(DF(), hn::LoadU(dh, reinterpret_cast<const hwy::float16_t*>(from)));
  }
#else
  static constexpr bool kWhole = false;
#endif
};

// The bits of a value that is a BF16, if not by type.
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
HWY_INLINE VF JoinedPairs(const std::int8_t* first, const std::int8_t* second) {
  return PairsOf(ValuesOf<DType::kI8>::Load(first), ValuesOf<DType::kI8>::Load(second));
}
HWY_INLINE VF JoinedPairs(const bfloat16* first, const bfloat16* second) {
  const hn::Rebind<std::uint16_t, DF> dh;
  const hn::RebindToUnsigned<DF> du;
  const auto low = hn::PromoteTo(du, hn::LoadU(dh, reinterpret_cast<const std::uint16_t*>(first)));
  const auto high = hn::PromoteTo(du, hn::LoadU(dh, reinterpret_cast<const std::uint16_t*>(second)));
  return hn::BitCast(DF(), hn::Or(low, hn::ShiftLeft<16>(high)));
}

// Neighbouring values as NV vectors, those of each pair of vectors in the order in which they cost least: InOrder
// undoes it.
template <class Values, int NV>
HWY_INLINE void LoadVectors(const typename Values::Element* from, VF (&to)[NV]) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  if constexpr (std::is_same_v<typename Values::Element, bfloat16> && NV % 2 == 0) {
    const hn::RebindToUnsigned<DF> du;
#pragma GCC unroll 4
    for (std::size_t v = 0; v < NV; v += 2) {  // the even ones, then the odd ones: no shuffles
      const auto words = hn::LoadU(du, reinterpret_cast<const std::uint32_t*>(from + v * n));
      to[v] = hn::BitCast(d, hn::ShiftLeft<16>(words));
      to[v + 1] = hn::BitCast(d, hn::And(words, hn::Set(du, 0xffff0000u)));
    }
  } else {
#pragma GCC unroll 4
    for (std::size_t v = 0; v < NV; ++v) to[v] = Values::Load(from + v * n);
  }
}
template <class Values, int NV>
HWY_INLINE void InOrder([[maybe_unused]] VF (&vectors)[NV]) {
  if constexpr (std::is_same_v<typename Values::Element, bfloat16> && NV % 2 == 0) {
    for (std::size_t v = 0; v < NV; v += 2) Interleave(vectors[v], vectors[v + 1]);
  }
}

#if HWY_TARGET != HWY_SCALAR

// NV vectors of words of pairs, from two rows of values, in the order in which they cost least. Of BF16, whose NV is
// even: of each two vectors the first holds the lower halves of all 128-bit blocks (SplitBlocks), which takes no more
// than one instruction a vector. Of I8 memory's order.
template <int NV>
HWY_INLINE void LoadPairs(const std::int8_t* first, const std::int8_t* second, VF (&to)[NV]) {
  const std::size_t n = hn::Lanes(DF());
#pragma GCC unroll 4
  for (std::size_t v = 0; v < NV; ++v) to[v] = JoinedPairs(first + v * n, second + v * n);
}
template <int NV>
HWY_INLINE void LoadPairs(const bfloat16* first, const bfloat16* second, VF (&to)[NV]) {
  const DF d;
  const hn::Repartition<std::uint16_t, DF> dh;
  const std::size_t n = hn::Lanes(d);
#pragma GCC unroll 4
  for (std::size_t v = 0; v < NV; v += 2) {
    const auto a = hn::LoadU(dh, reinterpret_cast<const std::uint16_t*>(first + v * n));
    const auto b = hn::LoadU(dh, reinterpret_cast<const std::uint16_t*>(second + v * n));
    to[v] = hn::BitCast(d, hn::InterleaveLower(dh, a, b));
    to[v + 1] = hn::BitCast(d, hn::InterleaveUpper(dh, a, b));
  }
}
// Two vectors from memory's order to that one, and back.
HWY_INLINE void SplitBlocks([[maybe_unused]] VF& lower, [[maybe_unused]] VF& upper) {
#if HWY_TARGET == HWY_AVX3
  const VF even{_mm512_shuffle_f32x4(lower.raw, upper.raw, 0x88)};
  upper = VF{_mm512_shuffle_f32x4(lower.raw, upper.raw, 0xdd)};
  lower = even;
#elif HWY_TARGET == HWY_AVX2
  const DF d;
  const VF even = hn::ConcatLowerLower(d, upper, lower);
  upper = hn::ConcatUpperUpper(d, upper, lower);
  lower = even;
#endif
}
HWY_INLINE void JoinBlocks(VF& lower, VF& upper) {
#if HWY_TARGET == HWY_AVX3
  const __m512i order = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
  const __m512d a = _mm512_castps_pd(lower.raw);
  const __m512d b = _mm512_castps_pd(upper.raw);
  lower = VF{_mm512_castpd_ps(_mm512_permutex2var_pd(a, order, b))};
  upper = VF{_mm512_castpd_ps(_mm512_permutex2var_pd(a, _mm512_add_epi64(order, _mm512_set1_epi64(4)), b))};
#else
  SplitBlocks(lower, upper);  // of two blocks at most: its own inverse
#endif
}

#endif

// Calls with the ValuesOf a type.
template <class Visit>
HWY_INLINE void WithType(DType type, Visit&& visit) {
  switch (type) {
    case DType::kF32:
      return visit(ValuesOf<DType::kF32>());
    case DType::kBF16:
      return visit(ValuesOf<DType::kBF16>());
    case DType::kI8:
      return visit(ValuesOf<DType::kI8>());
    default:
      return visit(ValuesOf<DType::kF16>());
  }
}

// A row of `count` values, `step` apart, as dense F32.
HWY_INLINE void CopyRow(DType type, const void* base, std::int64_t at, std::int64_t step, std::int64_t count,
                        float* HWY_RESTRICT to) {
  WithType(type, [&]<class Values>(Values) HWY_ATTR {
    const DF d;
    const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d));
    const typename Values::Element* from = static_cast<const typename Values::Element*>(base) + at;
    std::int64_t i = 0;
    if constexpr (Values::kWhole) {
      if (step == 1) {
        for (; i + lanes <= count; i += lanes) hn::StoreU(Values::Load(from + i), d, to + i);
      }
    }
    for (; i < count; ++i) to[i] = static_cast<float>(from[i * step]);
  });
}

// The bits of floats rounded to the nearest BF16, ties to even; a NaN stays one.
template <class VU>
HWY_INLINE VU RoundedToBf16(VU u) {
  const hn::DFromV<VU> du;
  const auto odd = hn::And(hn::ShiftRight<16>(u), hn::Set(du, 1u));
  const auto nearest = hn::ShiftRight<16>(hn::Add(u, hn::Add(odd, hn::Set(du, 0x7fffu))));
  const auto quiet = hn::Or(hn::ShiftRight<16>(u), hn::Set(du, 0x40u));
  const auto nan = hn::Gt(hn::And(u, hn::Set(du, 0x7fffffffu)), hn::Set(du, 0x7f800000u));
  return hn::IfThenElse(nan, quiet, nearest);
}

// `count` floats to a row of the caller's, each rounded once.
HWY_INLINE void StoreRow(DType type, void* base, std::int64_t at, std::int64_t step, std::int64_t count,
                         const float* HWY_RESTRICT from) {
  const DF d;
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t i = 0;
  if (type == DType::kF32) {
    float* to = static_cast<float*>(base) + at;
    if (step == 1) {
      for (; i + lanes <= count; i += lanes) hn::StoreU(hn::LoadU(d, from + i), d, to + i);
    }
    for (; i < count; ++i) to[i * step] = from[i];
  } else if (type == DType::kBF16) {
    bfloat16* to = static_cast<bfloat16*>(base) + at;
    if (step == 1) {
      const hn::RebindToUnsigned<DF> du;
      const hn::Rebind<std::uint16_t, DF> dh;
      std::uint16_t* bits = reinterpret_cast<std::uint16_t*>(to);
      for (; i + lanes <= count; i += lanes) {
        const auto half = RoundedToBf16(hn::BitCast(du, hn::LoadU(d, from + i)));
        hn::StoreU(hn::DemoteTo(dh, hn::BitCast(hn::RebindToSigned<DF>(), half)), dh, bits + i);
      }
    }
    for (; i < count; ++i) to[i * step] = bfloat16(from[i]);
  } else {
    float16* to = static_cast<float16*>(base) + at;
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_NEON
    if (step == 1) {
      const hn::Rebind<hwy::float16_t, DF> dh;
      hwy::float16_t* halves = reinterpret_cast<hwy::float16_t*>(to);
      for (; i + lanes <= count; i += lanes) hn::StoreU(hn::DemoteTo(dh, hn::LoadU(d, from + i)), dh, halves + i);
    }
#endif
    for (; i < count; ++i) to[i * step] = float16(from[i]);
  }
}

#if HWY_TARGET != HWY_SCALAR

// Four words of each of a vector's rows j, j + 4, ... as its 128-bit blocks, from where `at(block)` says they begin.
template <class At>
HWY_INLINE VF LoadBlocks(const At& at) {
#if HWY_TARGET == HWY_AVX3
  // Masked broadcasts: inserts would all wait for the one port that shuffles.
  __m512 v = _mm512_castps128_ps512(_mm_loadu_ps(at(0)));
  v = _mm512_mask_broadcast_f32x4(v, 0x00f0, _mm_loadu_ps(at(1)));
  v = _mm512_mask_broadcast_f32x4(v, 0x0f00, _mm_loadu_ps(at(2)));
  return VF{_mm512_mask_broadcast_f32x4(v, 0xf000, _mm_loadu_ps(at(3)))};
#elif HWY_TARGET == HWY_AVX2
  const hn::Half<DF> dh;
  return hn::Combine(DF(), hn::LoadU(dh, at(1)), hn::LoadU(dh, at(0)));
#else
  return hn::LoadU(DF(), at(0));
#endif
}

// Rows of words a fixed number of bytes apart, one for each lane: there are too few registers for an address a row.
struct EvenRows {
  const char* begin;
  std::ptrdiff_t stride;
  HWY_INLINE VF Blocks(std::size_t j, std::size_t i) const {
    return LoadBlocks([&](std::size_t block) HWY_ATTR {
      const char* from = begin + 4 * i;
      std::ptrdiff_t row = static_cast<std::ptrdiff_t>(4 * block + j);
      if (row >= 8) {
        from += 8 * stride;
        row -= 8;
      }
      asm("" : "+r"(from));  // one address for eight rows
      return reinterpret_cast<const float*>(from + row * stride);
    });
  }
};

// Transposes the 4 x 4 values of each 128-bit block: with blocks of rows in, each vector holds one value of every row;
// the other way round it is its own inverse.
HWY_INLINE void TransposeBlocks(VF (&v)[4]) {
  const DF d;
  const hn::RepartitionToWide<DF> dw;
  const auto low01 = hn::BitCast(dw, hn::InterleaveLower(d, v[0], v[1]));
  const auto high01 = hn::BitCast(dw, hn::InterleaveUpper(d, v[0], v[1]));
  const auto low23 = hn::BitCast(dw, hn::InterleaveLower(d, v[2], v[3]));
  const auto high23 = hn::BitCast(dw, hn::InterleaveUpper(d, v[2], v[3]));
  v[0] = hn::BitCast(d, hn::InterleaveLower(dw, low01, low23));
  v[1] = hn::BitCast(d, hn::InterleaveUpper(dw, low01, low23));
  v[2] = hn::BitCast(d, hn::InterleaveLower(dw, high01, high23));
  v[3] = hn::BitCast(d, hn::InterleaveUpper(dw, high01, high23));
}

// Transposes a square of as many vectors as lanes.
HWY_INLINE void TransposeSquare(VF (&v)[kMaxLanes]) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  for (std::size_t j = 0; j < n; j += 4) {
    VF block[4] = {v[j], v[j + 1], v[j + 2], v[j + 3]};
    TransposeBlocks(block);
    for (std::size_t i = 0; i < 4; ++i) v[j + i] = block[i];
  }
  // Vector 4 g + b now holds part g of rows b, b + 4, ...: the parts of a row come together.
#if HWY_TARGET == HWY_AVX3
#pragma GCC unroll 4
  for (std::size_t b = 0; b < 4; ++b) {
    const __m512 low01 = _mm512_shuffle_f32x4(v[b].raw, v[4 + b].raw, 0x88);
    const __m512 high01 = _mm512_shuffle_f32x4(v[b].raw, v[4 + b].raw, 0xdd);
    const __m512 low23 = _mm512_shuffle_f32x4(v[8 + b].raw, v[12 + b].raw, 0x88);
    const __m512 high23 = _mm512_shuffle_f32x4(v[8 + b].raw, v[12 + b].raw, 0xdd);
    v[b] = VF{_mm512_shuffle_f32x4(low01, low23, 0x88)};
    v[4 + b] = VF{_mm512_shuffle_f32x4(high01, high23, 0x88)};
    v[8 + b] = VF{_mm512_shuffle_f32x4(low01, low23, 0xdd)};
    v[12 + b] = VF{_mm512_shuffle_f32x4(high01, high23, 0xdd)};
  }
#elif HWY_TARGET == HWY_AVX2
  for (std::size_t b = 0; b < 4; ++b) {
    const VF low = hn::ConcatLowerLower(d, v[4 + b], v[b]);
    v[4 + b] = hn::ConcatUpperUpper(d, v[4 + b], v[b]);
    v[b] = low;
  }
#endif
}

#endif  // a lone lane has no blocks

// Rows of words, one for each lane, wherever they lie.
struct ScatteredRows {
  const float* at[kMaxLanes];
#if HWY_TARGET != HWY_SCALAR
  HWY_INLINE VF Blocks(std::size_t j, std::size_t i) const {
    return LoadBlocks([&](std::size_t block) { return at[4 * block + j] + i; });
  }
#endif
};

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
