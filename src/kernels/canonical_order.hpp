#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

// The canonical order of sums. All bits follow from it, so these numbers are fixed.
//
//   chain   16 keys   one running sum
//   run     64 keys   4 chains, added one after the other; the running maximum may move before it
//   chunk  512 keys   8 runs; its row state starts anew
//   tree              chunks combine in the binary tree over their numbers
//
// Products q k and projections are one chain over d, ascending. Sums along a row (LayerNorm, RMSNorm, written weights)
// run in 16 lanes, whatever the vectors: element i goes to lane i % 16.
//
// Keys count from the first key of the sequence. Equal terms round alike at each step: this order keeps the relative
// error of any such sum below 6.8 * 2^-24, where chains of 64 would let it reach 17.5.
namespace manyheads::kernels {

constexpr std::int64_t kChainKeys = 16;
constexpr std::int64_t kRunKeys = 64;
constexpr std::int64_t kChunkKeys = 512;
constexpr std::int64_t kSumLanes = 16;

// The running maximum moves when a run exceeds it by more than this many powers of two.
constexpr float kMaxSlack = 40.0f;

// Chunks [first, first + count) cut into whole branches of the tree, ascending, each as large as can be. The row states
// of such branches combine to those of any call over more chunks.
struct Branches {
  std::int64_t first = 0, count = 0;

  // The first chunk of branch i. For i = size(): the chunk behind the last.
  constexpr std::int64_t begin(std::int64_t i) const noexcept {
    std::int64_t at = first;
    for (; i > 0 && at < first + count; --i) at = next(at);
    return at;
  }
  constexpr std::int64_t size() const noexcept {
    std::int64_t branches = 0;
    for (std::int64_t at = first; at < first + count; at = next(at)) ++branches;
    return branches;
  }

 private:
  constexpr std::int64_t next(std::int64_t at) const noexcept {
    const auto left = static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(first + count - at)));
    return at + (at == 0 ? left : std::min(left, at & -at));
  }
};

// The tree over chunk numbers. Whether the branches of chunks a < b combine before chunk c > b is opened: their common
// branch does not reach it.
constexpr bool combine_before(std::int64_t a, std::int64_t b, std::int64_t c) noexcept {
  return std::bit_width(static_cast<std::uint64_t>(a ^ b)) < std::bit_width(static_cast<std::uint64_t>(b ^ c));
}

constexpr std::int64_t chunks_of(std::int64_t keys) noexcept { return (keys + kChunkKeys - 1) / kChunkKeys; }
constexpr std::int64_t runs_of(std::int64_t keys) noexcept { return (keys + kRunKeys - 1) / kRunKeys; }

}  // namespace manyheads::kernels
