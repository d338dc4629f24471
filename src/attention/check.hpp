#pragma once

#include <manyheads/attention.hpp>

#include "kernels/kernel_table.hpp"

namespace manyheads::attention_detail {

// Validates a call once, for every door, and turns it into plain pointers, strides and sizes. Throws Error naming
// `function`, the argument and the shapes. `out` may be undefined for the weights alone.
kernels::AttentionCall check(const char* function, const ConstTensorView& q, const ConstTensorView& k,
                             const ConstTensorView* v, const TensorView* out, const AttentionOptions& options);

// [B,Hq,Tq,Tk] F32, or an Error.
void check_weights(const char* function, const TensorView& weights, kernels::AttentionCall& call);
// [B,Hq,Tq] F32.
void check_lse(const char* function, const ConstTensorView& lse, kernels::AttentionCall& call);
// No two elements of an output may lie in one place.
void check_itself(const char* function, const char* name, const ConstTensorView& output);
// An output may share no element with an input or another output.
void check_overlap(const char* function, const char* name, const ConstTensorView& output, const char* other_name,
                   const ConstTensorView& other);

// The same against every input of a call.
void check_inputs(const char* function, const char* name, const ConstTensorView& output, const ConstTensorView& q,
                  const ConstTensorView& k, const ConstTensorView* v, const AttentionOptions& options);

}  // namespace manyheads::attention_detail
