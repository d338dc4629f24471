#pragma once

#include <cstddef>

#include <manyheads/attention_backward.hpp>

#include "attention/backward_plan.hpp"
#include "kernels/backward.hpp"
#include "kernels/dispatch.hpp"

namespace manyheads::attention_detail {

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
