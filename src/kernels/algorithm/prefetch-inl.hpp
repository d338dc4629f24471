// Prefetch: memory on its way into L1 or L2 while the multipliers work.
//
// Contract: changes no result. Ranges are in whole lines of 64 bytes.
// - Prefetcher: the next run's keys, values and bias, beside the products of this run.
// - NextBlockPrefetch: the next query block's memory, beside the products of this block.

// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_ALGORITHM_PREFETCH_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_ALGORITHM_PREFETCH_INL_HPP
#undef MANYHEADS_ALGORITHM_PREFETCH_INL_HPP
#else
#define MANYHEADS_ALGORITHM_PREFETCH_INL_HPP
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "hwy/highway.h"
#include "kernels/algorithm/block_info-inl.hpp"
#include "kernels/mask.hpp"
#include "kernels/params.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// A memory range, in whole lines. On the way to L2, the line `again` bytes from each is prefetched once more. Not
// initialised: every run makes an array of kMaxRanges.
struct MemoryRange {
  const char* begin;
  const char* end;
  std::ptrdiff_t again;
};

// Prefetches memory ranges line by line, evenly over the steps of other work.
// - Evenly, since a burst would leave memory idle for the rest of the time.
// - The same number of lines in each step: where it changes, mispredicted branches cost the steps more.
// - Into L1, or with to_l2 into L2. A prefetch into L2 is dropped where too many lines are on their way: each line is
//   prefetched twice.
template <bool kMayUseL2 = false>
class Prefetcher {
 public:
  // Inline: a call would keep the object in memory.
  HWY_INLINE Prefetcher(const MemoryRange* ranges, std::size_t count, std::size_t steps, bool to_l2 = false)
      : next_(ranges), last_(ranges + count), to_l2_(to_l2) {
    std::size_t lines = 0;
    for (const MemoryRange* s = next_; s != last_; ++s) lines += static_cast<std::size_t>(s->end - s->begin) / 64;
    if (lines == 0 || steps == 0) {  // no steps: rows of less than a block
      stop();
      return;
    }
    each_step_ = static_cast<std::ptrdiff_t>((lines + steps - 1) / steps * 64);
  }
  HWY_INLINE void operator()(const float* /*here*/) {
    if (HWY_LIKELY(whole_steps_ > 0)) {
      --whole_steps_;
      const char* at = at_;
      for (std::ptrdiff_t left = each_step_; left > 0; left -= 64, at += 64) __builtin_prefetch(at, 0, 3);
      at_ = at;
    } else if (kMayUseL2 && HWY_LIKELY(whole_steps_ < 0)) {
      ++whole_steps_;
      const char* at = at_;
      for (std::ptrdiff_t left = each_step_; left > 0; left -= 64, at += 64) twice(at, again_);
      at_ = at;
    } else {
      across();
    }
    KeepInMemory(at_);
    KeepInMemory(whole_steps_);
  }

 private:
  static HWY_INLINE void twice(const char* at, std::ptrdiff_t again) {
    __builtin_prefetch(at, 0, 2);
    __builtin_prefetch(at + again, 0, 2);
  }
  // A step that crosses the end of a range. Inline: a call would cost the other work its registers.
  HWY_INLINE void across() {
    for (std::ptrdiff_t left = each_step_;;) {
      if (!kMayUseL2 || HWY_LIKELY(!to_l2_)) {
        for (; left > 0 && at_ != end_; left -= 64, at_ += 64) __builtin_prefetch(at_, 0, 3);
      } else {
        for (; left > 0 && at_ != end_; left -= 64, at_ += 64) twice(at_, again_);
      }
      if (left == 0) break;
      if (next_ == last_) return stop();
      at_ = next_->begin;
      end_ = next_->end;
      again_ = next_->again;
      ++next_;
    }
    whole_steps_ = end_ - at_ < each_step_ ? 0 : (end_ - at_) / each_step_;
    if (kMayUseL2 && to_l2_) whole_steps_ = -whole_steps_;
  }
  void stop() {
    each_step_ = 0;
    whole_steps_ = std::numeric_limits<std::ptrdiff_t>::max();
  }

  const MemoryRange* next_;
  const MemoryRange* last_;
  const char* at_ = nullptr;
  const char* end_ = nullptr;
  std::ptrdiff_t each_step_ = 0;    // bytes
  std::ptrdiff_t whole_steps_ = 0;  // left in this range; negative: on the way to L2
  std::ptrdiff_t again_ = 0;
  bool to_l2_;
};

