// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_QUADS_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_QUADS_INL_HPP
#undef MANYHEADS_QUADS_INL_HPP
#else
#define MANYHEADS_QUADS_INL_HPP
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "hwy/highway.h"
#include "kernels/algorithm/merge-inl.hpp"
#include "kernels/algorithm/pack-inl.hpp"
#include "kernels/algorithm/tile-inl.hpp"
#include "kernels/algorithm/unit-inl.hpp"
#include "kernels/kernel_table.hpp"

// Products of integers, four bytes a word: I8 keys and values with queries and weights that are rounded to bytes as
// well. Sums are exact, so their order is free; a query has one step, the weights of a row one for each run of keys.
HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// What any unit of bytes is. The first operand's bytes are unsigned, the second's signed.
struct QuadWords {
  using Element = void;
  static constexpr std::size_t kTerms = 4;
  static constexpr bool kTiles = false;
  static constexpr bool kBytes = true;
  static constexpr bool kRowsOnly = true;  // what rows share, the keys' transposition, is little
  static constexpr int kFewRows = 8;
  static constexpr bool kChains = false;
  static constexpr bool kScaledQueries = true;

  static HWY_INLINE const float* Row(DType /*type*/, const void* base, std::int64_t at, std::int64_t step,
                                     std::int64_t count, float* scratch) {
    return WordRow<std::int8_t>(base, at, step, count, scratch);
  }
  // Signed bytes as the first operand: 128 more each, which products with a row take off again from their begin.
  static HWY_INLINE VF Key(VF words) {
    const hn::RebindToUnsigned<DF> du;
    return hn::BitCast(DF(), hn::Xor(hn::BitCast(du, words), hn::Set(du, 0x80808080u)));
  }
  template <class State>
  static HWY_INLINE VF Begin(const State& state, int row) {
    return hn::BitCast(DF(), hn::Set(hn::RebindToSigned<DF>(), state.row_start[row]));
  }
  template <class State>
  static HWY_INLINE VF Score(const State& state, int row, VF sum) {
    return Number(sum, state.row_factor[row]);
  }
  static HWY_INLINE VF Number(VF sum, float step) {
    const DF d;
    return hn::Mul(hn::ConvertTo(d, hn::BitCast(hn::RebindToSigned<DF>(), sum)), hn::Set(d, step));
  }
};

// With what every machine has.
struct Quads : QuadWords {
  static HWY_INLINE VF MulAdd(VF a, VF b, VF sum) {
    const hn::RebindToSigned<DF> di;
    const auto x = hn::BitCast(di, a);
    const auto y = hn::BitCast(di, b);
    auto total = hn::BitCast(di, sum);
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_SSE4
    // Bytes 0 and 2, then 1 and 3, as neighbouring halves.
    const hn::Repartition<std::int16_t, DF> dh;
    const hn::Repartition<std::uint16_t, DF> dhu;
    const auto low = hn::BitCast(dh, hn::And(x, hn::Set(di, 0x00ff00ff)));
    const auto high = hn::BitCast(dh, hn::ShiftRight<8>(hn::BitCast(dhu, x)));
    const auto low_y = hn::ShiftRight<8>(hn::ShiftLeft<8>(hn::BitCast(dh, y)));
    const auto high_y = hn::ShiftRight<8>(hn::BitCast(dh, y));
    using VI = hn::Vec<decltype(di)>;
#if HWY_TARGET == HWY_AVX3
    const auto pairs = [](auto p, auto q) HWY_ATTR { return VI{_mm512_madd_epi16(p.raw, q.raw)}; };
#elif HWY_TARGET == HWY_AVX2
    const auto pairs = [](auto p, auto q) HWY_ATTR { return VI{_mm256_madd_epi16(p.raw, q.raw)}; };
#else
    const auto pairs = [](auto p, auto q) HWY_ATTR { return VI{_mm_madd_epi16(p.raw, q.raw)}; };
#endif
    total = hn::Add(total, hn::Add(pairs(low, low_y), pairs(high, high_y)));
#else
    const auto byte = hn::Set(di, 0xff);
    total = hn::Add(total, hn::Mul(hn::And(x, byte), hn::ShiftRight<24>(hn::ShiftLeft<24>(y))));
    total = hn::Add(total, hn::Mul(hn::And(hn::ShiftRight<8>(x), byte), hn::ShiftRight<24>(hn::ShiftLeft<16>(y))));
    total = hn::Add(total, hn::Mul(hn::And(hn::ShiftRight<16>(x), byte), hn::ShiftRight<24>(hn::ShiftLeft<8>(y))));
    total = hn::Add(total, hn::Mul(hn::And(hn::ShiftRight<24>(x), byte), hn::ShiftRight<24>(y)));
#endif
    return hn::BitCast(DF(), total);
  }
};

