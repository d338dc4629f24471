#include "layer/linear.hpp"

#include <algorithm>
#include <cstring>

#include <manyheads/error.hpp>
#include <manyheads/half.hpp>

#include "base/parallel.hpp"
#include "kernels/dispatch.hpp"

namespace manyheads::layer {
namespace {

float value_at(const ConstTensorView& view, std::int64_t at) {
  switch (view.dtype()) {
    case DType::kBF16:
      return static_cast<float>(static_cast<const bfloat16*>(view.data())[at]);
    case DType::kF16:
      return static_cast<float>(static_cast<const float16*>(view.data())[at]);
    default:
      return static_cast<const float*>(view.data())[at];
  }
}

bool floating(DType type) { return type == DType::kF32 || type == DType::kBF16 || type == DType::kF16; }

// FLOP below which a further thread costs more than it brings.
constexpr double kFlopPerTask = 4e6;

std::int64_t panels_of(std::int64_t out, std::int64_t panel) { return (out + panel - 1) / panel; }

// Words of a column of K weights.
std::int64_t words_of(std::int64_t in, DType kept) { return kept == DType::kBF16 ? (in + 1) / 2 : in; }

}  // namespace

PackedMemory::PackedMemory(std::size_t words) : block_(std::make_shared<base::AlignedBuffer<float>>(words)) {}

std::shared_ptr<float> PackedMemory::take(std::size_t words) {
  float* at = block_->data() + used_;
  used_ += words;
  return {block_, at};
}

std::size_t Linear::words(std::int64_t out, std::int64_t in, DType kept) {
  const std::int64_t panel = kernels::active_table().panel;
  const auto words = static_cast<std::size_t>(panels_of(out, panel) * words_of(in, kept) * panel);
  constexpr std::size_t kLine = base::kAlignment / sizeof(float);
  return (words + kLine - 1) / kLine * kLine;
}

Linear::Linear(ConstTensorView weight, ConstTensorView bias, DType kept, PackedMemory* memory) : kept_(kept) {
  if (weight.rank() != 2 || !floating(weight.dtype())) {
    throw Error(ErrorCode::kInvalidArgument, "linear: weight is " + std::string(name_of(weight.dtype())) + " " +
                                                 weight.shape().to_string() + ", expected F32, BF16 or F16 [out, in]");
  }
  if (bias.defined() && (bias.rank() != 1 || bias.size(0) != weight.size(0) || !floating(bias.dtype()))) {
    throw Error(ErrorCode::kInvalidArgument, "linear: bias is " + std::string(name_of(bias.dtype())) + " " +
                                                 bias.shape().to_string() + ", weight " + weight.shape().to_string());
  }
  if (kept != DType::kF32 && kept != DType::kBF16) {
    throw Error(ErrorCode::kInvalidArgument,
                std::string("linear: weights are to be kept as ") + name_of(kept) + ", expected F32 or BF16");
  }
  out_ = weight.size(0);
  in_ = weight.size(1);
  panel_ = static_cast<int>(kernels::active_table().panel);
  const std::int64_t panels = panels_of(out_, panel_);
  const std::size_t size = words(out_, in_, kept_);
  packed_ = memory != nullptr ? memory->take(size) : PackedMemory(size).take(size);
  bias_ = base::AlignedBuffer<float>(static_cast<std::size_t>(panels * panel_));
  const auto at = [&](std::int64_t n, std::int64_t k) {
    return n < out_ && k < in_ ? value_at(weight, n * weight.stride(0) + k * weight.stride(1)) : 0.0f;
  };
  const auto half = [&](std::int64_t n, std::int64_t k) {
    return std::uint32_t{bfloat16(at(n, k)).bits};
  };
  float* word = packed_.get();
  for (std::int64_t p = 0; p < panels; ++p) {
    for (std::int64_t c = p * panel_; c < (p + 1) * panel_; ++c) {
      bias_[static_cast<std::size_t>(c)] = c < out_ && bias.defined() ? value_at(bias, c * bias.stride(0)) : 0.0f;
    }
    for (std::int64_t i = 0; i < words_of(in_, kept_); ++i) {
      for (std::int64_t c = p * panel_; c < (p + 1) * panel_; ++c, ++word) {
        if (kept_ == DType::kBF16) {
          const std::uint32_t pair = half(c, 2 * i) | half(c, 2 * i + 1) << 16;
          std::memcpy(word, &pair, sizeof(pair));
        } else {
          *word = at(c, i);
        }
      }
    }
  }
}

void Linear::run(const float* x, std::int64_t rows, std::int64_t x_stride, float* y, std::int64_t y_stride,
                 Activation activation, int num_threads, Executor* executor, float* scratch) const {
  kernels::LinearCall call;
  call.x = x;
  call.x_stride = x_stride;
  call.y = y;
  call.y_stride = y_stride;
  switch (activation) {
    case Activation::kNone:
      call.epilogue = kernels::Epilogue::kNone;
      break;
    case Activation::kRelu:
      call.epilogue = kernels::Epilogue::kRelu;
      break;
    case Activation::kGelu:
      call.epilogue = kernels::Epilogue::kGelu;
      break;
    case Activation::kGeluTanh:
      call.epilogue = kernels::Epilogue::kGeluTanh;
      break;
  }
  run(call, rows, num_threads, executor, scratch);
}

bool Linear::rounds_rows() const { return kept_ == DType::kBF16 && kernels::active_table().bf16_rows; }

void Linear::run_rounded(const float* x, std::int64_t rows, std::int64_t x_stride, float* sums,
                         std::int64_t sums_stride, bfloat16* y, std::int64_t y_stride, int num_threads,
                         Executor* executor, float* scratch) const {
  kernels::LinearCall call;
  call.x = x;
  call.x_stride = x_stride;
  call.y = sums;
  call.y_stride = sums_stride;
  call.rounded = y;
  call.rounded_stride = y_stride;
  run(call, rows, num_threads, executor, scratch);
}

int Linear::workers(std::int64_t rows, int num_threads) const {
  const double flop = 2.0 * static_cast<double>(rows) * static_cast<double>(in_) * static_cast<double>(out_);
  return base::worker_count(std::max<std::int64_t>(1, static_cast<std::int64_t>(flop / kFlopPerTask)), num_threads);
}

std::size_t Linear::scratch_floats(std::int64_t rows, int num_threads) const {
  if (!rounds_rows() || rows <= 0) return 0;
  return static_cast<std::size_t>(workers(rows, num_threads) * kernels::active_table().linear_floats);
}

void Linear::run(kernels::LinearCall& call, std::int64_t rows, int num_threads, Executor* executor,
                 float* scratch) const {
  if (rows <= 0 || out_ == 0) return;
  const kernels::KernelTable& table = kernels::active_table();
  if (table.panel != panel_) {
    throw Error(ErrorCode::kInvalidArgument,
                std::string("linear: weights were packed for another instruction set than ") + table.name);
  }
  call.packed = packed_.get();
  call.type = kept_;
  call.bias = bias_.data();
  call.in = in_;
  call.out = out_;

  // A task is a block of rows, whose inputs stay in the second cache, times a share of the panels.
  const std::int64_t panels = panels_of(out_, panel_);
  const std::int64_t block = table.linear_rows * 12;
  const std::int64_t row_tasks = (rows + block - 1) / block;
  const int wanted = workers(rows, num_threads);
  const std::int64_t panel_tasks =
      std::min<std::int64_t>(panels, wanted == 1 ? 1 : (4 * wanted + row_tasks - 1) / row_tasks);
  base::AlignedBuffer<float> own;
  if (scratch == nullptr) {
    own = base::AlignedBuffer<float>(scratch_floats(rows, wanted));
    scratch = own.data();
  }
  const std::int64_t worker_floats = rounds_rows() ? table.linear_floats : 0;
  base::parallel_for(row_tasks * panel_tasks, wanted, executor, [&](std::int64_t i, int worker) {
    const std::int64_t rt = i / panel_tasks;
    const std::int64_t pt = i % panel_tasks;
    table.linear(call, rows * rt / row_tasks, rows * (rt + 1) / row_tasks, panels * pt / panel_tasks,
                 panels * (pt + 1) / panel_tasks, scratch + worker * worker_floats);
  });
}

}  // namespace manyheads::layer
