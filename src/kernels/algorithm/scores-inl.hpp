// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_SCORES_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_SCORES_INL_HPP
#undef MANYHEADS_SCORES_INL_HPP
#else
#define MANYHEADS_SCORES_INL_HPP
#endif

#include <cmath>
#include <cstdint>
#include <limits>

#include "hwy/highway.h"
#include "kernels/algorithm/math-inl.hpp"
#include "kernels/algorithm/tile-inl.hpp"
#include "kernels/kernel_table.hpp"
#include "kernels/mask.hpp"

// From queries and keys to scores in base 2: the transposed form S^T = K Q^T, with the queries of a tile in the vector
// lanes, so that masks, maxima and sums are vertical.
HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using DF = hn::ScalableTag<float>;
using VF = hn::Vec<DF>;

// Vectors of queries in the largest tile, and rows of the register tile, so that accumulators and operands fit.
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_SSE4 || HWY_TARGET == HWY_SSSE3
constexpr int kTileVectors = 3;
constexpr int kTileRows = 4;
#else
constexpr int kTileVectors = 4;
constexpr int kTileRows = 4;
#endif

constexpr float kLog2e = 1.44269504088896340736f;
constexpr float kForbidden = -std::numeric_limits<float>::infinity();
// A finite score never counts as forbidden, however low: scores stop here, maxima begin below.
constexpr float kLowestScore = -3.0e38f;
constexpr float kNoMaximum = -std::numeric_limits<float>::max();

inline std::size_t LaneCount() { return hn::Lanes(DF()); }

// A block of rows of q, k or v as dense F32: in place where the caller's rows already are, else converted.
HWY_INLINE void CopyRow(DType type, const void* base, std::int64_t at, std::int64_t step, std::int64_t count,
                        float* HWY_RESTRICT to) {
  const DF d;
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t i = 0;
  if (type == DType::kF32) {
    const float* from = static_cast<const float*>(base) + at;
    if (step == 1) {
      for (; i + lanes <= count; i += lanes) hn::StoreU(hn::LoadU(d, from + i), d, to + i);
    }
    for (; i < count; ++i) to[i] = from[i * step];
  } else if (type == DType::kBF16) {
    const bfloat16* from = static_cast<const bfloat16*>(base) + at;
    if (step == 1) {
      const hn::RebindToUnsigned<DF> du;
      const hn::Rebind<std::uint16_t, DF> dh;
      const std::uint16_t* bits = reinterpret_cast<const std::uint16_t*>(from);
      for (; i + lanes <= count; i += lanes) {
        hn::StoreU(hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(du, hn::LoadU(dh, bits + i)))), d, to + i);
      }
    }
    for (; i < count; ++i) to[i] = static_cast<float>(from[i * step]);
  } else {
    const float16* from = static_cast<const float16*>(base) + at;
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_NEON
    // Targets that convert in hardware: Highway's software conversion has no infinities.
    if (step == 1) {
      const hn::Rebind<hwy::float16_t, DF> dh;
      const hwy::float16_t* halves = reinterpret_cast<const hwy::float16_t*>(from);
      for (; i + lanes <= count; i += lanes) hn::StoreU(hn::PromoteTo(d, hn::LoadU(dh, halves + i)), d, to + i);
    }
#endif
    for (; i < count; ++i) to[i] = static_cast<float>(from[i * step]);
  }
}

struct Rows {
  const float* data;
  std::size_t stride;
};

HWY_INLINE Rows DenseRows(DType type, const void* base, std::int64_t at, const std::int64_t* stride, std::int64_t begin,
                          std::int64_t end, std::int64_t width, float* scratch) {
  if (type == DType::kF32 && stride[3] == 1 && stride[2] == width) {
    return {static_cast<const float*>(base) + at + begin * stride[2], static_cast<std::size_t>(width)};
  }
  for (std::int64_t j = begin; j < end; ++j) {
    CopyRow(type, base, at + j * stride[2], stride[3], width, scratch + (j - begin) * width);
  }
  return {scratch, static_cast<std::size_t>(width)};
}

// What a tile's lanes stand for, and its packed queries.
struct TileState {
  static constexpr int kMaxRows = 64;  // lanes of the largest tile: 4 vectors of 16

