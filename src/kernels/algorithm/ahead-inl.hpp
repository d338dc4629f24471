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
// its queries, and its first keys and values where they are not this tile's too. Where a tile passes over many keys
// that is little; under a narrow mask a tenth of the time otherwise goes by in waiting.
class TileAhead {
 public:
  TileAhead(const AttentionCall& call, const Tile& tile, const TileRange& range_here, const Tile& next,
            const TileState& state, bool writes, std::size_t vectors)
      : call_(call), tile_(tile), next_(next), state_(state), cursor_(call, next.rows > 0 ? next : tile) {
    const TileKeys here(call, tile, range_here);
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
    if (outputs_ > 0) {
      const std::size_t lane = static_cast<std::size_t>(tile_.rows - outputs_);
      const std::int64_t at = call_.out_at(tile_.batch, state_.head[lane], state_.query[lane]);
      outputs_ -= begin(call_.out, call_.out_type, at, call_.dv, 1);
    } else if (keys_ > 0) {
      const std::int64_t key = end_key_ - keys_;
      const std::int64_t rows = call_.k_stride[2] == call_.d ? call_.adjacent(key, end_key_) : 1;
      keys_ -= begin(call_.k, call_.kv_type, call_.k_at(next_.batch, next_.kv_head, key), call_.d, rows);
    } else if (values_ > 0) {
      const std::int64_t key = end_key_ - values_;
      const std::int64_t rows = call_.v_stride[2] == call_.dv ? call_.adjacent(key, end_key_) : 1;
      values_ -= begin(call_.v, call_.kv_type, call_.v_at(next_.batch, next_.kv_head, key), call_.dv, rows);
    } else if (queries_ > 0) {
      const std::int64_t head = next_.kv_head * (call_.q_heads / call_.kv_heads) + cursor_.head;
      const std::int64_t rows = call_.q_stride[2] == call_.d ? std::min(queries_, cursor_.tq - cursor_.query) : 1;
      queries_ -= begin(call_.q, call_.type, call_.q_at(next_.batch, head, cursor_.query), call_.d, rows);
      for (std::int64_t r = 0; r < rows; ++r) cursor_.next();
    } else {
      rate_ = due_ = 0;
      return false;
    }
    return true;
  }
  std::int64_t begin(const void* base, DType type, std::int64_t at, std::int64_t width, std::int64_t rows) {
    const std::int64_t size = static_cast<std::int64_t>(size_of(type));
    at_ = static_cast<const char*>(base) + at * size;
    end_ = at_ + rows * width * size;
    return rows;
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
