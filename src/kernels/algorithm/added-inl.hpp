// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_ADDED_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_ADDED_INL_HPP
#undef MANYHEADS_ADDED_INL_HPP
#else
#define MANYHEADS_ADDED_INL_HPP
#endif

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "hwy/highway.h"
#include "kernels/algorithm/fetch-inl.hpp"
#include "kernels/algorithm/pack-inl.hpp"
#include "kernels/algorithm/tile_state-inl.hpp"
#include "kernels/kernel_table.hpp"

// What a bias and a bool mask bring to the scores of a run: row by row, where keys lie in the lanes, or key by key,
// where rows do.
HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// What is added to the scores of row r: bias, and -inf where the bool mask forbids, of keys [begin, end).
HWY_INLINE void AddedRow(const AttentionCall& call, const Tile& tile, const TileState& state, std::size_t r,
                         std::int64_t begin, std::int64_t end, float* HWY_RESTRICT added) {
  const std::size_t keys = static_cast<std::size_t>(end - begin);
  const std::int64_t h = state.head[r];
  const std::int64_t i = state.query[r];
  if (call.bias != nullptr) {
    CopyRow(call.bias_type, call.bias, call.bias_at(tile.batch, h, i, begin), call.bias_stride[3],
            static_cast<std::int64_t>(keys), added);
  } else {
    for (std::size_t j = 0; j < keys; ++j) added[j] = 0.0f;
  }
  if (call.allowed != nullptr) {
    const std::uint8_t* at = call.allowed + call.allowed_at(tile.batch, h, i, begin);
    const std::int64_t step = call.allowed_stride[3];
    if (step == 1) {  // by itself, so that it becomes vectors
      for (std::size_t j = 0; j < keys; ++j) added[j] = at[j] == 0 ? kForbidden : added[j];
    } else {
      for (std::size_t j = 0; j < keys; ++j) {
        if (at[static_cast<std::int64_t>(j) * step] == 0) added[j] = kForbidden;
      }
    }
  }
}

