#pragma once

#include <algorithm>
#include <cstdint>
#include <manyheads/lens/trace.hpp>
#include <manyheads/tensor.hpp>

namespace manyheads::lens {

// Calls row(weights) with the weights of each query of a head, in order, on this thread, and behind(rows) after some
// rows; where that gives false, it returns. Allocates 256 KiB, or 16 rows where these are more.
template <class Row, class Behind>
void for_each_row(const Trace& trace, std::size_t layer, std::int64_t head, const Row& row, const Behind& behind) {
  // They fit a cache, and fill the kernels' vectors.
  constexpr std::int64_t kWeights = 1 << 16;
  constexpr std::int64_t kFewest = 16;
  const std::int64_t keys = trace.num_keys();
  const std::int64_t together =
      std::min(trace.num_queries(), std::max(kFewest, kWeights / std::max<std::int64_t>(1, keys)));
  Tensor block(DType::kF32, Dims{together, keys});
  for (std::int64_t first = 0; first < trace.key_length; first += together) {
    const std::int64_t rows = std::min(together, trace.key_length - first);
    trace_rows(trace, layer, head, first, TensorView(block.as<float>(), Dims{rows, keys}), {.num_threads = 1});
    for (std::int64_t i = 0; i < rows; ++i) row(block.as<float>() + i * keys);
    if (!behind(rows)) return;
  }
}
template <class Row>
void for_each_row(const Trace& trace, std::size_t layer, std::int64_t head, const Row& row) {
  for_each_row(trace, layer, head, row, [](std::int64_t) { return true; });
}

}  // namespace manyheads::lens
