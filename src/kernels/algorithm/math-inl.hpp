// tanh and GELU, with the error bounds that each states.

// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_ALGORITHM_MATH_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_ALGORITHM_MATH_INL_HPP
#undef MANYHEADS_ALGORITHM_MATH_INL_HPP
#else
#define MANYHEADS_ALGORITHM_MATH_INL_HPP
#endif

#include "hwy/highway.h"
#include "kernels/isa/exp2-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// tanh, relative error below 4 * 2^-24. Near 0, where 1 - 2 / (e^2x + 1) cancels, an odd polynomial (Cephes tanhf).
template <class D, class V = hn::Vec<D>>
HWY_INLINE V Tanh(D d, V x) {
  const V a = hn::Abs(x);
  const V x2 = hn::Mul(x, x);
  V p = hn::Set(d, -5.70498872745e-3f);
  p = Fma(p, x2, hn::Set(d, 2.06390887954e-2f));
  p = Fma(p, x2, hn::Set(d, -5.37397155531e-2f));
  p = Fma(p, x2, hn::Set(d, 1.33314422036e-1f));
  p = Fma(p, x2, hn::Set(d, -3.33332819422e-1f));
  const V small = Fma(hn::Mul(p, x2), x, x);
  const V two = hn::Set(d, 2.0f);
  const V e = Exp2(hn::Min(hn::Set(d, 40.0f), hn::Mul(a, hn::Set(d, 2.885390081777927f))));
  const V large = hn::CopySign(hn::Sub(hn::Set(d, 1.0f), hn::Div(two, hn::Add(e, hn::Set(d, 1.0f)))), x);
  const V y = hn::IfThenElse(hn::Lt(a, hn::Set(d, 0.625f)), small, large);
  return hn::IfThenElse(hn::IsNaN(x), x, y);
}

// x Phi(x), |error| <= 1e-8. With a = |x|:
//   1 - erf(a / sqrt 2) = exp(-a^2 / 2) P(a),
// P fitted for the least error of the product with P(0) = 1. No division: the epilogue of a register tile would wait
// for it.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V Gelu(D d, V x) {
  const V a = MinKeepsNaN(hn::Set(d, 14.0f), hn::Abs(x));  // exp(-a^2 / 2) is 0 there
  const V e = Exp2(hn::Mul(hn::Mul(a, a), hn::Set(d, -0.7213475204444817f)));
  V p = hn::Set(d, 0x1.0188ccp-23f);
  p = Fma(p, a, hn::Set(d, -0x1.b77244p-19f));
  p = Fma(p, a, hn::Set(d, 0x1.536a82p-15f));
  p = Fma(p, a, hn::Set(d, -0x1.3e34aep-12f));
  p = Fma(p, a, hn::Set(d, 0x1.9c7304p-10f));
  p = Fma(p, a, hn::Set(d, -0x1.92a5acp-8f));
  p = Fma(p, a, hn::Set(d, 0x1.3d637ep-6f));
  p = Fma(p, a, hn::Set(d, -0x1.ab8fc4p-5f));
  p = Fma(p, a, hn::Set(d, 0x1.fe3378p-4f));
  p = Fma(p, a, hn::Set(d, -0x1.103a88p-2f));
  p = Fma(p, a, hn::Set(d, 0x1.fffc2cp-2f));
  p = Fma(p, a, hn::Set(d, -0x1.98843ep-1f));
  p = Fma(p, a, hn::Set(d, 1.0f));
  const V tail = hn::Mul(p, e);
  const V half = hn::Mul(hn::Set(d, 0.5f), x);
  // - x >= 0: x (2 - tail) / 2;
  // - x < 0: x tail / 2, which keeps the small values small.
  const V factor = hn::IfThenElse(hn::Lt(x, hn::Zero(d)), tail, hn::Sub(hn::Set(d, 2.0f), tail));
  return hn::Mul(half, factor);
}

// x / 2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), Hendrycks and Gimpel 2016.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V GeluTanh(D d, V x) {
  const V cube = hn::Mul(hn::Mul(x, x), x);
  const V inner = hn::Mul(hn::Set(d, 0.7978845608028654f), Fma(hn::Set(d, 0.044715f), cube, x));
  return hn::Mul(hn::Mul(hn::Set(d, 0.5f), x), hn::Add(hn::Set(d, 1.0f), Tanh(d, inner)));
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
