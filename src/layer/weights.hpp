#pragma once

#include <cstdint>
#include <manyheads/multi_head_attention.hpp>
#include <manyheads/tensor.hpp>
#include <mutex>

#include "layer/linear.hpp"

// What a layer knows of its config: its sizes and its tensors.
namespace manyheads::layer {

// The sizes that follow from a checked config.
struct Sizes {
  std::int64_t d_model, d_k, kv_width;
  bool same_widths;  // query, key and value are equally wide: self-attention is possible
  bool stacked;      // W_q, W_k and W_v are one tensor, as PyTorch has it

  explicit Sizes(const MultiHeadAttentionConfig& c)
      : d_model(c.d_model),
        d_k(c.d_model / c.num_heads),
        kv_width(d_k * c.num_kv_heads),
        same_widths(c.kdim == c.d_model && c.vdim == c.d_model),
        stacked(same_widths && c.num_kv_heads == c.num_heads) {}
};

// The tensors that a new layer begins with.
StateDict initial_tensors(const MultiHeadAttentionConfig& config);

// Those of a state dict, of the config's type and stacked where the layer has them so; an error in the name of
// `function` says all that does not fit.
StateDict checked_tensors(const char* function, const MultiHeadAttentionConfig& config, const StateDict& tensors);

// The tensors of a layer and what forward needs of them, packed. Any number of threads may read them.
class Weights {
 public:
  Weights(const MultiHeadAttentionConfig& config, StateDict tensors);

  const StateDict& tensors() const { return tensors_; }
  const Linear& qkv() const { return qkv_; }
  const Linear& out() const { return out_; }
  const float* bias_k() const { return bias_k_.as<float>(); }
  const float* bias_v() const { return bias_v_.as<float>(); }

  struct Apart {
    Linear q, k, v;
  };
  // For cross-attention; packed when first asked for, so that self-attention alone does not pay for a second copy.
  const Apart& apart() const;

 private:
  const Tensor& at(const char* name) const { return tensors_.at(name); }
  ConstTensorView bias(std::int64_t begin, std::int64_t count) const;

  Sizes sizes_;
  DType kept_;  // of the packed weights
  StateDict tensors_;
  Linear qkv_;
  Linear out_;
  Tensor bias_k_, bias_v_;
  mutable std::once_flag packed_apart_;
  mutable Apart apart_;
};

}  // namespace manyheads::layer