  std::int64_t head[kMaxRows];
  std::int64_t query[kMaxRows];
  std::int64_t begin[kMaxRows];  // the keys that causal, window and length leave to the row
  std::int64_t end[kMaxRows];
  TileRange range;
  std::size_t lanes = 0;          // rows rounded up to whole vectors
  double q_factor = 1;            // folded into the packed queries
  float score_factor = 1;         // on the product, where it is not folded
  float cap = 0;                  // softcap, 0 where there is none
  bool rich = false;              // softcap, bias, ALiBi or an extreme scale: the product is not yet the score
  const float* packed = nullptr;  // [D][lanes]
};

HWY_INLINE void BeginTile(const AttentionCall& call, const Tile& tile, std::size_t lanes, float* packed,
                          TileState& state) {
  const std::int64_t group = call.q_heads / call.kv_heads;
  state.lanes = lanes;
  state.range = tile_range(call, tile);
  RowCursor cursor(call, tile);
  for (std::size_t r = 0; r < lanes; ++r) {
    // Lanes behind the last row stand for the first, and see no key.
    const bool real = static_cast<std::int64_t>(r) < tile.rows;
    state.head[r] = real ? tile.kv_head * group + cursor.head : state.head[0];
    state.query[r] = real ? cursor.query : state.query[0];
    const KeyRange keys = real ? key_range(call, tile.batch, cursor.query) : KeyRange{};
    state.begin[r] = keys.begin;
    state.end[r] = keys.end;
    cursor.next();
  }
  // An extreme scale would overflow or vanish in q; a plain one is folded with the change of base.
  const double magnitude = std::fabs(call.scale);
  const bool fold = magnitude < 0x1p40 && magnitude > 0x1p-40;
  // Far above every score a cap changes nothing; far below all of them it makes them 0.
  state.cap = call.softcap > 1e30 ? 0.0f : call.softcap > 0 ? static_cast<float>(std::fmax(call.softcap, 1e-30)) : 0.0f;
  state.rich = state.cap > 0 || call.bias != nullptr || call.alibi != nullptr || !fold;
  // Base 2 from the start, unless softcap stands between.
  state.q_factor = !fold ? 1.0 : state.cap > 0 ? call.scale : call.scale * 1.44269504088896340736;
  // Beyond float's range every scale picks the row's largest score alone; a smaller one does so without saturating.
  state.score_factor = static_cast<float>(fold ? 1.0 : magnitude > 1e38 ? std::copysign(1e30, call.scale) : call.scale);

  // The factor in two floats: their products with q add up to the exact one with a single rounding to speak of.
  const DF df;
  const std::size_t n = hn::Lanes(df);
  const float high = static_cast<float>(state.q_factor);
  const VF factor = hn::Set(df, high);
  const VF rest = hn::Set(df, static_cast<float>(state.q_factor - static_cast<double>(high)));
  const std::size_t d = static_cast<std::size_t>(call.d);
  HWY_ALIGN float values[256] = {};
  for (std::size_t r = 0; r < lanes; ++r) {
    if (static_cast<std::int64_t>(r) >= tile.rows) {
      for (std::size_t i = 0; i < d; ++i) packed[i * lanes + r] = 0.0f;
      continue;
    }
    const std::int64_t at =
        tile.batch * call.q_stride[0] + state.head[r] * call.q_stride[1] + state.query[r] * call.q_stride[2];
    for (std::size_t from = 0; from < d; from += 256) {
      const std::size_t count = d - from < 256 ? d - from : 256;
      CopyRow(call.type, call.q, at + static_cast<std::int64_t>(from) * call.q_stride[3], call.q_stride[3],
              static_cast<std::int64_t>(count), values);
      for (std::size_t i = 0; i < count; i += n) {
        const VF q = hn::Load(df, values + i);
        hn::Store(hn::MulAdd(q, factor, hn::Mul(q, rest)), df, values + i);
      }
      for (std::size_t i = 0; i < count; ++i) packed[(from + i) * lanes + r] = values[i];
    }
  }
  state.packed = packed;
}

