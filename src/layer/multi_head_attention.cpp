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

#include "attention/check.hpp"
#include "base/aligned_buffer.hpp"
#include "base/file.hpp"
#include "layer/carver.hpp"
#include "layer/convert.hpp"
#include "layer/heads.hpp"
#include "layer/linear.hpp"
#include "layer/merged_mask.hpp"
#include "layer/weights.hpp"

namespace manyheads {
namespace {

using layer::Linear;
using layer::Sizes;
using layer::Weights;

constexpr const char* kConstructor = "MultiHeadAttention";
constexpr const char* kLoad = "MultiHeadAttention::load_state_dict";
constexpr const char* kForward = "MultiHeadAttention::forward";

[[noreturn]] void fail(const char* function, const std::string& what) {
  throw Error(ErrorCode::kInvalidArgument, std::string(function) + ": " + what);
}

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

// Rows of floats: [batch, rows] of them at two strides.
template <class T>
struct Rows {
  T* data = nullptr;
  std::int64_t batch_stride = 0;
  std::int64_t stride = 0;
};

// True when the kernels can read or write the floats of a view [B,T,E] where they lie.
bool usable_in_place(const ConstTensorView& x) {
  return x.dtype() == DType::kF32 && (x.size(2) == 1 || x.stride(2) == 1) &&
         reinterpret_cast<std::uintptr_t>(x.data()) % alignof(float) == 0;
}

void project(const Linear& linear, Rows<const float> x, Rows<float> y, std::int64_t batch, std::int64_t rows,
             const MultiHeadAttentionOptions& options, float* scratch) {
  if (rows == 0) return;
  if (rows == 1) {
    x.stride = x.batch_stride;
    y.stride = y.batch_stride;
  }
  if (rows == 1 || (x.batch_stride == rows * x.stride && y.batch_stride == rows * y.stride)) {
    rows *= batch;
    batch = 1;
  }
  for (std::int64_t b = 0; b < batch; ++b) {
    linear.run(x.data + b * x.batch_stride, rows, x.stride, y.data + b * y.batch_stride, y.stride,
               layer::Activation::kNone, options.num_threads, options.executor, scratch);
  }
}

bool same_view(const ConstTensorView& a, const ConstTensorView& b) {
  return a.data() == b.data() && a.dtype() == b.dtype() && a.shape() == b.shape() && a.strides() == b.strides();
}

// True when two indices of a view surely or possibly share an element.
bool may_overlap_itself(const ConstTensorView& view) {
  std::array<std::pair<std::int64_t, std::int64_t>, kMaxRank> axes;  // stride, size; by ascending stride
  std::size_t count = 0;
  for (int axis = 0; axis < view.rank(); ++axis) {
    if (view.size(axis) == 0) return false;
    if (view.size(axis) == 1) continue;
    const std::pair one{std::abs(view.stride(axis)), view.size(axis)};
    std::size_t at = count++;
    for (; at > 0 && axes[at - 1] > one; --at) axes[at] = axes[at - 1];
    axes[at] = one;
  }
  std::int64_t reach = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const auto [stride, size] = axes[i];
    if (stride <= reach) return true;
    reach += stride * (size - 1);
  }
  return false;
}

void check_input(const ConstTensorView& x, const char* name, std::int64_t width, DType type) {
  const auto is = [&] { return std::string(name) + " is " + x.shape().to_string(); };
  if (!x.defined()) fail_forward(std::string(name) + " is missing");
  if (x.rank() != 3) fail_forward(is() + ", expected [batch, tokens, " + std::to_string(width) + "]");
  if (x.size(2) != width) fail_forward(is() + ", expected a last dimension of " + std::to_string(width));
  if (!layer::is_float(x.dtype())) {
    fail_forward(std::string(name) + " is " + name_of(x.dtype()) + ", expected F32, BF16 or F16");
  }
  if (x.dtype() != type) {
    fail_forward(std::string(name) + " is " + name_of(x.dtype()) + ", query is " + name_of(type) +
                 ": they must be of one type");
  }
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

struct MultiHeadAttention::Impl {
  MultiHeadAttentionConfig config;
  Sizes sizes;
  std::unique_ptr<const Weights> weights;

  explicit Impl(const MultiHeadAttentionConfig& given) : config(checked(given)), sizes(config) {
    weights = std::make_unique<const Weights>(config, layer::initial_tensors(config));
  }

  void forward(ConstTensorView query, ConstTensorView key, ConstTensorView value, TensorView y,
               MultiHeadAttentionOptions options) const;
};

MultiHeadAttention::MultiHeadAttention(const MultiHeadAttentionConfig& config)
    : impl_(std::make_unique<Impl>(config)) {}
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
      std::make_unique<const Weights>(impl_->config, layer::checked_tensors(kLoad, impl_->config, tensors));
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
  if (options.num_threads == 0) options.num_threads = default_num_threads();  // once, not for each step
  // What the call asks for.
  check_input(query, "query", config.d_model, query.dtype());
  check_input(key, "key", config.kdim, query.dtype());
  check_input(value, "value", config.vdim, query.dtype());
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
  if (may_overlap_itself(y)) fail_forward("y overlaps itself (strides " + y.strides().to_string() + ")");
  const ConstTensorView& head_scale = options.head_scale;
  if (head_scale.defined() && (head_scale.dtype() != DType::kF32 || !(head_scale.shape() == Dims{config.num_heads}))) {
    fail_forward(std::string("head_scale is ") + name_of(head_scale.dtype()) + " " + head_scale.shape().to_string() +
                 ", expected F32 " + Dims{config.num_heads}.to_string());
  }
  const std::int64_t added = (config.add_bias_kv ? 1 : 0) + (config.add_zero_attn ? 1 : 0);
  const std::int64_t all_keys = keys + added;
  if (options.weights != nullptr) {
    const Dims shape{batch, config.num_heads, queries, all_keys};
    if (options.weights->dtype() != DType::kF32 || !(options.weights->shape() == shape)) {
      fail_forward(std::string("weights is ") + name_of(options.weights->dtype()) + " " +
                   options.weights->shape().to_string() + ", expected F32 " + shape.to_string());
    }
    if (may_overlap_itself(*options.weights)) {
      fail_forward("weights overlaps itself (strides " + options.weights->strides().to_string() + ")");
    }
    // y is written when all else has been read; the weights are not.
    const std::pair<const char*, const ConstTensorView*> others[] = {{"y", &y},
                                                                     {"key_padding_mask", &options.key_padding_mask},
                                                                     {"attn_mask", &options.attn_mask},
                                                                     {"mask.allowed", &options.mask.allowed},
                                                                     {"mask.bias", &options.mask.bias},
                                                                     {"mask.offsets", &options.mask.offsets},
                                                                     {"mask.key_lengths", &options.mask.key_lengths},
                                                                     {"mask.q_documents", &options.mask.q_documents},
                                                                     {"mask.k_documents", &options.mask.k_documents},
                                                                     {"mask.alibi_slopes", &options.mask.alibi_slopes},
                                                                     {"head_scale", &head_scale}};
    for (const auto& [name, view] : others) {
      attention_detail::check_overlap(kForward, "weights", *options.weights, name, *view);
    }
  }
  const layer::MergedMask merged(options, {batch, config.num_heads, queries, keys, added});
  if (batch == 0 || queries == 0) return;

  // Where everything lies: attention's own workspace first, since attention asks for the block's beginning.
  const std::int64_t e = sizes.d_model, kv = sizes.kv_width;
  const bool self = sizes.same_widths && same_view(query, key) && same_view(query, value);
  const std::int64_t q_width = self ? e + 2 * kv : e;
  const std::int64_t kv_width = self ? q_width : kv;
  const std::int64_t q_rows = self ? all_keys : queries;
  layer::Carver carver(kForward);
  const std::size_t q_at = carver.take({batch, q_rows, q_width}, sizeof(float));
  const std::size_t k_at = self ? q_at : carver.take({batch, all_keys, kv}, sizeof(float));
  const std::size_t v_at = self ? q_at : carver.take({batch, all_keys, kv}, sizeof(float));
  const std::size_t heads_at = carver.take({batch, queries, e}, sizeof(float));
  const std::size_t lse_at =
      carver.take({options.weights != nullptr ? batch : 0, config.num_heads, queries}, sizeof(float));
  const std::size_t allowed_at = carver.take({merged.allowed_elements()}, 1);
  const std::size_t bias_at = carver.take({merged.bias_elements()}, sizeof(float));
  const auto copy_of = [&](const ConstTensorView& x) {
    return carver.take({usable_in_place(x) ? 0 : element_count(x.shape())}, sizeof(float));
  };
  const std::size_t query_at = copy_of(query);
  const std::size_t key_at = self ? query_at : copy_of(key);
  const std::size_t value_at = self ? query_at : copy_of(value);
  const std::size_t y_at = copy_of(y);
  std::size_t scratch_floats = 0;  // of the projections
  const Weights::Apart* const apart = self ? nullptr : &weights->apart();
  const auto works = [&](const Linear& linear, std::int64_t rows) {
    scratch_floats = std::max(scratch_floats, linear.scratch_floats(batch * rows, options.num_threads));
  };
  works(weights->out(), queries);
  if (self) {
    works(weights->qkv(), queries);
  } else {
    works(apart->q, queries);
    works(apart->k, keys);
    works(apart->v, keys);
  }
  const std::size_t scratch_at = carver.take({static_cast<std::int64_t>(scratch_floats)}, sizeof(float));

  std::optional<Workspace> own;
  Workspace& workspace = options.workspace != nullptr ? *options.workspace : own.emplace();
  auto* memory = static_cast<std::byte*>(workspace.reserve(carver.used()));
  const auto floats = [&](std::size_t at) { return reinterpret_cast<float*>(memory + at); };
  const auto q_heads = [&] {
    return layer::heads_view(floats(q_at), batch, config.num_heads, queries, sizes.d_k, q_rows * q_width, q_width);
  };
  const auto k_heads = [&](std::int64_t count) {
    return layer::heads_view(floats(k_at) + (self ? e : 0), batch, config.num_kv_heads, count, sizes.d_k,
                             all_keys * kv_width, kv_width);
  };
  const auto v_heads = [&](std::int64_t count) {
    return layer::heads_view(floats(v_at) + (self ? e + kv : 0), batch, config.num_kv_heads, count, sizes.d_k,
                             all_keys * kv_width, kv_width);
  };
  const auto out_heads = [&] {
    return layer::heads_view(floats(heads_at), batch, config.num_heads, queries, sizes.d_k, queries * e, e);
  };
  AttentionOptions how;
  how.num_threads = options.num_threads;
  how.executor = options.executor;
  how.mask = merged.positions();
  // Without the added keys, of which these parts do not speak; y is still as it was.
  const TensorView heads_out = out_heads();
  const ConstTensorView values = v_heads(keys);
  (void)attention_detail::check(kForward, q_heads(), k_heads(keys), &values, &heads_out, how);
  // As many queries at once as the mask is written out for.
  const std::int64_t at_once = merged.queries_at_once();
  const auto rows_of = [&](const ConstTensorView& all, std::int64_t first, std::int64_t count) {
    Dims shape = all.shape();
    shape[2] = count;
    const auto row = first * all.stride(2) * static_cast<std::int64_t>(size_of(all.dtype()));
    return TensorView(static_cast<std::byte*>(const_cast<void*>(all.data())) + row, all.dtype(), shape, all.strides());
  };
  const auto mask_of = [&](std::int64_t count) {
    return merged.mask(reinterpret_cast<bool*>(memory + allowed_at), floats(bias_at), count);
  };
  std::size_t attention_bytes = 0;
  for (const std::int64_t count : {at_once, queries % at_once}) {
    if (count == 0) continue;
    how.mask = mask_of(count);
    attention_bytes = std::max(attention_bytes,
                               attention_workspace_size(rows_of(q_heads(), 0, count), k_heads(all_keys),
                                                        v_heads(all_keys), rows_of(out_heads(), 0, count), how));
  }
  attention_bytes = (attention_bytes + base::kAlignment - 1) / base::kAlignment * base::kAlignment;
  memory = static_cast<std::byte*>(workspace.reserve(attention_bytes + carver.used())) + attention_bytes;
  how.workspace = &workspace;
  float* const scratch = floats(scratch_at);

  // Projections.
  const auto rows_of_input = [&](const ConstTensorView& x, std::size_t copy_at) -> Rows<const float> {
    if (usable_in_place(x)) return {static_cast<const float*>(x.data()), x.stride(0), x.stride(1)};
    layer::copy_to_f32(x, floats(copy_at), options.num_threads, options.executor);
    return {floats(copy_at), x.size(1) * x.size(2), x.size(2)};
  };
  const Rows<const float> x = rows_of_input(query, query_at);
  if (self) {
    project(weights->qkv(), x, {floats(q_at), q_rows * q_width, q_width}, batch, queries, options, scratch);
  } else {
    project(apart->q, x, {floats(q_at), queries * e, e}, batch, queries, options, scratch);
    project(apart->k, rows_of_input(key, key_at), {floats(k_at), all_keys * kv, kv}, batch, keys, options, scratch);
    project(apart->v, rows_of_input(value, value_at), {floats(v_at), all_keys * kv, kv}, batch, keys, options, scratch);
  }
  for (std::int64_t b = 0; added > 0 && b < batch; ++b) {
    const std::int64_t end = (b * all_keys + keys) * kv_width;
    float* k = floats(k_at) + (self ? e : 0) + end;
    float* v = floats(v_at) + (self ? e + kv : 0) + end;
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

  // The heads, each for itself, written side by side.
  for (std::int64_t first = 0; first < queries; first += at_once) {
    const std::int64_t count = std::min(at_once, queries - first);
    how.mask = mask_of(count);
    merged.fill(reinterpret_cast<bool*>(memory + allowed_at), floats(bias_at), first, count, options.num_threads,
                options.executor);
    const TensorView lse = options.weights != nullptr
                               ? TensorView(floats(lse_at) + first, {batch, config.num_heads, count},
                                            {config.num_heads * queries, queries, 1})
                               : TensorView{};
    how.lse = options.weights != nullptr ? &lse : nullptr;
    attention(rows_of(q_heads(), first, count), k_heads(all_keys), v_heads(all_keys), rows_of(out_heads(), first, count),
              how);
    if (options.weights == nullptr) continue;
    how.lse = nullptr;
    attention_weights(rows_of(q_heads(), first, count), k_heads(all_keys), lse, rows_of(*options.weights, first, count),
                      how);
  }
  if (head_scale.defined()) {
    layer::scale_heads(floats(heads_at), batch * queries, config.num_heads, sizes.d_k, head_scale, options.num_threads,
                       options.executor);
  }

  const bool in_place = usable_in_place(y);
  const Rows<float> result = in_place ? Rows<float>{static_cast<float*>(y.data()), y.stride(0), y.stride(1)}
                                      : Rows<float>{floats(y_at), queries * e, e};
  project(weights->out(), {floats(heads_at), queries * e, e}, result, batch, queries, options, scratch);
  if (!in_place) layer::copy_from_f32(floats(y_at), y, options.num_threads, options.executor);
}

}  // namespace manyheads
