#include "layer/gradients.hpp"

#include <algorithm>
#include <vector>

#include "base/aligned_buffer.hpp"
#include "base/parallel.hpp"
#include "base/two_sum.hpp"
#include "kernels/dispatch.hpp"
#include "layer/linear.hpp"

namespace manyheads::layer {
namespace {

constexpr std::int64_t kChunkTokens = 512;
constexpr std::int64_t kBlockRows = 96;  // rows of dW of a task

// to[n][t] = from[t][n]. Blocks of 16 tokens, so that lines are read once.
void transpose(const float* from, std::int64_t stride, std::int64_t tokens, std::int64_t width, float* to) {
  for (std::int64_t first = 0; first < tokens; first += 16) {
    const std::int64_t last = std::min(tokens, first + 16);
    for (std::int64_t n = 0; n < width; ++n) {
      for (std::int64_t t = first; t < last; ++t) to[n * tokens + t] = from[t * stride + n];
    }
  }
}

float& element(const TensorView& gradient, std::int64_t row, std::int64_t column) {
  return static_cast<float*>(gradient.data())[row * gradient.stride(0) + column * gradient.stride(1)];
}

}  // namespace

void weight_gradient(Rows<const float> dy, Rows<const float> x, const Tokens& tokens, const TensorView& gradient,
                     bool accumulate, const Threads& threads) {
  const std::int64_t out = gradient.size(0), in = gradient.size(1);
  if (out == 0 || in == 0) return;
  const kernels::KernelTable& table = kernels::active_table();
  const std::int64_t panel = table.linear.panel, panels = (in + panel - 1) / panel;
  const std::int64_t blocks = (out + kBlockRows - 1) / kBlockRows;
  const int workers = base::worker_count(blocks, threads);
  const auto floats = [](std::int64_t count) { return static_cast<std::size_t>((count + 15) / 16 * 16); };
  base::AlignedBuffer<float> packed(floats(panels * panel * kChunkTokens)), no_bias(floats(panels * panel));
  base::AlignedBuffer<float> high(floats(out * in)), low(floats(out * in));
  const std::size_t worker_floats = floats(kBlockRows * kChunkTokens) + floats(kBlockRows * in);
  base::AlignedBuffer<float> work(static_cast<std::size_t>(workers) * worker_floats);
  for (base::AlignedBuffer<float>* zeros : {&no_bias, &high, &low}) std::fill_n(zeros->data(), zeros->size(), 0.0f);
  for (std::int64_t b = 0; b < tokens.batch; ++b) {
    for (std::int64_t first = 0; first < tokens.rows; first += kChunkTokens) {
      const std::int64_t count = std::min(kChunkTokens, tokens.rows - first);
      const float* const from_x = x.data + b * x.batch_stride + first * x.stride;
      const float* const from_dy = dy.data + b * dy.batch_stride + first * dy.stride;
      base::parallel_for_rows(panels, panel * count, threads, [&](std::int64_t begin, std::int64_t end) {
        pack_columns(from_x, x.stride, in, count, packed.data(), begin, end);
      });
      base::parallel_for(blocks, workers, threads.executor, [&](std::int64_t block, int worker) {
        const std::int64_t row = block * kBlockRows, rows = std::min(kBlockRows, out - row);
        float* const transposed = work.data() + static_cast<std::size_t>(worker) * worker_floats;
        float* const sums = transposed + floats(kBlockRows * kChunkTokens);
        transpose(from_dy + row, dy.stride, count, rows, transposed);
        kernels::LinearParams params;
        params.x = transposed;
        params.x_stride = count;
        params.packed = packed.data();
        params.bias = no_bias.data();
        params.y = sums;
        params.y_stride = in;
        params.in = count;
        params.out = in;
        table.linear.linear(params, 0, rows, 0, panels, nullptr);
        base::add_exactly(sums, static_cast<std::size_t>(rows * in), high.data() + row * in, low.data() + row * in);
      });
    }
  }
  base::parallel_for_rows(out, in, threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t n = begin; n < end; ++n) {
      for (std::int64_t k = 0; k < in; ++k) {
        const std::size_t at = static_cast<std::size_t>(n * in + k);
        float& to = element(gradient, n, k);
        const float sum = base::sum_of(high[at], low[at]);
        to = accumulate ? to + sum : sum;
      }
    }
  });
}

void bias_gradient(Rows<const float> dy, const Tokens& tokens, const TensorView& gradient, bool accumulate,
                   const Threads& threads) {
  const std::int64_t out = gradient.size(0);
  constexpr std::int64_t kColumns = 256;
  const std::int64_t tasks = (out + kColumns - 1) / kColumns;
  if (tasks == 0) return;
  base::parallel_for(tasks, base::worker_count(tasks, threads), threads.executor, [&](std::int64_t task, int) {
    const std::int64_t begin = task * kColumns, count = std::min(kColumns, out - begin);
    double sums[kColumns] = {};
    for (std::int64_t b = 0; b < tokens.batch; ++b) {
      for (std::int64_t t = 0; t < tokens.rows; ++t) {
        const float* const row = dy.data + b * dy.batch_stride + t * dy.stride + begin;
        for (std::int64_t c = 0; c < count; ++c) sums[c] += static_cast<double>(row[c]);
      }
    }
    for (std::int64_t c = 0; c < count; ++c) {
      float& to = static_cast<float*>(gradient.data())[(begin + c) * gradient.stride(0)];
      to = static_cast<float>(accumulate ? static_cast<double>(to) + sums[c] : sums[c]);
    }
  });
}

void store_rows(const float* from, const TensorView& gradient, bool accumulate, const Threads& threads) {
  const std::int64_t rows = gradient.size(1), width = gradient.size(2);
  base::parallel_for_rows(gradient.size(0) * rows, width, threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      float* const to =
          static_cast<float*>(gradient.data()) + r / rows * gradient.stride(0) + r % rows * gradient.stride(1);
      for (std::int64_t e = 0; e < width; ++e) {
        float& at = to[e * gradient.stride(2)];
        at = accumulate ? at + from[r * width + e] : from[r * width + e];
      }
    }
  });
}

}  // namespace manyheads::layer
