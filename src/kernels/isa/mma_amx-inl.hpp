// The AMX microkernel: a tile of 16 rows of 16 words of BF16 pairs times another, to 16 x 16 sums of F32.
//
// Contract: MmaAmx is the machine's, MmaAmxEmulated gives its bits on any machine. Denormals count as 0.
// Cost: 16 x 16 x 32 multiply-adds an instruction; the emulation is for tests.

// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_ISA_MMA_AMX_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_ISA_MMA_AMX_INL_HPP
#undef MANYHEADS_ISA_MMA_AMX_INL_HPP
#else
#define MANYHEADS_ISA_MMA_AMX_INL_HPP
#endif

#include <cstddef>
#include <cstdint>
#include <limits>

#include "hwy/highway.h"
#include "kernels/isa/mma_bf16-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr std::size_t kTileSide = 16;

// What all Mmas of AMX share: BF16 pairs as words.
struct MmaAmxBase {
  using Element = void;
  static constexpr std::size_t kValuesPerWord = 2;
  static constexpr bool kChains = false;
  static constexpr bool kAmx = true;
  static constexpr bool kSplits = false;  // takes values apart into BF16 pieces (split_f32-inl.hpp)
  static constexpr bool kDecodeOnly = false;
  static constexpr int kDecodeRows = 0;
  static constexpr bool kScaledQueries = false;

  static HWY_INLINE const float* Row(DType type, const void* base, std::int64_t at, std::int64_t step,
                                     std::int64_t count, float* workspace) {
    return PairRow(type, base, at, step, count, workspace);
  }
};

// Denormals as 0 of their sign.
HWY_INLINE VF Flushed(VF x) {
  const DF d;
  return hn::IfThenElse(hn::Lt(hn::Abs(x), hn::Set(d, std::numeric_limits<float>::min())),
                        hn::And(x, hn::Set(d, -0.0f)), x);
}

// Which pieces of two operands multiply in each block of 16 words, one pair after the other. A row of a holds its
// pieces one after the other, b holds rows so; a piece has 16 * depth words.
struct OnePiece {
  static constexpr std::size_t kPieces = 1, kPairs = 1;
  static constexpr std::size_t kOfA[1] = {0}, kOfB[1] = {0};
};

// c[rows][columns] (+)= a[rows][16 depth] times b[16 depth][columns], rows `_step` words apart, block by block and in
// each pair of pieces by pair, as Intel's manual defines TDPBF16PS:
// - in each block of 16 words, the first values make one chain of multiply-adds and the second values another;
// - the sum of the two is added to c;
// - denormals count as 0 and come out as 0.
// kGuarded: a value counts as 0 where its probability in b is -0, forbidden, so that one that is not finite does not
// reach the sum.
template <bool kGuarded, class Pieces = OnePiece>
HWY_INLINE void EmulatedProducts(const float* a, std::size_t a_step, const float* b, std::size_t b_step,
                                 std::size_t depth, float* c, std::size_t c_step, std::size_t rows, std::size_t columns,
                                 bool first_in_chunk) {
  const DF d;
  const hn::RebindToUnsigned<DF> du;
  const std::size_t n = hn::Lanes(d);
  const auto flushed = [](VF x) HWY_ATTR { return Flushed(x); };
  const auto first_of = [&](VF x) HWY_ATTR { return flushed(hn::BitCast(d, hn::ShiftLeft<16>(hn::BitCast(du, x)))); };
  const auto second_of = [&](VF x) HWY_ATTR {
    return flushed(hn::BitCast(d, hn::And(hn::BitCast(du, x), hn::Set(du, 0xffff0000u))));
  };
  for (std::size_t m = 0; m < rows; ++m) {
    for (std::size_t at = 0; at < columns; at += n) {
      float* to = c + m * c_step + at;
      VF sum = first_in_chunk ? hn::Zero(d) : hn::LoadU(d, to);
      for (std::size_t i = 0; i < Pieces::kPairs * depth; ++i) {
        const std::size_t pair = i % Pieces::kPairs, block = i / Pieces::kPairs;
        const float* from_a = a + m * a_step + (Pieces::kOfA[pair] * depth + block) * kTileSide;
        const float* from_b = b + (Pieces::kOfB[pair] * depth + block) * kTileSide * b_step + at;
        VF first = hn::Zero(d);
        VF second = hn::Zero(d);
        for (std::size_t w = 0; w < kTileSide; ++w) {
          const VF column = hn::LoadU(d, from_b + w * b_step);
          VF value = hn::Set(d, WordAt(from_a + w));
          if (kGuarded) value = VisibleOnly<MmaAmxBase>(column, value);
          first = flushed(Fma(first_of(value), first_of(column), first));
          second = flushed(Fma(second_of(value), second_of(column), second));
        }
        sum = flushed(hn::Add(flushed(sum), flushed(hn::Add(first, second))));
      }
      hn::StoreU(sum, d, to);
    }
  }
}

