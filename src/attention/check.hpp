#pragma once

#include <string>

#include <manyheads/attention.hpp>

#include "kernels/params.hpp"

// Validates a call once, for every door, and turns it into plain pointers, strides and sizes. Errors name `function`,
// the argument and the shapes.
namespace manyheads::attention_detail {

// attention() and its like: options.lse may be undefined.
kernels::ForwardParams check_forward(const char* function, const ConstTensorView& q, const ConstTensorView& k,
                                     const ConstTensorView& v, const TensorView& out, const AttentionOptions& options);

// attention_weights(): lse [B,Hq,Tq], weights [B,Hq,Tq,Tk], both F32. A null lse is none of the caller's.
kernels::ProbsParams check_probs(const char* function, const ConstTensorView& q, const ConstTensorView& k,
                                 const ConstTensorView* lse, const TensorView& weights,
                                 const AttentionOptions& options);

// The lse of a call, already checked: [B,Hq,Tq], or [Hq,Tq] of packed queries.
template <class Params>
void put_lse(const TensorView& lse, Params& params) {
  params.lse = static_cast<float*>(lse.data());
  // An axis of one element is never stepped along, whatever its stride says.
  for (int i = 0; i < lse.rank(); ++i) params.lse_stride[3 - lse.rank() + i] = lse.size(i) > 1 ? lse.stride(i) : 0;
}

// The shapes of a call for its errors: "(q F32 [1,8,7,64], k F32 [1,8,7,64], v F32 [1,8,7,64])".
struct CallShapes {
  const ConstTensorView* q;
  const ConstTensorView* k;
  const ConstTensorView* v;  // may be null
  std::string operator()() const;
};

// The mask of a call whose sizes are known: params.batch, q_heads, tq, tk and type. Errors end with the shapes, if any.
void check_mask(const char* function, const Mask& mask, kernels::QkvMask& params, const CallShapes* shapes = nullptr);

// An integer tensor of this shape, dense in any stride.
kernels::IntegerView check_integers(const char* function, const char* name, const ConstTensorView& view,
                                    const Dims& shape);

// F32 [heads].
const float* check_per_head(const char* function, const char* name, const ConstTensorView& view, std::int64_t heads,
                            std::int64_t* stride);

// Places and windows stay far from where their sums would wrap.
constexpr std::int64_t kFar = std::int64_t{1} << 60;

}  // namespace manyheads::attention_detail
