// The first lanes of a vector, for the end of a row: nothing behind it is read or written.

// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_ISA_EDGE_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_ISA_EDGE_INL_HPP
#undef MANYHEADS_ISA_EDGE_INL_HPP
#else
#define MANYHEADS_ISA_EDGE_INL_HPP
#endif

#include <algorithm>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/isa/vector-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Lanes from `count` on are 0.
HWY_INLINE VF LoadFirst(const float* from, std::int64_t count) {
  HWY_ALIGN float edge[kMaxLanes] = {};
  std::copy_n(from, count, edge);
  return hn::Load(DF(), edge);
}
HWY_INLINE void StoreFirst(VF values, float* to, std::int64_t count) {
  HWY_ALIGN float edge[kMaxLanes];
  hn::Store(values, DF(), edge);
  std::copy_n(edge, count, to);
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
