#pragma once

#include <cstdint>

#include "torch_api.hpp"

// Gradients of attention: of the op of manyheads::, and of what PyTorch's own autograd calls.
namespace manyheads::python {

// manyheads::attention_backward, which the gradients of manyheads::attention are made of. Bit i of `needs` says whether
// result i is wanted, of query, key, value, attn_mask, sinks and alibi_slopes; the others have no elements. What the
// call broadcasts is summed in F32.
extern const char* const kBackwardSchema;
void attention_backward_op(torch::IValue* stack, std::uint64_t, std::uint64_t);

// aten::_scaled_dot_product_flash_attention_for_cpu_backward(grad_out, query, key, value, out, logsumexp, dropout_p,
//   is_causal, *, attn_mask?, scale?) -> (grad_query, grad_key, grad_value)
void flash_attention_for_cpu_backward(torch::IValue* stack, std::uint64_t, std::uint64_t);

// aten::_flash_attention_backward(grad_out, query, key, value, out, logsumexp, cum_seq_q, cum_seq_k, max_q, max_k,
//   dropout_p, is_causal, rng_state, unused, *, scale?, window_size_left?, window_size_right?)
//   -> (grad_query, grad_key, grad_value)
void flash_attention_backward(torch::IValue* stack, std::uint64_t, std::uint64_t);

}  // namespace manyheads::python
