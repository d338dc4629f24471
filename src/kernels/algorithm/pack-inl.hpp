// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_PACK_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_PACK_INL_HPP
#undef MANYHEADS_PACK_INL_HPP
#else
#define MANYHEADS_PACK_INL_HPP
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "hwy/highway.h"
#include "kernels/algorithm/rows-inl.hpp"
#include "kernels/algorithm/tile-inl.hpp"
#include "kernels/algorithm/tiles-inl.hpp"
#include "kernels/algorithm/unit-inl.hpp"
#include "kernels/kernel_table.hpp"

// Queries, keys and values as a unit's words, laid out as the register tile reads them.
HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr std::size_t kSegment = 64;  // words of a row handled at a time

// Where the rows of a vector's lanes begin. Lanes behind the last row have none.
struct LaneRows {
  std::int64_t at[kMaxLanes];
  std::size_t count = 0;
  std::int64_t stride = 0;  // from each row to the next; 0 where it differs, is not known, or lanes have no row

  void find_stride() {
    if (count < LaneCount() || count < 2) return;
    stride = at[1] - at[0];
    for (std::size_t l = 2; l < count; ++l) {
      if (at[l] - at[l - 1] != stride) stride = 0;
    }
  }
};

// How often other work is to be done meanwhile in a block of vectors by four words: where sixteen rows lie in a vector,
// at each word, since a burst of fetching would hold up what they read.
constexpr std::size_t kMeanwhileABlock = HWY_TARGET == HWY_AVX3 ? 4 : 1;

#if HWY_TARGET != HWY_SCALAR

// What a word of memory holds that is to become words of a unit, the first in its low bits.
enum class Held { kWord, kBF16, kF16, kI8, kI8Pairs };
constexpr std::size_t WordsIn(Held held) { return held == Held::kWord ? 1 : held == Held::kI8 ? 4 : 2; }

// The words that a word of each row holds: those of lane l to lane l, in ascending order.
template <Held kHeld>
HWY_INLINE void Widened(VF words, VF (&to)[WordsIn(kHeld)]) {
  [[maybe_unused]] const DF d;
  [[maybe_unused]] const hn::RebindToSigned<DF> di;
  [[maybe_unused]] const auto word = hn::BitCast(di, words);
  if constexpr (kHeld == Held::kWord) {
    to[0] = words;
  } else if constexpr (kHeld == Held::kI8Pairs) {
    VF value[4];
    Widened<Held::kI8>(words, value);
    to[0] = PairsOf(value[0], value[1]);
    to[1] = PairsOf(value[2], value[3]);
#if HWY_TARGET == HWY_AVX3
  } else if constexpr (kHeld == Held::kF16) {
    alignas(64) static constexpr std::uint16_t kOrder[32] = {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30,
                                                             1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31};
    const __m512i halves = _mm512_permutexvar_epi16(_mm512_load_si512(kOrder), word.raw);
    to[0] = VF{_mm512_cvtph_ps(_mm512_castsi512_si256(halves))};
    to[1] = VF{_mm512_cvtph_ps(_mm512_extracti64x4_epi64(halves, 1))};
  } else if constexpr (kHeld == Held::kI8) {
    // A byte, its sign flipped, among the bits of a power of two: the power + 128 + the integer, and exact.
    const auto placed = [](__m512i bytes, int mask, float above) HWY_ATTR {
      const __m512i sum = _mm512_castps_si512(_mm512_set1_ps(above));
      constexpr int kFirstAndSecondXorThird = 0x6a;
      const __m512i byte = _mm512_ternarylogic_epi32(bytes, _mm512_set1_epi32(mask), sum, kFirstAndSecondXorThird);
      return VF{_mm512_sub_ps(_mm512_castsi512_ps(byte), _mm512_castsi512_ps(sum))};
    };
    constexpr float kLow = 8388608.0f + 128.0f;  // a unit is bit 0
    constexpr float kHigh = 32768.0f + 128.0f;   // bit 8
    const __m512i upper = _mm512_srli_epi32(word.raw, 16);
    to[0] = placed(word.raw, 0xff, kLow);
    to[1] = placed(word.raw, 0xff00, kHigh);
    to[2] = placed(upper, 0xff, kLow);
    to[3] = placed(upper, 0xff00, kHigh);
#endif
  } else if constexpr (kHeld == Held::kBF16) {
    to[0] = hn::BitCast(d, hn::ShiftLeft<16>(word));
    to[1] = hn::BitCast(d, hn::And(word, hn::Set(di, static_cast<std::int32_t>(0xffff0000u))));
  } else if constexpr (kHeld == Held::kI8) {
    to[0] = hn::ConvertTo(d, hn::ShiftRight<24>(hn::ShiftLeft<24>(word)));
    to[1] = hn::ConvertTo(d, hn::ShiftRight<24>(hn::ShiftLeft<16>(word)));
    to[2] = hn::ConvertTo(d, hn::ShiftRight<24>(hn::ShiftLeft<8>(word)));
    to[3] = hn::ConvertTo(d, hn::ShiftRight<24>(word));
  }
}

