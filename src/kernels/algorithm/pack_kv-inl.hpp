// Keys and values in the form that the products read.
//
// - KRows, VRows, PackValueQuads, AmxValues: a run at a time, where it lies or packed into the workspace.
// - PackKv: packed K and packed V of a whole head, which many query blocks read; for AMX values as its tiles.
// Contract: a word is 32 bits, one F32, two BF16 or four I8. Missing keys and values are 0 unless a function says
// otherwise.
// Cost: a copy of what does not lie in that form already.

// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_ALGORITHM_PACK_KV_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_ALGORITHM_PACK_KV_INL_HPP
#undef MANYHEADS_ALGORITHM_PACK_KV_INL_HPP
#else
#define MANYHEADS_ALGORITHM_PACK_KV_INL_HPP
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "hwy/highway.h"
#include "kernels/isa/load_store-inl.hpp"
#include "kernels/isa/mma_amx-inl.hpp"
#include "kernels/isa/mma_int8-inl.hpp"
#include "kernels/isa/widen-inl.hpp"
#include "kernels/params.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Keys [begin, end) of one head, [keys][words]: where they lie, or in the workspace. For AMX in whole tiles, 0 behind
// the last key and value.
template <class Mma>
HWY_INLINE StridedRows KRows(const QkvMask& params, const QueryBlock& q_block, std::int64_t begin, std::int64_t end,
                             float* workspace) {
  const std::int64_t terms = static_cast<std::int64_t>(Mma::kValuesPerWord);
  const std::int64_t* stride = params.k_stride;
  const std::size_t needed = Words<Mma>(static_cast<std::size_t>(params.d));
  constexpr bool kTiles = Mma::kAmx && !Mma::kSplits;
  const std::size_t words = kTiles ? (needed + kTileSide - 1) / kTileSide * kTileSide : needed;
  const bool whole = !kTiles || (words == needed && (end - begin) % static_cast<std::int64_t>(kTileSide) == 0);
  const bool as_words = static_cast<std::size_t>(terms) * size_of(params.kv_type) == sizeof(float);
  if (whole && as_words && stride[3] == 1 && params.d % terms == 0 && stride[2] % terms == 0 && stride[2] >= params.d &&
      params.all_adjacent(q_block.batch, begin, end)) {
    const std::int64_t at = params.k_at(q_block.batch, q_block.kv_head, begin);
    return {Mma::Row(params.kv_type, params.k, at, 1, params.d, nullptr), static_cast<std::size_t>(stride[2] / terms)};
  }
  for (std::int64_t j = begin; j < end; ++j) {
    float* to = workspace + static_cast<std::size_t>(j - begin) * words;
    const float* row =
        Mma::Row(params.kv_type, params.k, params.k_at(q_block.batch, q_block.kv_head, j), stride[3], params.d, to);
    if (row != to) std::memcpy(to, row, needed * sizeof(float));
    for (std::size_t i = needed; i < words; ++i) to[i] = 0.0f;
  }
  return {workspace, words};
}

// Packs rows [begin, end), BF16 or I8, as words of BF16 pairs: [rows / 2][padded]. The low half is the first row's. 0
// behind the last row and the last value. row(j) is where row j begins.
template <class Element, class Row>
HWY_INLINE void PackRowPairs(Row&& row, std::int64_t begin, std::int64_t end, std::int64_t step, std::size_t width,
                             std::size_t padded, float* to) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  for (std::int64_t j = begin; j < end; j += 2, to += padded) {
    const Element* first = row(j);
    const Element* second = j + 1 < end ? row(j + 1) : nullptr;
    std::size_t i = 0;
    if (step == 1 && second != nullptr) {
      for (; i + n <= width; i += n) hn::StoreU(PairedValues(first + i, second + i), d, to + i);
    }
    for (; i < width; ++i) {
      const std::int64_t at = static_cast<std::int64_t>(i) * step;
      const std::uint16_t pair[2] = {Bf16Bits(first[at]), second == nullptr ? std::uint16_t{0} : Bf16Bits(second[at])};
      std::memcpy(to + i, pair, sizeof(pair));
    }
    std::fill(to + i, to + padded, 0.0f);
  }
}

