#include "layer/heads.hpp"

#include "base/parallel.hpp"

namespace manyheads::layer {

void scale_heads(float* data, std::int64_t rows, std::int64_t heads, std::int64_t head_size, ConstTensorView scales,
                 const Threads& threads) {
  const auto* scale = static_cast<const float*>(scales.data());
  const std::int64_t width = heads * head_size;
  base::parallel_for_rows(rows, width, threads, [&](std::int64_t begin, std::int64_t end) {
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
