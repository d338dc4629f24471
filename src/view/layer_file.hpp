#pragma once

#include <array>
#include <cstdint>
#include <manyheads/multi_head_attention.hpp>
#include <manyheads/tensor.hpp>
#include <string>
#include <string_view>

// The layer on tensors by name: a state_dict of torch.nn.MultiheadAttention, and query, key, value, masks, head_scale
// and dy.
namespace manyheads::view {

inline constexpr std::array<std::string_view, 9> kLayerStateNames = {
    "in_proj_weight", "q_proj_weight", "k_proj_weight",   "v_proj_weight", "in_proj_bias",
    "bias_k",         "bias_v",        "out_proj.weight", "out_proj.bias"};
inline constexpr std::array<std::string_view, 7> kLayerInputNames = {
    "query", "key", "value", "key_padding_mask", "attn_mask", "head_scale", "dy"};

// A forward that was run, with what it kept.
struct LayerForward {
  const MultiHeadAttention& layer;
  const StateDict& inputs;
  ConstTensorView query, key, value;
  MultiHeadAttentionOptions options;
};

// Its gradients in F32: dquery, dkey and dvalue where the inputs hold key and value, dhead_scale where they hold
// head_scale, and of each weight "grad." before its name. A query or key that stands for others has the sum.
StateDict layer_gradients(const LayerForward& forward);

struct LayerCall {
  std::string state_place, input_place;  // for messages: the files, quoted
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;  // 0: heads
  bool causal = false;        // as torch's tril
  bool add_zero_attn = false;
  bool weights = false;
  // layer_gradients() for the gradients, or null. A pointer, since WebAssembly links without it.
  StateDict (*gradients)(const LayerForward&) = nullptr;
  Dropout dropout{};
  std::string_view bits{};
  Threads threads{};
};

struct LayerResult {
  MultiHeadAttentionConfig config;
  std::int64_t d_k = 0, parameters = 0;
  StateDict tensors;  // output [B,T,E] in the type of query, and where asked for weights [B,H,T,S] F32 and gradients
};

// Throws Error that names the file and the tensor that is missing or does not fit.
LayerResult run_layer(const StateDict& state, const StateDict& inputs, const LayerCall& call);

}  // namespace manyheads::view
