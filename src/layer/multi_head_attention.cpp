#include <algorithm>
#include <array>
#include <cmath>
#include <manyheads/attention.hpp>
#include <manyheads/error.hpp>
#include <manyheads/multi_head_attention.hpp>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "attention/forward.hpp"
#include "attention/mask_tensors.hpp"
#include "attention/overlap.hpp"
#include "base/fail.hpp"
#include "base/file.hpp"
#include "base/workspace_layout.hpp"
#include "kernels/dispatch.hpp"
#include "layer/call.hpp"
#include "layer/convert.hpp"
#include "layer/heads.hpp"
#include "layer/linear.hpp"
#include "layer/merged_mask.hpp"
#include "layer/weights.hpp"

namespace manyheads {
namespace {

using layer::check_input;
using layer::Linear;
using layer::project;
using layer::Rows;
using layer::same_view;
using layer::Sizes;
using layer::usable_in_place;
using layer::Weights;

constexpr const char* kConstructor = "MultiHeadAttention";
constexpr const char* kLoad = "MultiHeadAttention::load_state_dict";
constexpr const char* kForward = "MultiHeadAttention::forward";

using base::fail;

[[noreturn]] void fail_forward(const std::string& what) { fail(kForward, what); }

MultiHeadAttentionConfig checked(MultiHeadAttentionConfig config) {
  const std::string problem = head_count_problem(config.d_model, config.num_heads);
  if (!problem.empty()) fail(kConstructor, problem);
  constexpr std::int64_t kWidest = std::int64_t{1} << 40;  // far beyond memory, far from where products wrap
  if (std::max({config.d_model, config.kdim, config.vdim}) > kWidest) {
    throw Error(ErrorCode::kOutOfMemory, std::string(kConstructor) + ": d_model " + std::to_string(config.d_model) +
                                             ", kdim " + std::to_string(config.kdim) + ", vdim " +
                                             std::to_string(config.vdim) + " need more than any memory");
  }
  if (config.num_kv_heads == 0) config.num_kv_heads = config.num_heads;
  if (config.kdim == 0) config.kdim = config.d_model;
  if (config.vdim == 0) config.vdim = config.d_model;
  if (config.num_kv_heads < 0 || config.num_heads % config.num_kv_heads != 0) {
    fail(kConstructor, "num_heads " + std::to_string(config.num_heads) + " is not a multiple of num_kv_heads " +
                           std::to_string(config.num_kv_heads));
  }
  if (config.kdim < 0) fail(kConstructor, "kdim is " + std::to_string(config.kdim) + ", expected a width");
  if (config.vdim < 0) fail(kConstructor, "vdim is " + std::to_string(config.vdim) + ", expected a width");
  if (!layer::is_float(config.dtype)) {
    fail(kConstructor, std::string("dtype is ") + name_of(config.dtype) + ", expected F32, BF16 or F16");
  }
  return config;
}

}  // namespace

std::string head_count_problem(std::int64_t d_model, std::int64_t num_heads) {
  if (d_model < 1) return "d_model is " + std::to_string(d_model) + ", expected at least 1";
  if (num_heads < 1) return "num_heads is " + std::to_string(num_heads) + ", expected at least 1";
  const std::int64_t quotient = d_model / num_heads, rest = d_model % num_heads;
  if (rest == 0) return {};
  std::string text = "d_model " + std::to_string(d_model) + " is not divisible by " + std::to_string(num_heads) +
                     " heads (" + std::to_string(d_model) + " = " + std::to_string(num_heads) + " * " +
                     std::to_string(quotient) + " + " + std::to_string(rest) + "); ";
  constexpr int kMostNamed = 32;
  constexpr std::int64_t kMostTried = 1 << 20;
  int named = 0;
  bool more = d_model > kMostTried;
  for (std::int64_t heads = 1; heads <= std::min(d_model, kMostTried); ++heads) {
    if (d_model % heads != 0) continue;
    if (named++ == kMostNamed) {
      more = true;
      break;
    }
    text += (named > 1 ? ", " : "") + std::to_string(heads);
  }
  return text + (more ? ", ..." : "") + " would divide";
}

MultiHeadAttention::Impl::Impl(const MultiHeadAttentionConfig& given) : config(checked(given)), sizes(config) {
  weights = std::make_unique<const Weights>(config, layer::initial_tensors(config), Threads{});
}
MultiHeadAttention::Impl::Impl(const MultiHeadAttentionConfig& given, const StateDict& tensors, const Threads& threads)
    : config(checked(given)), sizes(config) {
  weights = std::make_unique<const Weights>(config, layer::checked_tensors(kConstructor, config, tensors), threads);
}

MultiHeadAttention::MultiHeadAttention(const MultiHeadAttentionConfig& config)
    : impl_(std::make_unique<Impl>(config)) {}
MultiHeadAttention::MultiHeadAttention(const MultiHeadAttentionConfig& config, const StateDict& tensors,
                                       const Threads& threads)
    : impl_(std::make_unique<Impl>(config, tensors, threads)) {}
MultiHeadAttention::~MultiHeadAttention() = default;
MultiHeadAttention::MultiHeadAttention(MultiHeadAttention&&) noexcept = default;
MultiHeadAttention& MultiHeadAttention::operator=(MultiHeadAttention&&) noexcept = default;

const MultiHeadAttentionConfig& MultiHeadAttention::config() const noexcept { return impl_->config; }
std::int64_t MultiHeadAttention::d_k() const noexcept { return impl_->sizes.d_k; }

std::int64_t MultiHeadAttention::parameter_count() const noexcept {
  std::int64_t count = 0;
  for (const auto& [name, tensor] : impl_->weights->tensors()) count += tensor.elements();
  return count;
}

void MultiHeadAttention::load_state_dict(const StateDict& tensors) {
  impl_->weights =
      std::make_unique<const Weights>(impl_->config, layer::checked_tensors(kLoad, impl_->config, tensors), Threads{});
}

StateDict MultiHeadAttention::state_dict() const {
  StateDict tensors;
  for (const auto& [name, tensor] : impl_->weights->tensors()) {
    // Read-only: the layer goes on using this memory.
    tensors[name] = Tensor(std::make_shared<const Tensor>(tensor), tensor.bytes(), tensor.dtype(), tensor.shape());
  }
  return tensors;
}

void MultiHeadAttention::forward(ConstTensorView x, TensorView y, const MultiHeadAttentionOptions& options) const {
  if (!impl_->sizes.same_widths) {
    fail_forward("self-attention needs kdim and vdim equal to d_model; here kdim is " +
                 std::to_string(impl_->config.kdim) + ", vdim " + std::to_string(impl_->config.vdim) + ", d_model " +
                 std::to_string(impl_->config.d_model));
  }
  impl_->forward(x, x, x, y, options);
}

void MultiHeadAttention::forward(ConstTensorView query, ConstTensorView key, ConstTensorView value, TensorView y,
                                 const MultiHeadAttentionOptions& options) const {
  impl_->forward(query, key, value, y, options);
}

void MultiHeadAttention::Impl::forward(ConstTensorView query, ConstTensorView key, ConstTensorView value, TensorView y,
                                       MultiHeadAttentionOptions options) const {
  if (options.threads.num_threads == 0 && options.threads.executor == nullptr) {
    options.threads.num_threads = default_num_threads();  // once, not in each step
  }
  const kernels::Products products = config.dtype == DType::kBF16 ? kernels::Products::kBF16 : kernels::Products::kF32;
  const kernels::TableScope scope(kernels::table_with(kForward, options.bits, products));
  // Check the call.
  check_input(kForward, query, "query", config.d_model, query.dtype());
  check_input(kForward, key, "key", config.kdim, query.dtype());
  check_input(kForward, value, "value", config.vdim, query.dtype());
  const std::int64_t batch = query.size(0), queries = query.size(1), keys = key.size(1);
  if (key.size(0) != batch || value.size(0) != batch || value.size(1) != keys) {
    fail_forward("query, key and value do not fit together (query " + query.shape().to_string() + ", key " +
                 key.shape().to_string() + ", value " + value.shape().to_string() + ")");
  }
  if (!y.defined() || !(y.shape() == query.shape())) {
    fail_forward("y is " + y.shape().to_string() + ", expected " + query.shape().to_string() + " as query");
  }
  if (!layer::is_float(y.dtype())) {
    fail_forward(std::string("y is ") + name_of(y.dtype()) + ", expected F32, BF16 or F16");
  }
  attention_detail::check_itself(kForward, "y", y);
  const ConstTensorView& head_scale = options.head_scale;
  if (head_scale.defined() && (head_scale.dtype() != DType::kF32 || !(head_scale.shape() == Dims{config.num_heads}))) {
    fail_forward(std::string("head_scale is ") + name_of(head_scale.dtype()) + " " + head_scale.shape().to_string() +
                 ", expected F32 " + Dims{config.num_heads}.to_string());
  }
  const std::int64_t added = (config.add_bias_kv ? 1 : 0) + (config.add_zero_attn ? 1 : 0);
  const std::int64_t all_keys = keys + added;
  const bool with_weights = options.weights.defined();
  if (with_weights) {
    const Dims shape{batch, config.num_heads, queries, all_keys};
    if (options.weights.dtype() != DType::kF32 || !(options.weights.shape() == shape)) {
      fail_forward("weights is " + base::describe(options.weights) + ", expected F32 " + shape.to_string());
    }
    attention_detail::check_itself(kForward, "weights", options.weights);
    // y is written after all else has been read; the weights are written before.
    const std::pair<const char*, const ConstTensorView*> others[] = {{"y", &y},
                                                                     {"key_padding_mask", &options.key_padding_mask},
                                                                     {"attn_mask", &options.attn_mask},
                                                                     {"head_scale", &head_scale}};
    for (const auto& [name, view] : others) {
      attention_detail::check_overlap(kForward, "weights", options.weights, name, *view);
    }
    for (const auto& [name, option, view] : attention_detail::kMaskTensors) {
      attention_detail::check_overlap(kForward, "weights", options.weights, option, options.mask.*view);
    }
  }
  const layer::MergedMask merged(options, {batch, config.num_heads, queries, keys, added});
  const std::int64_t e = sizes.d_model, kv = sizes.kv_width;
  const bool self = sizes.same_widths && same_view(query, key) && same_view(query, value);
  const std::int64_t q_width = self ? e + 2 * kv : e;
  const std::int64_t kv_width = self ? q_width : kv;
  const std::int64_t q_rows = self ? all_keys : queries;
  MultiHeadAttentionActivations* const kept = options.activations;
  if (kept != nullptr) {
    layer::make(kept->q, {batch, q_rows, q_width});
    layer::make(kept->k, self ? Dims{} : Dims{batch, all_keys, kv});
    layer::make(kept->v, self ? Dims{} : Dims{batch, all_keys, kv});
    layer::make(kept->heads, {batch, queries, e});
    layer::make(kept->lse, {batch, config.num_heads, queries});
  }
  if (batch == 0 || queries == 0) return;

  // Lay out the workspace.
  base::WorkspaceLayout layout(kForward);
  const bool with_lse = with_weights || kept != nullptr;
  const std::int64_t in_workspace = kept == nullptr ? batch : 0;
  const std::size_t q_at = layout.take({in_workspace, q_rows, q_width}, sizeof(float));
  const std::size_t k_at = self ? q_at : layout.take({in_workspace, all_keys, kv}, sizeof(float));
  const std::size_t v_at = self ? q_at : layout.take({in_workspace, all_keys, kv}, sizeof(float));
  const std::size_t heads_at = layout.take({in_workspace, queries, e}, sizeof(float));
  const std::size_t lse_at = layout.take({with_weights ? in_workspace : 0, config.num_heads, queries}, sizeof(float));
  const std::size_t scaled_at =
      layout.take({kept != nullptr && head_scale.defined() ? batch : 0, queries, e}, sizeof(float));
  const std::size_t allowed_at = layout.take({merged.allowed_elements()}, 1);
  const std::size_t bias_at = layout.take({merged.bias_elements()}, sizeof(float));
  const auto copy_of = [&](const ConstTensorView& x) {
    return layout.take({usable_in_place(x) ? 0 : element_count(x.shape())}, sizeof(float));
  };
  const std::size_t query_at = copy_of(query);
  const std::size_t key_at = self ? query_at : copy_of(key);
  const std::size_t value_at = self ? query_at : copy_of(value);
  const std::size_t y_at = copy_of(y);
  const Weights::Apart* const apart = self ? nullptr : &weights->apart(options.threads);
  std::size_t linear_floats = 0;
  const auto works = [&](const Linear& linear, std::int64_t rows) {
    linear_floats = std::max(linear_floats, linear.workspace_floats(batch * rows, options.threads));
  };
  works(weights->out(), queries);
  if (self) {
    works(weights->qkv(), queries);
  } else {
    works(apart->q, queries);
    works(apart->k, keys);
    works(apart->v, keys);
  }
  const std::size_t linear_at = layout.take({static_cast<std::int64_t>(linear_floats)}, sizeof(float));

  std::optional<Workspace> own;
  Workspace& workspace = options.workspace != nullptr ? *options.workspace : own.emplace();
  auto* memory = static_cast<std::byte*>(workspace.reserve(layout.used()));
  const auto floats = [&](std::size_t at) { return reinterpret_cast<float*>(memory + at); };
  const auto q_floats = [&] { return kept != nullptr ? kept->q.as<float>() : floats(q_at); };
  const auto k_floats = [&] { return self ? q_floats() + e : kept != nullptr ? kept->k.as<float>() : floats(k_at); };
  const auto v_floats = [&] {
    return self ? q_floats() + e + kv : kept != nullptr ? kept->v.as<float>() : floats(v_at);
  };
  const auto heads_floats = [&] { return kept != nullptr ? kept->heads.as<float>() : floats(heads_at); };
  const auto lse_floats = [&] { return kept != nullptr ? kept->lse.as<float>() : floats(lse_at); };
  const auto q_heads = [&](std::int64_t first, std::int64_t count) {
    return layer::heads_view(q_floats() + first * q_width, batch, config.num_heads, count, sizes.d_k, q_rows * q_width,
                             q_width);
  };
  const auto k_heads = [&] {
    return layer::heads_view(k_floats(), batch, config.num_kv_heads, all_keys, sizes.d_k, all_keys * kv_width,
                             kv_width);
  };
  const auto v_heads = [&] {
    return layer::heads_view(v_floats(), batch, config.num_kv_heads, all_keys, sizes.d_k, all_keys * kv_width,
                             kv_width);
  };
  const auto out_heads = [&](std::int64_t first, std::int64_t count) {
    return layer::heads_view(heads_floats() + first * e, batch, config.num_heads, count, sizes.d_k, queries * e, e);
  };
  const auto lse_rows = [&](std::int64_t first, std::int64_t count) {
    return with_lse ? TensorView(lse_floats() + first, {batch, config.num_heads, count},
                                 {config.num_heads * queries, queries, 1})
                    : TensorView{};
  };
  const auto how = [&](std::int64_t count) {
    AttentionOptions call;
    call.mask = merged.mask(reinterpret_cast<bool*>(memory + allowed_at), floats(bias_at), count);
    call.threads = options.threads;
    call.dropout = options.dropout;
    return call;
  };
  // Prepare calls for as many queries at once as the mask is written out for, and for the rest. It comes before any
  // computing: a refused call leaves y as it was.
  const std::int64_t at_once = merged.queries_at_once();
  struct Prepared {
    attention_detail::PreparedForward forward;
    std::optional<attention_detail::PreparedProbs> probs;
  };
  std::size_t attention_floats = 0;
  const auto weights_rows = [&](std::int64_t first, std::int64_t count) {
    Dims shape = options.weights.shape();
    shape[2] = count;
    return TensorView(static_cast<float*>(options.weights.data()) + first * options.weights.stride(2), shape,
                      options.weights.strides());
  };
  const auto prepare = [&](std::int64_t count) {
    AttentionOptions call = how(count);
    call.lse = lse_rows(0, count);
    Prepared prepared{{kForward, q_heads(0, count), k_heads(), v_heads(), out_heads(0, count), call}, std::nullopt};
    attention_floats = std::max(attention_floats, prepared.forward.workspace_floats());
    if (with_weights) {
      call.lse = {};
      prepared.probs.emplace(kForward, q_heads(0, count), k_heads(), lse_rows(0, count), weights_rows(0, count), call);
      attention_floats = std::max(attention_floats, prepared.probs->workspace_floats());
    }
    return prepared;
  };
  const Prepared prepared = prepare(at_once);
  std::optional<Prepared> prepared_rest;
  if (queries % at_once > 0) prepared_rest.emplace(prepare(queries % at_once));
  const std::size_t attention_at = layout.take({static_cast<std::int64_t>(attention_floats)}, sizeof(float));
  memory = static_cast<std::byte*>(workspace.reserve(layout.used()));
  float* const linear_workspace = floats(linear_at);

  // Project.
  const auto rows_of_input = [&](const ConstTensorView& x, std::size_t copy_at) -> Rows<const float> {
    if (usable_in_place(x)) return {static_cast<const float*>(x.data()), x.stride(0), x.stride(1)};
    layer::copy_to_f32(x, floats(copy_at), options.threads);
    return {floats(copy_at), x.size(1) * x.size(2), x.size(2)};
  };
  const Rows<const float> x = rows_of_input(query, query_at);
  if (self) {
    project(weights->qkv(), x, {q_floats(), q_rows * q_width, q_width}, batch, queries, options.threads,
            linear_workspace);
  } else {
    project(apart->q, x, {q_floats(), queries * e, e}, batch, queries, options.threads, linear_workspace);
    project(apart->k, rows_of_input(key, key_at), {k_floats(), all_keys * kv, kv}, batch, keys, options.threads,
            linear_workspace);
    project(apart->v, rows_of_input(value, value_at), {v_floats(), all_keys * kv, kv}, batch, keys, options.threads,
            linear_workspace);
  }
  for (std::int64_t b = 0; added > 0 && b < batch; ++b) {
    const std::int64_t end = (b * all_keys + keys) * kv_width;
    float* k = k_floats() + end;
    float* v = v_floats() + end;
    if (config.add_bias_kv) {
      std::copy_n(weights->bias_k(), kv, k);
      std::copy_n(weights->bias_v(), kv, v);
      k += kv_width;
      v += kv_width;
    }
    if (config.add_zero_attn) {
      std::fill_n(k, kv, 0.0f);
      std::fill_n(v, kv, 0.0f);
    }
  }

  // Compute each head by itself; the outputs lie side by side.
  for (std::int64_t first = 0; first < queries; first += at_once) {
    const std::int64_t count = std::min(at_once, queries - first);
    bool* const allowed = reinterpret_cast<bool*>(memory + allowed_at);
    merged.fill(allowed, floats(bias_at), first, count, options.threads);
    const Prepared& call = count == at_once ? prepared : *prepared_rest;
    attention_detail::Operands operands{.q = q_heads(first, count).data(),
                                        .k = k_heads().data(),
                                        .v = v_heads().data(),
                                        .out = out_heads(first, count).data(),
                                        .lse = lse_rows(first, count),
                                        .allowed = merged.allowed_elements() > 0 ? allowed : nullptr,
                                        .bias = merged.bias_elements() > 0 ? floats(bias_at) : nullptr,
                                        .first_query = options.dropout.first_query + first};
    call.forward.on(operands).run(floats(attention_at));
    if (!with_weights) continue;
    operands.out = weights_rows(first, count).data();
    call.probs->on(operands).run(floats(attention_at));
  }
  float* heads = heads_floats();
  if (head_scale.defined()) {
    if (kept != nullptr) heads = std::copy_n(heads, batch * queries * e, floats(scaled_at)) - batch * queries * e;
    layer::scale_heads(heads, batch * queries, config.num_heads, sizes.d_k, head_scale, options.threads);
  }

  const bool in_place = usable_in_place(y);
  const Rows<float> result = in_place ? Rows<float>{static_cast<float*>(y.data()), y.stride(0), y.stride(1)}
                                      : Rows<float>{floats(y_at), queries * e, e};
  project(weights->out(), {heads, queries * e, e}, result, batch, queries, options.threads, linear_workspace);
  if (!in_place) layer::copy_from_f32(floats(y_at), y, options.threads);
}

}  // namespace manyheads