// The most ranges of a run: one for each row of keys and values.
constexpr std::size_t kMaxRanges = 2 * static_cast<std::size_t>(kRunKeys);

// The rows of keys or values [begin, end), a run or less, as ranges. Returns how many. On the way to L2, the row of the
// key `back` before each, which exists, is prefetched again; back 0: none is.
HWY_INLINE std::size_t RangesOf(const QkvMask& params, const QueryBlock& q_block, const void* base, std::int64_t size,
                                const std::int64_t* stride, std::int64_t width, std::int64_t begin, std::int64_t end,
                                std::int64_t back, MemoryRange* to) {
  const bool dense = stride[2] == width;
  std::size_t count = 0;
  for (std::int64_t j = begin, keys = 0; j < end; j += keys) {
    keys = params.adjacent(q_block.batch, j, end);
    if (back != 0) keys = params.adjacent(q_block.batch, j - back, j - back + keys);
    const std::int64_t at = params.key_at(stride, q_block.batch, q_block.kv_head, j) * size;
    const std::ptrdiff_t again =
        back == 0 ? 0 : params.key_at(stride, q_block.batch, q_block.kv_head, j - back) * size - at;
    const char* from = static_cast<const char*>(base) + at;
    const std::int64_t bytes = ((dense ? keys : 1) * width * size + 63) / 64 * 64;
    for (std::int64_t row = 0; row < (dense ? 1 : keys); ++row, from += stride[2] * size) {
      to[count++] = {from, from + bytes, again};
    }
  }
  return count;
}

// The ranges of keys [begin, end), or of their values. Leaves their scales out: crossing to them costs more than it
// saves.
HWY_INLINE std::size_t NextRunRanges(const QkvMask& params, const QueryBlock& q_block, bool values, std::int64_t begin,
                                     std::int64_t end, std::int64_t back, MemoryRange* to) {
  const std::int64_t* stride = values ? params.v_stride : params.k_stride;
  std::size_t count = 0;
  if (stride[3] == 1) {
    count = RangesOf(params, q_block, values ? params.v : params.k, static_cast<std::int64_t>(size_of(params.kv_type)),
                     stride, values ? params.dv : params.d, begin, end, back, to);
  }
  return count;
}

// The ranges of bias and bool mask of rows [row, row + rows) in the run after that of key `begin`. Returns how many.
// Rows lie far apart, in more streams than a processor foresees.
HWY_INLINE std::size_t NextRunBiasRanges(const QkvMask& params, const QueryBlock& q_block, const BlockInfo& info,
                                         std::size_t row, std::size_t rows, std::int64_t begin, MemoryRange* to) {
  const std::int64_t next = (begin / kRunKeys + 1) * kRunKeys;
  const std::int64_t keys = std::min(kRunKeys, info.range.any.end - next);
  std::size_t count = 0;
  const auto add = [&](const void* base, std::int64_t size, const std::int64_t* stride, const auto& at) {
    if (base == nullptr || stride[3] != 1 || stride[2] == 0 || keys <= 0) return;
    for (std::size_t r = row; r < row + rows && static_cast<std::int64_t>(r) < info.rows; ++r) {
      const char* from = static_cast<const char*>(base) + at(info.head[r], info.query[r]) * size;
      to[count++] = {from, from + (keys * size + 63) / 64 * 64, 0};
    }
  };
  add(params.bias, static_cast<std::int64_t>(size_of(params.bias_type)), params.bias_stride,
      [&](std::int64_t h, std::int64_t i) { return params.bias_at(q_block.batch, h, i, next); });
  add(params.allowed, 1, params.allowed_stride,
      [&](std::int64_t h, std::int64_t i) { return params.allowed_at(q_block.batch, h, i, next); });
  return count;
}

// The first key that a query block reads, and how many keys. Leaves the bool mask aside.
struct BlockKeys {
  BlockKeys(const QkvMask& params, const QueryBlock& q_block, const BlockKeyRange& range)
      : first(range.any.begin), count(std::max<std::int64_t>(range.any.end - range.any.begin, 0)) {
    if (!params.documents() || params.allowed != nullptr) return;
    first = range.any.end;
    count = 0;
    AttentionMask(params).each_run(q_block, range, [&](std::int64_t begin, std::int64_t end, bool) {
      first = std::min(first, begin);
      count += end - begin;
    });
  }
  std::int64_t first, count;
};

