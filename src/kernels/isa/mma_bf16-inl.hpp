// The BF16 microkernel: dot products of BF16 pairs.
//
// Contract: each product is exact; the two are added to an F32 sum one after the other; denormals count as 0.
// Cost: two multiply-adds a lane and instruction.

// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_ISA_MMA_BF16_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_ISA_MMA_BF16_INL_HPP
#undef MANYHEADS_ISA_MMA_BF16_INL_HPP
#else
#define MANYHEADS_ISA_MMA_BF16_INL_HPP
#endif

#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/isa/mma-inl.hpp"
#include "kernels/isa/widen-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// A row of BF16, or of I8 widened to BF16, as words of pairs.
HWY_INLINE const float* PairRow(DType type, const void* base, std::int64_t at, std::int64_t step, std::int64_t count,
                                float* workspace) {
  if (type != DType::kI8) return WordRow<std::uint16_t>(base, at, step, count, workspace);
  const std::int8_t* from = static_cast<const std::int8_t*>(base) + at;
  std::uint16_t* to = reinterpret_cast<std::uint16_t*>(workspace);
  for (std::int64_t i = 0; i < count; ++i) to[i] = Bf16Bits(from[i * step]);
  if (count % 2 != 0) to[count] = 0;
  return workspace;
}

#if HWY_TARGET == HWY_AVX3
// vdpbf16ps by name, since this target's instruction set does not include it.
struct MmaBf16 : MmaBase {
  using Element = bfloat16;
  static constexpr std::size_t kValuesPerWord = 2;
  static constexpr bool kAmx = false;
  static constexpr bool kDecodeOnly = false;
  static constexpr int kDecodeRows = 8;
  static constexpr bool kChains = false;
  static constexpr bool kScaledQueries = false;

  static HWY_INLINE VF MulAdd(VF a, VF b, VF sum) {
    asm("vdpbf16ps %2, %1, %0" : "+v"(sum.raw) : "v"(a.raw), "v"(b.raw));
    return sum;
  }

  static HWY_INLINE const float* Row(DType type, const void* base, std::int64_t at, std::int64_t step,
                                     std::int64_t count, float* workspace) {
    return PairRow(type, base, at, step, count, workspace);
  }

  // BF16 of `low` and `high`, rounded to nearest even: a lane's two values in one word.
  static HWY_INLINE VF Zip(VF low, VF high) {
    alignas(64) static constexpr std::uint16_t kOrder[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                             21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                             11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    return VF{_mm512_castsi512_ps(
        _mm512_permutexvar_epi16(_mm512_load_si512(kOrder), _mm512_castps_si512(Pack(low, high).raw)))};
  }
  // The words of two packed rows' lower values, or of their upper ones: a lane holds those of one index.
  static HWY_INLINE VF ZipLow(VF first, VF second) {
    alignas(64) static constexpr std::uint16_t kOrder[32] = {0,  32, 1,  33, 2,  34, 3,  35, 4,  36, 5,
                                                             37, 6,  38, 7,  39, 8,  40, 9,  41, 10, 42,
                                                             11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
    return Permute(first, second, kOrder);
  }
  static HWY_INLINE VF ZipHigh(VF first, VF second) {
    alignas(64) static constexpr std::uint16_t kOrder[32] = {16, 48, 17, 49, 18, 50, 19, 51, 20, 52, 21,
                                                             53, 22, 54, 23, 55, 24, 56, 25, 57, 26, 58,
                                                             27, 59, 28, 60, 29, 61, 30, 62, 31, 63};
    return Permute(first, second, kOrder);
  }
  // The same in memory's order: all of `low`, then all of `high`.
  static HWY_INLINE VF Pack(VF low, VF high) {
    VF both;
    asm("vcvtne2ps2bf16 %1, %2, %0" : "=v"(both.raw) : "v"(low.raw), "v"(high.raw));
    return both;
  }

 private:
  static HWY_INLINE VF Permute(VF first, VF second, const std::uint16_t* order) {
    return VF{_mm512_castsi512_ps(_mm512_permutex2var_epi16(_mm512_castps_si512(first.raw), _mm512_load_si512(order),
                                                            _mm512_castps_si512(second.raw)))};
  }
};

// The same products for I8 keys and values. Decode widens them to BF16 on their way into the registers.
struct MmaBf16Int8 : MmaBf16 {
  using Element = std::int8_t;
};
template <>
struct PrefillMmaOf<MmaBf16Int8> {
  using Mma = MmaBf16;  // reads packed K and V or runs, already widened
};
#endif

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
