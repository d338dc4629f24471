#include <algorithm>
#include <cstring>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <manyheads/attention_backward.hpp>
#include <manyheads/error.hpp>
#include <manyheads/multi_head_attention.hpp>

#include "attention/check.hpp"
#include "attention/overlap.hpp"
#include "base/fail.hpp"
#include "base/parallel.hpp"
#include "base/workspace_layout.hpp"
#include "kernels/dispatch.hpp"
#include "layer/call.hpp"
#include "layer/gradients.hpp"
#include "layer/heads.hpp"
#include "layer/merged_mask.hpp"

namespace manyheads {
namespace {

using base::describe;
using base::fail;
using layer::Linear;
using layer::Rows;
using layer::usable_in_place;

constexpr const char* kBackward = "MultiHeadAttention::backward";

// A gradient that the caller asks for, by name.
using Named = std::vector<std::pair<std::string, TensorView>>;

void check_gradient(const std::string& name, const TensorView& view, const Dims& shape, Named& all) {
  if (!view.defined()) return;
  if (view.dtype() != DType::kF32 || !(view.shape() == shape)) {
    fail(kBackward, base::format("{} is {}, expected F32 {}", name, describe(view), shape.to_string()));
  }
  attention_detail::check_itself(kBackward, name.c_str(), view);
  for (const auto& [other, earlier] : all) {
    attention_detail::check_overlap(kBackward, name.c_str(), view, other.c_str(), earlier);
  }
  all.emplace_back(name, view);
}

ConstTensorView view_of(const Tensor& tensor) { return tensor.defined() ? tensor.cview() : ConstTensorView{}; }

void check_kept(const char* name, const Tensor& tensor, const Dims& shape) {
  if (tensor.defined() && tensor.dtype() == DType::kF32 && tensor.shape() == shape) return;
  fail(kBackward, base::format("activations.{} is {}, expected F32 {}: they are those of a forward() of these inputs",
                               name, describe(view_of(tensor)), shape.to_string()));
}

// W^T, as a projection without a bias.
Linear transposed(const ConstTensorView& weight, const Threads& threads) {
  return Linear(ConstTensorView(weight.data(), weight.dtype(), {weight.size(1), weight.size(0)},
                                {weight.stride(1), weight.stride(0)}),
                {}, DType::kF32, nullptr, threads);
}

template <class View>
View rows_of(const View& view, std::int64_t begin, std::int64_t count) {
  Dims shape = view.shape();
  shape[0] = count;
  auto* const data = reinterpret_cast<const char*>(view.data()) +
                     begin * view.stride(0) * static_cast<std::int64_t>(size_of(view.dtype()));
  if constexpr (std::is_same_v<View, TensorView>) {
    return View(const_cast<char*>(data), view.dtype(), shape, view.strides());
  } else {
    return View(data, view.dtype(), shape, view.strides());
  }
}

}  // namespace

void MultiHeadAttention::backward(ConstTensorView x, const MultiHeadAttentionActivations& activations,
                                  ConstTensorView dy, const MultiHeadAttentionGradients& gradients,
                                  const MultiHeadAttentionOptions& options) const {
  if (!impl_->sizes.same_widths) fail(kBackward, "self-attention needs kdim and vdim equal to d_model");
  impl_->backward(x, x, x, activations, dy, gradients, options);
}

void MultiHeadAttention::backward(ConstTensorView query, ConstTensorView key, ConstTensorView value,
                                  const MultiHeadAttentionActivations& activations, ConstTensorView dy,
                                  const MultiHeadAttentionGradients& gradients,
                                  const MultiHeadAttentionOptions& options) const {
  impl_->backward(query, key, value, activations, dy, gradients, options);
}

void MultiHeadAttention::Impl::backward(ConstTensorView query, ConstTensorView key, ConstTensorView value,
                                        const MultiHeadAttentionActivations& activations, ConstTensorView dy,
                                        const MultiHeadAttentionGradients& gradients,
                                        MultiHeadAttentionOptions options) const {
  if (options.threads.num_threads == 0 && options.threads.executor == nullptr) {
    options.threads.num_threads = default_num_threads();
  }
  const Threads& threads = options.threads;
  if (threads.num_threads < 0)
    fail(kBackward, base::format("num_threads is {}, expected 0 or more", threads.num_threads));
  const kernels::TableScope scope(kernels::backward_table(kBackward, options.bits, kernels::Products::kF32));
  // Check the call.
  layer::check_input(kBackward, query, "query", config.d_model, query.dtype());
  layer::check_input(kBackward, key, "key", config.kdim, query.dtype());
  layer::check_input(kBackward, value, "value", config.vdim, query.dtype());
  const std::int64_t batch = query.size(0), queries = query.size(1), keys = key.size(1);
  if (key.size(0) != batch || value.size(0) != batch || value.size(1) != keys) {
    fail(kBackward, base::format("query, key and value do not fit together (query {}, key {}, value {})",
                                 query.shape().to_string(), key.shape().to_string(), value.shape().to_string()));
  }
  if (!dy.defined() || !(dy.shape() == query.shape()) || !layer::is_float(dy.dtype())) {
    fail(kBackward,
         base::format("dy is {}, expected F32, BF16 or F16 {} as query", describe(dy), query.shape().to_string()));
  }
  attention_detail::check_dropout(kBackward, options.dropout);
  const ConstTensorView& head_scale = options.head_scale;
  if (head_scale.defined() && (head_scale.dtype() != DType::kF32 || !(head_scale.shape() == Dims{config.num_heads}))) {
    fail(kBackward,
         base::format("head_scale is {}, expected F32 {}", describe(head_scale), Dims{config.num_heads}.to_string()));
  }
  const std::int64_t added = (config.add_bias_kv ? 1 : 0) + (config.add_zero_attn ? 1 : 0);
  const std::int64_t all_keys = keys + added;
  const std::int64_t e = sizes.d_model, kv = sizes.kv_width;
  const bool self = sizes.same_widths && layer::same_view(query, key) && layer::same_view(query, value);
  const std::int64_t q_width = self ? e + 2 * kv : e, kv_width = self ? q_width : kv;
  const std::int64_t q_rows = self ? all_keys : queries;
  check_kept("q", activations.q, {batch, q_rows, q_width});
  if (!self) {
    check_kept("k", activations.k, {batch, all_keys, kv});
    check_kept("v", activations.v, {batch, all_keys, kv});
  }
  check_kept("heads", activations.heads, {batch, queries, e});
  check_kept("lse", activations.lse, {batch, config.num_heads, queries});
  Named named;
  if (self && (gradients.dkey.defined() || gradients.dvalue.defined())) {
    fail(kBackward, "dkey and dvalue: of self-attention dquery holds all of dx");
  }
  check_gradient("dquery", gradients.dquery, query.shape(), named);
  check_gradient("dkey", gradients.dkey, key.shape(), named);
  check_gradient("dvalue", gradients.dvalue, value.shape(), named);
  if (gradients.dhead_scale.defined() && !head_scale.defined()) fail(kBackward, "dhead_scale without head_scale");
  check_gradient("dhead_scale", gradients.dhead_scale, Dims{config.num_heads}, named);
  for (const auto& [name, view] : gradients.parameters) {
    const auto found = weights->tensors().find(name);
    if (found == weights->tensors().end()) {
      fail(kBackward, base::format("parameters: not a tensor of this layer: {}", name));
    }
    check_gradient(name, view, found->second.shape(), named);
  }
  const std::pair<const char*, ConstTensorView> inputs[] = {{"query", query},
                                                            {"key", key},
                                                            {"value", value},
                                                            {"dy", dy},
                                                            {"head_scale", head_scale},
                                                            {"activations.q", view_of(activations.q)},
                                                            {"activations.k", view_of(activations.k)},
                                                            {"activations.v", view_of(activations.v)},
                                                            {"activations.heads", view_of(activations.heads)},
                                                            {"activations.lse", view_of(activations.lse)}};
  for (const auto& [name, view] : named) {
    for (const auto& [input, tensor] : inputs) {
      if (tensor.defined()) attention_detail::check_overlap(kBackward, name.c_str(), view, input, tensor);
    }
  }
  options.weights = {};
  const layer::MergedMask merged(options, {batch, config.num_heads, queries, keys, added});

  // Lay out the workspace.
  base::WorkspaceLayout layout(kBackward);
  const auto copy_of = [&](const ConstTensorView& x) {
    return layout.take({usable_in_place(x) ? 0 : element_count(x.shape())}, sizeof(float));
  };
  const std::size_t dy_at = copy_of(dy), query_at = copy_of(query);
  const std::size_t key_at = self ? query_at : copy_of(key), value_at = self ? query_at : copy_of(value);
  const std::size_t dheads_at = layout.take({batch, queries, e}, sizeof(float));
  const std::size_t scaled_at = layout.take({head_scale.defined() ? batch : 0, queries, e}, sizeof(float));
  const std::size_t dq_at = layout.take({batch, q_rows, q_width}, sizeof(float));
  const std::size_t dk_at = self ? dq_at : layout.take({batch, all_keys, kv}, sizeof(float));
  const std::size_t dv_at = self ? dq_at : layout.take({batch, all_keys, kv}, sizeof(float));
  // Whether a gradient of an input is written where it lies: not where it is added to what is there.
  const bool side_by_side = self && sizes.stacked;
  const auto written_in_place = [&](const TensorView& dx) {
    return usable_in_place(dx) && !gradients.accumulate && (!self || side_by_side);
  };
  bool all_in_place = true;
  for (const TensorView* dx : {&gradients.dquery, &gradients.dkey, &gradients.dvalue}) {
    all_in_place = all_in_place && (!dx->defined() || written_in_place(*dx));
  }
  const std::size_t dx_at = layout.take(
      {all_in_place ? 0 : batch, std::max(queries, keys), std::max({e, config.kdim, config.vdim})}, sizeof(float));
  const std::size_t allowed_at = layout.take({merged.allowed_elements()}, 1);
  const std::size_t bias_at = layout.take({merged.bias_elements()}, sizeof(float));
  std::optional<Workspace> own;
  Workspace& workspace = options.workspace != nullptr ? *options.workspace : own.emplace();
  auto* const memory = static_cast<std::byte*>(workspace.reserve(layout.used()));
  const auto floats = [&](std::size_t at) { return reinterpret_cast<float*>(memory + at); };
  const auto rows_of_input = [&](const ConstTensorView& x, std::size_t copy_at) -> Rows<const float> {
    if (usable_in_place(x)) return {static_cast<const float*>(x.data()), x.stride(0), x.stride(1)};
    layer::copy_to_f32(x, floats(copy_at), threads);
    return {floats(copy_at), x.size(1) * x.size(2), x.size(2)};
  };
  const auto parameter = [&](const char* name) {
    const auto found = gradients.parameters.find(name);
    return found == gradients.parameters.end() ? TensorView{} : found->second;
  };
  const layer::Tokens of_queries{batch, queries}, of_keys{batch, keys};

  // W_o and the heads' outputs.
  const Rows<const float> of_dy = rows_of_input(dy, dy_at);
  float* const dheads = floats(dheads_at);
  const float* heads = activations.heads.as<float>();
  const std::int64_t tokens = batch * queries;
  if (head_scale.defined()) {
    std::copy_n(heads, tokens * e, floats(scaled_at));
    layer::scale_heads(floats(scaled_at), tokens, config.num_heads, sizes.d_k, head_scale, threads);
  }
  const Rows<const float> of_heads{head_scale.defined() ? floats(scaled_at) : heads, queries * e, e};
  if (const TensorView dw = parameter("out_proj.weight"); dw.defined()) {
    layer::weight_gradient(of_dy, of_heads, of_queries, dw, gradients.accumulate, threads);
  }
  if (const TensorView db = parameter("out_proj.bias"); db.defined()) {
    layer::bias_gradient(of_dy, of_queries, db, gradients.accumulate, threads);
  }
  if (tokens > 0) {
    layer::project(transposed(weights->tensors().at("out_proj.weight").cview(), threads), of_dy,
                   {dheads, queries * e, e}, batch, queries, threads, nullptr);
  }
  if (gradients.dhead_scale.defined()) {
    for (std::int64_t h = 0; h < config.num_heads; ++h) {
      double sum = 0;
      for (std::int64_t row = 0; row < tokens; ++row) {
        for (std::int64_t i = h * sizes.d_k; i < (h + 1) * sizes.d_k; ++i) {
          sum += static_cast<double>(dheads[row * e + i]) * static_cast<double>(heads[row * e + i]);
        }
      }
      float& to = static_cast<float*>(gradients.dhead_scale.data())[h * gradients.dhead_scale.stride(0)];
      to = static_cast<float>(gradients.accumulate ? static_cast<double>(to) + sum : sum);
    }
  }
  if (head_scale.defined()) layer::scale_heads(dheads, tokens, config.num_heads, sizes.d_k, head_scale, threads);

  // Attention, as many queries at once as the mask is written out for.
  const auto q_view = [&](auto* rows, std::int64_t first, std::int64_t count) {
    return layer::heads_view(const_cast<float*>(rows) + first * q_width, batch, config.num_heads, count, sizes.d_k,
                             q_rows * q_width, q_width);
  };
  const auto kv_view = [&](auto* rows, std::int64_t offset) {
    return layer::heads_view(const_cast<float*>(rows) + (self ? offset : 0), batch, config.num_kv_heads, all_keys,
                             sizes.d_k, all_keys * kv_width, kv_width);
  };
  const auto out_view = [&](const float* rows, std::int64_t first, std::int64_t count) {
    return layer::heads_view(const_cast<float*>(rows) + first * e, batch, config.num_heads, count, sizes.d_k,
                             queries * e, e);
  };
  const float* const q_kept = activations.q.as<float>();
  const float* const k_kept = self ? q_kept : activations.k.as<float>();
  const float* const v_kept = self ? q_kept : activations.v.as<float>();
  const std::int64_t at_once = std::max<std::int64_t>(1, merged.queries_at_once());
  Workspace of_attention;
  // Several parts add to dk and dv; without queries no part writes them.
  const bool in_parts = queries > at_once || queries == 0;
  if (in_parts) {
    std::fill_n(floats(dq_at), batch * q_rows * q_width, 0.0f);
    for (const std::size_t at : {dk_at, dv_at}) {
      if (!self) std::fill_n(floats(at), batch * all_keys * kv, 0.0f);
    }
  }
  for (std::int64_t first = 0; first < queries; first += at_once) {
    const std::int64_t count = std::min(at_once, queries - first);
    bool* const allowed = reinterpret_cast<bool*>(memory + allowed_at);
    merged.fill(allowed, floats(bias_at), first, count, threads);
    AttentionOptions call;
    call.mask = merged.mask(allowed, floats(bias_at), count);
    call.threads = threads;
    call.dropout = options.dropout;
    call.dropout.first_query += first;
    call.workspace = &of_attention;
    AttentionGradients to;
    to.dq = q_view(floats(dq_at), first, count);
    to.dk = kv_view(floats(dk_at), e);
    to.dv = kv_view(floats(dv_at), e + kv);
    const ConstTensorView lse(activations.lse.as<float>() + first, {batch, config.num_heads, count},
                              {config.num_heads * queries, queries, 1});
    to.accumulate = in_parts;
    attention_backward(q_view(q_kept, first, count), kv_view(k_kept, e), kv_view(v_kept, e + kv),
                       out_view(heads, first, count), out_view(dheads, first, count), lse, to, call);
  }

  // The projections of query, key and value.
  struct Projection {
    const char* weight;       // of its own, where W_q, W_k and W_v are not stacked
    std::int64_t row, width;  // in the stacked weight and in the bias
    Rows<const float> gradient;
    Rows<const float> input;
    const layer::Tokens* tokens;
    const TensorView* to;
  };
  const Rows<const float> of_query = rows_of_input(query, query_at);
  const Rows<const float> of_key = self ? of_query : rows_of_input(key, key_at);
  const Rows<const float> of_value = self ? of_query : rows_of_input(value, value_at);
  const Rows<const float> of_dq{floats(dq_at), q_rows * q_width, q_width};
  const Rows<const float> of_dk{floats(dk_at) + (self ? e : 0), all_keys * kv_width, kv_width};
  const Rows<const float> of_dv{floats(dv_at) + (self ? e + kv : 0), all_keys * kv_width, kv_width};
  std::vector<Projection> projections;
  if (side_by_side) {  // so are their gradients
    projections = {{"in_proj_weight", 0, e + 2 * kv, of_dq, of_query, &of_queries, &gradients.dquery}};
  } else {
    projections = {{"q_proj_weight", 0, e, of_dq, of_query, &of_queries, &gradients.dquery},
                   {"k_proj_weight", e, kv, of_dk, of_key, &of_keys, &gradients.dkey},
                   {"v_proj_weight", e + kv, kv, of_dv, of_value, &of_keys, &gradients.dvalue}};
  }
  const TensorView stacked_gradient = parameter("in_proj_weight"), bias = parameter("in_proj_bias");
  const auto weight_of = [&](const Projection& p) {
    return sizes.stacked ? rows_of(weights->tensors().at("in_proj_weight").cview(), p.row, p.width)
                         : weights->tensors().at(p.weight).cview();
  };
  bool written = false;  // dx of self-attention: a sum of three where their weights are apart
  for (const Projection& p : projections) {
    const TensorView dw = sizes.stacked
                              ? (stacked_gradient.defined() ? rows_of(stacked_gradient, p.row, p.width) : TensorView{})
                              : parameter(p.weight);
    if (dw.defined()) layer::weight_gradient(p.gradient, p.input, *p.tokens, dw, gradients.accumulate, threads);
    if (bias.defined()) {
      layer::bias_gradient(p.gradient, *p.tokens, rows_of(bias, p.row, p.width), gradients.accumulate, threads);
    }
    const TensorView& dx = self ? gradients.dquery : *p.to;
    if (!dx.defined() || p.tokens->batch * p.tokens->rows == 0) continue;
    const std::int64_t width = dx.size(2);
    const bool in_place = written_in_place(dx);
    layer::project(transposed(weight_of(p), threads), p.gradient,
                   in_place ? Rows<float>{static_cast<float*>(dx.data()), dx.stride(0), dx.stride(1)}
                            : Rows<float>{floats(dx_at), p.tokens->rows * width, width},
                   batch, p.tokens->rows, threads, nullptr);
    if (!in_place) layer::store_rows(floats(dx_at), dx, gradients.accumulate || (self && written), threads);
    written = true;
  }
  if (config.add_bias_kv) {
    const layer::Tokens one{batch, 1};
    for (const auto& [name, rows] : {std::pair{"bias_k", &of_dk}, std::pair{"bias_v", &of_dv}}) {
      const TensorView to = parameter(name);
      if (!to.defined()) continue;
      const Rows<const float> last{rows->data + keys * kv_width, rows->batch_stride, rows->stride};
      layer::bias_gradient(last, one, TensorView(static_cast<float*>(to.data()), {kv}, {to.stride(2)}),
                           gradients.accumulate, threads);
    }
  }
}

}  // namespace manyheads