// Calls use(ValuesOf<type>()) for a type of values that become pairs.
template <class Use>
HWY_INLINE void WithPairs(const QkvMask& params, Use&& use) {
  if (params.kv_type == DType::kI8) {
    use(ValuesOf<DType::kI8>());
  } else {
    use(ValuesOf<DType::kBF16>());
  }
}

// Packs values of keys [begin, end) so.
HWY_INLINE void PackValuePairs(const QkvMask& params, const QueryBlock& q_block, std::int64_t begin, std::int64_t end,
                               std::size_t padded, float* to) {
  WithPairs(params, [&]<class Values>(Values) HWY_ATTR {
    using Element = typename Values::Element;
    const auto row = [&](std::int64_t j) {
      return static_cast<const Element*>(params.v) + params.v_at(q_block.batch, q_block.kv_head, j);
    };
    PackRowPairs<Element>(row, begin, end, params.v_stride[3], static_cast<std::size_t>(params.dv), padded, to);
  });
}

// Values of keys [begin, end): a row of words for each kValuesPerWord keys; a word holds their values of one index.
// Where they lie, or in the workspace.
// - `begin` is a multiple of kValuesPerWord. A key behind the last has probability 0.
// - A row has a multiple of `multiple` words, 0 behind the last value.
template <class Mma>
HWY_INLINE StridedRows VRows(const QkvMask& params, const QueryBlock& q_block, std::int64_t begin, std::int64_t end,
                             std::size_t multiple, float* workspace) {
  const std::int64_t* stride = params.v_stride;
  const std::size_t width = static_cast<std::size_t>(params.dv);
  const std::size_t padded = (width + multiple - 1) / multiple * multiple;
  // Rows a power of two apart fall on the same few lines of L1: only dense ones are read where they lie.
  if (Mma::kValuesPerWord == 1 && params.kv_type == DType::kF32 && stride[3] == 1 && padded == width &&
      (stride[2] == params.dv || (multiple > 1 && stride[2] >= params.dv)) &&
      params.all_adjacent(q_block.batch, begin, end)) {
    return {static_cast<const float*>(params.v) + params.v_at(q_block.batch, q_block.kv_head, begin),
            static_cast<std::size_t>(stride[2])};
  }
  if constexpr (Mma::kValuesPerWord == 1) {
    for (std::int64_t j = begin; j < end; ++j) {
      float* to = workspace + static_cast<std::size_t>(j - begin) * padded;
      CopyRow(params.kv_type, params.v, params.v_at(q_block.batch, q_block.kv_head, j), stride[3], params.dv, to);
      for (std::size_t i = width; i < padded; ++i) to[i] = 0.0f;
    }
  } else {
    if (params.packed_v == nullptr) {
      PackValuePairs(params, q_block, begin, end, padded, workspace);
    } else {
      // A cut word brings along the key behind its end.
      const float* words = params.packed_v + static_cast<std::size_t>(begin) / 2 * width;
      if (padded == width) return {words, width};
      float* to = workspace;
      for (std::int64_t j = begin; j < end; j += 2, words += width, to += padded) {
        std::copy_n(words, width, to);
        std::fill(to + width, to + padded, 0.0f);
      }
    }
  }
  return {workspace, padded};
}

// Keys whose products with values are summed in one step. A run is read from a multiple of them, else the sums of its
// keys would round differently.
template <class Mma>
constexpr std::int64_t kKeysTogether = static_cast<std::int64_t>(Mma::kAmx ? 2 * kTileSide : Mma::kValuesPerWord);