// The bias of a vector of rows in the lanes, key by key in ascending order. It is transposed as many keys at a time:
// whole lines of rows that may lie a power of two apart, and so on the same few lines of the first cache, are read
// once.
class BiasLanes {
 public:
  // Of rows [row, row + lanes) and so many keys from `begin` on.
  BiasLanes(const AttentionCall& call, const Tile& tile, const TileState& state, std::size_t row, std::int64_t begin,
            std::size_t keys)
      : call_(call), as_it_lies_(call.bias_type == DType::kF32 && call.bias_stride[3] == 1), keys_(keys) {
    block_[0] = 0;
    if (call.bias == nullptr) return;
    for (std::size_t l = 0; l < LaneCount(); ++l) {
      at_[l] = call.bias_at(tile.batch, state.head[row + l], state.query[row + l], begin);
    }
  }
  // That of a key, counted from `begin`.
  HWY_INLINE VF operator()(std::size_t key) {
    const std::size_t n = LaneCount();
    if (key % n == 0) FillBlock(key, std::min(n, keys_ - key));
    return hn::Load(DF(), block_ + key % n * n);
  }
#if HWY_TARGET != HWY_SCALAR
  // Those of as many keys as there are lanes from `key` on, in registers.
  HWY_INLINE void Square(std::size_t key, VF (&square)[kMaxLanes]) const {
    const DF d;
    const std::size_t n = hn::Lanes(d);
    if (as_it_lies_) {
      const float* base = static_cast<const float*>(call_.bias) + key;
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
#endif

 private:
  HWY_INLINE void CopyLane(std::size_t lane, std::size_t key, std::size_t keys, float* HWY_RESTRICT to) const {
    CopyRow(call_.bias_type, call_.bias, at_[lane] + static_cast<std::int64_t>(key) * call_.bias_stride[3],
            call_.bias_stride[3], static_cast<std::int64_t>(keys), to);
  }
  HWY_INLINE void FillBlock(std::size_t key, std::size_t keys) {
    const DF d;
    const std::size_t n = hn::Lanes(d);
#if HWY_TARGET != HWY_SCALAR
    if (keys == n) {
      VF square[kMaxLanes];
      Square(key, square);
      for (std::size_t j = 0; j < n; ++j) hn::Store(square[j], d, block_ + j * n);
      return;
    }
#endif
    for (std::size_t l = 0; l < n; ++l) {
      float values[kMaxLanes];
      CopyLane(l, key, keys, values);
      for (std::size_t j = 0; j < keys; ++j) block_[j * n + l] = values[j];
    }
  }

  const AttentionCall& call_;
  bool as_it_lies_;
  std::size_t keys_;
  std::int64_t at_[kMaxLanes] = {};
  HWY_ALIGN float block_[kMaxLanes * kMaxLanes];
};

// A bit a key of each lane: low and high words, asked for in ascending order.
class BitsInTurn {
 public:
  BitsInTurn(const std::uint32_t* low, const std::uint32_t* high)
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

// Which of keys [begin, end), a run or less, the bool mask allows to row r: a bit each.
HWY_INLINE std::uint64_t AllowedBits(const AttentionCall& call, const Tile& tile, const TileState& state, std::size_t r,
                                     std::int64_t begin, std::int64_t end) {
  const std::size_t keys = static_cast<std::size_t>(end - begin);
  const std::uint8_t* at = call.allowed + call.allowed_at(tile.batch, state.head[r], state.query[r], begin);
  const std::int64_t step = call.allowed_stride[3];
  std::uint64_t bits = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::ScalableTag<std::uint8_t> db;
  const std::size_t n = hn::Lanes(db);
  HWY_ALIGN std::uint8_t copy[kRunKeys] = {};
  if (step == 1) {
    if (keys < static_cast<std::size_t>(kRunKeys)) {
      std::memcpy(copy, at, keys);
      at = copy;
    }
    std::uint8_t bytes[sizeof(bits)];
    for (std::size_t j = 0; j < static_cast<std::size_t>(kRunKeys); j += n) {
      hn::StoreMaskBits(db, hn::Ne(hn::LoadU(db, at + j), hn::Zero(db)), bytes + j / 8);
    }
    std::memcpy(&bits, bytes, sizeof(bits));  // the lowest byte first on all targets
    return bits;
  }
#endif
  for (std::size_t j = 0; j < keys; ++j) bits |= std::uint64_t{at[static_cast<std::int64_t>(j) * step] != 0} << j;
  return bits;
}

// What the run behind that of key `begin` will add to rows [row, row + rows), as stretches: rows lie far apart, in more
// places than a processor foresees. Returns how many.
HWY_INLINE std::size_t AddedAhead(const AttentionCall& call, const Tile& tile, const TileState& state, std::size_t row,
                                  std::size_t rows, std::int64_t begin, Stretch* to) {
  const std::int64_t next = (begin / kRunKeys + 1) * kRunKeys;
  const std::int64_t keys = std::min(kRunKeys, state.range.any.end - next);
  std::size_t count = 0;
  const auto add = [&](const void* base, std::int64_t size, const std::int64_t* stride, const auto& at) {
    if (base == nullptr || stride[3] != 1 || stride[2] == 0 || keys <= 0) return;
    for (std::size_t r = row; r < row + rows && static_cast<std::int64_t>(r) < state.rows; ++r) {
      const char* from = static_cast<const char*>(base) + at(state.head[r], state.query[r]) * size;
      to[count++] = {from, from + (keys * size + 63) / 64 * 64, 0};
    }
  };
  add(call.bias, static_cast<std::int64_t>(size_of(call.bias_type)), call.bias_stride,
      [&](std::int64_t h, std::int64_t i) { return call.bias_at(tile.batch, h, i, next); });
  add(call.allowed, 1, call.allowed_stride,
      [&](std::int64_t h, std::int64_t i) { return call.allowed_at(tile.batch, h, i, next); });
  return count;
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
