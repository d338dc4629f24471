#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include <manyheads/attention.hpp>
#include <manyheads/tensor.hpp>
#include <manyheads/export.hpp>

namespace manyheads {

// The sizes of a layer. Each head has its own W_q, W_k and W_v of d_k = d_model / num_heads columns. W_o projects the
// concatenated outputs of the heads.
struct MultiHeadAttentionConfig {
  std::int64_t d_model = 0;
  std::int64_t num_heads = 0;
  std::int64_t num_kv_heads = 0;  // 0: num_heads. Fewer: consecutive heads share keys and values (GQA)
  std::int64_t kdim = 0;          // width of the key input; 0: d_model
  std::int64_t vdim = 0;          // width of the value input; 0: d_model
  bool bias = true;
  bool add_bias_kv = false;    // one learned key and value at the end of the sequence (bias_k, bias_v)
  bool add_zero_attn = false;  // one zero key and value at the end of the sequence
  // Type of the weights, as loaded and saved: kF32, kBF16 or kF16. Sums are F32.
  // - kBF16 weights are also multiplied from BF16: half the memory and reading. They give the products of F32 weights
  //   of the same values.
  // - Where the instruction set multiplies BF16 pairs (avx512_bf16), the rows of the input are rounded to BF16 too.
  DType dtype = DType::kF32;
};

// What a forward in training keeps for its backward: 4 (2 d_model + 2 num_kv_heads d_k + num_heads) bytes a token,
// 8,224 for d_model 512 and 8 heads. Scores, probabilities and masks are computed again. forward() makes the tensors,
// and keeps those that fit from one call to the next.
struct MANYHEADS_API MultiHeadAttentionActivations {
  Tensor q;      // [B,T,d_model] F32; of self-attention q, k and v of each token: [B,T + added keys,d_model + 2 kv]
  Tensor k, v;   // [B,S + added keys,kv] F32, kv = num_kv_heads d_k; undefined for self-attention
  Tensor heads;  // [B,T,d_model] F32: the outputs of the heads side by side, before head_scale
  Tensor lse;    // [B,num_heads,T] F32
};

// The masks follow torch.nn.MultiheadAttention: BOOL true means ignore, a float is added to the scores. Float masks
// that add up beyond F32 (two of the lowest) count as in float64: a key of one lowest float beats a key of two.
struct MultiHeadAttentionOptions {
  ConstTensorView key_padding_mask{};  // [B,S] BOOL or float
  ConstTensorView attn_mask{};         // [T,S] or [B*num_heads,T,S], BOOL or float
  Mask mask{};                         // further parts, as attention() takes them (true = attend), [B,H,T,S]
  TensorView weights{};                // [B,num_heads,T,S] F32, out: attention probabilities; S counts added keys too
  ConstTensorView head_scale{};        // [num_heads] F32: factor of each head's output; 0 switches a head off
  Dropout dropout{};                   // of the weights, as attention() takes it; `weights` are those left
  Threads threads{};
  Workspace* workspace = nullptr;
  // The family of bits that the call must have (cpu.hpp), empty: the fastest's. An error where it cannot be had. The
  // first call with "f32-tiles-1" splits the weights: six bytes each besides their four, which the layer keeps.
  std::string_view bits{};
  MultiHeadAttentionActivations* activations = nullptr;  // of forward(), out: for backward()
};

// The gradients of a layer's call, out, in F32. Each may be left out: it is then not computed.
struct MultiHeadAttentionGradients {
  TensorView dquery{};  // as query; of self-attention all of dx
  TensorView dkey{};    // as key; not of self-attention
  TensorView dvalue{};  // as value; not of self-attention
  // By the names of state_dict(), each of its tensor's shape.
  std::map<std::string, TensorView> parameters{};
  TensorView
      dhead_scale{};        // [num_heads], with head_scale: how much the loss moves with each head (Michel et al. 2019)
  bool accumulate = false;  // adds to what they hold
};

// Multi-head attention (Vaswani et al. 2017, section 3.2.2).
//
//   head_i = attention(x W_q^i, x W_k^i, x W_v^i)      y = concat(head_1 .. head_h) W_o
//
// Weights, in PyTorch's names and layouts; head i owns rows i d_k to (i + 1) d_k:
// - in_proj_weight [3 d_model, d_model], or q_proj_weight [d_model, d_model], k_proj_weight [num_kv_heads d_k, kdim],
//   v_proj_weight [num_kv_heads d_k, vdim];
// - in_proj_bias; bias_k and bias_v [1,1,num_kv_heads d_k]; out_proj.weight [d_model, d_model]; out_proj.bias.
//
// forward is const, and thread-safe for disjoint outputs and workspaces. Memory:
// - With a workspace that has grown to the call, forward allocates nothing for F32, BF16 or F16 inputs without
//   key_padding_mask, attn_mask, mask.allowed and mask.bias.
// - Beside added keys, masks are written out for some queries at a time: never T x S of them for causal or a window.
class MANYHEADS_API MultiHeadAttention {
 public:
  // Xavier-uniform weights from a fixed seed, zero biases. Throws Error where num_heads does not divide d_model, naming
  // the counts that would.
  explicit MultiHeadAttention(const MultiHeadAttentionConfig& config);
  // Takes the tensors of a torch.nn.MultiheadAttention of these sizes, as load_state_dict() does, and makes no others.
  // threads: those that pack the weights.
  MultiHeadAttention(const MultiHeadAttentionConfig& config, const StateDict& tensors, const Threads& threads = {});
  ~MultiHeadAttention();
  MultiHeadAttention(MultiHeadAttention&&) noexcept;
  MultiHeadAttention& operator=(MultiHeadAttention&&) noexcept;

