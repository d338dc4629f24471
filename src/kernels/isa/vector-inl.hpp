// The vector of F32 that every kernel computes in.

// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_ISA_VECTOR_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_ISA_VECTOR_INL_HPP
#undef MANYHEADS_ISA_VECTOR_INL_HPP
#else
#define MANYHEADS_ISA_VECTOR_INL_HPP
#endif

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

// Whether a multiply-add rounds once.
constexpr bool kFusedMultiplyAdd = HWY_NATIVE_FMA != 0;

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