// Prefetches while a query block is multiplied, line by line:
// - the rows that it will write;
// - the queries of the next block, and its first keys and values where this block does not read them.
// A block that passes over many keys gains little. Under a narrow mask, a tenth of the time is waiting without it.
class NextBlockPrefetch {
 public:
  NextBlockPrefetch(const ForwardParams& params, const QueryBlock& q_block, const BlockKeyRange& range_here,
                    const QueryBlock& next, const BlockInfo& info, bool writes, std::size_t vectors)
      : params_(params), q_block_(q_block), next_(next), info_(info), cursor_(params, next.rows > 0 ? next : q_block) {
    const BlockKeys here(params, q_block, range_here);
    outputs_ = writes && params.out_stride[3] == 1 ? q_block.rows : 0;
    queries_ = params.q_stride[3] == 1 ? next.rows : 0;
    const bool same_head = q_block.batch == next.batch && q_block.kv_head == next.kv_head;
    const AttentionMask mask(params);
    if (next.rows > 0 && (mask.narrow() || !same_head) && params.k_stride[3] == 1 && params.v_stride[3] == 1) {
      const BlockKeyRange range = mask.keys_of(next);
      const std::int64_t begin = BlockKeys(params, next, range).first;
      end_key_ = std::min(begin + 2 * kRunKeys, same_head ? std::min(here.first, range.any.end) : range.any.end);
      keys_ = values_ = std::max<std::int64_t>(end_key_ - begin, 0);
    }
    const auto lines = [](std::int64_t rows, std::int64_t values, DType type) {
      return rows * ((values * static_cast<std::int64_t>(size_of(type)) + 63) / 64);
    };
    const std::int64_t all = lines(outputs_, params.dv, params.out_type) + lines(queries_, params.d, params.type) +
                             lines(keys_, params.d + params.dv, params.kv_type);
    // Done by three quarters of the block, as not all its vectors need every key.
    const std::int64_t work = here.count * static_cast<std::int64_t>(vectors);
    rate_ = work > 0 ? all * kLine * 4 / 3 / work + 1 : 0;
  }

  // Call it after the products of `keys` keys with `vectors` vectors of queries.
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

  // Takes the next range: a row, or several without a gap between them.
  HWY_NOINLINE bool take() {
    if (outputs_ > 0) {
      const std::size_t lane = static_cast<std::size_t>(q_block_.rows - outputs_);
      const std::int64_t at = params_.out_at(q_block_.batch, info_.head[lane], info_.query[lane]);
      outputs_ -= begin(params_.out, params_.out_type, at, params_.dv, 1);
    } else if (keys_ > 0) {
      const std::int64_t key = end_key_ - keys_;
      const std::int64_t rows = params_.k_stride[2] == params_.d ? params_.adjacent(next_.batch, key, end_key_) : 1;
      keys_ -= begin(params_.k, params_.kv_type, params_.k_at(next_.batch, next_.kv_head, key), params_.d, rows);
    } else if (values_ > 0) {
      const std::int64_t key = end_key_ - values_;
      const std::int64_t rows = params_.v_stride[2] == params_.dv ? params_.adjacent(next_.batch, key, end_key_) : 1;
      values_ -= begin(params_.v, params_.kv_type, params_.v_at(next_.batch, next_.kv_head, key), params_.dv, rows);
    } else if (queries_ > 0) {
      const std::int64_t head = next_.kv_head * (params_.q_heads / params_.kv_heads) + cursor_.head;
      const std::int64_t rows = params_.q_stride[2] == params_.d ? std::min(queries_, cursor_.tq - cursor_.query) : 1;
      queries_ -= begin(params_.q, params_.type, params_.q_at(next_.batch, head, cursor_.query), params_.d, rows);
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

  const ForwardParams& params_;
  const QueryBlock& q_block_;
  const QueryBlock& next_;
  const BlockInfo& info_;
  RowCursor cursor_;
  std::int64_t outputs_ = 0, queries_ = 0, keys_ = 0, values_ = 0;  // rows still to prefetch
  std::int64_t end_key_ = 0;
  std::int64_t rate_ = 0, due_ = 0;
  const char* at_ = nullptr;
  const char* end_ = nullptr;
};

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
