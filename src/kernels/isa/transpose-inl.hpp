// Transposition between rows and lanes, and the order of halves within vectors.
//
// Contract: moves bits, rounds nothing.
// Cost: TransposeBlocks takes eight shuffles for 4 x 4 values in every 128-bit block.

// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_ISA_TRANSPOSE_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_ISA_TRANSPOSE_INL_HPP
#undef MANYHEADS_ISA_TRANSPOSE_INL_HPP
#else
#define MANYHEADS_ISA_TRANSPOSE_INL_HPP
#endif

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "hwy/highway.h"
#include "kernels/isa/vector-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Interleaves the values of two vectors; `even` gets those of the lower lanes.
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

#if HWY_TARGET != HWY_SCALAR

// Two vectors from memory's order to their even and their odd 128-bit blocks, and back.
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
  SplitBlocks(lower, upper);  // two blocks at most: its own inverse
#endif
}

// Loads four words of each of the rows j, j + 4, ... as the 128-bit blocks of a vector; at(block) is where they begin.
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

// Rows of words a fixed number of bytes apart, one for each lane. There are too few registers for an address a row.
struct EvenRows {
  const char* begin;
  std::ptrdiff_t stride;
  HWY_INLINE VF Blocks(std::size_t j, std::size_t i) const {
    // Inline: a call would hand its registers over once a row.
    return LoadBlocks([&](std::size_t block) HWY_ATTR __attribute__((always_inline)) {
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

// Transposes the 4 x 4 values of each 128-bit block. With blocks of rows in, each vector comes out with one value of
// every row. It is its own inverse.
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

// Transposes as many vectors as lanes.
HWY_INLINE void TransposeSquare(VF (&v)[kMaxLanes]) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  for (std::size_t j = 0; j < n; j += 4) {
    VF block[4] = {v[j], v[j + 1], v[j + 2], v[j + 3]};
    TransposeBlocks(block);
    for (std::size_t i = 0; i < 4; ++i) v[j + i] = block[i];
  }
  // Vector 4 g + b now holds part g of rows b, b + 4, ...: bring the parts of a row together.
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

// Rows of words anywhere in memory, one for each lane.
struct ScatteredRows {
  const float* at[kMaxLanes];
  HWY_INLINE VF Blocks(std::size_t j, std::size_t i) const {
    return LoadBlocks([&](std::size_t block) { return at[4 * block + j] + i; });
  }
};

#else  // a single lane: a block of four rows is four words of one

HWY_INLINE void SplitBlocks(VF&, VF&) {}
HWY_INLINE void JoinBlocks(VF&, VF&) {}
HWY_INLINE void TransposeBlocks(VF (&)[4]) {}
HWY_INLINE void TransposeSquare(VF (&)[kMaxLanes]) {}
struct EvenRows {
  const char* begin;
  std::ptrdiff_t stride;
  HWY_INLINE VF Blocks(std::size_t j, std::size_t i) const {
    return hn::Set(DF(), WordAt(reinterpret_cast<const float*>(begin) + i + j));
  }
};
struct ScatteredRows {
  const float* at[kMaxLanes];
  HWY_INLINE VF Blocks(std::size_t j, std::size_t i) const { return hn::Set(DF(), WordAt(at[0] + i + j)); }
};

#endif

// Whether each of 64 bytes is not 0, one bit each, from the first on.
HWY_INLINE std::uint64_t NonZeroBits(const std::uint8_t* bytes) {
  std::uint64_t bits = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::ScalableTag<std::uint8_t> d;
  const std::size_t n = hn::Lanes(d);
  std::uint8_t parts[sizeof(bits)];
  for (std::size_t j = 0; j < 64; j += n) {
    hn::StoreMaskBits(d, hn::Ne(hn::LoadU(d, bytes + j), hn::Zero(d)), parts + j / 8);
  }
  std::memcpy(&bits, parts, sizeof(bits));  // the lowest byte first on all targets
#else
  for (std::size_t j = 0; j < 64; ++j) bits |= std::uint64_t{bytes[j] != 0} << j;
#endif
  return bits;
}

// As many words as lanes, each the bytes of four rows at one index, from byte i on.
HWY_INLINE hn::Vec<hn::RebindToUnsigned<DF>> QuadsOf(const std::uint8_t* const (&rows)[4], std::size_t i) {
  const hn::RebindToUnsigned<DF> du;
#if HWY_TARGET == HWY_AVX3
  // 16 bytes of each row in a block, transposed in two shuffles.
  alignas(64) static constexpr std::uint32_t kBlocks[16] = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};
  const __m512i square = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  const VF four = LoadBlocks([&](std::size_t r) HWY_ATTR { return reinterpret_cast<const float*>(rows[r] + i); });
  const __m512i words = _mm512_permutexvar_epi32(_mm512_load_si512(kBlocks), _mm512_castps_si512(four.raw));
  return hn::Vec<decltype(du)>{_mm512_shuffle_epi8(words, square)};
#else
  const hn::Rebind<std::uint8_t, DF> db;
  const auto byte = [&](std::size_t r) HWY_ATTR { return hn::PromoteTo(du, hn::LoadU(db, rows[r] + i)); };
  return hn::Or(hn::Or(byte(0), hn::ShiftLeft<8>(byte(1))),
                hn::Or(hn::ShiftLeft<16>(byte(2)), hn::ShiftLeft<24>(byte(3))));
#endif
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