#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_NEON
struct MmaAmxEmulated : MmaAmxBase {
  static void Begin() {}
  static void End() {}

  // BF16 of `low` and `high`, rounded to nearest even: a lane's two values in one word. Denormals are 0.
  static HWY_INLINE VF Zip(VF low, VF high) {
    const DF d;
    const hn::RebindToUnsigned<DF> du;
    const auto rounded = [&](VF x) HWY_ATTR { return RoundedToBf16(hn::BitCast(du, Flushed(x))); };
    return hn::BitCast(d, hn::Or(rounded(low), hn::ShiftLeft<16>(rounded(high))));
  }

  template <int MB, int NB, class Pieces>
  static HWY_INLINE void Products(const float* a, std::size_t a_step, const float* b, std::size_t b_step,
                                  std::size_t depth, float* c, std::size_t c_step, bool first_in_chunk) {
    EmulatedProducts<false, Pieces>(a, a_step, b, b_step, depth, c, c_step, MB * kTileSide, NB * kTileSide,
                                    first_in_chunk);
  }
};
#endif

#if HWY_TARGET == HWY_AVX3
// By name, since this target's instruction set does not include AMX. No compiler uses the tile registers by itself: 0
// to 3 hold sums, 4 and 5 rows of a, 6 and 7 rows of b.
struct MmaAmx : MmaAmxBase {
  static HWY_INLINE VF Zip(VF low, VF high) { return MmaBf16::Zip(low, high); }

  static HWY_INLINE void Begin() {
    alignas(64) static constexpr struct {
      std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
      std::uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } kConfig;
    asm volatile("ldtilecfg %0" ::"m"(kConfig));
  }
  static HWY_INLINE void End() { asm volatile("tilerelease"); }