// Whether packed values lie as rows of AMX's first operand: for each run of keys [Dv in whole tiles][words of its
// keys].
template <class Mma>
constexpr bool kTilesOfValues = Mma::kAmx && !Mma::kSplits;
constexpr std::size_t kWordsOfRun = static_cast<std::size_t>(kRunKeys) / 2;
HWY_INLINE std::size_t FloatsOfRun(const QkvMask& params) {
  return RoundUp(static_cast<std::size_t>(params.dv), kTileSide) * kWordsOfRun;
}
// Those of the keys from `begin` on, a multiple of kKeysTogether.
HWY_INLINE StridedRows PackedTiles(const QkvMask& params, std::int64_t begin) {
  return {params.packed_v + static_cast<std::size_t>(begin / kRunKeys) * FloatsOfRun(params) + begin % kRunKeys / 2,
          kWordsOfRun};
}

// Moves `begin` back to such a multiple. Returns whether other keys come along: the rows may not see them.
template <class Mma>
HWY_INLINE bool TakesOthers(const QkvMask& params, std::int64_t& begin, std::int64_t end) {
  const std::int64_t more = begin % kKeysTogether<Mma>;
  begin -= more;
  constexpr std::int64_t kBeside = kTilesOfValues<Mma> ? kKeysTogether<Mma> : std::int64_t{Mma::kValuesPerWord};
  return more != 0 || (params.packed_v != nullptr && end % kBeside != 0);
}

// Words of keys, [words][value], that lie so.
struct WordRows {
  StridedRows rows;

  HWY_INLINE VF vector(std::size_t word, std::size_t i) const {
    return hn::LoadU(DF(), rows.data + word * rows.stride + i);
  }
  HWY_INLINE float word(std::size_t word, std::size_t i) const { return rows.data[word * rows.stride + i]; }
};

// The same words of a run's keys where they lie as BF16 or I8.
template <class Element>
struct PairedKeys {
  PairedKeys(const QkvMask& params, const QueryBlock& q_block, std::int64_t begin, std::int64_t end)
      : keys(static_cast<std::size_t>(end - begin)), step(params.v_stride[3]) {
    for (std::size_t j = 0; j < keys; ++j) {
      const std::int64_t at = params.v_at(q_block.batch, q_block.kv_head, begin + static_cast<std::int64_t>(j));
      rows[j] = static_cast<const Element*>(params.v) + at;
    }
  }
  HWY_INLINE VF vector(std::size_t word, std::size_t i) const {
    const DF d;
    if (step == 1 && 2 * word + 1 < keys) return PairedValues(rows[2 * word] + i, rows[2 * word + 1] + i);
    HWY_ALIGN float words[kMaxLanes];
    for (std::size_t j = 0; j < hn::Lanes(d); ++j) words[j] = this->word(word, i + j);
    return hn::Load(d, words);
  }
  HWY_INLINE float word(std::size_t word, std::size_t i) const {
    const std::int64_t at = static_cast<std::int64_t>(i) * step;
    const std::uint16_t pair[2] = {Bf16Bits(rows[2 * word][at]),
                                   2 * word + 1 < keys ? Bf16Bits(rows[2 * word + 1][at]) : std::uint16_t{0}};
    float of_both;
    std::memcpy(&of_both, pair, sizeof(of_both));
    return of_both;
  }

  const Element* rows[kRunKeys];
  std::size_t keys;
  std::int64_t step;
};

