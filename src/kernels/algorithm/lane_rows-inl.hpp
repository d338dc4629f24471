// Rows of memory into the lanes of vectors, word by word, and back: a transposition.
//
// Contract: lane l holds row l; lanes without a row hold 0. A word is 32 bits, one F32, two BF16 or four I8.
// Cost: dense rows are transposed from where they lie, in squares of four words.

// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_ALGORITHM_LANE_ROWS_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_ALGORITHM_LANE_ROWS_INL_HPP
#undef MANYHEADS_ALGORITHM_LANE_ROWS_INL_HPP
#else
#define MANYHEADS_ALGORITHM_LANE_ROWS_INL_HPP
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "hwy/highway.h"
#include "kernels/isa/mma-inl.hpp"
#include "kernels/isa/register_shape-inl.hpp"
#include "kernels/isa/transpose-inl.hpp"
#include "kernels/isa/widen-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr std::size_t kSegment = 64;  // words of a row handled at a time

// Where the rows of a vector's lanes begin. Lanes behind the last row have none.
struct LaneRows {
  std::int64_t at[kMaxLanes];
  std::size_t count = 0;
  std::int64_t stride = 0;  // from each row to the next; 0 where it differs, is unknown, or lanes have no row

  void find_stride() {
    if (count < LaneCount() || count < 2) return;
    stride = at[1] - at[0];
    for (std::size_t l = 2; l < count; ++l) {
      if (at[l] - at[l - 1] != stride) stride = 0;
    }
  }
};

// Visits `count` words of K vectors of rows, from word `from` on, four at a time: visit(word, vectors), ascending.
// `from` and `count` are multiples of four.
template <Held kHeld, std::size_t K, class StridedRows, class Visit, class Prefetch>
HWY_INLINE void EachBlock(const StridedRows (&rows)[K], std::size_t from, std::size_t count, Visit&& visit,
                          Prefetch&& prefetch) {
  for (std::size_t i = 0; i < count; i += 4) {
    VF block[K][4];
    if constexpr (kPrefetchesPerBlock == 1) prefetch(nullptr);
#pragma GCC unroll 4
    for (std::size_t k = 0; k < K; ++k) {
#pragma GCC unroll 4
      for (std::size_t j = 0; j < 4; ++j) block[k][j] = rows[k].Blocks(j, i);
      TransposeBlocks(block[k]);
    }
#pragma GCC unroll 4
    for (std::size_t j = 0; j < 4; ++j) {
      if constexpr (kPrefetchesPerBlock == 4) prefetch(nullptr);
      VF value[K][WordsIn(kHeld)];
#pragma GCC unroll 4
      for (std::size_t k = 0; k < K; ++k) Widened<kHeld>(block[k][j], value[k]);
#pragma GCC unroll 4
      for (std::size_t w = 0; w < WordsIn(kHeld); ++w) {
        VF vectors[K];
#pragma GCC unroll 4
        for (std::size_t k = 0; k < K; ++k) vectors[k] = value[k][w];
        visit((from + i + j) * WordsIn(kHeld) + w, vectors);
      }
    }
  }
}

// EachWord for the leading words of dense rows, as many as fill whole blocks of four. `size` is that of a value in
// bytes. Returns how many of the Mma's words it visited. Transposes the rows from where they lie.
template <Held kHeld, std::size_t K, class Visit, class Prefetch>
HWY_INLINE std::size_t EachDense(const void* base, std::int64_t size, const LaneRows (&from_rows)[K], std::size_t words,
                                 Visit&& visit, Prefetch&& prefetch) {
  const std::size_t n = LaneCount();
  const std::size_t count = words / 4 * 4;
  const char* begin = static_cast<const char*>(base);
  bool even = true;
  for (const LaneRows& rows : from_rows) even = even && rows.stride != 0;
  if (even) {
    EvenRows rows[K];
    for (std::size_t k = 0; k < K; ++k) {
      rows[k] = {begin + from_rows[k].at[0] * size, static_cast<std::ptrdiff_t>(from_rows[k].stride * size)};
    }
    EachBlock<kHeld>(rows, 0, count, visit, prefetch);
    return count * WordsIn(kHeld);
  }
  alignas(64) static constexpr float kZeros[kSegment] = {};
  for (std::size_t from = 0; from < count; from += kSegment) {
    ScatteredRows rows[K];
    for (std::size_t k = 0; k < K; ++k) {
      for (std::size_t l = 0; l < n; ++l) {
        rows[k].at[l] =
            l < from_rows[k].count ? reinterpret_cast<const float*>(begin + from_rows[k].at[l] * size) + from : kZeros;
      }
    }
    EachBlock<kHeld>(rows, from, count - from < kSegment ? count - from : kSegment, visit, prefetch);
  }
  return count * WordsIn(kHeld);
}

