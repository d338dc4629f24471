#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "kernels/canonical_order.hpp"

namespace manyheads::attention_detail {

// Adds up arrays, one for each chunk, in the binary tree over chunk numbers: the order of the forward's row states. A
// chunk that is missing counts as zeros, which change no sum.
class SumTree {
 public:
  static constexpr int kLevels = 64;
  // Arrays that are open at once, of chunks below `chunks`.
  static std::int64_t arrays(std::int64_t chunks) { return std::bit_width(static_cast<std::uint64_t>(chunks)) + 2; }

  SumTree(float* memory, std::size_t floats) : memory_(memory), floats_(floats) {}
  // The array of a chunk, zeros at first. Chunks ascend.
  float* open(std::int64_t chunk) {
    if (count_ > 0 && numbers_[count_ - 1] == chunk) return at(count_ - 1);
    while (count_ >= 2 && kernels::combine_before(numbers_[count_ - 2], numbers_[count_ - 1], chunk)) add();
    numbers_[count_] = chunk;
    std::fill_n(at(count_), floats_, 0.0f);
    return at(count_++);
  }
  // The sum of all; null where no chunk was opened.
  float* close() {
    while (count_ >= 2) add();
    return count_ == 0 ? nullptr : at(0);
  }

 private:
  float* at(int i) const { return memory_ + static_cast<std::size_t>(i) * floats_; }
  void add() {
    float* const sum = at(count_ - 2);
    const float* const last = at(count_ - 1);
    for (std::size_t e = 0; e < floats_; ++e) sum[e] += last[e];
    numbers_[count_ - 2] = numbers_[count_ - 1];
    --count_;
  }

  float* memory_;
  std::size_t floats_;
  int count_ = 0;
  std::int64_t numbers_[kLevels];
};

}  // namespace manyheads::attention_detail
