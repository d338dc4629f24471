// Bias and mask: from products q k to scores.
//
//   s = cap tanh(scale q k / cap) + bias - slope |j - i - o|,  -inf where the row may not see the key
//   (without a softcap, scale q k itself)
//
// Contract: scores are in base 2. One rule (ScoreMod) serves prefill, where queries lie in the lanes, and decode, where
// keys do: the bits are the same.

// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_ALGORITHM_BIAS_MASK_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_ALGORITHM_BIAS_MASK_INL_HPP
#undef MANYHEADS_ALGORITHM_BIAS_MASK_INL_HPP
#else
#define MANYHEADS_ALGORITHM_BIAS_MASK_INL_HPP
#endif

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "hwy/highway.h"
#include "kernels/algorithm/block_info-inl.hpp"
#include "kernels/algorithm/math-inl.hpp"
#include "kernels/isa/load_store-inl.hpp"
#include "kernels/mask.hpp"
#include "kernels/params.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// The rule for one vector of scores, whatever lies in its lanes.
struct ScoreMod {
  ScoreMod(const QkvMask& params, const BlockInfo& info, bool adds_extra)
      : score_mod(info.score_mod),
        bias_or_mask(adds_extra),
        scaled_keys(info.scaled_keys),
        bias(params.bias != nullptr),
        alibi(params.alibi != nullptr),
        extreme_scale(info.extreme_scale),
        factor(info.score_factor),
        cap(info.cap) {}

  // - key_scale: the scale of I8 keys.
  // - extra: the bias, or what BiasRow wrote; -inf where it forbids the key.
  // - ALiBi adds -slope * |distance + run_offset|.
  HWY_INLINE VF operator()(VF x, VF key_scale, VF extra, VF slope, VF distance, VF run_offset) const {
    const DF d;
    const VF log2e = hn::Set(d, kLog2e);
    if (scaled_keys) x = hn::Mul(x, key_scale);
    if (score_mod) {
      if (factor != 1.0f) x = hn::Mul(x, hn::Set(d, factor));
      if (extreme_scale) {  // keeps finite scores finite, in base 2 too
        const VF huge = hn::Set(d, 2.0e38f);
        x = MaxKeepsNaN(hn::Neg(huge), MinKeepsNaN(huge, x));
        if (cap == 0) x = hn::Mul(x, log2e);
      }
      if (cap > 0) {
        const VF full = hn::Set(d, static_cast<float>(static_cast<double>(cap) * 1.44269504088896340736));
        x = hn::Mul(full, Tanh(d, hn::Mul(x, hn::Set(d, 1.0f / cap))));
      }
      // Bias and ALiBi in one addition: each addition to a large score rounds it anew.
      if (bias) {
        if (alibi) {
          x = hn::Add(x, Fnma(slope, hn::Abs(hn::Add(distance, run_offset)), hn::Mul(extra, log2e)));
        } else {
          x = Fma(extra, log2e, x);
        }
      } else if (alibi) {
        x = Fnma(slope, hn::Abs(hn::Add(distance, run_offset)), x);
      }
      x = MaxKeepsNaN(hn::Set(d, kLowestScore), x);
    }
    if (bias_or_mask) x = hn::IfThenElse(hn::Eq(extra, hn::Set(d, kForbidden)), hn::Set(d, kForbidden), x);
    return x;
  }

  // Whether nothing but a bias is added.
  bool plain() const { return !scaled_keys && !alibi && !extreme_scale && cap == 0; }

  bool score_mod, bias_or_mask, scaled_keys, bias, alibi, extreme_scale;
  float factor, cap;
};

// Key `key`'s offset from `begin`, clamped to a run.
HWY_INLINE float RunOffset(std::int64_t key, std::int64_t begin) {
  return static_cast<float>(std::min(std::max(key - begin, std::int64_t{0}), kRunKeys));
}

// What a row adds to a run from `begin` on: its range of visible keys, as offsets, and ALiBi's terms.
struct RowMask {
  RowMask(const QkvMask& params, const QueryBlock& q_block, const BlockInfo& info, std::size_t r, std::int64_t begin)
      : first(RunOffset(info.begin[r], begin)), last(RunOffset(info.end[r], begin)) {
    if (params.alibi != nullptr) {
      slope = params.alibi[info.head[r] * params.alibi_stride] * kLog2e;
      // Counts from the run's first key, so that a run cut by the mask rounds alike.
      distance = static_cast<float>(begin / kRunKeys * kRunKeys - info.query[r] - params.diagonal(q_block.batch));
    }
  }
  float first, last;
  float slope = 0, distance = 0;
};