  template <int MB, int NB, class Pieces>
  static HWY_INLINE void Products(const float* a, std::size_t a_step, const float* b, std::size_t b_step,
                                  std::size_t depth, float* c, std::size_t c_step, bool first_in_chunk) {
    const std::size_t a_bytes = a_step * sizeof(float);
    const std::size_t b_bytes = b_step * sizeof(float);
    const std::size_t c_bytes = c_step * sizeof(float);
    float* c1 = c + kTileSide;
    float* c2 = c + kTileSide * c_step;
    float* c3 = c2 + kTileSide;
    if (first_in_chunk) {
      asm volatile("tilezero %%tmm0\n\ttilezero %%tmm1\n\ttilezero %%tmm2\n\ttilezero %%tmm3" ::);
    } else {
      asm volatile("tileloadd (%0,%1,1), %%tmm0" ::"r"(c), "r"(c_bytes) : "memory");
      if constexpr (NB == 2) asm volatile("tileloadd (%0,%1,1), %%tmm1" ::"r"(c1), "r"(c_bytes) : "memory");
      if constexpr (MB == 2) asm volatile("tileloadd (%0,%1,1), %%tmm2" ::"r"(c2), "r"(c_bytes) : "memory");
      if constexpr (MB == 2 && NB == 2) asm volatile("tileloadd (%0,%1,1), %%tmm3" ::"r"(c3), "r"(c_bytes) : "memory");
    }
    for (std::size_t block = 0; block < depth; ++block) {
#pragma GCC unroll 6
      for (std::size_t pair = 0; pair < Pieces::kPairs; ++pair) {
        const float* a0 = a + (Pieces::kOfA[pair] * depth + block) * kTileSide;
        const float* b0 = b + (Pieces::kOfB[pair] * depth + block) * kTileSide * b_step;
        const bool new_b = pair == 0 || Pieces::kOfB[pair] != Pieces::kOfB[pair - 1];
        asm volatile("tileloadd (%0,%1,1), %%tmm4" ::"r"(a0), "r"(a_bytes) : "memory");
        if (new_b) asm volatile("tileloadd (%0,%1,1), %%tmm6" ::"r"(b0), "r"(b_bytes) : "memory");
        asm volatile("tdpbf16ps %%tmm6, %%tmm4, %%tmm0" ::);
        if constexpr (NB == 2) {
          if (new_b) asm volatile("tileloadd (%0,%1,1), %%tmm7" ::"r"(b0 + kTileSide), "r"(b_bytes) : "memory");
          asm volatile("tdpbf16ps %%tmm7, %%tmm4, %%tmm1" ::);
        }
        if constexpr (MB == 2) {
          asm volatile("tileloadd (%0,%1,1), %%tmm5" ::"r"(a0 + kTileSide * a_step), "r"(a_bytes) : "memory");
          asm volatile("tdpbf16ps %%tmm6, %%tmm5, %%tmm2" ::);
          if constexpr (NB == 2) asm volatile("tdpbf16ps %%tmm7, %%tmm5, %%tmm3" ::);
        }
      }
    }
    asm volatile("tilestored %%tmm0, (%0,%1,1)" ::"r"(c), "r"(c_bytes) : "memory");
    if constexpr (NB == 2) asm volatile("tilestored %%tmm1, (%0,%1,1)" ::"r"(c1), "r"(c_bytes) : "memory");
    if constexpr (MB == 2) asm volatile("tilestored %%tmm2, (%0,%1,1)" ::"r"(c2), "r"(c_bytes) : "memory");
    if constexpr (MB == 2 && NB == 2) asm volatile("tilestored %%tmm3, (%0,%1,1)" ::"r"(c3), "r"(c_bytes) : "memory");
  }
};
#endif

// c[rows][columns] (+)= a times b over `depth` blocks of 16 words. rows and columns are multiples of 16.
template <class Mma, class Pieces = OnePiece>
HWY_INLINE void AmxProducts(const float* a, std::size_t a_step, const float* b, std::size_t b_step, std::size_t depth,
                            float* c, std::size_t c_step, std::size_t rows, std::size_t columns, bool first_in_chunk) {
  for (std::size_t m = 0; m < rows; m += 2 * kTileSide) {
    for (std::size_t i = 0; i < columns; i += 2 * kTileSide) {
      const bool two_rows = m + kTileSide < rows;
      const bool two_columns = i + kTileSide < columns;
      const float* am = a + m * a_step;
      float* to = c + m * c_step + i;
      if (two_rows && two_columns) {
        Mma::template Products<2, 2, Pieces>(am, a_step, b + i, b_step, depth, to, c_step, first_in_chunk);
      } else if (two_rows) {
        Mma::template Products<2, 1, Pieces>(am, a_step, b + i, b_step, depth, to, c_step, first_in_chunk);
      } else if (two_columns) {
        Mma::template Products<1, 2, Pieces>(am, a_step, b + i, b_step, depth, to, c_step, first_in_chunk);
      } else {
        Mma::template Products<1, 1, Pieces>(am, a_step, b + i, b_step, depth, to, c_step, first_in_chunk);
      }
    }
  }
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
