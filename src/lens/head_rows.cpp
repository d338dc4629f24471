#include "lens/head_rows.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/math.hpp"
#include "kernels/mask.hpp"

namespace manyheads::lens {
namespace {

const float* data_of(const ConstTensorView& view) { return static_cast<const float*>(view.data()); }

// A bias broadcasts from the right to [H,Tq,Tk].
void put_bias(const ConstTensorView& bias, std::int64_t head, Range rows, Range keys, std::int64_t row_step,
              kernels::HeadPassParams& params) {
  const auto stride = [&](int from_right) -> std::int64_t {
    const int axis = bias.rank() - from_right;
    return axis < 0 || bias.size(axis) == 1 ? 0 : bias.stride(axis);
  };
  params.bias = data_of(bias) + head * stride(3) + rows.begin * stride(2) + keys.begin * stride(1);
  params.bias_stride[2] = stride(2) * row_step;
  params.bias_stride[3] = stride(1);
}

}  // namespace

kernels::HeadPassParams head_pass_params(const Trace& trace, std::size_t layer_index, std::int64_t head, Range rows,
                                         Range keys, std::int64_t row_step) {
  const TraceLayer& layer = trace.layers[layer_index];
  const std::int64_t group = layer.q.size(0) / layer.k.size(0);
  kernels::HeadPassParams params;
  params.batch = params.q_heads = params.kv_heads = 1;
  params.row_step = row_step;
  params.d = layer.q.size(2);
  params.tq = (rows.size() + row_step - 1) / row_step;
  params.tk = std::max<std::int64_t>(0, std::min(keys.end, trace.key_length) - keys.begin);
  params.q = data_of(layer.q) + head * layer.q.stride(0) + rows.begin * layer.q.stride(1);
  params.k = data_of(layer.k) + head / group * layer.k.stride(0) + keys.begin * layer.k.stride(1);
  params.q_stride[2] = layer.q.stride(1) * row_step;
  params.k_stride[2] = layer.k.stride(1);
  params.q_stride[3] = params.d == 1 ? 1 : layer.q.stride(2);
  params.k_stride[3] = params.d == 1 ? 1 : layer.k.stride(2);
  params.scale = trace.scale;
  params.softcap = trace.softcap;
  params.causal = trace.causal;
  params.window_left = trace.window[0];
  params.window_right = trace.window[1];
  const bool bottom_right = trace.alignment == Alignment::kBottomRight;
  params.offset = rows.begin - keys.begin + (bottom_right ? trace.key_length - trace.num_queries() : 0);
  if (layer.bias.defined()) put_bias(layer.bias, head, rows, keys, row_step, params);
  return params;
}

float lse_of(const Trace& trace, std::size_t layer, std::int64_t head, std::int64_t i) {
  const ConstTensorView& lse = trace.layers[layer].lse;
  return data_of(lse)[head * lse.stride(0) + i * lse.stride(1)];
}

ConstTensorView row_sum_of(const Trace& trace, std::size_t layer, std::int64_t head) {
  const ConstTensorView& sums = trace.layers[layer].row_sum;
  if (!sums.defined()) return {};
  return {data_of(sums) + head * sums.stride(0), Dims{sums.size(1)}, Dims{sums.stride(1)}};
}

RowScales::RowScales(const Trace& trace, std::size_t layer, std::int64_t head)
    : trace_(trace),
      layer_(layer),
      head_(head),
      params_(head_pass_params(trace, layer, head, {0, trace.num_queries()}, {0, trace.num_keys()})) {}

bool RowScales::sees_no_key(std::int64_t i) const {
  const kernels::KeyRange keys = kernels::Band(params_, 0).keys_of(i);
  return keys.begin >= keys.end;
}

RowScale RowScales::of(std::int64_t i, const float* row_sum) const {
  const float lse = lse_of(trace_, layer_, head_, i);
  if (sees_no_key(i)) {
    const ConstTensorView& sinks = trace_.layers[layer_].sinks;
    const float right =
        sinks.defined() ? data_of(sinks)[head_ * sinks.stride(0)] : -std::numeric_limits<float>::infinity();
    return {.whole = !(lse == right)};
  }
  if (!(std::fabs(lse) <= 4096.0f) || (row_sum != nullptr && *row_sum == 0.0f)) return {.whole = true};
  const double exact = static_cast<double>(lse) * base::kLog2e;
  const float shift = static_cast<float>(exact);
  const double sum = row_sum != nullptr ? static_cast<double>(*row_sum) : 1.0;
  return {.shift = shift, .factor = static_cast<float>(base::exp2(static_cast<double>(shift) - exact) / sum)};
}

double RowScales::with_sink(const RowScale& scale, double sum) const {
  const ConstTensorView& sinks = trace_.layers[layer_].sinks;
  if (!sinks.defined()) return sum;
  return sum + static_cast<double>(scale.factor) *
                   base::exp2(static_cast<double>(data_of(sinks)[head_ * sinks.stride(0)]) * base::kLog2e -
                              static_cast<double>(scale.shift));
}

double RowScales::row_sum(std::int64_t i, const RowScale& scale, double sum) const {
  return sum / static_cast<double>(scale.factor) *
         base::exp2(static_cast<double>(scale.shift) -
                    static_cast<double>(lse_of(trace_, layer_, head_, i)) * base::kLog2e);
}

}  // namespace manyheads::lens
