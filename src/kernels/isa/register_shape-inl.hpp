// Register shapes: how many vectors and rows keep the multipliers busy and fit the registers of a target.

// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_ISA_REGISTER_SHAPE_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_ISA_REGISTER_SHAPE_INL_HPP
#undef MANYHEADS_ISA_REGISTER_SHAPE_INL_HPP
#else
#define MANYHEADS_ISA_REGISTER_SHAPE_INL_HPP
#endif

#include <cstddef>

#include "hwy/highway.h"
#include "kernels/isa/vector-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Vectors of queries in the largest query block, and rows of the register tile: accumulators and operands fit.
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_SSE4 || HWY_TARGET == HWY_SSSE3
constexpr int kBlockVectors = 3;
constexpr int kMmaRows = 4;
#else
constexpr int kBlockVectors = 4;
constexpr int kMmaRows = 4;
#endif

// Rows of the register tile that keep the multipliers busy beside NV vectors.
template <int NV>
constexpr int MmaRowsBeside() {
  return NV * 2 * kMmaRows <= kBlockVectors * kMmaRows ? 2 * kMmaRows : kMmaRows;
}

// Rows beside kBlockVectors where each sum is one chain: on AVX-512 as many sums as there are registers for. Few words
// make a sum, and each tile begins and ends in memory.
constexpr int kTallRows = HWY_TARGET == HWY_AVX3 ? 6 : kMmaRows;

// Vectors of keys or values beside R broadcast rows: sums and operands fit the registers.
template <int R>
constexpr int VectorsBeside() {
  return R * 4 <= kMmaRows * kBlockVectors ? 4 : R * 2 <= kMmaRows * kBlockVectors ? 2 : 1;
}

// Vectors of keys that R rows of queries are multiplied with at a time. Enough chains of sums keep the multipliers
// busy, and a query's word is loaded once for all of them. No more: each vector reads from sixteen rows and, at each
// word, prefetches a line.
template <int R>
constexpr int KeysBeside() {
#if HWY_TARGET == HWY_AVX3
  return 2;
#else
  return R <= 2 ? 2 : 1;  // half as many registers
#endif
}

// Keys whose values are multiplied between two calls of the prefetch, and the prefetches of a call beside NV vectors of
// values. A few lines at a time: a burst fills the queue of missing lines and holds up what the rows read.
template <class Mma>
constexpr std::size_t kKeysPerPrefetch = HWY_TARGET == HWY_AVX3 ? Mma::kValuesPerWord : 4;
template <int NV>
constexpr std::size_t kPrefetches = HWY_TARGET == HWY_AVX3 ? (NV + 1) / 2 : 1;

// Prefetches in a block of vectors by four words. One at each word where a vector holds sixteen rows: a burst would
// hold up what they read.
constexpr std::size_t kPrefetchesPerBlock = HWY_TARGET == HWY_AVX3 ? 4 : 1;

// The register tile of projections: rows, and vectors of a packed panel.
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_SSE4 || HWY_TARGET == HWY_SSSE3
constexpr int kLinearRows = 6;
#else
constexpr int kLinearRows = 12;
#endif
constexpr int kPanelVectors = 2;

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
