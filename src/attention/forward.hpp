#pragma once

#include <cstddef>

#include <manyheads/attention.hpp>

#include "attention/plan.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/params.hpp"

namespace manyheads::attention_detail {

// Memory to take the place of a call's own, of the same types, shapes and strides. Null keeps the call's.
struct Operands {
  const void* q = nullptr;
  const void* k = nullptr;
  const void* v = nullptr;
  void* out = nullptr;            // for PreparedProbs: the probabilities
  TensorView lse{};               // may be given where the call had none
  const bool* allowed = nullptr;  // or `ignored`
  const void* bias = nullptr;
  const void* cu_seqlens_q = nullptr;
  const void* cu_seqlens_k = nullptr;
  std::int64_t first_query = -1;  // of dropout; -1: the call's own
};

// A forward call: validated once, planned once, run many times (check -> plan -> run). Every door stands on it. The
// call's views must outlive it, or be replaced by `on`.
class PreparedForward {
 public:
  PreparedForward(const char* function, const ConstTensorView& q, const ConstTensorView& k, const ConstTensorView& v,
                  const TensorView& out, const AttentionOptions& options);

  // Floats of workspace for one run, at a multiple of 64 bytes.
  std::size_t workspace_floats() const noexcept { return plan_.workspace_floats(); }

  // The same call on other memory.
  PreparedForward on(const Operands& operands) const;

  // Runs in `workspace`. Thread-safe for disjoint outputs and workspaces. Allocates nothing.
  void run(float* workspace) const;
  // Runs in the workspace given, or where it is null in memory of its own.
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

// attention_weights() likewise. Where row_lse [B,Hq,Tq], dense, is given, it receives each row's own lse.
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