// What is added to the scores of keys [begin, end) for each lane: bias, and -inf where bool mask or documents forbid.
// added[key][lane]. Only the keys that a row may see by its range are looked at.
HWY_INLINE void FillAdded(const AttentionCall& call, const Tile& tile, const TileState& state, std::int64_t begin,
                          std::int64_t end, float* HWY_RESTRICT added) {
  const std::size_t lanes = state.lanes;
  const std::size_t keys = static_cast<std::size_t>(end - begin);
  for (std::size_t r = 0; r < lanes; ++r) {
    const std::int64_t h = state.head[r];
    const std::int64_t i = state.query[r];
    if (call.bias != nullptr) {
      const std::int64_t* stride = call.bias_stride;
      const std::int64_t at = tile.batch * stride[0] + h * stride[1] + i * stride[2] + begin * stride[3];
      float values[kRunKeys];
      CopyRow(call.bias_type, call.bias, at, stride[3], static_cast<std::int64_t>(keys), values);
      for (std::size_t j = 0; j < keys; ++j) added[j * lanes + r] = values[j];
    } else {
      for (std::size_t j = 0; j < keys; ++j) added[j * lanes + r] = 0.0f;
    }
    if (call.allowed != nullptr) {
      const std::int64_t* stride = call.allowed_stride;
      const std::uint8_t* at =
          call.allowed + tile.batch * stride[0] + h * stride[1] + i * stride[2] + begin * stride[3];
      for (std::size_t j = 0; j < keys; ++j) {
        if (at[static_cast<std::int64_t>(j) * stride[3]] == 0) added[j * lanes + r] = kForbidden;
      }
    }
    if (call.q_documents.data != nullptr) {
      const std::int64_t id = call.q_documents.at(tile.batch, i);
      for (std::size_t j = 0; j < keys; ++j) {
        if (call.k_documents.at(tile.batch, begin + static_cast<std::int64_t>(j)) != id) {
          added[j * lanes + r] = kForbidden;
        }
      }
    }
  }
}

// Products of M keys with the tile's queries, to scores[key][lane]. A chain over all of D would round sharp heads too
// coarsely for lse: D is summed in runs, and the runs one after the other.
constexpr std::size_t DepthRun(std::size_t width) { return width <= 48 ? 8 : 16; }
// Over a short D nothing averages the roundings out: such heads are summed in double, longer ones too where products
// are rounded by themselves.
#if HWY_NATIVE_FMA
constexpr std::size_t kDoubleWidth = 16;
#else
constexpr std::size_t kDoubleWidth = 48;
#endif

template <int M, int NV>
HWY_INLINE void Products(const TileState& state, const Rows& keys, std::size_t key, std::size_t width,
                         float* HWY_RESTRICT scores, VF (&best)[NV]) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  const std::size_t lanes = NV * n;
  if (width <= kDoubleWidth) {
    HWY_ALIGN float rounded[TileState::kMaxRows];
    double exact[TileState::kMaxRows];
    for (std::size_t m = 0; m < M; ++m) {
      for (std::size_t lane = 0; lane < lanes; ++lane) exact[lane] = 0;
      for (std::size_t i = 0; i < width; ++i) {
        const double k = static_cast<double>(keys.data[(key + m) * keys.stride + i]);
        for (std::size_t lane = 0; lane < lanes; ++lane) {
          exact[lane] += k * static_cast<double>(state.packed[i * lanes + lane]);
        }
      }
      for (std::size_t lane = 0; lane < lanes; ++lane) rounded[lane] = static_cast<float>(exact[lane]);
      for (int v = 0; v < NV; ++v) {
        const VF x = hn::Load(d, rounded + static_cast<std::size_t>(v) * n);
        hn::StoreU(x, d, scores + (key + m) * lanes + static_cast<std::size_t>(v) * n);
        best[v] = hn::Max(x, best[v]);
      }
    }
    return;
  }
  VF sum[M][NV];
  SumInRuns<M, NV>(d, keys.data + key * keys.stride, keys.stride, 1, state.packed, lanes, 0, width, DepthRun(width),
                   sum);
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) {
      hn::StoreU(sum[m][v], d, scores + (key + static_cast<std::size_t>(m)) * lanes + static_cast<std::size_t>(v) * n);
      best[v] = hn::Max(sum[m][v], best[v]);
    }
  }
}

