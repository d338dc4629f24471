#include "layer/heads.hpp"

#include "layer/rows.hpp"

namespace manyheads::layer {

void scale_heads(float* data, std::int64_t rows, std::int64_t heads, std::int64_t head_size, ConstTensorView scales,
                 int num_threads, Executor* executor) {
  const auto* scale = static_cast<const float*>(scales.data());
  const std::int64_t width = heads * head_size;
  for_row_blocks(rows, width, num_threads, executor, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      for (std::int64_t h = 0; h < heads; ++h) {
        float* part = data + row * width + h * head_size;
        const float factor = scale[h * scales.stride(0)];
        for (std::int64_t d = 0; d < head_size; ++d) part[d] = factor == 0 ? 0 : factor * part[d];
      }
    }
  });
}

}  // namespace manyheads::layer
