// SiLU (Elfwing et al. 2018), with the error bound that it states.

// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_ALGORITHM_SILU_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_ALGORITHM_SILU_INL_HPP
#undef MANYHEADS_ALGORITHM_SILU_INL_HPP
#else
#define MANYHEADS_ALGORITHM_SILU_INL_HPP
#endif

#include "hwy/highway.h"
#include "kernels/isa/exp2-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// z / (1 + exp(-z)), relative error below 6 * 2^-24 and denormals to half their last place; without fused multiply-adds
// 1 + |z| more of 2^-24. inf gives inf. -inf gives NaN, as the formula does.
// With a = |z| and e = exp(-a), which cannot overflow:
// - z >= 0: z / (1 + e);
// - z < 0: z e / (1 + e). Where e nears the least float, it is computed 2^64 times as large, and z e made smaller last.
HWY_INLINE VF Silu(VF z) {
  const DF d;
  const VF a = hn::Abs(z);
  const auto small = hn::Gt(a, hn::Set(d, 64.0f));
  const VF base = hn::IfThenElse(small, hn::Set(d, kSixteenths + 64.0f), hn::Set(d, kSixteenths));
  const VF scale = hn::IfThenElse(small, hn::Set(d, 0x1p-64f), hn::Set(d, 1.0f));
  const VF counted = Fnma(a, hn::Set(d, kLog2e), base);
  // The rest of -a log2(e), to which log2(e) is needed beyond a float.
  const VF rest = Fnma(a, hn::Set(d, 0x1.4ae0cp-26f), Fnma(a, hn::Set(d, kLog2e), hn::Sub(base, counted)));
  const VF e = PowerOfSixteenths<false>(counted, rest, counted, hn::Set(d, kSixteenths - 126.0f));
  const VF top = hn::IfThenElse(hn::Lt(z, hn::Zero(d)), hn::Mul(hn::Mul(z, e), scale), z);
  return hn::Div(top, Fma(e, scale, hn::Set(d, 1.0f)));
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
