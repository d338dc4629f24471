// Powers of two, and the probabilities of scores, 2^(score - maximum).
//
// Contract: the same bits on each target with fused multiply-adds: one reduction, one table, one polynomial. Each
// function states its error; NaN stays NaN. Cost: three multiply-adds, a multiplication and a look-up in sixteen words,
// which each target does its own way.

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

// Added to a far smaller number, it rounds that to sixteenths, which the lowest bits of the sum then count.
constexpr float kSixteenths = 786432.0f;  // 1.5 * 2^19

// 2^(i / 16) as bits of a float, less i << 19.
alignas(64) constexpr std::uint32_t kPowersOfSixteenths[16] = {
    0x3f800000, 0x3f7daac3, 0x3f7b95c2, 0x3f79c3d3, 0x3f7837f0, 0x3f76f532, 0x3f75fed7, 0x3f75583f,
    0x3f7504f3, 0x3f7508a4, 0x3f75672a, 0x3f76248c, 0x3f7744fd, 0x3f78ccdf, 0x3f7ac0c7, 0x3f7d257d};

// kPowersOfSixteenths by the lowest four bits of each lane.
HWY_INLINE VF LookUpSixteenths(VF counted) {
#if HWY_TARGET == HWY_AVX3
  const __m512 table = _mm512_castsi512_ps(_mm512_load_si512(kPowersOfSixteenths));
  return VF{_mm512_permutexvar_ps(_mm512_castps_si512(counted.raw), table)};
#elif HWY_TARGET == HWY_AVX2
  const __m256i count = _mm256_castps_si256(counted.raw);
  const float* table = reinterpret_cast<const float*>(kPowersOfSixteenths);
  const __m256 low = _mm256_permutevar8x32_ps(_mm256_load_ps(table), count);
  const __m256 high = _mm256_permutevar8x32_ps(_mm256_load_ps(table + 8), count);
  return VF{_mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(count, 28)))};
#elif HWY_TARGET == HWY_NEON || HWY_TARGET == HWY_NEON_WITHOUT_AES
  const uint8x16x4_t table = vld1q_u8_x4(reinterpret_cast<const std::uint8_t*>(kPowersOfSixteenths));
  const uint32x4_t count = vandq_u32(vreinterpretq_u32_f32(counted.raw), vdupq_n_u32(15));
  // Bytes 4 i to 4 i + 3 of the table.
  const uint32x4_t at = vmlaq_u32(vdupq_n_u32(0x03020100), count, vdupq_n_u32(0x04040404));
  return VF{vreinterpretq_f32_u8(vqtbl4q_u8(table, vreinterpretq_u8_u32(at)))};
#else
  const DF d;
  const hn::RebindToUnsigned<DF> du;
  HWY_ALIGN std::uint32_t lanes[kMaxLanes];
  hn::Store(hn::And(hn::BitCast(du, counted), hn::Set(du, 15u)), du, lanes);
  for (std::size_t l = 0; l < hn::Lanes(d); ++l) lanes[l] = kPowersOfSixteenths[lanes[l]];
  return hn::BitCast(d, hn::Load(du, lanes));
#endif
}

// 2^(k + r), with k the sixteenths in `counted` and |r| <= 1/32; 0 where counted < least.
// - The addition of the whole part to the exponent adds back what the table leaves out.
// - 2^r - 1 is a polynomial fitted for the least relative error: 0.1 * 2^-24, or 8 * 2^-24 where kShort.
// It takes half the multiply-adds of a polynomial for a whole power, and the table works beside it.
template <bool kShort>
HWY_INLINE VF PowerOfSixteenths(VF counted, VF r, VF x, VF least) {
  const DF d;
  const hn::RebindToUnsigned<DF> du;
  const auto power = hn::BitCast(du, LookUpSixteenths(counted));
  const VF whole = hn::BitCast(d, hn::Add(power, hn::ShiftLeft<19>(hn::BitCast(du, counted))));
  VF p;
  if constexpr (kShort) {
    p = Fma(r, hn::Set(d, 0x1.ebfff4p-3f), hn::Set(d, 0x1.62e984p-1f));
  } else {
    p = Fma(r, hn::Set(d, 0x1.c6b08ep-5f), hn::Set(d, 0x1.ebfff4p-3f));
    p = Fma(r, p, hn::Set(d, 0x1.62e43p-1f));
  }
  p = hn::Mul(r, p);
#if HWY_TARGET == HWY_AVX3
  return VF{_mm512_maskz_fmadd_ps(_mm512_cmp_ps_mask(x.raw, least.raw, _CMP_NLT_UQ), p.raw, whole.raw, whole.raw)};
#else
  return hn::IfThenZeroElse(hn::Lt(x, least), Fma(p, whole, whole));
#endif
}

// 2^x for x <= 127: exactly 1 at 0, exactly 0 below -126 (-inf too); NaN stays NaN. Relative error below 1.9 * 2^-24:
// 0.8 in the table's entries, 1 in the last rounding, little in the rest. Without fused multiply-adds up to 2.9 below
// 2^-120. kShort: 10 * 2^-24.
template <bool kShort = false>
HWY_INLINE VF Exp2(VF x) {
  const DF d;
  const VF counted = hn::Add(x, hn::Set(d, kSixteenths));
  const VF r = hn::Sub(x, hn::Sub(counted, hn::Set(d, kSixteenths)));
  return PowerOfSixteenths<kShort>(counted, r, x, hn::Set(d, -126.0f));
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
    // A row without a maximum has no finite score: any value will do.
    const DF d;
    const VF near = hn::IfThenZeroElse(hn::Or(hn::Eq(m, hn::Set(d, kNoMaximum)), Far()), m);
    m_below_ = hn::Sub(hn::Set(d, kSixteenths), near);
  }

  // Whether some maximum is so far from 0 that scores must pass through Nearer() first.
  HWY_INLINE bool far() const { return !hn::AllFalse(DF(), Far()); }
  HWY_INLINE VF Nearer(VF x) const {
    const VF less = hn::Sub(Mma::kScaledQueries ? x : hn::Mul(x, factor_), m_);
    return hn::IfThenElse(Far(), Mma::kScaledQueries ? less : hn::Div(less, factor_), x);
  }

  // One sum takes the maximum off and counts sixteenths. The differences are exact.
  HWY_INLINE VF operator()(VF x) const {
    const DF d;
    const VF counted = Mma::kScaledQueries ? hn::Add(x, m_below_) : Fma(x, factor_, m_below_);
    const VF whole = hn::Sub(counted, m_below_);
    const VF rest = Mma::kScaledQueries ? hn::Sub(x, whole) : Fms(x, factor_, whole);
    const VF least = hn::Set(d, kSixteenths + static_cast<float>(kLeastProb));
    return PowerOfSixteenths<(Mma::kValuesPerWord > 1)>(counted, rest, counted, least);
  }

 private:
  // From here on the sixteenths of a score would not be exact.
  HWY_INLINE auto Far() const {
    const DF d;
    return hn::And(hn::Ge(hn::Abs(m_), hn::Set(d, 0x1p19f)), hn::Ne(m_, hn::Set(d, kNoMaximum)));
  }

  VF m_, factor_, m_below_;  // m_below_: kSixteenths less the maximum
};

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