// Writes what is added to row r's scores of keys [begin, end): the bias, and -inf where the bool mask forbids.
HWY_INLINE void BiasRow(const QkvMask& params, const QueryBlock& q_block, const BlockInfo& info, std::size_t r,
                        std::int64_t begin, std::int64_t end, float* HWY_RESTRICT added) {
  const std::size_t keys = static_cast<std::size_t>(end - begin);
  const std::int64_t h = info.head[r];
  const std::int64_t i = info.query[r];
  if (params.bias != nullptr) {
    CopyRow(params.bias_type, params.bias, params.bias_at(q_block.batch, h, i, begin), params.bias_stride[3],
            static_cast<std::int64_t>(keys), added);
  } else {
    for (std::size_t j = 0; j < keys; ++j) added[j] = 0.0f;
  }
  if (params.allowed != nullptr) {
    const std::uint8_t* at = params.allowed + params.allowed_at(q_block.batch, h, i, begin);
    const std::int64_t step = params.allowed_stride[3];
    const bool where = params.allowed_where;
    if (step == 1) {  // a loop of its own, which becomes vectors
      for (std::size_t j = 0; j < keys; ++j) added[j] = (at[j] == 0) == where ? kForbidden : added[j];
    } else {
      for (std::size_t j = 0; j < keys; ++j) {
        if ((at[static_cast<std::int64_t>(j) * step] == 0) == where) added[j] = kForbidden;
      }
    }
  }
}

// The bias of a vector of rows in the lanes, read key by key, ascending. It is transposed as many keys at a time as
// there are lanes, so that each line is read once. Rows may lie a power of two apart, on the same few lines of L1.
class BiasLanes {
 public:
  // For rows [row, row + lanes) and `keys` keys from `begin` on.
  BiasLanes(const QkvMask& params, const QueryBlock& q_block, const BlockInfo& info, std::size_t row,
            std::int64_t begin, std::size_t keys)
      : params_(params), as_it_lies_(params.bias_type == DType::kF32 && params.bias_stride[3] == 1), keys_(keys) {
    block_[0] = 0;
    if (params.bias == nullptr) return;
    for (std::size_t l = 0; l < LaneCount(); ++l) {
      at_[l] = params.bias_at(q_block.batch, info.head[row + l], info.query[row + l], begin);
    }
  }
  // The bias of key begin + key.
  HWY_INLINE VF operator()(std::size_t key) {
    const std::size_t n = LaneCount();
    if (key % n == 0) FillBlock(key, std::min(n, keys_ - key));
    return hn::Load(DF(), block_ + key % n * n);
  }
  // The bias of as many keys as lanes, from begin + key on, in registers.
  HWY_INLINE void Square(std::size_t key, VF (&square)[kMaxLanes]) const {
    const DF d;
    const std::size_t n = hn::Lanes(d);
    if (as_it_lies_) {
      const float* base = static_cast<const float*>(params_.bias) + key;
#pragma GCC unroll 16
      for (std::size_t l = 0; l < n; ++l) square[l] = hn::LoadU(d, base + at_[l]);
    } else {
      HWY_ALIGN float values[kMaxLanes];
      for (std::size_t l = 0; l < n; ++l) {
        CopyLane(l, key, n, values);
        square[l] = hn::Load(d, values);
      }
    }
    TransposeSquare(square);
  }

 private:
  HWY_INLINE void CopyLane(std::size_t lane, std::size_t key, std::size_t keys, float* HWY_RESTRICT to) const {
    CopyRow(params_.bias_type, params_.bias, at_[lane] + static_cast<std::int64_t>(key) * params_.bias_stride[3],
            params_.bias_stride[3], static_cast<std::int64_t>(keys), to);
  }
  HWY_INLINE void FillBlock(std::size_t key, std::size_t keys) {
    const DF d;
    const std::size_t n = hn::Lanes(d);
    if (keys == n) {
      VF square[kMaxLanes];
      Square(key, square);
      for (std::size_t j = 0; j < n; ++j) hn::Store(square[j], d, block_ + j * n);
      return;
    }
    for (std::size_t l = 0; l < n; ++l) {
      float values[kMaxLanes];
      CopyLane(l, key, keys, values);
      for (std::size_t j = 0; j < keys; ++j) block_[j * n + l] = values[j];
    }
  }

  const QkvMask& params_;
  bool as_it_lies_;
  std::size_t keys_;
  std::int64_t at_[kMaxLanes] = {};
  HWY_ALIGN float block_[kMaxLanes * kMaxLanes];
};

