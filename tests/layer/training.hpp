#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include <manyheads/multi_head_attention.hpp>

#include "layer/layer_reference.hpp"

namespace manyheads::layer_test {

Tensor in_double(const Tensor& from);

// A layer, its inputs, and the gradients of the loss sum(y dy).
struct Training {
  explicit Training(const MultiHeadAttentionConfig& of) : config(of) {}
  MultiHeadAttentionConfig config;
  std::int64_t batch = 2, queries = 5, keys = 5;
  bool self = true;
  std::function<void(MultiHeadAttentionOptions&, LayerCase&)> mask{};
  DType type = DType::kF32;  // of inputs and dy

  void run(int threads = 1, Workspace* workspace = nullptr);
  double loss(const LayerCase& of) const;
  // Where a gradient differs from the central difference by more than 2^-18 of the largest of its tensor: some 60
  // roundings of F32, of sums of some tens of terms each.
  std::string wrong() const;

  std::unique_ptr<MultiHeadAttention> layer;
  Tensor query, key, value, dy;
  LayerCase reference;
  MultiHeadAttentionOptions options;
  MultiHeadAttentionActivations activations;
  std::map<std::string, Tensor> gradients;
};

}  // namespace manyheads::layer_test