// Scores of keys [begin, end) against the tile, in base 2, to scores[key][lane], forbidden ones -inf; `maximum` takes
// each lane's largest. Returns whether some lane may not see some key.
template <int NV>
HWY_INLINE void ScoreRun(const AttentionCall& call, const Tile& tile, const TileState& state, const Rows& keys,
                         std::int64_t begin, std::int64_t end, bool some, float* HWY_RESTRICT added,
                         float* HWY_RESTRICT scores, VF (&maximum)[NV]) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  const std::size_t lanes = NV * n;
  const std::size_t count = static_cast<std::size_t>(end - begin);
  const std::size_t width = static_cast<std::size_t>(call.d);
  VF best[NV];
  for (int v = 0; v < NV; ++v) best[v] = hn::Set(d, kForbidden);

  std::size_t j = 0;
  for (; j + kTileRows <= count; j += kTileRows) Products<kTileRows, NV>(state, keys, j, width, scores, best);
  for (; j < count; ++j) Products<1, NV>(state, keys, j, width, scores, best);

  if (some || state.rich) {
    const bool cut = begin < state.range.all.begin || end > state.range.all.end;
    const bool add = call.bias != nullptr || call.allowed != nullptr || call.q_documents.data != nullptr;
    if (add) FillAdded(call, tile, state, begin, end, added);
    const VF forbidden = hn::Set(d, kForbidden);
    const VF lowest = hn::Set(d, kLowestScore);
    const VF cap = hn::Set(d, static_cast<float>(static_cast<double>(state.cap) * 1.44269504088896340736));
    const VF log2e = hn::Set(d, kLog2e);
    const VF inverse_cap = hn::Set(d, state.cap > 0 ? 1.0f / state.cap : 0.0f);
    const VF huge = hn::Set(d, 2.0e38f);  // in base 2 still finite
    for (int v = 0; v < NV; ++v) {
      const std::size_t at = static_cast<std::size_t>(v) * n;
      HWY_ALIGN float lane_begin[TileState::kMaxRows];
      HWY_ALIGN float lane_end[TileState::kMaxRows];
      HWY_ALIGN float slope[TileState::kMaxRows];
      HWY_ALIGN float distance[TileState::kMaxRows];
      for (std::size_t l = 0; l < n; ++l) {
        const std::int64_t low = state.begin[at + l] - begin;
        const std::int64_t high = state.end[at + l] - begin;
        lane_begin[l] = static_cast<float>(low < 0 ? 0 : low > kRunKeys ? kRunKeys : low);
        lane_end[l] = static_cast<float>(high < 0 ? 0 : high > kRunKeys ? kRunKeys : high);
        slope[l] = distance[l] = 0.0f;
        if (call.alibi != nullptr) {
          slope[l] = call.alibi[state.head[at + l] * call.alibi_stride] * kLog2e;
          // Counted from the run's first key, so that a run cut by the mask rounds alike.
          distance[l] =
              static_cast<float>(begin / kRunKeys * kRunKeys - state.query[at + l] - call.diagonal(tile.batch));
        }
      }
      const VF first = hn::Load(d, lane_begin);
      const VF last = hn::Load(d, lane_end);
      VF top = forbidden;
      for (std::size_t key = 0; key < count; ++key) {
        float* to = scores + key * lanes + at;
        VF x = hn::LoadU(d, to);
        const VF extra = add ? hn::LoadU(d, added + key * lanes + at) : hn::Zero(d);
        if (state.rich) {
          if (state.score_factor != 1.0f) {  // an extreme scale must not turn a finite score into an infinite one
            x = hn::Mul(x, hn::Set(d, state.score_factor));
            x = MaxKeepsNaN(hn::Neg(huge), MinKeepsNaN(huge, x));
            if (state.cap == 0) x = hn::Mul(x, log2e);
          }
          if (state.cap > 0) x = hn::Mul(cap, Tanh(d, hn::Mul(x, inverse_cap)));
          if (call.bias != nullptr) x = hn::MulAdd(extra, log2e, x);
          if (call.alibi != nullptr) {
            const VF place = hn::Set(d, static_cast<float>(static_cast<std::int64_t>(key) + begin % kRunKeys));
            x = hn::NegMulAdd(hn::Load(d, slope), hn::Abs(hn::Add(hn::Load(d, distance), place)), x);
          }
          x = MaxKeepsNaN(lowest, x);
        }
        if (add) x = hn::IfThenElse(hn::Eq(extra, forbidden), forbidden, x);
        if (cut) {
          const VF place = hn::Set(d, static_cast<float>(key));
          x = hn::IfThenElse(hn::And(hn::Ge(place, first), hn::Lt(place, last)), x, forbidden);
        }
        hn::StoreU(x, d, to);
        top = hn::Max(x, top);
      }
      best[v] = top;
    }
  }
  for (int v = 0; v < NV; ++v) maximum[v] = best[v];
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
