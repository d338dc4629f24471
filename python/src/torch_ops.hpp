#pragma once

#include <manyheads/attention.hpp>

#include "torch_api.hpp"

// What the ops of manyheads:: and the kernels that take PyTorch's own share.
namespace manyheads::python {

// What became of the calls that reached us.
enum Outcome {
  kTaken,
  kTakenWeights,
  kTakenVarlen,
  kTakenMultihead,
  kTakenBackward,
  kType,
  kShape,
  kMaskAndCausal,
  kBackendOff,
  kFloat64,
  kNested,
  kDevice,
  kTransformed,
  kPagesGradient,
  kSecondDerivative,
  kTransformedDropout,
  kOutcomes
};
void count(Outcome outcome);

bool computes(DType type);

// Whether what is taken has PyTorch's own backward.
bool pytorch_backward();

// PyTorch's threads, and the thread's own workspace.
void use_pool(AttentionOptions& options);

// A mask (bool true = attend, or a bias) and the diagonal, as attention takes them.
Mask mask_of(const torch::Owned& mask, bool is_causal);

// [B,H,T,D] with sizes of 1 repeated to `batch` and `heads` (0: as they are).
ConstTensorView expanded(const ConstTensorView& view, std::int64_t batch, std::int64_t heads);

// q, k and v as the ops of manyheads:: read them: a batch of 1 is all queries' or all keys'; a head of 1 is too, where
// it shares no keys.
void expand_alike(ConstTensorView& q, ConstTensorView& k, ConstTensorView& v);

// Where the options of an op of manyheads:: lie among its arguments.
struct OptionPlaces {
  int masks;      // attn_mask?, sinks?, key_lengths?, key_starts?, alibi_slopes?
  int sequences;  // cu_seqlens_q?, cu_seqlens_k?; 0: the op has none
  int pages;      // page_table?; 0: none
  int numbers;    // causal, alignment, window_left, window_right, scale?, softcap
  int documents;  // q_documents?, k_documents?
  int dropout;    // dropout_p, dropout_seed?
};
AttentionOptions options_of(const torch::Arguments& given, const OptionPlaces& places, const char* function);

// Dropout with the seed that an int64 tensor of one element holds. function: whose call it is.
Dropout dropout_of(double p, const torch::Owned& seed, const char* function);

// A seed from PyTorch's default generator, as that tensor; none where p is 0. A trace records its drawing.
torch::Owned draw_seed(double p);

// Strides of empty_like for a tensor of `shape` and the view's strides: dense ones as they are, others dense in the
// order of their axes. Fake kernels announce the same.
Dims like_strides(const ConstTensorView& view, const Dims& shape);

// A mask (bool true = attend) as PyTorch's math path takes it. That adds a bool mask as 0 and 1 and does not say so.
// log(true) is 0, log(false) is -inf.
torch::Owned mask_for_math(const torch::Owned& mask);

torch::Owned empty_lse(std::int64_t batch, std::int64_t heads, std::int64_t tq);

// The mean over the heads of the weights of q [B,Hq,Tq,D] and k [B,Hkv,Tk,D], one head at a time -> mean [B,Tq,Tk] F32,
// dense.
void mean_weights(const ConstTensorView& q, const ConstTensorView& k, const ConstTensorView& lse,
                  const TensorView& mean, const AttentionOptions& options);

}  // namespace manyheads::python
