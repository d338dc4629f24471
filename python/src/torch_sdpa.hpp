#pragma once

#include "torch_api.hpp"

// What takes F.scaled_dot_product_attention: the op itself, and the op that PyTorch's flash path calls.
namespace manyheads::python {

// aten::scaled_dot_product_attention(query, key, value, attn_mask?, dropout_p, is_causal, *, scale?, enable_gqa)
void sdpa(torch::IValue* stack, std::uint64_t, std::uint64_t);
// The same where autograd may record it.
void sdpa_autograd(torch::IValue* stack, std::uint64_t, std::uint64_t);
// How many levels of forward-mode derivatives are open, of all threads.
void set_forward_levels(std::int64_t levels);

// aten::_scaled_dot_product_flash_attention_for_cpu(query, key, value, dropout_p, is_causal, *, attn_mask?, scale?)
//   -> (output, logsumexp)
void flash_attention_for_cpu(torch::IValue* stack, std::uint64_t, std::uint64_t);

}  // namespace manyheads::python
