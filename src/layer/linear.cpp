#include "layer/linear.hpp"

#include <algorithm>

#include <manyheads/error.hpp>
#include <manyheads/half.hpp>

#include "base/element.hpp"
#include "base/fail.hpp"
#include "base/parallel.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/tuning.hpp"

namespace manyheads::layer {
namespace {

std::int64_t panels_of(std::int64_t out, std::int64_t panel) { return (out + panel - 1) / panel; }

// Words of one packed column of K weights.
std::int64_t words_of(std::int64_t in, DType kept) { return kept == DType::kBF16 ? (in + 1) / 2 : in; }

}  // namespace

void pack_columns(const float* from, std::int64_t stride, std::int64_t out, std::int64_t count, float* packed,
                  std::int64_t begin, std::int64_t end) {
  const std::int64_t panel = kernels::active_table().linear.panel;
  for (std::int64_t p = begin; p < end; ++p) {
    const std::int64_t columns = std::min(panel, out - p * panel);
    for (std::int64_t k = 0; k < count; ++k) {
      float* const to = packed + (p * count + k) * panel;
      std::copy_n(from + k * stride + p * panel, columns, to);
      std::fill(to + columns, to + panel, 0.0f);
    }
  }
}

PackedMemory::PackedMemory(std::size_t words) : block_(std::make_shared<base::AlignedBuffer<float>>(words)) {}

std::shared_ptr<float> PackedMemory::take(std::size_t words) {
  float* at = block_->data() + used_;
  used_ += words;
  return {block_, at};
}

std::size_t Linear::words(std::int64_t out, std::int64_t in, DType kept) {
  const std::int64_t panel = kernels::active_table().linear.panel;
  const auto words = static_cast<std::size_t>(panels_of(out, panel) * words_of(in, kept) * panel);
  constexpr std::size_t kLine = base::kAlignment / sizeof(float);
  return (words + kLine - 1) / kLine * kLine;
}

Linear::Linear(ConstTensorView weight, ConstTensorView bias, DType kept, PackedMemory* memory, const Threads& threads)
    : kept_(kept) {
  if (weight.rank() != 2 || !base::is_float(weight.dtype())) {
    throw Error(ErrorCode::kInvalidArgument, "linear: weight is " + std::string(name_of(weight.dtype())) + " " +
                                                 weight.shape().to_string() + ", expected F32, BF16 or F16 [out, in]");
  }
  if (bias.defined() && (bias.rank() != 1 || bias.size(0) != weight.size(0) || !base::is_float(bias.dtype()))) {
    throw Error(ErrorCode::kInvalidArgument, "linear: bias is " + std::string(name_of(bias.dtype())) + " " +
                                                 bias.shape().to_string() + ", weight " + weight.shape().to_string());
  }
  if (kept != DType::kF32 && kept != DType::kBF16) {
    throw Error(ErrorCode::kInvalidArgument,
                std::string("linear: weights are to be kept as ") + name_of(kept) + ", expected F32 or BF16");
  }
  out_ = weight.size(0);
  in_ = weight.size(1);
  panel_ = static_cast<int>(kernels::active_table().linear.panel);
  const std::int64_t panels = panels_of(out_, panel_);
  const std::size_t size = words(out_, in_, kept_);
  packed_ = memory != nullptr ? memory->take(size) : PackedMemory(size).take(size);
  bias_ = base::AlignedBuffer<float>(static_cast<std::size_t>(panels * panel_));
  for (std::int64_t c = 0; bias.defined() && c < out_; ++c) {
    bias_[static_cast<std::size_t>(c)] =
        static_cast<float>(base::load_element(bias.data(), bias.dtype(), c * bias.stride(0)));
  }
  std::fill(bias_.data() + (bias.defined() ? out_ : 0), bias_.data() + panels * panel_, 0.0f);
  if (kept_ == DType::kF32) split_ = std::make_shared<Split>();
  const kernels::PackWeightsParams params{.weight = weight.data(),
                                          .type = weight.dtype(),
                                          .stride = {weight.stride(0), weight.stride(1)},
                                          .out = out_,
                                          .in = in_,
                                          .kept = kept_,
                                          .packed = packed_.get()};
  const kernels::PackWeightsKernel pack = kernels::active_table().pack_weights;
  const bool side_by_side = weight.dtype() == DType::kF32 && kept_ == DType::kF32 && weight.stride(0) == 1;
  base::parallel_for_rows(panels, panel_ * in_, threads, [&](std::int64_t begin, std::int64_t end) {
    if (side_by_side) {
      pack_columns(static_cast<const float*>(weight.data()), weight.stride(1), out_, in_, packed_.get(), begin, end);
    } else {
      pack(params, begin, end);
    }
  });
}

void Linear::run(const float* x, std::int64_t rows, std::int64_t x_stride, float* y, std::int64_t y_stride,
                 Activation activation, const Threads& threads, float* workspace) const {
  kernels::LinearParams params;
  params.x = x;
  params.x_stride = x_stride;
  params.y = y;
  params.y_stride = y_stride;
  params.activation = activation;
  run(params, rows, threads, workspace);
}

bool Linear::splits() const { return kept_ == DType::kF32 && kernels::active_table().splits_f32(); }

const float* Linear::split(const kernels::LinearParams& params, const Threads& threads) const {
  std::call_once(split_->made, [&] {
    const kernels::SplitLinearKernels& kernels = kernels::active_table().split_linear;
    const std::int64_t panel = kernels.linear.panel, panels = panels_of(out_, panel);
    base::AlignedBuffer<float> pieces(static_cast<std::size_t>(panels) * kernels.split_words(in_));
    base::parallel_for_rows(panels, panel * in_, threads, [&](std::int64_t begin, std::int64_t end) {
      kernels.split_weights(params, begin, end, pieces.data());
    });
    split_->pieces = std::move(pieces);
  });
  return split_->pieces.data();
}

bool Linear::rounds_rows() const { return kept_ == DType::kBF16 && kernels::active_table().linear.rounds_rows_to_bf16; }

void Linear::run_rounded(const float* x, std::int64_t rows, std::int64_t x_stride, float* sums,
                         std::int64_t sums_stride, bfloat16* y, std::int64_t y_stride, const Threads& threads,
                         float* workspace) const {
  kernels::LinearParams params;
  params.x = x;
  params.x_stride = x_stride;
  params.y = sums;
  params.y_stride = sums_stride;
  params.rounded = y;
  params.rounded_stride = y_stride;
  run(params, rows, threads, workspace);
}

int Linear::workers(std::int64_t rows, const Threads& threads) const {
  const kernels::Tuning& tuning = kernels::tuning();
  const double flop = 2.0 * static_cast<double>(rows) * static_cast<double>(in_) * static_cast<double>(out_);
  const double bytes = static_cast<double>(words_of(in_, kept_)) * sizeof(float) * static_cast<double>(out_);
  const double shares = std::max(flop / static_cast<double>(tuning.linear_flop_per_worker),
                                 bytes / static_cast<double>(tuning.linear_bytes_per_worker));
  return base::worker_count(std::max<std::int64_t>(1, static_cast<std::int64_t>(shares)), threads);
}

std::size_t Linear::workspace_floats(std::int64_t rows, const Threads& threads) const {
  if (rows <= 0 || !(rounds_rows() || splits())) return 0;
  const kernels::KernelTable& table = kernels::active_table();
  const kernels::LinearKernels& kernel = splits() ? table.split_linear.linear : table.linear;
  return static_cast<std::size_t>(workers(rows, threads) * kernel.workspace_floats);
}

void Linear::run(kernels::LinearParams& params, std::int64_t rows, const Threads& threads, float* workspace) const {
  if (rows <= 0 || out_ == 0) return;
  const kernels::KernelTable& table = kernels::active_table();
  if (table.linear.panel != panel_) {
    throw Error(ErrorCode::kInvalidArgument,
                std::string("linear: weights were packed for another instruction set than ") + table.name);
  }
  params.packed = packed_.get();
  params.type = kept_;
  params.bias = bias_.data();
  params.in = in_;
  params.out = out_;
  const kernels::LinearKernels& kernel = splits() ? table.split_linear.linear : table.linear;
  if (splits()) params.split = split(params, threads);

  // A task is some blocks of rows times a share of the panels.
  const std::int64_t panels = panels_of(out_, kernel.panel);
  const std::int64_t block = kernel.block_rows * kernels::tuning().linear_blocks_per_task;
  const std::int64_t row_tasks = (rows + block - 1) / block;
  const int wanted = workers(rows, threads);
  const std::int64_t panel_tasks =
      std::min<std::int64_t>(panels, wanted == 1 ? 1 : (4 * wanted + row_tasks - 1) / row_tasks);
  base::AlignedBuffer<float> own;
  if (workspace == nullptr) {
    own = base::AlignedBuffer<float>(workspace_floats(rows, threads));
    workspace = own.data();
  }
  const std::int64_t worker_floats = rounds_rows() || splits() ? kernel.workspace_floats : 0;
  base::parallel_for(row_tasks * panel_tasks, wanted, threads.executor, [&](std::int64_t i, int worker) {
    const std::int64_t rt = i / panel_tasks;
    const std::int64_t pt = i % panel_tasks;
    kernel.linear(params, rows * rt / row_tasks, rows * (rt + 1) / row_tasks, panels * pt / panel_tasks,
                  panels * (pt + 1) / panel_tasks, workspace + worker * worker_floats);
  });
}

}  // namespace manyheads::layer