  const MultiHeadAttentionConfig& config() const noexcept;
  std::int64_t d_k() const noexcept;
  std::int64_t parameter_count() const noexcept;

  // Takes the tensors of a torch.nn.MultiheadAttention of the same sizes, of F32, BF16 or F16. Throws Error where a
  // name is missing or left over. On any error the layer is unchanged.
  void load_state_dict(const StateDict& tensors);
  StateDict state_dict() const;  // read-only tensors that share the layer's memory

  // Self-attention: x [B,T,d_model] -> y [B,T,d_model], each F32, BF16 or F16.
  void forward(ConstTensorView x, TensorView y, const MultiHeadAttentionOptions& options = {}) const;
  // Cross-attention: query [B,T,d_model], key [B,S,kdim], value [B,S,vdim] of one type -> y [B,T,d_model].
  // - y has any of the three types and may lie on an input. weights overlaps nothing else.
  // - The first such call of a layer that can do self-attention too packs W_q, W_k and W_v apart.
  void forward(ConstTensorView query, ConstTensorView key, ConstTensorView value, TensorView y,
               const MultiHeadAttentionOptions& options = {}) const;

  // The backward of a forward() that kept `activations`: the gradients of a loss from dy, its gradient by y.
  // - The inputs and options are those of the forward; options.weights, bits of other products than F32 and
  //   options.activations are not used. bits = "f32-tiles-1" is an error: gradients are not multiplied through tiles.
  // - dy [B,T,d_model] is F32, BF16 or F16, of any strides, and overlaps no gradient.
  // - Sums are F32. Those over tokens run in chunks of 512, added up in two floats: the bits do not depend on threads.
  // - Float masks have no gradient here; attention_backward() gives that of a bias.
  // Thread-safe for disjoint gradients and workspaces. Allocates the packed transposed weights, the sums of weights'
  // gradients and attention's workspace, and one for the rest unless given one. Throws Error before anything is
  // written, kOutOfMemory aside.
  void backward(ConstTensorView x, const MultiHeadAttentionActivations& activations, ConstTensorView dy,
                const MultiHeadAttentionGradients& gradients, const MultiHeadAttentionOptions& options = {}) const;
  void backward(ConstTensorView query, ConstTensorView key, ConstTensorView value,
                const MultiHeadAttentionActivations& activations, ConstTensorView dy,
                const MultiHeadAttentionGradients& gradients, const MultiHeadAttentionOptions& options = {}) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The error text for a head count that does not divide d_model, with the counts that do; empty where it divides.
// "d_model 512 is not divisible by 7 heads (512 = 7 * 73 + 1); 1, 2, 4, 8, 16, ... would divide"
MANYHEADS_API std::string head_count_problem(std::int64_t d_model, std::int64_t num_heads);

}  // namespace manyheads