#if HWY_TARGET == HWY_AVX3
// With VNNI (vpdpbusd), by name: this target's own set does not include it. The same sums.
struct VnniQuads : QuadWords {
  static HWY_INLINE VF MulAdd(VF a, VF b, VF sum) {
    asm("vpdpbusd %2, %1, %0" : "+v"(sum.raw) : "v"(a.raw), "v"(b.raw));
    return sum;
  }
};
#endif

// The step of bytes that reach `largest` and stand for the floats: 0 where they all count as 0, NaN where one is not
// finite. `count` is a multiple of the lanes.
HWY_INLINE float ByteStep(const float* HWY_RESTRICT from, std::size_t count, float largest) {
  const DF d;
  const hn::RebindToSigned<DF> di;
  // The order of magnitudes is that of their bits, and what is not finite comes last.
  auto most = hn::Zero(di);
  for (std::size_t i = 0; i < count; i += hn::Lanes(d)) {
    most = hn::Max(most, hn::BitCast(di, hn::Abs(hn::LoadU(d, from + i))));
  }
  const float magnitude = hn::GetLane(hn::BitCast(d, hn::MaxOfLanes(di, most)));
  if (!(magnitude <= std::numeric_limits<float>::max())) return std::numeric_limits<float>::quiet_NaN();
  const float step = magnitude / largest;
  return step < std::numeric_limits<float>::min() ? 0.0f : step;
}
HWY_INLINE float InverseStep(float step) { return step > 0.0f ? 1.0f / step : 0.0f; }

// The floats times `inverse`, each rounded to the nearest byte in range.
template <class Byte>
HWY_INLINE void ToBytes(const float* from, std::size_t count, float inverse, Byte* to) {
  const DF d;
  const hn::Rebind<Byte, DF> db;
  for (std::size_t i = 0; i < count; i += hn::Lanes(d)) {
    hn::StoreU(hn::DemoteTo(db, hn::NearestInt(hn::Mul(hn::LoadU(d, from + i), hn::Set(d, inverse)))), db, to + i);
  }
}

// The query of row r, which begins at `at`, as bytes at the begin of `copy`, which holds a row of floats in whole
// squares; and what its products begin with and are multiplied by.
template <class State>
HWY_INLINE void ByteQuery(const AttentionCall& call, std::int64_t at, std::size_t r, float* HWY_RESTRICT copy,
                          State& state) {
  const std::size_t width = static_cast<std::size_t>(call.d);
  const std::size_t padded = RoundUp(width, kTileSide);
  CopyRow(call.type, call.q, at, call.q_stride[3], call.d, copy);
  std::fill(copy + width, copy + padded, 0.0f);
  const float step = ByteStep(copy, padded, 127.0f);
  std::int8_t* bytes = reinterpret_cast<std::int8_t*>(copy);
  ToBytes(copy, padded, InverseStep(step), bytes);
  std::int32_t sum = 0;
  for (std::size_t i = 0; i < width; ++i) sum += bytes[i];
  state.row_start[r] = -128 * sum;
  state.row_factor[r] = static_cast<float>(static_cast<double>(step) * state.q_factor);
}

// Values of keys [begin, end): a row of words for each four keys from a multiple of four on, `multiple` words or more,
// behind a key's last value 0; where keys are missing in the last words any bytes.
HWY_INLINE Rows QuadRows(const AttentionCall& call, const Tile& tile, std::int64_t begin, std::int64_t end,
                         std::size_t multiple, float* scratch) {
  const DF d;
  const hn::RebindToUnsigned<DF> du;
  const hn::Rebind<std::uint8_t, DF> db;
  const std::size_t n = hn::Lanes(d);
  const std::size_t width = static_cast<std::size_t>(call.dv);
  const std::size_t padded = (width + multiple - 1) / multiple * multiple;
  const std::int64_t step = call.v_stride[3];
#if HWY_TARGET == HWY_AVX3
  alignas(64) static constexpr std::uint32_t kBlocks[16] = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};
  const __m512i blocks = _mm512_load_si512(kBlocks);
  const __m512i square = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