// Visits `count` words of K vectors of rows, from word `from` on, four at a time: visit(value, vectors) in ascending
// order. `from` and `count` are multiples of four.
template <Held kHeld, std::size_t K, class Rows, class Visit, class Meanwhile>
HWY_INLINE void EachBlock(const Rows (&rows)[K], std::size_t from, std::size_t count, Visit&& visit,
                          Meanwhile&& meanwhile) {
  for (std::size_t i = 0; i < count; i += 4) {
    VF block[K][4];
    if constexpr (kMeanwhileABlock == 1) meanwhile(nullptr);
#pragma GCC unroll 4
    for (std::size_t k = 0; k < K; ++k) {
#pragma GCC unroll 4
      for (std::size_t j = 0; j < 4; ++j) block[k][j] = rows[k].Blocks(j, i);
      TransposeBlocks(block[k]);
    }
#pragma GCC unroll 4
    for (std::size_t j = 0; j < 4; ++j) {
      if constexpr (kMeanwhileABlock == 4) meanwhile(nullptr);
      VF value[K][WordsIn(kHeld)];
#pragma GCC unroll 4
      for (std::size_t k = 0; k < K; ++k) Widened<kHeld>(block[k][j], value[k]);
#pragma GCC unroll 4
      for (std::size_t part = 0; part < WordsIn(kHeld); ++part) {
        VF vectors[K];
#pragma GCC unroll 4
        for (std::size_t k = 0; k < K; ++k) vectors[k] = value[k][part];
        visit((from + i + j) * WordsIn(kHeld) + part, vectors);
      }
    }
  }
}

// EachWord for the first words of dense rows of values of `size` bytes, as many as fill whole blocks; returns how many
// of the unit's words those hold. The rows are transposed as they lie.
template <Held kHeld, std::size_t K, class Visit, class Meanwhile>
HWY_INLINE std::size_t EachDense(const void* base, std::int64_t size, const LaneRows (&from_rows)[K], std::size_t words,
                                 Visit&& visit, Meanwhile&& meanwhile) {
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
    EachBlock<kHeld>(rows, 0, count, visit, meanwhile);
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
    EachBlock<kHeld>(rows, from, count - from < kSegment ? count - from : kSegment, visit, meanwhile);
  }
  return count * WordsIn(kHeld);
}

#endif

// Visits the words of K vectors of rows in ascending order, each with the vectors that hold it of every row; 0 in the
// lanes without a row.
template <class Unit, std::size_t K, class Visit, class Meanwhile>
HWY_INLINE void EachWord(DType type, const void* base, const LaneRows (&from_rows)[K], std::int64_t step,
                         std::int64_t width, Visit&& visit, [[maybe_unused]] Meanwhile&& meanwhile) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  const std::size_t size = static_cast<std::size_t>(width);
  const std::size_t words = Words<Unit>(size);
  std::size_t done = 0;
#if HWY_TARGET != HWY_SCALAR
  if (step == 1 && from_rows[0].count > 0) {
    if constexpr (Unit::kTerms == 2 && std::is_same_v<typename Unit::Element, std::int8_t>) {
      done = EachDense<Held::kI8Pairs>(base, 1, from_rows, size / 4, visit, meanwhile);
    } else if constexpr (Unit::kTerms > 1) {
      constexpr std::size_t kTerms = Unit::kTerms;
      done = EachDense<Held::kWord>(base, sizeof(float) / kTerms, from_rows, size / kTerms, visit, meanwhile);
    } else if (type == DType::kF32) {
      done = EachDense<Held::kWord>(base, 4, from_rows, size, visit, meanwhile);
    } else if (type == DType::kBF16) {
      done = EachDense<Held::kBF16>(base, 2, from_rows, size / 2, visit, meanwhile);
    } else if (type == DType::kI8) {
      done = EachDense<Held::kI8>(base, 1, from_rows, size / 4, visit, meanwhile);
    }
#if HWY_TARGET == HWY_AVX3
    if constexpr (Unit::kTerms == 1) {
      if (type == DType::kF16) done = EachDense<Held::kF16>(base, 2, from_rows, size / 2, visit, meanwhile);
    }
#endif
  }
