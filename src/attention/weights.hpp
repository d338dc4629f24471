#pragma once

#include <manyheads/attention.hpp>

namespace manyheads::attention_detail {

// attention_weights(), which also tells each row's own lse, dense [B,Hq,Tq], where `row_lse` is not null.
void weights(const ConstTensorView& q, const ConstTensorView& k, const ConstTensorView& lse, const TensorView& weights,
             const AttentionOptions& options, float* row_lse);

}  // namespace manyheads::attention_detail
