#include "layer/linear.hpp"

#include <algorithm>

#include <manyheads/error.hpp>

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

}  // namespace

Linear::Linear(ConstTensorView weight, ConstTensorView bias) {
  if (weight.rank() != 2 || !floating(weight.dtype())) {
    throw Error(ErrorCode::kInvalidArgument, "linear: weight is " + std::string(name_of(weight.dtype())) + " " +
                                                 weight.shape().to_string() + ", expected F32, BF16 or F16 [out, in]");
  }
  if (bias.defined() && (bias.rank() != 1 || bias.size(0) != weight.size(0) || !floating(bias.dtype()))) {
    throw Error(ErrorCode::kInvalidArgument, "linear: bias is " + std::string(name_of(bias.dtype())) + " " +
                                                 bias.shape().to_string() + ", weight " + weight.shape().to_string());
  }
  out_ = weight.size(0);
  in_ = weight.size(1);
  panel_ = static_cast<int>(kernels::active_table().panel);
  const std::int64_t panels = (out_ + panel_ - 1) / panel_;
  packed_ = base::AlignedBuffer<float>(static_cast<std::size_t>(panels * in_ * panel_));
  bias_ = base::AlignedBuffer<float>(static_cast<std::size_t>(panels * panel_));
  for (std::int64_t p = 0; p < panels; ++p) {
    for (std::int64_t c = 0; c < panel_; ++c) {
      const std::int64_t n = p * panel_ + c;
      bias_[static_cast<std::size_t>(n)] = n < out_ && bias.defined() ? value_at(bias, n * bias.stride(0)) : 0.0f;
      for (std::int64_t k = 0; k < in_; ++k) {
        packed_[static_cast<std::size_t>((p * in_ + k) * panel_ + c)] =
            n < out_ ? value_at(weight, n * weight.stride(0) + k * weight.stride(1)) : 0.0f;
      }
    }
  }
}

void Linear::run(const float* x, std::int64_t rows, std::int64_t x_stride, float* y, std::int64_t y_stride,
                 Activation activation, int num_threads, Executor* executor) const {
  if (rows <= 0 || out_ == 0) return;
  const kernels::KernelTable& table = kernels::active_table();
  if (table.panel != panel_) {
    throw Error(ErrorCode::kInvalidArgument,
                std::string("linear: weights were packed for another instruction set than ") + table.name);
  }
  kernels::LinearCall call;
  call.x = x;
  call.x_stride = x_stride;
  call.packed = packed_.data();
  call.bias = bias_.data();
  call.y = y;
  call.y_stride = y_stride;
  call.in = in_;
  call.out = out_;
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

  // A task is a block of rows, whose inputs stay in the second cache, times a share of the panels.
  const std::int64_t panels = (out_ + panel_ - 1) / panel_;
  const std::int64_t block = table.linear_rows * 8;
  const std::int64_t row_tasks = (rows + block - 1) / block;
  const double flop = 2.0 * static_cast<double>(rows) * static_cast<double>(in_) * static_cast<double>(out_);
  const int wanted =
      base::worker_count(std::max<std::int64_t>(1, static_cast<std::int64_t>(flop / kFlopPerTask)), num_threads);
  const std::int64_t panel_tasks =
      std::min<std::int64_t>(panels, wanted == 1 ? 1 : (4 * wanted + row_tasks - 1) / row_tasks);
  base::parallel_for(row_tasks * panel_tasks, wanted, executor, [&](std::int64_t i, int) {
    const std::int64_t rt = i / panel_tasks;
    const std::int64_t pt = i % panel_tasks;
    table.linear(call, rows * rt / row_tasks, rows * (rt + 1) / row_tasks, panels * pt / panel_tasks,
                 panels * (pt + 1) / panel_tasks);
  });
}

}  // namespace manyheads::layer
