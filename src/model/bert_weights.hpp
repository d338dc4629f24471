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

// An encoder's tensors as it multiplies them.
struct BertWeights {
  Tensor words, positions, types;  // F32
  BertNorm embedding_norm;
  std::vector<BertBlock> blocks;

  // From a checkpoint's tensors, the projections kept as `kept`. `unsupported` says what its tensors of other types
  // are, and `place` where all of them come from. Throws Error (kMalformedFile) naming the place and the tensor that is
  // missing, of another type or of another shape than the config's.
  BertWeights(const BertConfig& config, const StateDict& tensors, const std::map<std::string, std::string>& unsupported,
              const std::string& place, DType kept);
};

}  // namespace manyheads::model
