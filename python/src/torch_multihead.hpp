#pragma once

#include "torch_api.hpp"

// The fast paths of nn.MultiheadAttention and nn.TransformerEncoderLayer.
namespace manyheads::python {

void native_multi_head_attention(torch::IValue* stack, std::uint64_t, std::uint64_t);
void transformer_encoder_layer(torch::IValue* stack, std::uint64_t, std::uint64_t);

}  // namespace manyheads::python
