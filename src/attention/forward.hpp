#pragma once

#include <cstddef>

#include <manyheads/attention.hpp>

#include "attention/plan.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/params.hpp"

namespace manyheads::attention_detail {

// Memory of the same types, shapes and strides in place of a call's own; null keeps what there is.
struct Operands {
  const void* q = nullptr;
  const void* k = nullptr;
  const void* v = nullptr;
  void* out = nullptr;            // of PreparedProbs: the weights
  TensorView lse{};               // may be given where the call had none
  const bool* allowed = nullptr;  // or `ignored`
  const void* bias = nullptr;
  const void* cu_seqlens_q = nullptr;
  const void* cu_seqlens_k = nullptr;
};

// A forward call, validated once and planned once, to be run any number of times: check -> plan -> run. Every door
// stands on it. The views of the call must outlive it, or be replaced by `on`.
class PreparedForward {
 public:
  PreparedForward(const char* function, const ConstTensorView& q, const ConstTensorView& k, const ConstTensorView& v,
                  const TensorView& out, const AttentionOptions& options);

  // Floats of workspace for one run, at a multiple of 64 bytes.
  std::size_t workspace_floats() const noexcept { return plan_.workspace_floats(); }

  // The same call on other memory.
  PreparedForward on(const Operands& operands) const;

  // Thread-safe for disjoint outputs and workspaces. Allocates nothing.
  void run(float* workspace) const;
  // The same in the workspace given, or in memory of its own.
  void run(Workspace* workspace) const;

  const kernels::ForwardParams& params() const noexcept { return params_; }
  const Plan& plan() const noexcept { return plan_; }
  const kernels::KernelTable& table() const noexcept { return *table_; }

 private:
  kernels::ForwardParams params_;
  const kernels::KernelTable* table_;
  Plan plan_;
  Threads threads_;
  bool nothing_to_do_;
};

// attention_weights() in the same way. With `row_lse` [B,Hq,Tq], dense, each row's own lse is told too.
class PreparedProbs {
 public:
  PreparedProbs(const char* function, const ConstTensorView& q, const ConstTensorView& k, const ConstTensorView& lse,
                const TensorView& weights, const AttentionOptions& options, float* row_lse = nullptr);
  std::size_t workspace_floats() const noexcept { return plan_.workspace_floats(); }
  PreparedProbs on(const Operands& operands) const;
  void run(float* workspace) const;
  void run(Workspace* workspace) const;

 private:
  kernels::ProbsParams params_;
  const kernels::KernelTable* table_;
  Plan plan_;
  Threads threads_;
};

}  // namespace manyheads::attention_detail
