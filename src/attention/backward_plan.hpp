#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>

#include <manyheads/parallel.hpp>

#include "kernels/backward.hpp"
#include "kernels/canonical_order.hpp"

namespace manyheads::attention_detail {

// Where the parts of a backward's workspace lie, in bytes.
struct BackwardPlan {
  int workers = 1;
  int slots = 1;                 // heads under way at once
  std::int64_t parts = 1;        // of the queries, for each chunk of keys: whole branches of their tree
  std::int64_t tasks = 0;        // parts of chunks of keys, over all heads
  std::int64_t blocks = 0;       // of queries, of a head's group
  std::int64_t most_chunks = 0;  // of keys, of a head
  std::int64_t tree_arrays = 0;
  std::size_t task_floats = 0, key_floats = 0, chunk_floats = 0, query_floats = 0;
  std::size_t shift = 0, factor = 0, delta = 0, alibi = 0, documents = 0, tasks_at = 0;
  std::size_t worker = 0, worker_bytes = 0, tree = 0, ring = 0, bias = 0;  // the last three within a worker's part
  std::size_t slot = 0, slot_bytes = 0;
  std::size_t part_sums = 0, part_read = 0, high = 0, low = 0, bits = 0, begun = 0;  // within a slot
  std::size_t bytes = 0;
};

BackwardPlan plan_backward(const char* function, const kernels::BackwardParams& params,
                           const kernels::BackwardKernels& kernels, const Threads& threads);

// Blocks of so many queries of one head.
inline std::int64_t query_blocks_of(std::int64_t queries) {
  return (queries + kernels::kGradRows - 1) / kernels::kGradRows;
}

inline std::int64_t bit_ceil(std::int64_t n) {
  return static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(std::max<std::int64_t>(1, n))));
}

// Chunks of queries of a head's group, by their numbers in the tree of sums.
inline std::int64_t numbers_of(const kernels::BackwardParams& params, std::int64_t queries) {
  return (params.kv_heads == 0 ? 1 : params.group()) * bit_ceil(kernels::chunks_of(queries));
}

}  // namespace manyheads::attention_detail