// Values as rows of AMX's first operand: from [words of keys][value] to [value][padded], rows `step` words apart, in
// whole tiles, 0 behind the last.
template <class Words>
HWY_INLINE void AmxValues(const Words& values, std::size_t words, std::size_t width, std::size_t padded,
                          std::size_t step, float* HWY_RESTRICT to) {
  const std::size_t rows = RoundUp(width, kTileSide);
  const DF d;
  const std::size_t n = hn::Lanes(d);
  const std::size_t whole_rows = width / n * n;
  const std::size_t whole_words = words / n * n;
  for (std::size_t i = 0; i < whole_rows; i += n) {
    for (std::size_t w = 0; w < whole_words; w += n) {
      VF square[kMaxLanes];
      for (std::size_t j = 0; j < n; ++j) square[j] = values.vector(w + j, i);
      TransposeSquare(square);
      for (std::size_t j = 0; j < n; ++j) hn::StoreU(square[j], d, to + (i + j) * step + w);
    }
  }
  for (std::size_t i = 0; i < rows; ++i) {
    for (std::size_t w = i < whole_rows ? whole_words : 0; w < padded; ++w) {
      to[i * step + w] = i < width && w < words ? values.word(w, i) : 0.0f;
    }
  }
}

// Packs values of keys [begin, end) as words of four keys each, `begin` a multiple of four. A row has a multiple of
// `multiple` words, 0 behind the last value. The bytes of keys behind the last are arbitrary.
HWY_INLINE StridedRows PackValueQuads(const QkvMask& params, const QueryBlock& q_block, std::int64_t begin,
                                      std::int64_t end, std::size_t multiple, float* workspace) {
  const DF d;
  const hn::RebindToUnsigned<DF> du;
  const std::size_t n = hn::Lanes(d);
  const std::size_t width = static_cast<std::size_t>(params.dv);
  const std::size_t padded = (width + multiple - 1) / multiple * multiple;
  const std::int64_t step = params.v_stride[3];
  for (std::int64_t j = begin; j < end; j += 4) {
    std::uint32_t* to = reinterpret_cast<std::uint32_t*>(workspace) + static_cast<std::size_t>(j - begin) / 4 * padded;
    // The four rows lie in one page, since pages hold whole chains.
    const std::uint8_t* first =
        static_cast<const std::uint8_t*>(params.v) + params.v_at(q_block.batch, q_block.kv_head, j);
    const std::uint8_t* rows[4];
    for (std::int64_t r = 0; r < 4; ++r) rows[r] = first + std::min(r, end - 1 - j) * params.v_stride[2];
    std::size_t i = 0;
    if (step == 1) {
      for (; i + n <= width; i += n) hn::StoreU(QuadsOf(rows, i), du, to + i);
    }
#pragma GCC unroll 1
    for (; i < width; ++i) {
      const std::int64_t at = static_cast<std::int64_t>(i) * step;
      to[i] = static_cast<std::uint32_t>(rows[0][at] | rows[1][at] << 8 | rows[2][at] << 16) |
              static_cast<std::uint32_t>(rows[3][at]) << 24;
    }
    for (; i < padded; ++i) to[i] = 0;
  }
  return {workspace, padded};
}

