#pragma once

#include <string>

#include <manyheads/attention.hpp>
#include <manyheads/attention_backward.hpp>

#include "kernels/backward.hpp"
#include "kernels/params.hpp"

// Validates a call once, for every door, and turns it into plain pointers, strides and sizes. Errors name `function`,
// the argument and the shapes.
namespace manyheads::attention_detail {

kernels::Dropout check_dropout(const char* function, const Dropout& given);

// For attention() and its like. options.lse may be undefined.
kernels::ForwardParams check_forward(const char* function, const ConstTensorView& q, const ConstTensorView& k,
                                     const ConstTensorView& v, const TensorView& out, const AttentionOptions& options);

// For attention_weights(): lse [B,Hq,Tq], weights [B,Hq,Tq,Tk], both F32. Null: the caller gave no lse.
kernels::ProbsParams check_probs(const char* function, const ConstTensorView& q, const ConstTensorView& k,
                                 const ConstTensorView* lse, const TensorView& weights,
                                 const AttentionOptions& options);

// For attention_backward(). Null: the reference, which reads neither out nor lse.
kernels::BackwardParams check_backward(const char* function, const ConstTensorView& q, const ConstTensorView& k,
                                       const ConstTensorView& v, const ConstTensorView* out,
                                       const ConstTensorView& dout, const ConstTensorView* lse,
                                       const AttentionGradients& gradients, const AttentionOptions& options);

// Sets a checked lse: [B,Hq,Tq], or [Hq,Tq] of packed queries.
template <class Params>
void put_lse(const TensorView& lse, Params& params) {
  params.lse = static_cast<float*>(lse.data());
  // Nothing steps along an axis of one element, whatever its stride says.
  for (int i = 0; i < lse.rank(); ++i) params.lse_stride[3 - lse.rank() + i] = lse.size(i) > 1 ? lse.stride(i) : 0;
}

// The shapes of a call, for errors: "(q F32 [1,8,7,64], k F32 [1,8,7,64], v F32 [1,8,7,64])".
struct CallShapes {
  const ConstTensorView* q;
  const ConstTensorView* k;
  const ConstTensorView* v;  // may be null
  std::string operator()() const;
};

// Checks a mask against sizes that params has: batch, q_heads, tq, tk and type. Errors end with the shapes, if any.
void check_mask(const char* function, const Mask& mask, kernels::QkvMask& params, const CallShapes* shapes = nullptr);

// Checks an integer tensor of this shape, of any strides.
kernels::IntegerView check_integers(const char* function, const char* name, const ConstTensorView& view,
                                    const Dims& shape);

// Checks an F32 tensor [heads].
const float* check_per_head(const char* function, const char* name, const ConstTensorView& view, std::int64_t heads,
                            std::int64_t* stride);

// Bound on positions and windows: their sums cannot wrap.
constexpr std::int64_t kFar = std::int64_t{1} << 60;

}  // namespace manyheads::attention_detail
