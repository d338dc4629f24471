#include <algorithm>
#include <cmath>
#include <manyheads/attention.hpp>
#include <manyheads/error.hpp>
#include <manyheads/lens/trace.hpp>
#include <vector>

#include "attention/forward.hpp"
#include "base/format.hpp"
#include "lens/trace_check.hpp"

namespace manyheads::lens {
namespace {

// One head of a view [H,...] as [1,1,...].
ConstTensorView one_head(const ConstTensorView& view, std::int64_t head) {
  const float* data = static_cast<const float*>(view.data()) + head * view.stride(0);
  if (view.rank() == 2) return {data, Dims{1, 1, view.size(1)}, Dims{0, 0, view.stride(1)}};
  return {data, Dims{1, 1, view.size(1), view.size(2)}, Dims{0, 0, view.stride(1), view.stride(2)}};
}

// A range of an axis that is not the first. An axis of size 1, which broadcasts, stays.
ConstTensorView part_of(const ConstTensorView& view, int axis, std::int64_t first, std::int64_t count) {
  Dims shape = view.shape();
  if (shape[axis] == 1) return view;
  shape[axis] = count;
  return {static_cast<const float*>(view.data()) + first * view.stride(axis), shape, view.strides()};
}

double length_of(const float* row, std::int64_t count, std::int64_t stride) {
  double sum = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const double value = static_cast<double>(row[i * stride]);
    sum += value * value;
  }
  return std::sqrt(sum);
}

}  // namespace

// Both may be sums in F32, in any order. Their error is at most the sum of
// - D + 16 roundings of scale |q| |k|, which no score exceeds,
// - one rounding a key for the sum over the keys, and some more,
// - four roundings of lse itself, for what is added and for the change to base 2.
void check_lse(const Trace& trace, std::size_t layer_index, std::int64_t head, std::int64_t first_query,
               const std::vector<float>& own) {
  const TraceLayer& layer = trace.layers[layer_index];
  const ConstTensorView q = one_head(layer.q, head), k = one_head(layer.k, head / (layer.q.size(0) / layer.k.size(0)));
  const ConstTensorView lse = one_head(layer.lse, head);
  const auto row = [](const ConstTensorView& rows, std::int64_t i) {
    return static_cast<const float*>(rows.data()) + i * rows.stride(2);
  };
  const std::int64_t depth = q.size(3);
  double longest = 0;
  for (std::int64_t j = 0; j < trace.key_length; ++j) {
    longest = std::max(longest, length_of(row(k, j), depth, k.stride(3)));
  }
  for (std::size_t r = 0; r < own.size(); ++r) {
    const std::int64_t i = first_query + static_cast<std::int64_t>(r);
    const double there = static_cast<double>(*row(lse, i)), right = static_cast<double>(own[r]);
    const double scores = std::fabs(trace.scale) * length_of(row(q, i), depth, q.stride(3)) * longest;
    const double roundings =
        static_cast<double>(depth + 16) * scores + 4 * std::fabs(right) + static_cast<double>(trace.key_length) + 64;
    const bool same = std::isfinite(right) ? !(std::fabs(there - right) > 2 * 0x1p-24 * roundings) && !std::isnan(there)
                                           : !std::isfinite(there) && (there < 0) == (right < 0);
    if (same) continue;
    throw Error(trace.place.empty() ? ErrorCode::kInvalidArgument : ErrorCode::kMalformedFile,
                base::format("{}: {} of head {}, row {} is {:.9g}; q and k give {:.9g}, so that the row's weights "
                             "would add up to {:.9g}",
                             trace.place.empty() ? "trace_weights" : trace.place, tensor_name(layer_index, "lse"), head,
                             i, there, right, std::exp(right - there)));
  }
}

void trace_rows(const Trace& trace, std::size_t layer_index, std::int64_t head, std::int64_t first_query,
                TensorView weights, const Threads& threads) {
  check_head("trace_rows", trace, layer_index, head);
  const TraceLayer& layer = trace.layers[layer_index];
  const bool fits = weights.rank() == 2 && weights.size(1) == trace.num_keys();
  if (!fits || first_query < 0 || first_query > trace.num_queries() - weights.size(0)) {
    throw Error(ErrorCode::kInvalidArgument, "trace_rows: weights is " + weights.shape().to_string() + " from query " +
                                                 std::to_string(first_query) + " on, [queries,keys] is " +
                                                 Dims({trace.num_queries(), trace.num_keys()}).to_string());
  }
  const std::int64_t rows = weights.size(0);
  AttentionOptions options = attention_options(trace);
  options.threads = threads;
  // These rows begin at a later query: the diagonal moves with it.
  const bool bottom_right = trace.alignment == Alignment::kBottomRight;
  const std::int64_t diagonal = first_query + (bottom_right ? trace.key_length - trace.num_queries() : 0);
  if (rows != trace.num_queries()) {
    options.mask.alignment = Alignment::kUnspecified;
    options.mask.offsets = ConstTensorView(&diagonal, Dims{1});
  }
  if (layer.sinks.defined()) {
    options.sinks =
        ConstTensorView(static_cast<const float*>(layer.sinks.data()) + head * layer.sinks.stride(0), Dims{1});
  }
  if (layer.bias.defined()) {
    const bool by_head = layer.bias.rank() == 3 && layer.bias.size(0) != 1;
    ConstTensorView bias = layer.bias.rank() == 3 ? one_head(layer.bias, by_head ? head : 0) : layer.bias;
    if (bias.rank() >= 2) bias = part_of(bias, bias.rank() - 2, first_query, rows);
    options.mask.bias = bias;
  }
  const std::int64_t group = layer.q.size(0) / layer.k.size(0);
  const TensorView out(weights.data(), DType::kF32, Dims{1, 1, rows, weights.size(1)},
                       Dims{0, 0, weights.stride(0), weights.stride(1)});
  std::vector<float> own_lse(static_cast<std::size_t>(rows));
  attention_detail::PreparedProbs(
      "trace_rows", part_of(one_head(layer.q, head), 2, first_query, rows), one_head(layer.k, head / group),
      part_of(one_head(layer.lse, head), 2, first_query, rows), out, options, own_lse.data())
      .run(options.workspace);
  check_lse(trace, layer_index, head, first_query, own_lse);
}

void trace_weights(const Trace& trace, std::size_t layer, std::int64_t head, TensorView weights,
                   const Threads& threads) {
  if (weights.shape() != Dims({trace.num_queries(), trace.num_keys()})) {
    throw Error(ErrorCode::kInvalidArgument, "trace_weights: weights is " + weights.shape().to_string() +
                                                 ", [queries,keys] is " +
                                                 Dims({trace.num_queries(), trace.num_keys()}).to_string());
  }
  trace_rows(trace, layer, head, 0, weights, threads);
}

}  // namespace manyheads::lens
