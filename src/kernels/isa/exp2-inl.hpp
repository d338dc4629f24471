// Powers of two, and the probabilities of scores, 2^(score - maximum).
//
// Contract: each function states its error; NaN stays NaN.
// Cost: Exp2 takes three multiply-adds and a multiplication with the table (AVX-512), else six and one.

// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_ISA_EXP2_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_ISA_EXP2_INL_HPP
#undef MANYHEADS_ISA_EXP2_INL_HPP
#else
#define MANYHEADS_ISA_EXP2_INL_HPP
#endif

#include <limits>

#include "hwy/highway.h"
#include "kernels/isa/vector-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr float kLog2e = 1.44269504088896340736f;
constexpr float kForbidden = -std::numeric_limits<float>::infinity();
// A finite score never counts as forbidden, however low: scores stop at kLowestScore, maxima begin below it. A row
// whose maximum stops there is computed again (ScoresBeyondFloat). So nothing is lost but what a larger score hides.
constexpr float kLowestScore = -3.0e38f;
constexpr float kNoMaximum = -std::numeric_limits<float>::max();

// Max and Min that keep a NaN of their second argument. x86's own return the second when either is NaN; others may
// return the number.
template <class V>
HWY_INLINE V MaxKeepsNaN(V bound, V x) {
#if HWY_ARCH_X86 && HWY_TARGET != HWY_EMU128 && HWY_TARGET != HWY_SCALAR
  return hn::Max(bound, x);
#else
  return hn::IfThenElse(hn::Lt(x, bound), bound, x);
#endif
}
template <class V>
HWY_INLINE V MinKeepsNaN(V bound, V x) {
#if HWY_ARCH_X86 && HWY_TARGET != HWY_EMU128 && HWY_TARGET != HWY_SCALAR
  return hn::Min(bound, x);
#else
  return hn::IfThenElse(hn::Gt(x, bound), bound, x);
#endif
}

#if HWY_TARGET == HWY_AVX3
// Added to a far smaller number, it rounds that to sixteenths, which the lowest bits of the sum then count.
constexpr float kSixteenths = 786432.0f;  // 1.5 * 2^19

// 2^(k + r), with k the sixteenths in `counted` and |r| <= 1/32; 0 where not `kept`.
// - The power of a sixteenth comes from a table, less i << 19: the addition of the whole part to the exponent adds that
//   back.
// - 2^r - 1 is a polynomial fitted for the least relative error: 0.1 * 2^-24, or 8 * 2^-24 where kShort.
// It takes half the multiply-adds of a polynomial for a whole power, and the table works beside it.
template <bool kShort, class V>
HWY_INLINE V PowerOfSixteenths(V counted, V r, __mmask16 kept) {
  const hn::DFromV<V> d;
  alignas(64) static constexpr std::uint32_t kTable[16] = {
      0x3f800000, 0x3f7daac3, 0x3f7b95c2, 0x3f79c3d3, 0x3f7837f0, 0x3f76f532, 0x3f75fed7, 0x3f75583f,
      0x3f7504f3, 0x3f7508a4, 0x3f75672a, 0x3f76248c, 0x3f7744fd, 0x3f78ccdf, 0x3f7ac0c7, 0x3f7d257d};
  const __m512i count = _mm512_castps_si512(counted.raw);
  const __m512i power = _mm512_permutexvar_epi32(count, _mm512_load_si512(kTable));
  const __m512 whole = _mm512_castsi512_ps(_mm512_add_epi32(power, _mm512_slli_epi32(count, 19)));
  V p;
  if constexpr (kShort) {
    p = hn::MulAdd(r, hn::Set(d, 0x1.ebfff4p-3f), hn::Set(d, 0x1.62e984p-1f));
  } else {
    p = hn::MulAdd(r, hn::Set(d, 0x1.c6b08ep-5f), hn::Set(d, 0x1.ebfff4p-3f));
    p = hn::MulAdd(r, p, hn::Set(d, 0x1.62e43p-1f));
  }
  p = hn::Mul(r, p);
  return V{_mm512_maskz_fmadd_ps(kept, whole, p.raw, whole)};
}
#endif

