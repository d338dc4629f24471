// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_TILE_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_TILE_INL_HPP
#undef MANYHEADS_TILE_INL_HPP
#else
#define MANYHEADS_TILE_INL_HPP
#endif

#include <cstddef>

#include "hwy/highway.h"
#include "kernels/algorithm/unit-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// The register tile under both products of attention and the projections: M broadcast values by NV vectors.
//
//   acc[m][n] = sum over i, ascending, of a[m * a_m + i * a_i] * b[i * b_i + n]
//
// One chain of the unit's steps for each element, from `acc` as it comes in. `meanwhile` is called at each step with
// where it reads b: for memory that is to be fetched while the multipliers work.
struct Nothing {
  HWY_INLINE void operator()(const float* /*here*/) const {}
};

template <class Unit, int M, int NV, class Meanwhile = Nothing>
HWY_INLINE void Accumulate(const float* HWY_RESTRICT a, std::size_t a_m, std::size_t a_i, const float* HWY_RESTRICT b,
                           std::size_t b_i, std::size_t count, VF (&acc)[M][NV], Meanwhile&& meanwhile = {}) {
  const DF d;
  const std::size_t lanes = hn::Lanes(d);
#pragma GCC unroll 2
  for (std::size_t i = 0; i < count; ++i) {
    VF column[NV];
    meanwhile(b + i * b_i);
#pragma GCC unroll 8
    for (int n = 0; n < NV; ++n) column[n] = hn::LoadU(d, b + i * b_i + static_cast<std::size_t>(n) * lanes);
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) {
      const float* word = a + static_cast<std::size_t>(m) * a_m + i * a_i;
      const VF value = hn::Set(d, Unit::kTerms == 1 ? *word : WordAt(word));
#pragma GCC unroll 8
      for (int n = 0; n < NV; ++n) acc[m][n] = Unit::MulAdd(value, column[n], acc[m][n]);
    }
  }
}

template <int M, int NV>
HWY_INLINE void Clear(VF (&acc)[M][NV]) {
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 8
    for (int n = 0; n < NV; ++n) acc[m][n] = hn::Zero(DF());
  }
}

// The same sum in chains of `run` terms, which begin where first + i is a multiple of it, added up one after the other.
// A chain over many like terms drifts to one side: runs keep the error of a sum small.
template <class Unit, int M, int NV, class Meanwhile = Nothing>
HWY_INLINE void SumInRuns(const float* HWY_RESTRICT a, std::size_t a_m, std::size_t a_i,
                          const float* HWY_RESTRICT b, std::size_t b_i, std::size_t first, std::size_t count,
                          std::size_t run, VF (&total)[M][NV], Meanwhile&& meanwhile = {}) {
  Clear(total);
  std::size_t length = run - first % run;
  length = length < count ? length : count;
  Accumulate<Unit>(a, a_m, a_i, b, b_i, length, total, meanwhile);
  for (std::size_t i = length; i < count; i += run) {
    VF chain[M][NV];
    Clear(chain);
    length = count - i < run ? count - i : run;
    Accumulate<Unit>(a + i * a_i, a_m, a_i, b + i * b_i, b_i, length, chain, meanwhile);
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) {
#pragma GCC unroll 8
      for (int n = 0; n < NV; ++n) total[m][n] = hn::Add(total[m][n], chain[m][n]);
    }
  }
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
