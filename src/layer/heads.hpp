#pragma once

#include <cstdint>
#include <manyheads/parallel.hpp>
#include <manyheads/tensor.hpp>

namespace manyheads::layer {

// The heads of projected rows as a view [B,H,T,D]. Head h of a row is its floats h D to (h + 1) D. Moves nothing.
template <class T>
TensorView heads_view(T* rows, std::int64_t batch, std::int64_t heads, std::int64_t tokens, std::int64_t head_size,
                      std::int64_t batch_stride, std::int64_t row_stride) {
  return TensorView(rows, {batch, heads, tokens, head_size}, {batch_stride, head_size, row_stride, 1});
}

// Multiplies each head's part of the rows [rows, heads * head_size] by its scale; scales [heads] F32 of any stride. A
// scale of 0 writes 0 whatever was there.
void scale_heads(float* data, std::int64_t rows, std::int64_t heads, std::int64_t head_size, ConstTensorView scales,
                 const Threads& threads);

}  // namespace manyheads::layer
