// The I8 microkernel: products of bytes, four a word, summed in 32-bit integers.
//
// Contract: exact, in any order. Used by decode alone, at any number of rows.
// Cost: one instruction for four products a lane with VNNI; two multiply-adds of 16-bit pairs on other x86.

// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_ISA_MMA_INT8_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_ISA_MMA_INT8_INL_HPP
#undef MANYHEADS_ISA_MMA_INT8_INL_HPP
#else
#define MANYHEADS_ISA_MMA_INT8_INL_HPP
#endif

#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/isa/mma-inl.hpp"
#include "kernels/isa/transpose-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// What all Mmas of bytes share. The first operand's bytes are unsigned, the second's signed.
struct MmaInt8Base {
  using Element = void;
  static constexpr std::size_t kValuesPerWord = 4;
  static constexpr bool kAmx = false;
  static constexpr bool kSplits = false;
  static constexpr bool kInt8 = true;
  static constexpr bool kDecodeOnly = true;  // rows share little: the transposition of keys
  static constexpr int kDecodeRows = 8;
  static constexpr bool kChains = false;
  static constexpr bool kScaledQueries = true;

  static HWY_INLINE const float* Row(DType /*type*/, const void* base, std::int64_t at, std::int64_t step,
                                     std::int64_t count, float* workspace) {
    return WordRow<std::int8_t>(base, at, step, count, workspace);
  }
  // Signed bytes as the first operand: each grows by 128, which row_start takes off the products again.
  static HWY_INLINE VF Key(VF words) {
    const hn::RebindToUnsigned<DF> du;
    return hn::BitCast(DF(), hn::Xor(hn::BitCast(du, words), hn::Set(du, 0x80808080u)));
  }
  template <class Info>
  static HWY_INLINE VF Begin(const Info& info, int row) {
    return hn::BitCast(DF(), hn::Set(hn::RebindToSigned<DF>(), info.row_start[row]));
  }
  template <class Info>
  static HWY_INLINE VF Score(const Info& info, int row, VF sum) {
    return Number(sum, info.row_factor[row]);
  }
  static HWY_INLINE VF Number(VF sum, float step) {
    const DF d;
    return hn::Mul(hn::ConvertTo(d, hn::BitCast(hn::RebindToSigned<DF>(), sum)), hn::Set(d, step));
  }
};

// For every machine.
struct MmaInt8 : MmaInt8Base {
  static HWY_INLINE VF MulAdd(VF a, VF b, VF sum) {
    const hn::RebindToSigned<DF> di;
    const auto x = hn::BitCast(di, a);
    const auto y = hn::BitCast(di, b);
    auto total = hn::BitCast(di, sum);
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_SSE4
    // Bytes 0 and 2, then 1 and 3, as neighbouring halves.
    const hn::Repartition<std::int16_t, DF> dh;
    const hn::Repartition<std::uint16_t, DF> dhu;
    const auto low = hn::BitCast(dh, hn::And(x, hn::Set(di, 0x00ff00ff)));
    const auto high = hn::BitCast(dh, hn::ShiftRight<8>(hn::BitCast(dhu, x)));
    const auto low_y = hn::ShiftRight<8>(hn::ShiftLeft<8>(hn::BitCast(dh, y)));
    const auto high_y = hn::ShiftRight<8>(hn::BitCast(dh, y));
    using VI = hn::Vec<decltype(di)>;
#if HWY_TARGET == HWY_AVX3
    const auto pairs = [](auto p, auto q) HWY_ATTR { return VI{_mm512_madd_epi16(p.raw, q.raw)}; };
#elif HWY_TARGET == HWY_AVX2
    const auto pairs = [](auto p, auto q) HWY_ATTR { return VI{_mm256_madd_epi16(p.raw, q.raw)}; };
#else
    const auto pairs = [](auto p, auto q) HWY_ATTR { return VI{_mm_madd_epi16(p.raw, q.raw)}; };
#endif
    total = hn::Add(total, hn::Add(pairs(low, low_y), pairs(high, high_y)));
#else
    const auto byte = hn::Set(di, 0xff);
    total = hn::Add(total, hn::Mul(hn::And(x, byte), hn::ShiftRight<24>(hn::ShiftLeft<24>(y))));
    total = hn::Add(total, hn::Mul(hn::And(hn::ShiftRight<8>(x), byte), hn::ShiftRight<24>(hn::ShiftLeft<16>(y))));
    total = hn::Add(total, hn::Mul(hn::And(hn::ShiftRight<16>(x), byte), hn::ShiftRight<24>(hn::ShiftLeft<8>(y))));
    total = hn::Add(total, hn::Mul(hn::And(hn::ShiftRight<24>(x), byte), hn::ShiftRight<24>(y)));
#endif
    return hn::BitCast(DF(), total);
  }
};

#if HWY_TARGET == HWY_AVX3
// VNNI (vpdpbusd) by name, since this target's instruction set does not include it. The sums are the same.
struct MmaInt8Vnni : MmaInt8Base {
  static HWY_INLINE VF MulAdd(VF a, VF b, VF sum) {
    asm("vpdpbusd %2, %1, %0" : "+v"(sum.raw) : "v"(a.raw), "v"(b.raw));
    return sum;
  }
};
#endif

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
