#pragma once

#include <cstdint>
#include <manyheads/tensor.hpp>
#include <map>
#include <string>
#include <vector>

#include "layer/linear.hpp"
#include "model/bert_config.hpp"

namespace manyheads::model {

// A LayerNorm over the last axis.
struct BertNorm {
  Tensor gamma, beta;  // [E] F32

  // y = norm(x + residual) for dense rows; residual may be null, y may be x.
  void run(const float* x, const float* residual, float* y, std::int64_t rows, double epsilon) const;
};

struct BertBlock {
  layer::Linear qkv, attention_output, intermediate, output;
  BertNorm attention_norm, output_norm;
};

// An encoder's tensors, packed for its products.
struct BertWeights {
  Tensor words, positions;  // F32
  Tensor types;             // F32; not defined where the model has no segments
  BertNorm embedding_norm;
  std::vector<BertBlock> blocks;

  // Takes a checkpoint's tensors and keeps the projections as `kept`. `unsupported` names the types of tensors that no
  // Tensor holds, `place` is where all come from. Throws Error (kMalformedFile) that names the place and the tensor
  // that is missing, or whose type or shape is not the config's.
  BertWeights(const BertConfig& config, const StateDict& tensors, const std::map<std::string, std::string>& unsupported,
              const std::string& place, DType kept);
};

}  // namespace manyheads::model