// 2^x for x <= 127: exactly 1 at 0, exactly 0 below kLeast (-inf too); NaN stays NaN. Relative error:
// - below 1.5 * 2^-24; 1.7 without fused multiply-add;
// - 1.9 with the table: 0.8 in its entries, 1 in the last rounding, little in the rest.
// Without the table x = r + f, r whole and 0 <= f <= 1. The polynomial of 2^f was fitted for the least relative error
// with P(0) = 1.
template <int kLeast = -126, class D, class V = hn::Vec<D>>
HWY_INLINE V Exp2(D d, V x) {
#if HWY_TARGET == HWY_AVX3
  const V counted = hn::Add(x, hn::Set(d, kSixteenths));
  const V r = hn::Sub(x, hn::Sub(counted, hn::Set(d, kSixteenths)));
  const __mmask16 kept = _mm512_cmp_ps_mask(x.raw, _mm512_set1_ps(static_cast<float>(kLeast)), _CMP_NLT_UQ);
  return PowerOfSixteenths<false>(counted, r, kept);
#else
  if (kLeast == -126) {
    x = MaxKeepsNaN(hn::Set(d, -127.0f), x);
  } else {
    x = hn::IfThenElse(hn::Lt(x, hn::Set(d, static_cast<float>(kLeast))), hn::Set(d, -127.0f), x);
  }
  const V whole = hn::Floor(x);
  const V f = hn::Sub(x, whole);
  V p = hn::Set(d, 0x1.c4456ep-13f);
  p = hn::MulAdd(p, f, hn::Set(d, 0x1.47373ap-10f));
  p = hn::MulAdd(p, f, hn::Set(d, 0x1.3cfd82p-7f));
  p = hn::MulAdd(p, f, hn::Set(d, 0x1.c68af6p-5f));
  p = hn::MulAdd(p, f, hn::Set(d, 0x1.ebfd3ap-3f));
  p = hn::MulAdd(p, f, hn::Set(d, 0x1.62e42cp-1f));
  p = hn::MulAdd(p, f, hn::Set(d, 1.0f));
  // 1.5 * 2^23 + 127: the low bits of the sum are whole + 127, the exponent field of 2^whole.
  const V field = hn::Add(whole, hn::Set(d, 12583039.0f));
  return hn::Mul(p, hn::BitCast(d, hn::ShiftLeft<23>(hn::BitCast(hn::RebindToSigned<D>(), field))));
#endif
}

// 2^k for a whole k <= 0; 0 below -126.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V PowerOfTwo(D d, V k) {
  const hn::RebindToSigned<D> di;
  const V t = hn::Add(MaxKeepsNaN(hn::Set(d, -127.0f), k), hn::Set(d, 12583039.0f));
  const V power = hn::BitCast(d, hn::ShiftLeft<23>(hn::BitCast(di, t)));
  return hn::IfThenElse(hn::IsNaN(k), k, power);
}

// Probabilities below 2 to this power are 0. Beside the largest of the run or chunk, about 1, they are lost in any sum.
// Their products would be denormal, at a hundred cycles each on some processors, and sharp heads are full of them.
constexpr int kLeastProb = -96;

// Probabilities from scores, 2^(factor x - m), for maxima m, whole numbers. NaN stays NaN.
template <class Mma>
class ExpMinusMax {
 public:
  ExpMinusMax() = default;
  HWY_INLINE ExpMinusMax(VF m, VF factor) : m_(m), factor_(factor) {
#if HWY_TARGET == HWY_AVX3
    // A row without a maximum has no finite score: any value will do.
    const DF d;
    const VF near = hn::IfThenZeroElse(hn::Or(hn::Eq(m, hn::Set(d, kNoMaximum)), Far()), m);
    m_below_ = hn::Sub(hn::Set(d, kSixteenths), near);
#endif
  }

  // Whether some maximum is so far from 0 that scores must pass through Nearer() first.
  HWY_INLINE bool far() const { return HWY_TARGET == HWY_AVX3 && !hn::AllFalse(DF(), Far()); }
  HWY_INLINE VF Nearer(VF x) const {
    const VF less = Less(x);
    return hn::IfThenElse(Far(), Mma::kScaledQueries ? less : hn::Div(less, factor_), x);
  }

  HWY_INLINE VF operator()(VF x) const {
    const DF d;
#if HWY_TARGET == HWY_AVX3
    // One sum takes the maximum off and counts sixteenths. The differences are exact.
    const VF counted = Mma::kScaledQueries ? hn::Add(x, m_below_) : hn::MulAdd(x, factor_, m_below_);
    const VF whole = hn::Sub(counted, m_below_);
    const VF rest = Mma::kScaledQueries ? hn::Sub(x, whole) : hn::MulSub(x, factor_, whole);
    const __m512 least = _mm512_set1_ps(kSixteenths + static_cast<float>(kLeastProb));
    return PowerOfSixteenths<(Mma::kValuesPerWord > 1)>(counted, rest,
                                                        _mm512_cmp_ps_mask(counted.raw, least, _CMP_NLT_UQ));
#else
    return Exp2<kLeastProb>(d, Less(x));
#endif
  }

 private:
  // The product is rounded by itself, as the maximum's was. Far from 0 its rounding is more than any probability bears.
  HWY_INLINE VF Less(VF x) const { return hn::Sub(Mma::kScaledQueries ? x : hn::Mul(x, factor_), m_); }
  // From here on the sixteenths of a score would not be exact.
  HWY_INLINE auto Far() const {
    const DF d;
    return hn::And(hn::Ge(hn::Abs(m_), hn::Set(d, 0x1p19f)), hn::Ne(m_, hn::Set(d, kNoMaximum)));
  }

  VF m_, factor_;
#if HWY_TARGET == HWY_AVX3
  VF m_below_;  // kSixteenths less the maximum
#endif
};

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