// Bits of a lane, one a key: words of the first and the last 32 keys. Read in ascending order.
class MaskBits {
 public:
  MaskBits(const std::uint32_t* low, const std::uint32_t* high)
      : bits_(hn::Load(DU(), low)), high_(hn::Load(DU(), high)), bit_(hn::Set(DU(), 1u)) {}
  HWY_INLINE hn::Mask<DF> operator()(std::size_t key) {
    if (key == 32) {
      bits_ = high_;
      bit_ = hn::Set(DU(), 1u);
    }
    const auto set = hn::RebindMask(DF(), hn::TestBit(bits_, bit_));
    bit_ = hn::ShiftLeft<1>(bit_);
    return set;
  }

 private:
  using DU = hn::RebindToUnsigned<DF>;
  hn::Vec<DU> bits_, high_, bit_;
};

// The keys of [begin, end), a run or less, that the bool mask allows to row r: one bit each.
HWY_INLINE std::uint64_t AllowedBits(const QkvMask& params, const QueryBlock& q_block, const BlockInfo& info,
                                     std::size_t r, std::int64_t begin, std::int64_t end) {
  const std::size_t keys = static_cast<std::size_t>(end - begin);
  const std::uint8_t* at = params.allowed + params.allowed_at(q_block.batch, info.head[r], info.query[r], begin);
  const std::int64_t step = params.allowed_stride[3];
  std::uint64_t bits = 0;
  if (step == 1) {
    HWY_ALIGN std::uint8_t copy[kRunKeys] = {};
    if (keys < static_cast<std::size_t>(kRunKeys)) {
      std::memcpy(copy, at, keys);
      at = copy;
    }
    bits = NonZeroBits(at);
    return bits ^ (params.allowed_where ? 0 : ~std::uint64_t{0});
  }
  for (std::size_t j = 0; j < keys; ++j) bits |= std::uint64_t{at[static_cast<std::int64_t>(j) * step] != 0} << j;
  return params.allowed_where ? bits : ~bits;
}

// MaskScoresInLanes for one vector of rows and the usual cases: bias, bool mask or both. It branches on none of them
// key by key. Returns the largest score.
template <bool kBias, bool kAllowed>
HWY_INLINE VF AddBiasInLanes(BiasLanes& bias, MaskBits mask_bits, VF factor, std::size_t count, std::size_t lanes,
                             float* HWY_RESTRICT scores) {
  const DF d;
  const VF forbidden = hn::Set(d, kForbidden);
  VF top = forbidden;
  // Inline: as a function, which a compiler may make of it, it took a tenth of a biased call.
  const auto add = [&](std::size_t key, VF extra) HWY_ATTR __attribute__((always_inline)) {
    float* to = scores + key * lanes;
    VF x = hn::LoadU(d, to);
    if constexpr (kBias) {
      x = Fma(extra, hn::Set(d, kLog2e), hn::Mul(x, factor));
      x = MaxKeepsNaN(hn::Set(d, kLowestScore), x);
      x = hn::IfThenElse(hn::Eq(extra, forbidden), forbidden, x);
    }
    if constexpr (kAllowed) x = hn::IfThenElse(mask_bits(key), x, forbidden);
    hn::StoreU(x, d, to);
    top = hn::Max(x, top);
  };
  std::size_t key = 0;
  if constexpr (kBias) {
    const std::size_t n = hn::Lanes(d);
    for (; key + n <= count; key += n) {
      VF square[kMaxLanes];
      bias.Square(key, square);
#pragma GCC unroll 16
      for (std::size_t j = 0; j < n; ++j) add(key + j, square[j]);
    }
  }
  for (; key < count; ++key) add(key, kBias ? bias(key) : hn::Zero(d));
  return top;
}

