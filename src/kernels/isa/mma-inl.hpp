// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_ISA_MMA_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_ISA_MMA_INL_HPP
#undef MANYHEADS_ISA_MMA_INL_HPP
#else
#define MANYHEADS_ISA_MMA_INL_HPP
#endif

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "hwy/highway.h"
#include "kernels/isa/load_store-inl.hpp"
#include "kernels/isa/vector-inl.hpp"

// What multiplies. Both products of attention are told once over an Mma: its operands are words of 32 bits, each one
// F32, a pair of neighbouring BF16 or four I8, its sums F32 (of I8, I32).
HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// A row of `count` values as words of them: where it lies, or in scratch, the last word filled up with 0.
template <class Value>
HWY_INLINE const float* WordRow(const void* base, std::int64_t at, std::int64_t step, std::int64_t count,
                                float* workspace) {
  constexpr std::int64_t kValuesPerWord = sizeof(float) / sizeof(Value);
  const Value* from = static_cast<const Value*>(base) + at;
  if (step == 1 && count % kValuesPerWord == 0) return reinterpret_cast<const float*>(from);
  Value* to = reinterpret_cast<Value*>(workspace);
  for (std::int64_t i = 0; i < count; ++i) to[i] = from[i * step];
  for (std::int64_t i = count; i % kValuesPerWord != 0; ++i) to[i] = 0;
  return workspace;
}

// A unit whose sums begin at 0 and need no change: the operands are multiplied as they come.
struct MmaBase {
  static constexpr bool kInt8 = false;  // rounds queries and weights to bytes (quads-inl.hpp)
  using Element = void;                 // of the keys and values that pairs are taken from as they lie

  template <class Info>
  static HWY_INLINE VF Begin(const Info& /*info*/, int /*row*/) {
    return hn::Zero(DF());
  }
  static HWY_INLINE VF Key(VF word) { return word; }
  template <class Info>
  static HWY_INLINE VF Score(const Info& /*info*/, int /*row*/, VF sum) {
    return sum;
  }
};

// The unit that multiplies many rows where this one multiplies few.
template <class DecodeMma>
struct PrefillMmaOf {
  using Mma = DecodeMma;
};

// Fused multiply-adds of F32.
struct MmaF32 : MmaBase {
  static constexpr std::size_t kValuesPerWord = 1;  // values in a word
  static constexpr bool kAmx = false;               // a step is one vector's, not a tile's (tiles-inl.hpp)
  static constexpr bool kDecodeOnly = false;        // any number of rows passes over the keys few by few
  static constexpr int kDecodeRows = 8;             // up to so many rows pass over the keys one by one
  // Long sums are cut into chains, which keeps their error within the bounds of F32.
  static constexpr bool kChains = true;
  // The scale lies in the packed queries.
  static constexpr bool kScaledQueries = true;

  static HWY_INLINE VF MulAdd(VF a, VF b, VF sum) { return hn::MulAdd(a, b, sum); }

  // A row of `count` values as words: where it lies, or in scratch.
  static HWY_INLINE const float* Row(DType type, const void* base, std::int64_t at, std::int64_t step,
                                     std::int64_t count, float* workspace) {
    if (type == DType::kF32 && step == 1) return static_cast<const float*>(base) + at;
    CopyRow(type, base, at, step, count, workspace);
    return workspace;
  }
};

template <class Mma>
constexpr std::size_t Words(std::size_t values) {
  return (values + Mma::kValuesPerWord - 1) / Mma::kValuesPerWord;
}

// The halves of a weight's words that say "forbidden" (-0) as a mask for the words they are multiplied with.
template <class Mma>
HWY_INLINE VF VisibleOnly(VF prob, VF value) {
  const DF d;
  const hn::RebindToUnsigned<DF> du;
  const auto words = hn::BitCast(du, prob);
  if constexpr (Mma::kValuesPerWord == 1) {
    return hn::IfThenZeroElse(hn::RebindMask(d, hn::Eq(words, hn::Set(du, 0x80000000u))), value);
  } else {
    const auto sign = hn::Set(du, 0x8000u);
    const auto low = hn::VecFromMask(du, hn::Eq(hn::And(words, hn::Set(du, 0xffffu)), sign));
    const auto high = hn::VecFromMask(du, hn::Eq(hn::ShiftRight<16>(words), sign));
    const auto forbidden = hn::Or(hn::And(low, hn::Set(du, 0xffffu)), hn::ShiftLeft<16>(high));
    return hn::BitCast(d, hn::AndNot(forbidden, hn::BitCast(du, value)));
  }
}

