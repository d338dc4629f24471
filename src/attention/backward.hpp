#pragma once

#include <cstddef>

#include <manyheads/attention_backward.hpp>

#include "kernels/backward.hpp"
#include "kernels/dispatch.hpp"

namespace manyheads::attention_detail {

// Where the parts of a backward's workspace lie, in bytes.
struct BackwardPlan {
  int workers = 1;
  int slots = 1;                 // heads under way at once
  std::int64_t parts = 1;        // of the queries, for each chunk of keys: whole branches of their tree
  std::int64_t tasks = 0;        // parts of chunks of keys, over all heads
  std::int64_t row_tasks = 0;    // blocks of rows to prepare
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

// A backward call: validated once, planned once, run many times.
class PreparedBackward {
 public:
  PreparedBackward(const char* function, const ConstTensorView& q, const ConstTensorView& k, const ConstTensorView& v,
                   const ConstTensorView& out, const ConstTensorView& dout, const ConstTensorView& lse,
                   const AttentionGradients& gradients, const AttentionOptions& options);
  std::size_t workspace_bytes() const noexcept { return plan_.bytes; }
  // Runs in `workspace`, at a multiple of 64 bytes. Thread-safe for disjoint outputs and workspaces.
  void run(std::byte* workspace) const;
  // Runs in the workspace given, or where it is null in memory of its own.
  void run(Workspace* workspace) const;

  const kernels::BackwardParams& params() const noexcept { return params_; }
  kernels::Products products() const noexcept { return products_; }
  const BackwardPlan& plan() const noexcept { return plan_; }
  const kernels::KernelTable& table() const noexcept { return *table_; }

 private:
  kernels::BackwardParams params_;
  kernels::Products products_;
  const kernels::KernelTable* table_;
  BackwardPlan plan_;
  Threads threads_;
};

Explanation explain(const PreparedBackward& prepared);

}  // namespace manyheads::attention_detail
