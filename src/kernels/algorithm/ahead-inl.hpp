// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_AHEAD_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_AHEAD_INL_HPP
#undef MANYHEADS_AHEAD_INL_HPP
#else
#define MANYHEADS_AHEAD_INL_HPP
#endif

#include <algorithm>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/algorithm/scores-inl.hpp"
#include "kernels/kernel_table.hpp"
#include "kernels/mask.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {

// The runs of a tile, without reading its bool mask: the first key and how many keys there are.
struct TileKeys {
  TileKeys(const AttentionCall& call, const Tile& tile, const TileRange& range)
      : first(range.any.begin), count(std::max<std::int64_t>(range.any.end - range.any.begin, 0)) {
    if (call.q_documents.data == nullptr || call.allowed != nullptr) return;
    first = range.any.end;
    count = 0;
    for_each_run(call, tile, range, [&](std::int64_t begin, std::int64_t end, bool) {
      first = std::min(first, begin);
      count += end - begin;
    });
  }
  std::int64_t first, count;
};

// Fetches, line by line while a tile is multiplied, the rows that it will write and what the tile behind it reads anew:
// its queries, and its first keys and values where they are not this tile's too. Of little use where a tile passes over
// many keys; under a narrow mask a quarter of its time otherwise goes by in waiting.
class TileAhead {
 public:
  TileAhead(const AttentionCall& call, const Tile& tile, const Tile& next, const TileState& state, bool writes,
            std::size_t vectors)
      : call_(call), tile_(tile), next_(next), state_(state), cursor_(call, next.rows > 0 ? next : tile) {
    const TileKeys here(call, tile, state.range);
    outputs_ = writes && call.out_stride[3] == 1 ? tile.rows : 0;
    queries_ = call.q_stride[3] == 1 ? next.rows : 0;
    const bool same_head = tile.batch == next.batch && tile.kv_head == next.kv_head;
    const bool narrow = call.window_left >= 0 || call.q_documents.data != nullptr;
    if (next.rows > 0 && (narrow || !same_head) && call.k_stride[3] == 1 && call.v_stride[3] == 1) {
      const TileRange range = tile_range(call, next);
      const std::int64_t begin = TileKeys(call, next, range).first;
      end_key_ = std::min(begin + 2 * kRunKeys, same_head ? std::min(here.first, range.any.end) : range.any.end);
      keys_ = values_ = std::max<std::int64_t>(end_key_ - begin, 0);
    }
    const auto lines = [](std::int64_t rows, std::int64_t values, DType type) {
      return rows * ((values * static_cast<std::int64_t>(size_of(type)) + 63) / 64);
    };
    const std::int64_t all = lines(outputs_, call.dv, call.out_type) + lines(queries_, call.d, call.type) +
                             lines(keys_, call.d + call.dv, call.kv_type);
    // Done by three quarters of the tile, whose vectors need not all multiply every key.
    const std::int64_t units = here.count * static_cast<std::int64_t>(vectors);
    rate_ = units > 0 ? all * kLine * 4 / 3 / units + 1 : 0;
  }

  // After the products of so many keys with so many vectors of queries.
  HWY_INLINE void operator()(std::size_t keys, std::size_t vectors) {
    due_ += rate_ * static_cast<std::int64_t>(keys * vectors);
    for (; due_ >= kLine; due_ -= kLine) {
      if (at_ >= end_ && !take()) break;
      __builtin_prefetch(at_, 0, 2);
      at_ += 64;
    }
  }

 private:
  static constexpr std::int64_t kLine = 1 << 10;

  // The next stretch of memory: a row, or those that lie behind it without a gap.
  HWY_NOINLINE bool take() {
    const auto stretch = [&](const void* base, std::int64_t at, std::int64_t row, std::int64_t rows, DType type) {
      const std::int64_t size = static_cast<std::int64_t>(size_of(type));
      at_ = static_cast<const char*>(base) + at * size;
      end_ = at_ + rows * row * size;
      return true;
    };
    const auto keys = [&](const void* base, std::int64_t at, std::int64_t row, std::int64_t step, std::int64_t left) {
      const std::int64_t rows = step == row ? call_.adjacent(end_key_ - left, end_key_) : 1;
      return stretch(base, at, row, rows, call_.kv_type) ? rows : 0;
    };
    if (outputs_ > 0) {
      const std::size_t lane = static_cast<std::size_t>(tile_.rows - outputs_);
      --outputs_;
      return stretch(call_.out, call_.out_at(tile_.batch, state_.head[lane], state_.query[lane]), call_.dv, 1,
                     call_.out_type);
    }
    if (keys_ > 0) {
      const std::int64_t at = call_.k_at(next_.batch, next_.kv_head, end_key_ - keys_);
      return (keys_ -= keys(call_.k, at, call_.d, call_.k_stride[2], keys_)), true;
    }
    if (values_ > 0) {
      const std::int64_t at = call_.v_at(next_.batch, next_.kv_head, end_key_ - values_);
      return (values_ -= keys(call_.v, at, call_.dv, call_.v_stride[2], values_)), true;
    }
    if (queries_ > 0) {
      const std::int64_t head = next_.kv_head * (call_.q_heads / call_.kv_heads) + cursor_.head;
      const std::int64_t rows =
          call_.q_stride[2] == call_.d ? std::min(queries_, cursor_.tq - cursor_.query) : std::int64_t{1};
      stretch(call_.q, call_.q_at(next_.batch, head, cursor_.query), call_.d, rows, call_.type);
      for (std::int64_t r = 0; r < rows; ++r) cursor_.next();
      queries_ -= rows;
      return true;
    }
    rate_ = due_ = 0;
    return false;
  }

  const AttentionCall& call_;
  const Tile& tile_;
  const Tile& next_;
  const TileState& state_;
  RowCursor cursor_;
  std::int64_t outputs_ = 0, queries_ = 0, keys_ = 0, values_ = 0;  // rows still to be fetched
  std::int64_t end_key_ = 0;
  std::int64_t rate_ = 0, due_ = 0;
  const char* at_ = nullptr;
  const char* end_ = nullptr;
};

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