#endif
  for (std::size_t from = done; from < words; from += kSegment) {
    HWY_ALIGN float values[K * kMaxLanes * kSegment];
    const std::size_t count = words - from < kSegment ? words - from : kSegment;
    const std::int64_t skip = static_cast<std::int64_t>(from * Unit::kTerms);
    const std::int64_t left = width - skip;
    const std::int64_t most = static_cast<std::int64_t>(kSegment * Unit::kTerms);
    const float* rows[K][kMaxLanes];
    for (std::size_t k = 0; k < K; ++k) {
      for (std::size_t l = 0; l < n; ++l) {
        float* scratch = values + (k * kMaxLanes + l) * kSegment;
        rows[k][l] = scratch;
        if (l < from_rows[k].count) {
          rows[k][l] =
              Unit::Row(type, base, from_rows[k].at[l] + skip * step, step, left < most ? left : most, scratch);
        } else {
          for (std::size_t i = 0; i < count; ++i) scratch[i] = 0.0f;
        }
      }
    }
    std::size_t i = 0;
#if HWY_TARGET != HWY_SCALAR
    if (from % 4 == 0) {
      i = count / 4 * 4;
      ScatteredRows blocks[K];
      for (std::size_t k = 0; k < K; ++k) std::copy_n(rows[k], n, blocks[k].at);
      EachBlock<Held::kWord>(blocks, from, i, visit, meanwhile);
    }
#endif
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

// Each row, as words that `change` was applied to, to packed[word][lane], `lanes` apart; 0 in the lanes without a row.
template <class Unit, class Change>
HWY_INLINE void PackLanes(DType type, const void* base, const LaneRows& from_rows, std::int64_t step,
                          std::int64_t width, std::size_t lanes, float* HWY_RESTRICT packed, const Change& change) {
  const LaneRows rows[1] = {from_rows};
  EachWord<Unit>(
      type, base, rows, step, width,
      [&](std::size_t word, const VF(&x)[1]) HWY_ATTR { hn::StoreU(change(x[0]), DF(), packed + word * lanes); },
      Nothing());
}

// The way back: output[value][lane], `lanes` apart, to each lane's row, changed with the lane's factor.
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
#if HWY_TARGET != HWY_SCALAR
    for (; i + n <= count; i += n) {
      VF square[kMaxLanes];
      for (std::size_t j = 0; j < n; ++j) square[j] = hn::LoadU(d, output + (from + i + j) * lanes);
      TransposeSquare(square);
      for (std::size_t l = 0; l < n; ++l) hn::StoreU(change(square[l], hn::Set(d, factors[l])), d, rows[l] + i);
    }
#endif
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

// Rows of words, `stride` words apart.
struct Rows {
  const float* data;
  std::size_t stride;
};

// Keys [begin, end) of one head: where they lie, or in scratch [keys][words]. For tiles in whole tiles, the rest 0.
template <class Unit>
HWY_INLINE Rows KeyRows(const AttentionCall& call, const Tile& tile, std::int64_t begin, std::int64_t end,
                        float* scratch) {
  const std::int64_t terms = static_cast<std::int64_t>(Unit::kTerms);
  const std::int64_t* stride = call.k_stride;
  const std::size_t needed = Words<Unit>(static_cast<std::size_t>(call.d));
  const std::size_t words = Unit::kTiles ? (needed + kTileSide - 1) / kTileSide * kTileSide : needed;
  const bool whole = !Unit::kTiles || (words == needed && (end - begin) % static_cast<std::int64_t>(kTileSide) == 0);
  const bool as_words = static_cast<std::size_t>(terms) * size_of(call.kv_type) == sizeof(float);
  if (whole && as_words && stride[3] == 1 && call.d % terms == 0 && stride[2] % terms == 0 && stride[2] >= call.d &&
      call.all_adjacent(begin, end)) {
    const std::int64_t at = call.k_at(tile.batch, tile.kv_head, begin);
    return {Unit::Row(call.kv_type, call.k, at, 1, call.d, nullptr), static_cast<std::size_t>(stride[2] / terms)};
  }
  for (std::int64_t j = begin; j < end; ++j) {
    float* to = scratch + static_cast<std::size_t>(j - begin) * words;
    const float* row = Unit::Row(call.kv_type, call.k, call.k_at(tile.batch, tile.kv_head, j), stride[3], call.d, to);
    if (row != to) std::memcpy(to, row, needed * sizeof(float));
    for (std::size_t i = needed; i < words; ++i) to[i] = 0.0f;
  }
  return {scratch, words};
}

// Values of keys [begin, end) of BF16 or I8, of each two keys as one row of words of BF16, [keys / 2][padded]: the
// first key's in the low halves, 0 for a key behind the last and behind the last value.
HWY_INLINE void JoinValues(const AttentionCall& call, const Tile& tile, std::int64_t begin, std::int64_t end,
                           std::size_t padded, float* to) {
  const std::int64_t step = call.v_stride[3];
  const std::size_t width = static_cast<std::size_t>(call.dv);
  const auto join = [&]<class Values>(Values) HWY_ATTR {
    const DF d;
    const std::size_t n = hn::Lanes(d);
    const auto row = [&](std::int64_t j) {
      return static_cast<const typename Values::Element*>(call.v) + call.v_at(tile.batch, tile.kv_head, j);
    };
    for (std::int64_t j = begin; j < end; j += 2, to += padded) {
      const auto* first = row(j);
      const auto* second = j + 1 < end ? row(j + 1) : nullptr;
      std::size_t i = 0;
      if (step == 1 && second != nullptr) {
        for (; i + n <= width; i += n) hn::StoreU(JoinedPairs(first + i, second + i), d, to + i);
      }
      for (; i < width; ++i) {
        const std::int64_t at = static_cast<std::int64_t>(i) * step;
        const std::uint16_t pair[2] = {Bf16Bits(first[at]),
                                       second == nullptr ? std::uint16_t{0} : Bf16Bits(second[at])};
        std::memcpy(to + i, pair, sizeof(pair));
      }
      std::fill(to + i, to + padded, 0.0f);
    }
  };
  if (call.kv_type == DType::kI8) {
    join(ValuesOf<DType::kI8>());
  } else {
    join(ValuesOf<DType::kBF16>());
  }
}

// Values of keys [begin, end): a row of words for each kTerms keys, the values of an index side by side; `begin` is a
// multiple of kTerms, and the weight of a key behind the last is 0. Rows are `multiple` of values wide, 0 behind the
// last. Where they lie, or in scratch.
template <class Unit>
HWY_INLINE Rows ValueRows(const AttentionCall& call, const Tile& tile, std::int64_t begin, std::int64_t end,
                          std::size_t multiple, float* scratch) {
  const std::int64_t* stride = call.v_stride;
  const std::size_t width = static_cast<std::size_t>(call.dv);
  const std::size_t padded = (width + multiple - 1) / multiple * multiple;
  // Rows a power of two apart would fall on the same few lines of the first cache: only dense ones stay.
  if (Unit::kTerms == 1 && call.kv_type == DType::kF32 && stride[3] == 1 && padded == width &&
      (stride[2] == call.dv || (multiple > 1 && stride[2] >= call.dv)) && call.all_adjacent(begin, end)) {
    return {static_cast<const float*>(call.v) + call.v_at(tile.batch, tile.kv_head, begin),
            static_cast<std::size_t>(stride[2])};
  }
  if constexpr (Unit::kTerms == 1) {
    for (std::int64_t j = begin; j < end; ++j) {
      float* to = scratch + static_cast<std::size_t>(j - begin) * padded;
      CopyRow(call.kv_type, call.v, call.v_at(tile.batch, tile.kv_head, j), stride[3], call.dv, to);
      for (std::size_t i = width; i < padded; ++i) to[i] = 0.0f;
    }
  } else {
    if (call.value_words == nullptr) {
      JoinValues(call, tile, begin, end, padded, scratch);
    } else {
      // The key behind a cut word's end comes along.
      const float* words = call.value_words + static_cast<std::size_t>(begin) / 2 * width;
      if (padded == width) return {words, width};
      float* to = scratch;
      for (std::int64_t j = begin; j < end; j += 2, words += width, to += padded) {
        std::copy_n(words, width, to);
        std::fill(to + width, to + padded, 0.0f);
      }
    }
  }
  return {scratch, padded};
}

// Keys whose products with values are summed before they are added to others: what is read of a run begins at a
// multiple of so many, or the sums of its keys would be other ones.
template <class Unit>
constexpr std::int64_t kKeysTogether = static_cast<std::int64_t>(Unit::kTerms * (Unit::kTiles ? kTileSide : 1));

// Takes keys [begin, end) back to such a begin. Returns whether they come with others, that are to be guarded against
// like any that a row may not see.
template <class Unit>
HWY_INLINE bool TakesOthers(const AttentionCall& call, std::int64_t& begin, std::int64_t end) {
  const std::int64_t more = begin % kKeysTogether<Unit>;
  begin -= more;
  return more != 0 || (call.value_words != nullptr && end % static_cast<std::int64_t>(Unit::kTerms) != 0);
}

// Values as the rows of a tile's first operand: [value][words of keys], from rows [words of keys][value], in whole tiles,
// the rest 0.
HWY_INLINE Rows TileValues(const Rows& values, std::size_t words, std::size_t width, float* HWY_RESTRICT to) {
  const std::size_t step = (words + kTileSide - 1) / kTileSide * kTileSide;
  const std::size_t rows = (width + kTileSide - 1) / kTileSide * kTileSide;
  std::size_t whole_rows = 0;
  std::size_t whole_words = 0;
#if HWY_TARGET != HWY_SCALAR
  const DF d;
  const std::size_t n = hn::Lanes(d);
  whole_rows = width / n * n;
  whole_words = words / n * n;
  for (std::size_t i = 0; i < whole_rows; i += n) {
    for (std::size_t w = 0; w < whole_words; w += n) {
      VF square[kMaxLanes];
      for (std::size_t j = 0; j < n; ++j) square[j] = hn::LoadU(d, values.data + (w + j) * values.stride + i);
      TransposeSquare(square);
      for (std::size_t j = 0; j < n; ++j) hn::StoreU(square[j], d, to + (i + j) * step + w);
    }
  }
#endif
  for (std::size_t i = 0; i < rows; ++i) {
    for (std::size_t w = i < whole_rows ? whole_words : 0; w < step; ++w) {
      to[i * step + w] = i < width && w < words ? values.data[w * values.stride + i] : 0.0f;
    }
  }
  return {to, step};
}

// Whether every value of the rows is finite.
template <class Unit>
HWY_INLINE bool AllFinite(const Rows& rows, std::size_t count, std::size_t width) {
  const DF d;
  const hn::RebindToUnsigned<DF> du;
  const std::size_t n = hn::Lanes(d);
  const auto infinity = hn::Set(du, 0x7f80u);  // a BF16's; a NaN is larger
  bool finite = true;
  VF sum[4];
  for (VF& part : sum) part = hn::Zero(d);
  auto low = hn::Zero(du);  // the largest magnitudes of each half
  auto high = hn::Zero(du);
  for (std::size_t j = 0; j < count; ++j) {
    const float* row = rows.data + j * rows.stride;
    std::size_t i = 0;
    if constexpr (Unit::kTerms == 1) {
      // 0 * x is 0 for a finite x and NaN for the others.
      for (; i + 4 * n <= width; i += 4 * n) {
#pragma GCC unroll 4
        for (std::size_t part = 0; part < 4; ++part) {
          sum[part] = hn::MulAdd(hn::LoadU(d, row + i + part * n), hn::Zero(d), sum[part]);
        }
      }
      for (; i + n <= width; i += n) sum[0] = hn::MulAdd(hn::LoadU(d, row + i), hn::Zero(d), sum[0]);
      for (; i < width; ++i) finite = finite && row[i] * 0.0f == 0.0f;
    } else {
      const std::uint32_t* words = reinterpret_cast<const std::uint32_t*>(row);
      for (; i + n <= width; i += n) {
        const auto w = hn::LoadU(du, words + i);
        low = hn::Max(low, hn::And(w, hn::Set(du, 0x7fffu)));
        high = hn::Max(high, hn::And(w, hn::Set(du, 0x7fff0000u)));
      }
      for (; i < width; ++i) {
        finite = finite && (words[i] & 0x7f80u) != 0x7f80u && (words[i] >> 16 & 0x7f80u) != 0x7f80u;
      }
    }
  }
  const VF all = hn::Add(hn::Add(sum[0], sum[1]), hn::Add(sum[2], sum[3]));
  return finite && hn::AllFalse(d, hn::IsNaN(all)) &&
         hn::AllTrue(du, hn::Lt(hn::Max(low, hn::ShiftRight<16>(high)), infinity));
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
