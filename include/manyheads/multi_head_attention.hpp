#pragma once

#include <cstdint>
#include <memory>

#include <manyheads/attention.hpp>
#include <manyheads/tensor.hpp>
#include <manyheads/export.hpp>

namespace manyheads {

// The sizes of a multi-head attention layer. Each head has its own W_q, W_k and W_v of d_k = d_model / num_heads
// columns; the heads' outputs are concatenated and go through W_o.
struct MultiHeadAttentionConfig {
  std::int64_t d_model = 0;
  std::int64_t num_heads = 0;
  std::int64_t num_kv_heads = 0;  // 0: num_heads. Fewer: consecutive groups of heads share keys and values (GQA)
  std::int64_t kdim = 0;          // width of the key input; 0: d_model
  std::int64_t vdim = 0;          // width of the value input; 0: d_model
  bool bias = true;
  bool add_bias_kv = false;    // one learned key and value at the end of the sequence (bias_k, bias_v)
  bool add_zero_attn = false;  // one zero key and value at the end of the sequence
  // Of the weights, as loaded and saved: kF32, kBF16 or kF16; sums are in F32. kBF16 is also kept as such for the
  // products, half the memory and reading of the others: they multiply as the F32 of the same value, and at an
  // instruction set with products of BF16 pairs (avx512_bf16) with rows rounded to BF16.
  DType dtype = DType::kF32;
};

// The masks follow torch.nn.MultiheadAttention: a BOOL true means ignore, a float is added to the scores. Several
// floats that add up to more than F32 holds (two of the lowest) count as in float64: a key of one lowest beats a key of
// two.
struct MultiHeadAttentionOptions {
  ConstTensorView key_padding_mask{};  // [B,S] BOOL or float
  ConstTensorView attn_mask{};         // [T,S] or [B*num_heads,T,S], BOOL or float
  Mask mask{};                         // any further parts, in attention's own meaning (true = attend), [B,H,T,S]
  TensorView weights{};  // [B,num_heads,T,S] F32, out: the weights of each head, from the fused path. S counts the
                         // added keys of add_bias_kv and add_zero_attn
  ConstTensorView head_scale{};  // [num_heads] F32: each head's output is multiplied by it; 0 switches a head off
  Threads threads{};
  Workspace* workspace = nullptr;
};

// Multi-head attention (Vaswani et al. 2017, section 3.2.2).
//
//   head_i = attention(x W_q^i, x W_k^i, x W_v^i)      y = concat(head_1 .. head_h) W_o
//
// Weights keep PyTorch's names and layouts: in_proj_weight [3 d_model, d_model], or q_proj_weight [d_model, d_model],
// k_proj_weight [num_kv_heads d_k, kdim] and v_proj_weight [num_kv_heads d_k, vdim]; in_proj_bias, bias_k, bias_v
// [1,1,num_kv_heads d_k], out_proj.weight [d_model, d_model], out_proj.bias. Head i owns rows i d_k to (i + 1) d_k.
// The constructor throws Error when d_model is not divisible by num_heads, naming the counts that would divide.
// forward is const and thread-safe for disjoint outputs and workspaces. With a workspace that has grown to the call it
// allocates nothing for F32, BF16 or F16 inputs without key_padding_mask, attn_mask, mask.allowed and mask.bias. Beside
// the added keys, masks are written out for some queries at a time: never T x S of them for causal or a window.
class MANYHEADS_API MultiHeadAttention {
 public:
  explicit MultiHeadAttention(
      const MultiHeadAttentionConfig& config);  // Xavier-uniform weights, fixed seed; zero biases
  // The tensors of a torch.nn.MultiheadAttention of these sizes, as load_state_dict() takes them; no others are made.
  MultiHeadAttention(const MultiHeadAttentionConfig& config, const StateDict& tensors);
  ~MultiHeadAttention();
  MultiHeadAttention(MultiHeadAttention&&) noexcept;
  MultiHeadAttention& operator=(MultiHeadAttention&&) noexcept;

  const MultiHeadAttentionConfig& config() const noexcept;
  std::int64_t d_k() const noexcept;
  std::int64_t parameter_count() const noexcept;

  // Takes the tensors of a torch.nn.MultiheadAttention of the same sizes: every name must be there, none may be left
  // over. Tensors of F32, BF16 or F16. On an error the layer is unchanged.
  void load_state_dict(const StateDict& tensors);
  StateDict state_dict() const;  // read-only tensors that share the layer's memory

  // x [B,T,d_model] -> y [B,T,d_model]: self-attention. F32, BF16 or F16.
  void forward(ConstTensorView x, TensorView y, const MultiHeadAttentionOptions& options = {}) const;
  // Cross-attention: query [B,T,d_model], key [B,S,kdim], value [B,S,vdim], of one type. The first such call of a layer
  // that can do self-attention too packs W_q, W_k and W_v apart.
  // y may be of any of the three types, and may be the memory of an input; weights overlaps nothing else.
  void forward(ConstTensorView query, ConstTensorView key, ConstTensorView value, TensorView y,
               const MultiHeadAttentionOptions& options = {}) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The error text for a head count that does not divide, with those that do; empty when it divides.
// "d_model 512 is not divisible by 7 heads (512 = 7 * 73 + 1); 1, 2, 4, 8, 16, ... would divide"
MANYHEADS_API std::string head_count_problem(std::int64_t d_model, std::int64_t num_heads);

}  // namespace manyheads
