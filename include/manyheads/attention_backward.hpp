#pragma once

#include <cstddef>

#include <manyheads/attention.hpp>
#include <manyheads/tensor.hpp>
#include <manyheads/export.hpp>

namespace manyheads {

// The gradients of a call. Those out may be undefined: they are then not computed.
// - They are F32, BF16 or F16, of any strides, and overlap no input and not each other.
// - dbias has the bias's own shape: what the bias broadcasts is summed. It may be F32 beside a BF16 or F16 bias.
struct AttentionGradients {
  ConstTensorView dlse{};      // in: the gradient by lse, F32 of its shape, where the loss reads lse too
  TensorView dq{};             // as q
  TensorView dk{};             // as k
  TensorView dv{};             // as v
  TensorView dbias{};          // as mask.bias
  TensorView dsinks{};         // [Hq] F32
  TensorView dalibi_slopes{};  // [Hq] F32
  bool accumulate = false;     // adds to what they hold; each sum is rounded once
};

// The backward of attention(): the gradients of a loss from dout, its gradient by out.
//
//   P = exp(score - lse),  dP = dout v^T,  dS = P (dP - delta),  delta = sum over Dv of dout out, less dlse
//   dv = P^T dout,  dq = scale dS k,  dk = scale dS^T q,  dbias = dS
//
// - q, k, v and `options` are those of attention(); out [B,Hq,Tq,Dv] and lse [B,Hq,Tq] F32 (packed queries: [Tq,Hq,Dv]
//   and [Hq,Tq]) what it gave. dout has out's shape, any float type and any strides, 0 among them.
// - softcap multiplies dS by 1 - tanh^2 of the score over the cap, behind dbias and dalibi_slopes.
// - Grouped heads: dk and dv are summed over the query heads of each key/value head.
// - options.dropout: P becomes what the forward kept of it, over 1 - p, in dv, and so does dP in dS.
// - P is recomputed: nothing of size Tq x Tk is kept. Of rows whose lse lies beyond 710 it is too coarse: their maxima
//   and sums are computed again first, as the forward has them.
//   Runs of keys that the mask rules out are not read.
// - A row whose keys are all forbidden has and gives gradients of 0. What is forbidden is not read into a gradient,
//   whatever it holds.
// - F32 arithmetic, but for BF16 q, k, v and dout where BF16 pairs are multiplied (the family "bf16-pairs-1"): P and dS
//   are rounded to BF16 then, and their sums are F32. A row of which a score leaves F32's range, which attention() has in float64, gives
//   NaN in its dq and in dk and dv of the keys that it sees; so does NaN in the inputs. Other rows keep their bits.
// - options.lse and options.row_states are not used. Paged and I8 keys are errors: they have no gradient.
//
// Bits: the same for any threads, batch, place in the batch, strides and alignment, within a family of bits (cpu.hpp).
// - dk, dv: queries in runs of 64 and chunks of 512 from query 0, chunks merged in the forward's tree; query heads of a
//   group ascending, in the same tree.
// - dq: keys in runs of 64 and chunks of 512 from key 0; chunks ascending, in a sum of two floats.
// - dbias, dsinks and dalibi_slopes: in float64; batch, heads, queries and keys ascending.
//
// Allocates a workspace unless given one: for each thread some (D + Dv) * 512 floats for each level of the tree, and
// two floats for each element of dq of the heads under way, as many as threads.
// Thread-safe for disjoint outputs and workspaces. Throws Error with the argument and the shapes before anything is
// written.
// Source: Dao 2023 (FlashAttention-2), algorithm 2.
MANYHEADS_API void attention_backward(ConstTensorView q, ConstTensorView k, ConstTensorView v, ConstTensorView out,
                                      ConstTensorView dout, ConstTensorView lse, const AttentionGradients& gradients,
                                      const AttentionOptions& options = {});

// Bytes that such a call takes from options.workspace.
MANYHEADS_API std::size_t attention_backward_workspace_size(ConstTensorView q, ConstTensorView k, ConstTensorView v,
                                                            ConstTensorView out, ConstTensorView dout,
                                                            ConstTensorView lse, const AttentionGradients& gradients,
                                                            const AttentionOptions& options = {});

// What attention_backward() would do for a call. flop counts 2 (3 D + 2 Dv) for each query and key of the runs read.
MANYHEADS_API Explanation explain_backward(ConstTensorView q, ConstTensorView k, ConstTensorView v, ConstTensorView out,
                                           ConstTensorView dout, ConstTensorView lse,
                                           const AttentionGradients& gradients, const AttentionOptions& options = {});

// The definition that attention_backward() is tested against: float64, plain loops. It reads neither out nor lse.
MANYHEADS_API void attention_backward_reference(ConstTensorView q, ConstTensorView k, ConstTensorView v,
                                                ConstTensorView dout, const AttentionGradients& gradients,
                                                const AttentionOptions& options = {});

}  // namespace manyheads
