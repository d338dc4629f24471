// The vector of F32 that every kernel computes in.

// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_ISA_VECTOR_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_ISA_VECTOR_INL_HPP
#undef MANYHEADS_ISA_VECTOR_INL_HPP
#else
#define MANYHEADS_ISA_VECTOR_INL_HPP
#endif

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "hwy/highway.h"
#include "kernels/params.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using DF = hn::ScalableTag<float>;
using VF = hn::Vec<DF>;

// Lanes of the widest vector.
constexpr std::size_t kMaxLanes = 16;

inline std::size_t LaneCount() { return hn::Lanes(DF()); }

// A word of the caller's memory. Two neighbours of BF16 need not lie at a multiple of four bytes.
HWY_INLINE float WordAt(const float* at) {
  float word;
  std::memcpy(&word, static_cast<const void*>(at), sizeof(word));
  return word;
}

constexpr std::size_t RoundUp(std::size_t value, std::size_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// Targets without vectors: the definition of the bits, as slow as it is.
#undef MANYHEADS_EACH_LANE
#if HWY_TARGET == HWY_EMU128 || HWY_TARGET == HWY_SCALAR
#define MANYHEADS_EACH_LANE 1
#else
#define MANYHEADS_EACH_LANE 0
#endif

// Whether a multiply-add rounds once.
constexpr bool kFusedMultiplyAdd = MANYHEADS_EACH_LANE || HWY_NATIVE_FMA != 0;

#if MANYHEADS_EACH_LANE
template <class V>
HWY_INLINE V Fma(V a, V b, V c) {
  const hn::DFromV<V> d;
  hn::TFromV<V> lanes[3][hn::MaxLanes(d)];
  hn::StoreU(a, d, lanes[0]);
  hn::StoreU(b, d, lanes[1]);
  hn::StoreU(c, d, lanes[2]);
  for (std::size_t i = 0; i < hn::Lanes(d); ++i) lanes[0][i] = std::fma(lanes[0][i], lanes[1][i], lanes[2][i]);
  return hn::LoadU(d, lanes[0]);
}
#else
// a b + c, rounded once where kFusedMultiplyAdd.
template <class V>
HWY_INLINE V Fma(V a, V b, V c) {
  return hn::MulAdd(a, b, c);
}
#endif
// a b - c and c - a b, alike. Negation is exact.
template <class V>
HWY_INLINE V Fms(V a, V b, V c) {
#if MANYHEADS_EACH_LANE
  return Fma(a, b, hn::Neg(c));
#else
  return hn::MulSub(a, b, c);
#endif
}
template <class V>
HWY_INLINE V Fnma(V a, V b, V c) {
#if MANYHEADS_EACH_LANE
  return Fma(hn::Neg(a), b, c);
#else
  return hn::NegMulAdd(a, b, c);
#endif
}

// Keeps a value in memory, beside work that needs the registers.
template <class T>
HWY_INLINE void KeepInMemory([[maybe_unused]] T& value) {
#if HWY_TARGET == HWY_AVX3
  asm volatile("" : "+m"(value));
#endif
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
