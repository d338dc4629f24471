// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_WEIGH_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_WEIGH_INL_HPP
#undef MANYHEADS_WEIGH_INL_HPP
#else
#define MANYHEADS_WEIGH_INL_HPP
#endif

#include "hwy/highway.h"
#include "kernels/algorithm/math-inl.hpp"
#include "kernels/algorithm/tile_state-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Weights below 2 to this power are 0. Beside the largest of the run or chunk, about 1, they are lost in any sum; but
// their products would be denormal, which costs processors a hundred cycles each, and sharp heads are full of them.
constexpr int kLeastWeight = -96;

// From the scores of rows to their weights, 2^(factor x - m), for maxima m, whole numbers; NaN stays NaN.
template <class Unit>
class Weigher {
 public:
  Weigher() = default;
  HWY_INLINE Weigher(VF m, VF factor) : m_(m), factor_(factor) {
#if HWY_TARGET == HWY_AVX3
    // A row without a maximum has no finite score: any will do.
    const DF d;
    const VF near = hn::IfThenZeroElse(hn::Or(hn::Eq(m, hn::Set(d, kNoMaximum)), Far()), m);
    m_below_ = hn::Sub(hn::Set(d, kSixteenths), near);
#endif
  }

  // Whether some maximum is so far from 0 that scores have to come through Nearer().
  HWY_INLINE bool far() const { return HWY_TARGET == HWY_AVX3 && !hn::AllFalse(DF(), Far()); }
  HWY_INLINE VF Nearer(VF x) const {
    const VF less = Less(x);
    return hn::IfThenElse(Far(), Unit::kScaledQueries ? less : hn::Div(less, factor_), x);
  }

  HWY_INLINE VF operator()(VF x) const {
    const DF d;
#if HWY_TARGET == HWY_AVX3
    // One sum takes the maximum off and counts sixteenths; the differences are exact.
    const VF counted = Unit::kScaledQueries ? hn::Add(x, m_below_) : hn::MulAdd(x, factor_, m_below_);
    const VF whole = hn::Sub(counted, m_below_);
    const VF rest = Unit::kScaledQueries ? hn::Sub(x, whole) : hn::MulSub(x, factor_, whole);
    const __m512 least = _mm512_set1_ps(kSixteenths + static_cast<float>(kLeastWeight));
    return PowerOfSixteenths<(Unit::kTerms > 1)>(counted, rest, _mm512_cmp_ps_mask(counted.raw, least, _CMP_NLT_UQ));
#else
    return Exp2<kLeastWeight>(d, Less(x));
#endif
  }

 private:
  // The product is rounded by itself, as the maximum's was: far from 0 what it rounds is more than any weight bears.
  HWY_INLINE VF Less(VF x) const { return hn::Sub(Unit::kScaledQueries ? x : hn::Mul(x, factor_), m_); }
  // From here on a score's sixteenths would not be exact.
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
