// The microkernel: the inner product loop over registers, under both products of attention and the projections.
//
//   acc[m][n] = acc[m][n] + sum over i, ascending, of a[m][i] * b[i][n]
//
// Contract: told once over an Mma, which says how words multiply. A word is 32 bits, one F32, two BF16 or four I8; sums
// are F32, of I8 I32. A sum is one chain, or runs of a chain (SumInRuns).
// Cost: M x NV multiply-adds for NV loads and M broadcasts.

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

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// A row of `count` values as words: where it lies, or in the workspace. 0 fills the last word.
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

// An Mma whose sums begin at 0 and whose operands are multiplied as they come.
struct MmaBase {
  static constexpr bool kSplits = false;  // takes values apart into BF16 pieces (split_f32-inl.hpp)
  static constexpr bool kInt8 = false;    // rounds queries and probabilities to bytes (pv_int8-inl.hpp)
  using Element = void;                   // the type of keys and values that pairs are read from where they lie

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

// The Mma of prefill where this one is decode's.
template <class DecodeMma>
struct PrefillMmaOf {
  using Mma = DecodeMma;
};

// Fused multiply-adds of F32.
struct MmaF32 : MmaBase {
  static constexpr std::size_t kValuesPerWord = 1;  // values in a word
  static constexpr bool kAmx = false;               // multiplies vectors, not AMX tiles
  static constexpr bool kDecodeOnly = false;        // true: any number of rows takes decode, a few at a time
  static constexpr int kDecodeRows = 8;             // blocks of up to so many rows take decode
  // Long sums are cut into chains, which keeps their error within the bounds of F32.
  static constexpr bool kChains = true;
  // The scale lies in the packed queries.
  static constexpr bool kScaledQueries = true;

  static HWY_INLINE VF MulAdd(VF a, VF b, VF sum) { return Fma(a, b, sum); }

  // A row of `count` values as words: where it lies, or in the workspace.
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

// `value` with 0 where the probability says "forbidden" (-0), half by half of the words.
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

// An Mma for forbidden keys whose values are not finite: 0 times NaN would reach the sum. Such values count as 0, which
// changes no bit of a finite sum. The name says which operand the probabilities are.
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

// Called at each step of the loop with where it reads b: a place to prefetch while the multipliers work.
struct NoPrefetch {
  HWY_INLINE void operator()(const float* /*here*/) const {}
};
// The loop: M broadcast words by NV vectors, one chain for each element, from `acc` as it comes in. Word i of row m
// lies at a + m * a_m + i * a_i, its vectors at b + i * b_i.

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

// The same sum in chains of `run` terms, added up one after the other. A chain begins where first + i is a multiple of
// `run`. One chain over many like terms drifts to one side: runs keep the error small.
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

// D is summed in runs of so many words, added up one after the other. One chain over all of D would round sharp heads
// too coarsely for lse.
constexpr std::size_t DepthRun(std::size_t width) { return width <= 48 ? 8 : 16; }
// A short D averages no roundings out: such heads are summed and scaled in double. Where products are rounded by
// themselves, longer heads are too.
constexpr std::size_t kDoubleWidth = kFusedMultiplyAdd ? 16 : 48;

template <class Mma>
constexpr bool InDouble(std::size_t width) {
  return Mma::kChains && width <= kDoubleWidth;
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
