#pragma once

#include <cstddef>
#include <cstdint>

#include <manyheads/parallel.hpp>

#include "kernels/kernel_table.hpp"

namespace manyheads::attention_detail {

// How a call is cut into query blocks, and few blocks into KV splits too, and who computes them. The plan decides only
// who computes what and when, never a bit.
struct Plan {
  std::int64_t q_blocks = 0;
  std::int64_t block_rows = 0;  // rows of the largest query block
  kernels::KvSplits splits;     // of each query block; their row states are combined at the end
  int workers = 1;

  // Query blocks of a head that a worker takes through one part of the keys before the next part: the part stays in L2.
  std::int64_t group = 1;
  std::int64_t blocks_per_head = 0;  // where blocks come in groups
  std::int64_t keys_together = 0;    // keys in such a part; 0: each query block takes all keys by itself

  bool cut = false;  // query blocks end where long documents do

  // Floats of workspace:
  std::size_t block_floats = 0;      // for one query block
  std::size_t packed_kv_floats = 0;  // for a worker's packed K and V; 0: rows are read where they lie
  std::size_t worker_floats = 0;     // for one worker, packed K and V at the end
  std::size_t row_state_floats = 0;  // for one split of a query block; 0 where a block is done at once
  std::size_t entry_floats = 0;      // for the index of query blocks, where entries differ
  std::size_t document_floats = 0;   // for QkvMask::run_documents

  // The number of tasks: groups of query blocks, or splits of one.
  std::int64_t tasks() const noexcept {
    return group > 1 ? q_blocks / blocks_per_head * groups_per_head() : q_blocks * splits.count;
  }
  std::int64_t groups_per_head() const noexcept { return (blocks_per_head + group - 1) / group; }
  std::size_t workspace_floats() const noexcept {
    return entry_floats + document_floats + static_cast<std::size_t>(workers) * worker_floats +
           static_cast<std::size_t>(q_blocks * splits.count) * row_state_floats;
  }
  kernels::KvSplit split(std::int64_t i) const noexcept {
    const auto key = [&](std::int64_t split) {
      return (splits.chunk(split) - splits.branches.first) * kernels::kChunkKeys;
    };
    return {key(i), i + 1 == splits.count ? -1 : key(i + 1)};
  }
};

// What a plan may do with the keys:
// - kNone, for probabilities: neither pack, split nor group them;
// - kAllowed, for a forward: all of these;
// - kBranches: split by the branches of the tree, whose row states the caller wants.
enum class Split { kNone, kAllowed, kBranches };

Plan plan(const kernels::QkvMask& params, const kernels::KernelTable& table, const Threads& threads, Split split);

}  // namespace manyheads::attention_detail
