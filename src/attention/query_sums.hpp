#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <thread>

#include "base/two_sum.hpp"

// The sums of dq over chunks of keys that several threads work on: each block of queries takes its parts in the order
// of the chunks, whoever ends first.
namespace manyheads::attention_detail {

// Which chunks of keys have given a block of queries what they have, one bit each.
class ChunkBits {
 public:
  ChunkBits(std::uint64_t* words, std::int64_t words_per_block) : words_(words), per_block_(words_per_block) {}
  static std::int64_t words(std::int64_t chunks) { return (chunks + 63) / 64; }
  void set(std::int64_t block, std::int64_t chunk) const {
    word(block, chunk / 64).fetch_or(std::uint64_t{1} << (chunk % 64), std::memory_order_release);
  }
  // Whether all chunks before this one have.
  bool all_before(std::int64_t block, std::int64_t chunk) const {
    for (std::int64_t w = chunk / 64; w >= 0; --w) {
      const std::uint64_t wanted = w == chunk / 64 ? (std::uint64_t{1} << (chunk % 64)) - 1 : ~std::uint64_t{0};
      if ((word(block, w).load(std::memory_order_acquire) & wanted) != wanted) return false;
    }
    return true;
  }

 private:
  std::atomic_ref<std::uint64_t> word(std::int64_t block, std::int64_t i) const {
    return std::atomic_ref(words_[block * per_block_ + i]);
  }
  std::uint64_t* words_;
  std::int64_t per_block_;
};

// The sums of dq of a head under way.
struct QuerySums {
  float* high;
  float* low;
  ChunkBits bits;
  std::uint8_t* begun;  // whether a chunk has given a block anything
};

// Parts of dq of one chunk of keys on their way to the sums.
class WaitingParts {
 public:
  // So many blocks may a thread run ahead of the one before it.
  static constexpr std::int64_t kMost = 12;

  // `memory`: kMost parts of so many floats.
  WaitingParts(float* memory, std::size_t floats, const QuerySums& sums, std::int64_t chunk)
      : memory_(memory), floats_(floats), sums_(sums), chunk_(chunk) {}
  // Memory for the next part.
  float* next() {
    if (count_ == kMost) wait();
    return at(first_ + count_);
  }
  // The part in next() is whole.
  void push(std::int64_t block) {
    blocks_[(first_ + count_++) % kMost] = block;
    while (count_ > 0 && sums_.bits.all_before(blocks_[first_ % kMost], chunk_)) add();
  }
  void finish() {
    while (count_ > 0) wait();
  }

 private:
  float* at(std::int64_t i) const { return memory_ + static_cast<std::size_t>(i % kMost) * floats_; }
  void wait() {
    for (int spins = 0; !sums_.bits.all_before(blocks_[first_ % kMost], chunk_); ++spins) {
      if (spins > 64) std::this_thread::yield();
    }
    add();
  }
  void add() {
    const std::int64_t block = blocks_[first_ % kMost];
    const std::size_t offset = static_cast<std::size_t>(block) * floats_;
    const float* const part = at(first_);
    if (sums_.begun[block] != 0) {
      base::add_exactly(part, floats_, sums_.high + offset, sums_.low + offset);
    } else {
      std::copy_n(part, floats_, sums_.high + offset);
      std::fill_n(sums_.low + offset, floats_, 0.0f);
      sums_.begun[block] = 1;
    }
    sums_.bits.set(block, chunk_);
    ++first_;
    --count_;
  }

  float* memory_;
  std::size_t floats_;
  const QuerySums& sums_;
  std::int64_t chunk_, first_ = 0, count_ = 0;
  std::int64_t blocks_[kMost];
};

}  // namespace manyheads::attention_detail
