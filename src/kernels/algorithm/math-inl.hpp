// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_MATH_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_MATH_INL_HPP
#undef MANYHEADS_MATH_INL_HPP
#else
#define MANYHEADS_MATH_INL_HPP
#endif

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Max and Min that keep a NaN of their second argument: x86's own return the second when either is NaN, others
// may return the number.
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
// A number far smaller, added to this, is rounded to sixteenths, which the lowest bits of the sum then count.
constexpr float kSixteenths = 786432.0f;  // 1.5 * 2^19

// 2^(k + r), k sixteenths as `counted` has them, |r| <= 1/32; 0 where it is not kept. The power of a sixteenth comes
// from a table, from which i << 19 was taken: what adds the whole part to its exponent then adds that too. 2^r - 1 is a
// polynomial fitted for the least relative error, 0.1 * 2^-24, or 8 * 2^-24 where kShort. It takes half the
// multiply-adds of one for a whole power, and the table works beside it.
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

// 2^x for x <= 127, exactly 1 at 0 and exactly 0 below kLeast (-inf too); NaN stays NaN. Relative error below 1.5 *
// 2^-24 (1.7 without fused multiply-add, 1.9 with a table: 0.8 in its entries, 1 in the last rounding, little in the
// rest). Without one x = r + f with r whole, 0 <= f <= 1; the polynomial of 2^f was fitted for the least relative error
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

// tanh, relative error below 4 * 2^-24: an odd polynomial (Cephes tanhf) near 0, where 1 - 2 / (e^2x + 1) cancels.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V Tanh(D d, V x) {
  const V a = hn::Abs(x);
  const V x2 = hn::Mul(x, x);
  V p = hn::Set(d, -5.70498872745e-3f);
  p = hn::MulAdd(p, x2, hn::Set(d, 2.06390887954e-2f));
  p = hn::MulAdd(p, x2, hn::Set(d, -5.37397155531e-2f));
  p = hn::MulAdd(p, x2, hn::Set(d, 1.33314422036e-1f));
  p = hn::MulAdd(p, x2, hn::Set(d, -3.33332819422e-1f));
  const V small = hn::MulAdd(hn::Mul(p, x2), x, x);
  const V two = hn::Set(d, 2.0f);
  const V e = Exp2(d, hn::Min(hn::Set(d, 40.0f), hn::Mul(a, hn::Set(d, 2.885390081777927f))));
  const V large = hn::CopySign(hn::Sub(hn::Set(d, 1.0f), hn::Div(two, hn::Add(e, hn::Set(d, 1.0f)))), x);
  const V y = hn::IfThenElse(hn::Lt(a, hn::Set(d, 0.625f)), small, large);
  return hn::IfThenElse(hn::IsNaN(x), x, y);
}

// x Phi(x). With a = |x|, 1 - erf(a / sqrt 2) = exp(-a^2 / 2) P(a) and P fitted for the least error of that product with
// P(0) = 1: |error| <= 1e-8. No division: the units of a tile's epilogue would wait for it.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V Gelu(D d, V x) {
  const V a = MinKeepsNaN(hn::Set(d, 14.0f), hn::Abs(x));  // exp(-a^2 / 2) is 0 there
  const V e = Exp2(d, hn::Mul(hn::Mul(a, a), hn::Set(d, -0.7213475204444817f)));
  V p = hn::Set(d, 0x1.0188ccp-23f);
  p = hn::MulAdd(p, a, hn::Set(d, -0x1.b77244p-19f));
  p = hn::MulAdd(p, a, hn::Set(d, 0x1.536a82p-15f));
  p = hn::MulAdd(p, a, hn::Set(d, -0x1.3e34aep-12f));
  p = hn::MulAdd(p, a, hn::Set(d, 0x1.9c7304p-10f));
  p = hn::MulAdd(p, a, hn::Set(d, -0x1.92a5acp-8f));
  p = hn::MulAdd(p, a, hn::Set(d, 0x1.3d637ep-6f));
  p = hn::MulAdd(p, a, hn::Set(d, -0x1.ab8fc4p-5f));
  p = hn::MulAdd(p, a, hn::Set(d, 0x1.fe3378p-4f));
  p = hn::MulAdd(p, a, hn::Set(d, -0x1.103a88p-2f));
  p = hn::MulAdd(p, a, hn::Set(d, 0x1.fffc2cp-2f));
  p = hn::MulAdd(p, a, hn::Set(d, -0x1.98843ep-1f));
  p = hn::MulAdd(p, a, hn::Set(d, 1.0f));
  const V tail = hn::Mul(p, e);
  const V half = hn::Mul(hn::Set(d, 0.5f), x);
  // x >= 0: x (2 - tail) / 2; below: x tail / 2, which keeps the small values small.
  const V factor = hn::IfThenElse(hn::Lt(x, hn::Zero(d)), tail, hn::Sub(hn::Set(d, 2.0f), tail));
  return hn::Mul(half, factor);
}

// x / 2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), Hendrycks and Gimpel 2016.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V GeluTanh(D d, V x) {
  const V cube = hn::Mul(hn::Mul(x, x), x);
  const V inner = hn::Mul(hn::Set(d, 0.7978845608028654f), hn::MulAdd(hn::Set(d, 0.044715f), cube, x));
  return hn::Mul(hn::Mul(hn::Set(d, 0.5f), x), hn::Add(hn::Set(d, 1.0f), Tanh(d, inner)));
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