// A unit for values that are not finite beside forbidden keys: their product, 0 times NaN, would reach the sum. Such
// values count as 0, which changes no bit of a finite sum. The weights are the second operand, or the first.
template <class Mma>
struct ProbsSecond : Mma {
  static HWY_INLINE VF MulAdd(VF value, VF prob, VF sum) {
    return Mma::MulAdd(VisibleOnly<Mma>(prob, value), prob, sum);
  }
};
template <class Mma>
struct ProbsFirst : Mma {
  static HWY_INLINE VF MulAdd(VF prob, VF value, VF sum) {
    return Mma::MulAdd(prob, VisibleOnly<Mma>(prob, value), sum);
  }
};

// The register tile under both products of attention and the projections: M broadcast values by NV vectors.
//
//   acc[m][n] = sum over i, ascending, of a[m * a_m + i * a_i] * b[i * b_i + n]
//
// One chain of the unit's steps for each element, from `acc` as it comes in. `prefetch` is called at each step with
// where it reads b: for memory that is to be fetched while the multipliers work.
struct NoPrefetch {
  HWY_INLINE void operator()(const float* /*here*/) const {}
};

template <class Mma, int M, int NV, class Prefetch = NoPrefetch>
HWY_INLINE void Accumulate(const float* HWY_RESTRICT a, std::size_t a_m, std::size_t a_i, const float* HWY_RESTRICT b,
                           std::size_t b_i, std::size_t count, VF (&acc)[M][NV], Prefetch&& prefetch = {}) {
  const DF d;
  const std::size_t lanes = hn::Lanes(d);
#pragma GCC unroll 2
  for (std::size_t i = 0; i < count; ++i) {
    VF column[NV];
    prefetch(b + i * b_i);
#pragma GCC unroll 8
    for (int n = 0; n < NV; ++n) column[n] = hn::LoadU(d, b + i * b_i + static_cast<std::size_t>(n) * lanes);
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) {
      const float* word = a + static_cast<std::size_t>(m) * a_m + i * a_i;
      const VF value = hn::Set(d, Mma::kValuesPerWord == 1 ? *word : WordAt(word));
#pragma GCC unroll 8
      for (int n = 0; n < NV; ++n) acc[m][n] = Mma::MulAdd(value, column[n], acc[m][n]);
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
template <class Mma, int M, int NV, class Prefetch = NoPrefetch>
HWY_INLINE void SumInRuns(const float* HWY_RESTRICT a, std::size_t a_m, std::size_t a_i, const float* HWY_RESTRICT b,
                          std::size_t b_i, std::size_t first, std::size_t count, std::size_t run, VF (&total)[M][NV],
                          Prefetch&& prefetch = {}) {
  Clear(total);
  std::size_t length = run - first % run;
  length = length < count ? length : count;
  Accumulate<Mma>(a, a_m, a_i, b, b_i, length, total, prefetch);
  for (std::size_t i = length; i < count; i += run) {
    VF chain[M][NV];
    Clear(chain);
    length = count - i < run ? count - i : run;
    Accumulate<Mma>(a + i * a_i, a_m, a_i, b + i * b_i, b_i, length, chain, prefetch);
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) {
#pragma GCC unroll 8
      for (int n = 0; n < NV; ++n) total[m][n] = hn::Add(total[m][n], chain[m][n]);
    }
  }
}

// A chain over all of D would round sharp heads too coarsely for lse: D is summed in runs, and the runs one after the
// other.
constexpr std::size_t DepthRun(std::size_t width) { return width <= 48 ? 8 : 16; }
// Over a short D nothing averages the roundings out: such heads are summed and scaled in double, longer ones too where
// products are rounded by themselves.
constexpr std::size_t kDoubleWidth = kFusedMultiplyAdd ? 16 : 48;

template <class Mma>
constexpr bool InDouble(std::size_t width) {
  return Mma::kChains && width <= kDoubleWidth;
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
