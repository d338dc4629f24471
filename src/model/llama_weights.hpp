#pragma once

#include <cstdint>
#include <manyheads/tensor.hpp>
#include <map>
#include <string>
#include <vector>

#include "layer/linear.hpp"
#include "model/llama_config.hpp"

namespace manyheads::model {

struct LlamaBlock {
  layer::Linear qkv, attention_output, gate_up, down;
  Tensor attention_norm, mlp_norm;  // [E] F32
};

// A decoder's tensors, packed for its products.
struct LlamaWeights {
  Tensor embeddings;     // [V,E] of the file's type, on the mapped file
  layer::Linear logits;  // E -> V
  Tensor norm;           // [E] F32
  std::vector<LlamaBlock> blocks;

  // As BertWeights.
  LlamaWeights(const LlamaConfig& config, const StateDict& tensors,
               const std::map<std::string, std::string>& unsupported, const std::string& place, DType kept);
};

}  // namespace manyheads::model