// Whether all values of the rows are finite.
template <class Mma>
HWY_INLINE bool AllFinite(const StridedRows& rows, std::size_t count, std::size_t width) {
  const DF d;
  const hn::RebindToUnsigned<DF> du;
  const std::size_t n = hn::Lanes(d);
  const auto infinity = hn::Set(du, 0x7f80u);  // BF16's infinity; a NaN is larger
  bool finite = true;
  VF sum[4];
  for (VF& s : sum) s = hn::Zero(d);
  auto low = hn::Zero(du);  // largest magnitudes of the low and the high halves
  auto high = hn::Zero(du);
  for (std::size_t j = 0; j < count; ++j) {
    const float* row = rows.data + j * rows.stride;
    std::size_t i = 0;
    if constexpr (Mma::kValuesPerWord == 1) {
      // 0 * x is 0 for a finite x and NaN for the others.
      for (; i + 4 * n <= width; i += 4 * n) {
#pragma GCC unroll 4
        for (std::size_t v = 0; v < 4; ++v) {
          sum[v] = Fma(hn::LoadU(d, row + i + v * n), hn::Zero(d), sum[v]);
        }
      }
      for (; i + n <= width; i += n) sum[0] = Fma(hn::LoadU(d, row + i), hn::Zero(d), sum[0]);
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

// Packed K and packed V of a head, dense: words of keys at their storage places, then words of values.
// - PackKv packs keys and values [0, keys).
// - OnPackedKv is the call that reads them.
template <class Mma>
std::size_t PackedKFloats(const QkvMask& params) {
  const std::size_t floats = static_cast<std::size_t>(params.tk) * Words<Mma>(static_cast<std::size_t>(params.d));
  return kTilesOfValues<Mma> ? RoundUp(floats, kTileSide) : floats;
}
template <class Mma>
std::size_t PackedKvFloats(const QkvMask& params) {
  const std::size_t keys = static_cast<std::size_t>(params.tk);
  return PackedKFloats<Mma>(params) + (kTilesOfValues<Mma> ? (keys + kRunKeys - 1) / kRunKeys * FloatsOfRun(params)
                                                           : Words<Mma>(keys) * static_cast<std::size_t>(params.dv));
}
template <class Mma>
void PackKv(const QkvMask& params, const QueryBlock& q_block, std::int64_t keys, float* to) {
  const std::int64_t words = static_cast<std::int64_t>(Words<Mma>(static_cast<std::size_t>(params.d)));
  const std::int64_t start = params.key_start(q_block.batch);
  float* packed_k = to + start * words;
  float* packed_v = to + PackedKFloats<Mma>(params);
  for (std::int64_t j = 0; j < keys; ++j) {
    const std::int64_t at = params.k_at(q_block.batch, q_block.kv_head, j);
    float* const row_to = packed_k + j * words;
    const float* row = Mma::Row(params.kv_type, params.k, at, params.k_stride[3], params.d, row_to);
    if (row != row_to) std::memcpy(row_to, row, static_cast<std::size_t>(words) * sizeof(float));
  }
  if constexpr (Mma::kValuesPerWord == 1) {
    packed_v += start * params.dv;
    for (std::int64_t j = 0; j < keys; ++j) {
      CopyRow(params.kv_type, params.v, params.v_at(q_block.batch, q_block.kv_head, j), params.v_stride[3], params.dv,
              packed_v + j * params.dv);
    }
  } else if constexpr (kTilesOfValues<Mma>) {
    WithPairs(params, [&]<class Values>(Values) HWY_ATTR {
      for (std::int64_t begin = 0; begin < keys; begin += kRunKeys, packed_v += FloatsOfRun(params)) {
        const std::int64_t end = std::min(begin + kRunKeys, keys);
        AmxValues(PairedKeys<typename Values::Element>(params, q_block, begin, end),
                  static_cast<std::size_t>(end - begin + 1) / 2, static_cast<std::size_t>(params.dv), kWordsOfRun,
                  kWordsOfRun, packed_v);
      }
    });
  } else {
    PackValuePairs(params, q_block, 0, keys, static_cast<std::size_t>(params.dv), packed_v);
  }
}
template <class Mma>
ForwardParams OnPackedKv(const ForwardParams& params, const float* from) {
  ForwardParams packed = params;
  const std::int64_t words = static_cast<std::int64_t>(Words<Mma>(static_cast<std::size_t>(params.d)));
  const float* packed_v = from + PackedKFloats<Mma>(params);
  const std::int64_t k_stride[4] = {0, 0, words * static_cast<std::int64_t>(Mma::kValuesPerWord), 1};
  const std::int64_t v_stride[4] = {0, 0, params.dv, 1};
  packed.k = from;
  packed.v = packed_v;
  std::copy_n(k_stride, 4, packed.k_stride);
  std::copy_n(v_stride, 4, packed.v_stride);
  if constexpr (Mma::kValuesPerWord == 1) {
    packed.kv_type = DType::kF32;
  } else {
    packed.kv_type = DType::kBF16;
    packed.packed_v = packed_v;
  }
  packed.unpacked = &params;
  return packed;
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
