#pragma once

#include <cstdint>

#include "torch_api.hpp"

// Packed sequences as PyTorch's flash attention takes them, which torch.nn.attention.varlen calls. PyTorch has no CPU
// kernels of its own. `arguments`: how many this PyTorch passes; block_table and num_splits came after 2.10.
namespace manyheads::python {

// aten::_flash_attention_forward(query, key, value, cum_seq_q?, cum_seq_k?, max_q, max_k, dropout_p, is_causal,
//   return_debug_mask, *, scale?, window_size_left?, window_size_right?, seqused_k?, alibi_slopes?, block_table?,
//   num_splits?) -> (output, softmax_logsumexp, rng_state, unused, debug_attn_mask)
void flash_attention_forward(torch::IValue* stack, std::uint64_t arguments);

// aten::_flash_attention_forward_no_dropout_inplace(out, query, ...) -> softmax_logsumexp
void flash_attention_forward_inplace(torch::IValue* stack, std::uint64_t arguments);

}  // namespace manyheads::python