// Turns the products of keys [begin, end) into scores, as PrefillScores has them; forbidden ones -inf. `best` holds
// each lane's largest product before, and its largest score after. Not inline: within the function of the products it
// costs them registers.
template <int NV>
HWY_NOINLINE void MaskScoresInLanes(const QkvMask& params, const QueryBlock& q_block, const BlockInfo& info,
                                    std::size_t lanes, std::size_t row, std::int64_t begin, std::int64_t end,
                                    float* HWY_RESTRICT scores, VF (&best)[NV]) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  const std::size_t count = static_cast<std::size_t>(end - begin);
  const VF forbidden = hn::Set(d, kForbidden);
  const bool cut = begin < info.range.all.begin || end > info.range.all.end;
  const bool allowed = params.allowed != nullptr;
  const bool only_masks = !info.score_mod && !info.scaled_keys && !allowed;
  const ScoreMod rule(params, info, params.bias != nullptr);
  const hn::RebindToSigned<DF> di;
  float key_scales[kRunKeys] = {};
  if (info.scaled_keys) params.copy_k_scales(q_block.batch, q_block.kv_head, begin, end, key_scales);
  std::int32_t key_low[kRunKeys];
  std::int32_t key_high[kRunKeys];
  IdRange key_documents;
  if (info.documents) {
    key_documents = key_ids(params, q_block.batch, begin, end);
    with_key_ids(params, q_block.batch, begin, [&](const auto* ids, std::int64_t step) {
      for (std::size_t key = 0; key < count; ++key) {
        const std::int64_t id = ids[static_cast<std::int64_t>(key) * step];
        key_low[key] = static_cast<std::int32_t>(id);
        key_high[key] = static_cast<std::int32_t>(id >> 32);
      }
    });
  }
  for (int v = 0; v < NV; ++v) {
    const std::size_t at = static_cast<std::size_t>(v) * n;
    const std::size_t vector = row / n + static_cast<std::size_t>(v);
    const IdRange& ids = info.vector_ids[vector];
    const bool one_document = ids.low == ids.high && key_documents.low == ids.low && key_documents.high == ids.low;
    const bool documents = info.documents && !one_document;
    // Keys that every lane sees keep their scores, where the position alone decides.
    std::size_t seen = count;
    std::size_t seen_end = count;
    if (only_masks && !documents) {
      const KeyRange& all = info.vector_all[vector];
      if (all.begin <= begin && all.end >= end) continue;
      if (all.begin < std::min(all.end, end) && all.end > begin) {
        seen = static_cast<std::size_t>(std::max(all.begin - begin, std::int64_t{0}));
        seen_end = static_cast<std::size_t>(std::min(all.end, end) - begin);
      }
    }
    HWY_ALIGN float row_first[kMaxLanes];
    HWY_ALIGN float row_last[kMaxLanes];
    for (std::size_t l = 0; l < n; ++l) {  // a loop of its own, which becomes vectors
      row_first[l] = RunOffset(info.begin[row + at + l], begin);
      row_last[l] = RunOffset(info.end[row + at + l], begin);
    }
    HWY_ALIGN float row_slope[kMaxLanes] = {};
    HWY_ALIGN float row_distance[kMaxLanes] = {};
    for (std::size_t l = 0; params.alibi != nullptr && l < n; ++l) {
      const RowMask of_row(params, q_block, info, row + at + l, begin);
      row_slope[l] = of_row.slope;
      row_distance[l] = of_row.distance;
    }
    HWY_ALIGN std::int32_t row_low[kMaxLanes] = {};
    HWY_ALIGN std::int32_t row_high[kMaxLanes] = {};
    for (std::size_t l = 0; documents && l < n; ++l) {
      row_low[l] = static_cast<std::int32_t>(info.document[row + at + l]);
      row_high[l] = static_cast<std::int32_t>(info.document[row + at + l] >> 32);
    }
    const auto document_low = hn::Load(di, row_low);
    const auto document_high = hn::Load(di, row_high);
    HWY_ALIGN std::uint32_t allowed_low[kMaxLanes] = {};
    HWY_ALIGN std::uint32_t allowed_high[kMaxLanes] = {};
    for (std::size_t l = 0; allowed && l < n; ++l) {
      const std::uint64_t bits = AllowedBits(params, q_block, info, row + at + l, begin, end);
      allowed_low[l] = static_cast<std::uint32_t>(bits);
      allowed_high[l] = static_cast<std::uint32_t>(bits >> 32);
    }
    MaskBits mask_bits(allowed_low, allowed_high);
    BiasLanes bias(params, q_block, info, row + at, begin, count);
    if (rule.plain() && !cut && !documents && (allowed || rule.bias)) {
      const VF factor = hn::Set(d, info.score_factor);
      best[v] = !allowed    ? AddBiasInLanes<true, false>(bias, mask_bits, factor, count, lanes, scores + at)
                : rule.bias ? AddBiasInLanes<true, true>(bias, mask_bits, factor, count, lanes, scores + at)
                            : AddBiasInLanes<false, true>(bias, mask_bits, factor, count, lanes, scores + at);
      continue;
    }
    const VF first = hn::Load(d, row_first);
    const VF last = hn::Load(d, row_last);
    const VF slope = hn::Load(d, row_slope);
    const VF distance = hn::Load(d, row_distance);
    VF top = forbidden;
    for (std::size_t key = seen; key < seen_end; ++key) top = hn::Max(hn::LoadU(d, scores + key * lanes + at), top);
    const std::size_t parts[2][2] = {{0, seen}, {seen_end, count}};
    for (const auto& part : parts) {
      for (std::size_t key = part[0]; key < part[1]; ++key) {
        float* to = scores + key * lanes + at;
        const VF extra = rule.bias ? bias(key) : hn::Zero(d);
        const VF run_offset = hn::Set(d, static_cast<float>(static_cast<std::int64_t>(key) + begin % kRunKeys));
        const VF key_scale = hn::Set(d, key_scales[key]);
        VF x = rule(hn::LoadU(d, to), key_scale, extra, slope, distance, run_offset);
        if (cut) {
          const VF here = hn::Set(d, static_cast<float>(key));
          x = hn::IfThenElse(hn::And(hn::Ge(here, first), hn::Lt(here, last)), x, forbidden);
        }
        if (allowed) x = hn::IfThenElse(mask_bits(key), x, forbidden);
        if (documents) {
          const auto same = hn::And(hn::Eq(hn::Set(di, key_low[key]), document_low),
                                    hn::Eq(hn::Set(di, key_high[key]), document_high));
          x = hn::IfThenElse(hn::RebindMask(d, same), x, forbidden);
        }
        hn::StoreU(x, d, to);
        top = hn::Max(x, top);
      }
    }
    best[v] = top;
  }
}

