#pragma once

#include <cstdint>
#include <manyheads/multi_head_attention.hpp>
#include <manyheads/tensor.hpp>
#include <mutex>

#include "layer/linear.hpp"

// A layer's sizes and its tensors, as its config has them.
namespace manyheads::layer {

// The sizes that follow from a checked config.
struct Sizes {
  std::int64_t d_model, d_k, kv_width;
  bool same_widths;  // query, key and value are equally wide: self-attention is possible
  bool stacked;      // W_q, W_k and W_v are one tensor, as in PyTorch

  explicit Sizes(const MultiHeadAttentionConfig& c)
      : d_model(c.d_model),
        d_k(c.d_model / c.num_heads),
        kv_width(d_k * c.num_kv_heads),
        same_widths(c.kdim == c.d_model && c.vdim == c.d_model),
        stacked(same_widths && c.num_kv_heads == c.num_heads) {}
};

// The tensors of a new layer.
StateDict initial_tensors(const MultiHeadAttentionConfig& config);

// The tensors of a state dict, in the config's type, stacked where the layer has them so. Throws Error in the name of
// `function` that says all that does not fit.
StateDict checked_tensors(const char* function, const MultiHeadAttentionConfig& config, const StateDict& tensors);

// The tensors of a layer, and packed what forward needs of them. Any number of threads may read them.
class Weights {
 public:
  Weights(const MultiHeadAttentionConfig& config, StateDict tensors, const Threads& threads);

  const StateDict& tensors() const { return tensors_; }
  const Linear& qkv() const { return qkv_; }
  const Linear& out() const { return out_; }
  const float* bias_k() const { return bias_k_.as<float>(); }
  const float* bias_v() const { return bias_v_.as<float>(); }

  struct Apart {
    Linear q, k, v;
  };
  // For cross-attention. Packed when first asked for, so that self-attention alone does not pay for a second copy.
  const Apart& apart(const Threads& threads) const;

 private:
  const Tensor& at(const char* name) const { return tensors_.at(name); }
  ConstTensorView bias(std::int64_t begin, std::int64_t count) const;

  Sizes sizes_;
  DType kept_;  // type of the packed weights
  StateDict tensors_;
  Linear qkv_;
  Linear out_;
  Tensor bias_k_, bias_v_;
  mutable std::once_flag packed_apart_;
  mutable Apart apart_;
};

}  // namespace manyheads::layer
