#pragma once

#include <algorithm>
#include <cstdint>

#include "base/parallel.hpp"

namespace manyheads::layer {

// Runs body(begin, end) over blocks of rows that touch about 64 KiB each, in parallel.
template <class Body>
void for_row_blocks(std::int64_t rows, std::int64_t width, int num_threads, Executor* executor, Body&& body) {
  const std::int64_t block = std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(1, width));
  const std::int64_t count = (rows + block - 1) / block;
  if (count == 0) return;
  base::parallel_for(count, base::worker_count(count, num_threads), executor,
                     [&](std::int64_t i, int) { body(i * block, std::min(rows, (i + 1) * block)); });
}

}  // namespace manyheads::layer