// Turns the products of keys [begin, end), a run or less, into scores[row][64]; forbidden ones -inf.
inline HWY_NOINLINE void MaskScoresInRows(const QkvMask& params, const QueryBlock& q_block, const BlockInfo& info,
                                          std::size_t rows, std::int64_t begin, std::int64_t end,
                                          float* HWY_RESTRICT added, float* HWY_RESTRICT scores) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  constexpr std::size_t kRun = static_cast<std::size_t>(kRunKeys);
  const std::size_t count = static_cast<std::size_t>(end - begin);
  const VF forbidden = hn::Set(d, kForbidden);
  const VF run_offset = hn::Set(d, static_cast<float>(begin % kRunKeys));
  const ScoreMod rule(params, info, info.bias_or_mask);
  HWY_ALIGN float key_scales[kRun] = {};
  if (info.scaled_keys) params.copy_k_scales(q_block.batch, q_block.kv_head, begin, end, key_scales);
  for (std::size_t r = 0; info.bias_or_mask && r < rows; ++r)
    BiasRow(params, q_block, info, r, begin, end, added + r * kRun);
  for (std::size_t r = 0; r < rows; ++r) {
    const RowMask row(params, q_block, info, r, begin);
    for (std::size_t i = 0; i < count; i += n) {
      const VF here = hn::Iota(d, static_cast<float>(i));
      const VF extra = info.bias_or_mask ? hn::LoadU(d, added + r * kRun + i) : hn::Zero(d);
      VF x = rule(hn::LoadU(d, scores + r * kRun + i), hn::Load(d, key_scales + i), extra, hn::Set(d, row.slope),
                  hn::Set(d, row.distance), hn::Add(here, run_offset));
      x = hn::IfThenElse(hn::And(hn::Ge(here, hn::Set(d, row.first)), hn::Lt(here, hn::Set(d, row.last))), x,
                         forbidden);
      hn::StoreU(x, d, scores + r * kRun + i);
    }
    if (!info.documents) continue;
    with_key_ids(params, q_block.batch, begin, [&](const auto* ids, std::int64_t step) {
      float* to = scores + r * kRun;
      for (std::size_t j = 0; j < count; ++j) {
        to[j] = ids[static_cast<std::int64_t>(j) * step] == info.document[r] ? to[j] : kForbidden;
      }
    });
  }
}

// The same where I8 keys have scales and nothing else is to do.
HWY_INLINE void ScaleScoresInRows(const QkvMask& params, const QueryBlock& q_block, std::size_t rows,
                                  std::int64_t begin, std::int64_t end, float* HWY_RESTRICT scores) {
  const DF d;
  const std::size_t n = hn::Lanes(d);
  constexpr std::size_t kRun = static_cast<std::size_t>(kRunKeys);
  HWY_ALIGN float factors[kRun] = {};
  params.copy_k_scales(q_block.batch, q_block.kv_head, begin, end, factors);
  for (std::size_t i = 0; i < static_cast<std::size_t>(end - begin); i += n) {
    const VF factor = hn::Load(d, factors + i);
    for (std::size_t at = i; at < rows * kRun; at += kRun) {
      hn::StoreU(hn::Mul(hn::LoadU(d, scores + at), factor), d, scores + at);
    }
  }
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