// Calls visit(word, vectors) for each word of K vectors of rows, ascending. Lanes without a row hold 0.
template <class Mma, std::size_t K, class Visit, class Prefetch>
HWY_INLINE void EachWord(DType type, const void* base, const LaneRows (&from_rows)[K], std::int64_t step,
                         std::int64_t width, Visit&& visit, Prefetch&& prefetch) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  const std::size_t size = static_cast<std::size_t>(width);
  const std::size_t words = Words<Mma>(size);
  std::size_t done = 0;
  if (step == 1 && from_rows[0].count > 0) {
    if constexpr (Mma::kValuesPerWord == 2 && std::is_same_v<typename Mma::Element, std::int8_t>) {
      done = EachDense<Held::kI8Pairs>(base, 1, from_rows, size / 4, visit, prefetch);
    } else if constexpr (Mma::kValuesPerWord > 1) {
      constexpr std::size_t kValuesPerWord = Mma::kValuesPerWord;
      done = EachDense<Held::kWord>(base, sizeof(float) / kValuesPerWord, from_rows, size / kValuesPerWord, visit,
                                    prefetch);
    } else if (type == DType::kF32) {
      done = EachDense<Held::kWord>(base, 4, from_rows, size, visit, prefetch);
    } else if (type == DType::kBF16) {
      done = EachDense<Held::kBF16>(base, 2, from_rows, size / 2, visit, prefetch);
    } else if (type == DType::kI8) {
      done = EachDense<Held::kI8>(base, 1, from_rows, size / 4, visit, prefetch);
    }
    if constexpr (kWidensF16 && Mma::kValuesPerWord == 1) {
      if (type == DType::kF16) done = EachDense<Held::kF16>(base, 2, from_rows, size / 2, visit, prefetch);
    }
  }
  for (std::size_t from = done; from < words; from += kSegment) {
    HWY_ALIGN float values[K * kMaxLanes * kSegment];
    const std::size_t count = words - from < kSegment ? words - from : kSegment;
    const std::int64_t skip = static_cast<std::int64_t>(from * Mma::kValuesPerWord);
    const std::int64_t left = width - skip;
    const std::int64_t most = static_cast<std::int64_t>(kSegment * Mma::kValuesPerWord);
    const float* rows[K][kMaxLanes];
    for (std::size_t k = 0; k < K; ++k) {
      for (std::size_t l = 0; l < n; ++l) {
        float* workspace = values + (k * kMaxLanes + l) * kSegment;
        rows[k][l] = workspace;
        if (l < from_rows[k].count) {
          rows[k][l] =
              Mma::Row(type, base, from_rows[k].at[l] + skip * step, step, left < most ? left : most, workspace);
        } else {
          for (std::size_t i = 0; i < count; ++i) workspace[i] = 0.0f;
        }
      }
    }
    std::size_t i = 0;
    if (from % 4 == 0) {
      i = count / 4 * 4;
      ScatteredRows blocks[K];
      for (std::size_t k = 0; k < K; ++k) std::copy_n(rows[k], n, blocks[k].at);
      EachBlock<Held::kWord>(blocks, from, i, visit, prefetch);
    }
    for (; i < count; ++i) {
      VF vectors[K];
      for (std::size_t k = 0; k < K; ++k) {
        HWY_ALIGN float column[kMaxLanes];
        for (std::size_t l = 0; l < n; ++l) column[l] = WordAt(rows[k][l] + i);
        vectors[k] = hn::Load(d, column);
      }
      visit(from + i, vectors);
    }
  }
}

// Packs the rows to packed[word][lane], `lanes` wide, each word passed through `change`. Lanes without a row hold 0.
template <class Mma, class Change>
HWY_INLINE void PackLanes(DType type, const void* base, const LaneRows& from_rows, std::int64_t step,
                          std::int64_t width, std::size_t lanes, float* HWY_RESTRICT packed, const Change& change) {
  const LaneRows rows[1] = {from_rows};
  EachWord<Mma>(
      type, base, rows, step, width,
      [&](std::size_t word, const VF(&x)[1]) HWY_ATTR { hn::StoreU(change(x[0]), DF(), packed + word * lanes); },
      NoPrefetch());
}

// The way back: writes output[value][lane], `lanes` wide, to each lane's row, changed with the lane's factor.
template <class Change>
HWY_INLINE void UnpackLanes(DType type, void* base, const LaneRows& to_rows, std::int64_t step, std::int64_t width,
                            std::size_t lanes, const float* HWY_RESTRICT output, const float* HWY_RESTRICT factors,
                            const Change& change) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  HWY_ALIGN float values[kMaxLanes * kSegment];
  const std::size_t size = static_cast<std::size_t>(width);
  for (std::size_t from = 0; from < size; from += kSegment) {
    const std::size_t count = size - from < kSegment ? size - from : kSegment;
    float* rows[kMaxLanes];
    for (std::size_t l = 0; l < n; ++l) {
      rows[l] = l < to_rows.count && type == DType::kF32 && step == 1
                    ? static_cast<float*>(base) + to_rows.at[l] + static_cast<std::int64_t>(from)
                    : values + l * kSegment;
    }
    std::size_t i = 0;
    for (; i + n <= count; i += n) {
      VF square[kMaxLanes];
      for (std::size_t j = 0; j < n; ++j) square[j] = hn::LoadU(d, output + (from + i + j) * lanes);
      TransposeSquare(square);
      for (std::size_t l = 0; l < n; ++l) hn::StoreU(change(square[l], hn::Set(d, factors[l])), d, rows[l] + i);
    }
    for (; i < count; ++i) {
      HWY_ALIGN float column[kMaxLanes];
      hn::Store(change(hn::LoadU(d, output + (from + i) * lanes), hn::LoadU(d, factors)), d, column);
      for (std::size_t l = 0; l < n; ++l) rows[l][i] = column[l];
    }
    for (std::size_t l = 0; l < to_rows.count; ++l) {
      if (rows[l] != values + l * kSegment) continue;
      StoreRow(type, base, to_rows.at[l] + static_cast<std::int64_t>(from) * step, step,
               static_cast<std::int64_t>(count), rows[l]);
    }
  }
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