#endif
  for (std::int64_t j = begin; j < end; j += 4) {
    std::uint32_t* to = reinterpret_cast<std::uint32_t*>(scratch) + static_cast<std::size_t>(j - begin) / 4 * padded;
    // In one page, since pages hold whole chains.
    const std::uint8_t* first = static_cast<const std::uint8_t*>(call.v) + call.v_at(tile.batch, tile.kv_head, j);
    const std::uint8_t* rows[4];
    for (std::int64_t r = 0; r < 4; ++r) rows[r] = first + std::min(r, end - 1 - j) * call.v_stride[2];
    std::size_t i = 0;
    if (step == 1) {
#if HWY_TARGET == HWY_AVX3
      // 16 values of each key in a block: turned in two shuffles.
      for (; i + n <= width; i += n) {
        const VF four = LoadBlocks([&](std::size_t r) HWY_ATTR { return reinterpret_cast<const float*>(rows[r] + i); });
        const __m512i words = _mm512_permutexvar_epi32(blocks, _mm512_castps_si512(four.raw));
        _mm512_storeu_si512(to + i, _mm512_shuffle_epi8(words, square));
      }
#endif
      for (; i + n <= width; i += n) {
        const auto byte = [&](std::size_t r) HWY_ATTR { return hn::PromoteTo(du, hn::LoadU(db, rows[r] + i)); };
        hn::StoreU(hn::Or(hn::Or(byte(0), hn::ShiftLeft<8>(byte(1))),
                          hn::Or(hn::ShiftLeft<16>(byte(2)), hn::ShiftLeft<24>(byte(3)))),
                   du, to + i);
      }
    }
#pragma GCC unroll 1
    for (; i < width; ++i) {
      const std::int64_t at = static_cast<std::int64_t>(i) * step;
      to[i] = static_cast<std::uint32_t>(rows[0][at] | rows[1][at] << 8 | rows[2][at] << 16) |
              static_cast<std::uint32_t>(rows[3][at]) << 24;
    }
    for (; i < padded; ++i) to[i] = 0;
  }
  return {scratch, padded};
}

// output[row][value] (+)= step[row] * sum over words of weights and values; `output` rows are `width` apart.
template <class Unit, int NV, int R, class Meanwhile>
HWY_INLINE void AddQuads(const float* HWY_RESTRICT weights, std::size_t weights_step, const float* HWY_RESTRICT values,
                         std::size_t values_step, std::size_t words, const float* HWY_RESTRICT step, bool fresh,
                         std::size_t width, float* HWY_RESTRICT output, Meanwhile&& meanwhile) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  VF sum[R][NV];
  Clear(sum);
  Accumulate<Unit>(weights, weights_step, 1, values, values_step, words, sum, meanwhile);
  for (std::size_t r = 0; r < R; ++r) {
    for (std::size_t v = 0; v < NV; ++v) {
      float* to = output + r * width + v * n;
      const VF x = Unit::Number(sum[r][v], step[r]);
      hn::StoreU(fresh ? x : hn::Add(hn::LoadU(d, to), x), d, to);
    }
  }
}

// What a run's weights, [row][64], come to as bytes: words at each row's begin, their steps, and where a value's scale
// is negative, the words of the weights below 0.
template <class Unit, int R>
struct ByteWeights {
  static constexpr std::size_t kRun = static_cast<std::size_t>(kRunKeys);

  explicit ByteWeights(float* weights) {
    const DF d;
    VF least = hn::Zero(d);
    for (std::size_t i = 0; i < R * kRun; i += hn::Lanes(d)) least = hn::Min(least, hn::LoadU(d, weights + i));
    negative = !hn::AllFalse(d, hn::Lt(least, hn::Zero(d)));
    for (std::size_t r = 0; r < R; ++r) step[r] = ByteStep(weights + r * kRun, kRun, 255.0f);
    for (std::size_t r = 0; r < R; ++r) {
      float* row = weights + r * kRun;
      const float inverse = InverseStep(step[r]);
      if (negative) ToBytes(row, kRun, -inverse, reinterpret_cast<std::uint8_t*>(below + r * kRun / 4));
      ToBytes(row, kRun, inverse,
              reinterpret_cast<std::uint8_t*>(row));  // the bytes lie before the floats still to read
    }
  }

  bool negative = false;
  float step[R];
  HWY_ALIGN float below[R * kRun / 4];
};

// The weights of a run, [row][64], with QuadRows: output[row] (+)= weights[row] * values, `width` wide.
template <class Unit, int R, int NV, class Meanwhile>
HWY_INLINE void AddByteRows(const Rows& values, std::size_t words, bool fresh, std::size_t width,
                            float* HWY_RESTRICT weights, float* HWY_RESTRICT output, Meanwhile&& meanwhile) {
  const std::size_t n = LaneCount();
  constexpr std::size_t kRun = static_cast<std::size_t>(kRunKeys);
  ByteWeights<Unit, R> bytes(weights);
  const auto add = [&](const float* from, std::size_t step, bool first) HWY_ATTR {
    std::size_t i = 0;
    for (; i + NV * n <= width; i += NV * n) {
      AddQuads<Unit, NV, R>(from, step, values.data + i, values.stride, words, bytes.step, first, width, output + i,
                            meanwhile);
    }
    for (; i < width; i += n) {
      AddQuads<Unit, 1, R>(from, step, values.data + i, values.stride, words, bytes.step, first, width, output + i,
                           meanwhile);
    }
  };
  add(weights, kRun, fresh);
  if (bytes.negative) {
    for (float& step : bytes.step) step = -step;
    add(bytes.below, kRun / 4, false);
  }
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
