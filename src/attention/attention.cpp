#include <manyheads/attention.hpp>

#include "attention/check.hpp"
#include "attention/forward.hpp"
#include "attention/overlap.hpp"
#include "kernels/reference.hpp"

namespace manyheads {

using attention_detail::PreparedForward;
using attention_detail::PreparedProbs;

void attention(ConstTensorView q, ConstTensorView k, ConstTensorView v, TensorView out,
               const AttentionOptions& options) {
  PreparedForward("attention", q, k, v, out, options).run(options.workspace);
}

std::size_t attention_workspace_size(ConstTensorView q, ConstTensorView k, ConstTensorView v, TensorView out,
                                     const AttentionOptions& options) {
  return PreparedForward("attention_workspace_size", q, k, v, out, options).workspace_floats() * sizeof(float);
}

void attention_weights(ConstTensorView q, ConstTensorView k, ConstTensorView lse, TensorView weights,
                       const AttentionOptions& options) {
  PreparedProbs("attention_weights", q, k, lse, weights, options).run(options.workspace);
}

void attention_reference(ConstTensorView q, ConstTensorView k, ConstTensorView v, TensorView out,
                         const AttentionOptions& options, TensorView weights) {
  static constexpr const char* kName = "attention_reference";
  const kernels::ForwardParams params = attention_detail::check_forward(kName, q, k, v, out, options);
  if (weights.defined()) {
    const kernels::ProbsParams probs = attention_detail::check_probs(kName, q, k, nullptr, weights, options);
    attention_detail::check_overlap(kName, "weights", weights, "v", v);
    attention_detail::check_overlap(kName, "weights", weights, "out", out);
    attention_detail::check_overlap(kName, "weights", weights, "lse", options.lse);
    kernels::reference_probs(probs);
  }
  kernels::reference(params);
}

}  // namespace manyheads
