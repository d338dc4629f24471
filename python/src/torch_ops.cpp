#include <nanobind/stl/map.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <limits>
#include <manyheads/attention.hpp>
#include <manyheads/error.hpp>
#include <mutex>

#include "arguments.hpp"
#include "torch_api.hpp"
#include "torch_backward.hpp"
#include "torch_multihead.hpp"
#include "torch_ops.hpp"
#include "torch_sdpa.hpp"
#include "torch_varlen.hpp"

// The ops of manyheads::, and the registrations that take PyTorch's own while they are in use.
namespace manyheads::python {
namespace {

using torch::Arguments;
using torch::Call;
using torch::IValue;
using torch::Owned;

constexpr const char* kOutcomeTexts[kOutcomes] = {
    "taken: attention",
    "taken: weights",
    "taken: varlen_attn",
    "taken: nn.MultiheadAttention",
    "taken: backward",
    "PyTorch's own: a type other than float32, bfloat16 and float16, or several",
    "PyTorch's own: a shape that only PyTorch's math path takes, or refuses",
    "PyTorch's own: attn_mask beside is_causal",
    "PyTorch's own: sdpa_kernel() leaves flash attention out",
    "PyTorch's own: float64",
    "PyTorch's own: a nested tensor",
    "PyTorch's own: another device",
    "PyTorch's own: a function transform, or weights under autocast or tracing",
    "refused: a gradient of pages",
    "refused: a second derivative",
    "refused: dropout under a function transform",
};
std::array<std::atomic<std::int64_t>, kOutcomes> outcomes;

}  // namespace

void count(Outcome outcome) { outcomes[outcome].fetch_add(1, std::memory_order_relaxed); }

bool computes(DType type) { return type == DType::kF32 || type == DType::kBF16 || type == DType::kF16; }

void use_pool(AttentionOptions& options) {
  options.threads.executor = &torch::pool();
  options.workspace = &own_workspace();
}

Owned mask_for_math(const Owned& mask) {
  DType type;
  if (!mask || !torch::type_of(mask.get(), type) || type != DType::kBool) return mask ? mask.again() : Owned();
  return Owned(reinterpret_cast<torch::Handle>(Call().tensor(mask).run("aten::log", "", 1)[0]));
}

Dims like_strides(const ConstTensorView& given, const Dims& shape) {
  const ConstTensorView view(given.data(), given.dtype(), shape, given.strides());
  const int rank = view.rank();
  // Axes from the fastest on. Strides of 0 say nothing of the order, equal ones leave it to the sizes.
  std::array<int, kMaxRank> order{};
  for (int i = 0; i < rank; ++i) order[static_cast<std::size_t>(i)] = rank - 1 - i;
  const auto compared = [&](int a, int b) {
    const std::int64_t first = view.stride(a), second = view.stride(b);
    if (first == 0 || second == 0) return 0;
    if (first != second) return first < second ? -1 : 1;
    return view.size(a) > view.size(b) ? 1 : 0;
  };
  for (int i = 1; i < rank; ++i) {
    for (int at = i, before = i - 1; before >= 0; --before) {
      int &a = order[static_cast<std::size_t>(before)], &b = order[static_cast<std::size_t>(at)];
      const int sign = compared(a, b);
      if (sign < 0) break;
      if (sign > 0) std::swap(a, b), at = before;
    }
  }
  Dims strides = view.shape();
  std::int64_t step = 1;
  bool same = true;
  for (int at = 0; at < rank; ++at) {
    const int axis = order[static_cast<std::size_t>(at)];
    strides[axis] = step;
    same = same && (view.size(axis) < 2 || view.stride(axis) == step);
    if (view.size(axis) > 1) step *= view.size(axis);
  }
  return same ? view.strides() : strides;
}

Owned empty_lse(std::int64_t batch, std::int64_t heads, std::int64_t tq) {
  return torch::empty(DType::kF32, {batch, heads, tq}, {heads * tq, 1, heads});
}

Mask mask_of(const Owned& mask, bool is_causal) {
  Mask made;
  if (is_causal) made = mask::causal(Alignment::kTopLeft);
  if (!mask) return made;
  const ConstTensorView view = torch::view_of(mask.get(), "attn_mask");
  return made | (view.dtype() == DType::kBool ? mask::allowed(view) : mask::bias(view));
}

ConstTensorView expanded(const ConstTensorView& view, std::int64_t batch, std::int64_t heads) {
  Dims shape = view.shape(), strides = view.strides();
  if (shape[0] == 1 && batch > 1) shape[0] = batch, strides[0] = 0;
  if (heads > 0 && shape[1] == 1 && heads > 1) shape[1] = heads, strides[1] = 0;
  return ConstTensorView(view.data(), view.dtype(), shape, strides);
}

void expand_alike(ConstTensorView& q, ConstTensorView& k, ConstTensorView& v) {
  const std::int64_t batch = std::max({q.size(0), k.size(0), v.size(0)});
  const std::int64_t heads = std::max({q.size(1), k.size(1), v.size(1)});
  const std::int64_t kv_heads = k.size(1) == v.size(1) ? 0 : heads;
  q = expanded(q, batch, heads);
  k = expanded(k, batch, kv_heads);
  v = expanded(v, batch, kv_heads);
}

namespace {

template <void (*kernel)(IValue*, std::uint64_t)>
void varlen(IValue* stack, std::uint64_t arguments, std::uint64_t) {
  kernel(stack, arguments);
  count(kTakenVarlen);
}

Alignment alignment_of(std::int64_t number) {
  return number == 1 ? Alignment::kTopLeft : number == 2 ? Alignment::kBottomRight : Alignment::kUnspecified;
}

}  // namespace

Dropout dropout_of(double p, const Owned& seed, const char* function) {
  Dropout dropout;
  dropout.p = p;
  if (p == 0) return dropout;
  if (!seed) {
    throw Error(ErrorCode::kInvalidArgument, std::string(function) + ": dropout_p is " + std::to_string(p) +
                                                 " and there is no dropout_seed, an int64 tensor of one element");
  }
  const ConstTensorView view = torch::view_of(seed.get(), "dropout_seed");
  if (view.dtype() != DType::kI64 || element_count(view.shape()) != 1) {
    throw Error(ErrorCode::kInvalidArgument, std::string(function) + ": dropout_seed is " + name_of(view.dtype()) +
                                                 " " + view.shape().to_string() + ", expected int64 and one element");
  }
  dropout.seed = static_cast<std::uint64_t>(*static_cast<const std::int64_t*>(view.data()));
  return dropout;
}

Owned draw_seed(double p) {
  if (p == 0) return {};
  constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
  const auto type = torch::api().types[static_cast<std::size_t>(DType::kI64)];
  return Call().integer(kMost).integers({}).optional_integer(type).none().none().none().run("aten::randint");
}

AttentionOptions options_of(const Arguments& given, const OptionPlaces& places, const char* function) {
  AttentionOptions options;
  const auto view = [&](int i, const char* name) {
    return given.tensor(i) ? torch::view_of(given.tensor(i).get(), name) : ConstTensorView();
  };
  const int at = places.masks, rest = places.numbers;
  options.mask = mask_of(given.tensor(at), false);
  options.sinks = view(at + 1, "sinks");
  options.mask.key_lengths = view(at + 2, "key_lengths");
  options.mask.key_starts = view(at + 3, "key_starts");
  options.mask.alibi_slopes = view(at + 4, "alibi_slopes");
  options.mask.q_documents = view(places.documents, "q_documents");
  options.mask.k_documents = view(places.documents + 1, "k_documents");
  if (places.sequences > 0) {
    options.cu_seqlens_q = view(places.sequences, "cu_seqlens_q");
    options.cu_seqlens_k = view(places.sequences + 1, "cu_seqlens_k");
  }
  if (places.pages > 0) options.page_table = view(places.pages, "page_table");
  options.mask.causal = given.flag(rest);
  options.mask.alignment = alignment_of(given.integer(rest + 1));
  options.mask.window_left = given.integer(rest + 2);
  options.mask.window_right = given.integer(rest + 3);
  if (given.has(rest + 4)) options.scale = given.number(rest + 4);
  options.softcap = given.number(rest + 5);
  options.dropout = dropout_of(given.number(places.dropout), given.tensor(places.dropout + 1), function);
  use_pool(options);
  return options;
}

namespace {

constexpr const char* kAttentionSchema =
    "attention(Tensor query, Tensor key, Tensor value, Tensor? attn_mask=None, Tensor? sinks=None, Tensor? "
    "key_lengths=None, Tensor? key_starts=None, Tensor? alibi_slopes=None, Tensor? cu_seqlens_q=None, Tensor? "
    "cu_seqlens_k=None, Tensor? page_table=None, bool causal=False, int alignment=0, int window_left=-1, int "
    "window_right=-1, float? scale=None, float softcap=0., Tensor? q_documents=None, Tensor? k_documents=None, bool "
    "pytorch_backward=False, float dropout_p=0., Tensor? dropout_seed=None) -> (Tensor, Tensor)";

void attention_op(IValue* stack, std::uint64_t, std::uint64_t) {
  const Arguments given(stack, "TTTttttttttbiiiDdttbdt");
  ConstTensorView q = torch::view_of(given.tensor(0).get(), "query"), k = torch::view_of(given.tensor(1).get(), "key"),
                  v = torch::view_of(given.tensor(2).get(), "value");
  AttentionOptions options = options_of(given, {3, 8, 10, 11, 17, 20}, "attention");
  if (q.rank() == 4 && k.rank() == 4 && v.rank() == 4 && !options.page_table.defined()) expand_alike(q, k, v);
  Dims shape = q.shape();
  if (shape.rank() > 0 && v.rank() > 0) shape[shape.rank() - 1] = v.size(v.rank() - 1);
  Owned out = torch::empty(q.dtype(), shape, like_strides(q, shape));
  const bool packed = options.cu_seqlens_q.defined();
  Owned lse = packed && q.rank() == 3 ? torch::empty(DType::kF32, {q.size(1), q.size(0)}, {q.size(0), 1})
              : q.rank() == 4         ? empty_lse(q.size(0), q.size(1), q.size(2))
                                      : torch::empty(DType::kF32, {}, {});
  options.lse = torch::mutable_view_of(lse.get());
  attention(q, k, v, torch::mutable_view_of(out.get()), options);
  count(kTaken);
  stack[0] = reinterpret_cast<IValue>(out.release());
  stack[1] = reinterpret_cast<IValue>(lse.release());
}

constexpr const char* kWeightsSchema =
    "attention_weights(Tensor query, Tensor key, Tensor lse, Tensor? attn_mask=None, Tensor? sinks=None, Tensor? "
    "key_lengths=None, Tensor? key_starts=None, Tensor? alibi_slopes=None, bool causal=False, int alignment=0, int "
    "window_left=-1, int window_right=-1, float? scale=None, float softcap=0., bool average=False, Tensor? "
    "q_documents=None, Tensor? k_documents=None, float dropout_p=0., Tensor? dropout_seed=None) -> Tensor";

// `count` of a view along an axis, from `begin` on; an axis of one is read by all.
ConstTensorView part_of(const ConstTensorView& view, int axis, std::int64_t begin, std::int64_t count) {
  if (!view.defined() || axis < 0 || view.size(axis) == 1) return view;
  Dims shape = view.shape();
  shape[axis] = count;
  return ConstTensorView(static_cast<const char*>(view.data()) +
                             begin * view.stride(axis) * static_cast<std::int64_t>(size_of(view.dtype())),
                         view.dtype(), shape, view.strides());
}

// Whether the batch of a call can be cut: what has entries of its own has all of them. Else the whole call is refused.
bool has_entries(const ConstTensorView& k, const Mask& mask, std::int64_t batch) {
  const auto all = [batch](const ConstTensorView& view) { return !view.defined() || view.shape() == Dims{batch}; };
  const auto fits = [batch](const ConstTensorView& view) {
    return view.rank() < 4 || view.size(0) == 1 || view.size(0) == batch;
  };
  const auto all_rows = [batch](const ConstTensorView& view) {
    return !view.defined() || (view.rank() == 2 && view.size(0) == batch);
  };
  return k.size(0) == batch && all(mask.key_lengths) && all(mask.key_starts) && all_rows(mask.q_documents) &&
         all_rows(mask.k_documents) && fits(mask.allowed) && fits(mask.bias);
}

Mask mask_of_head(const Mask& mask, std::int64_t head) {
  Mask part = mask;
  part.allowed = part_of(mask.allowed, mask.allowed.rank() - 3, head, 1);
  part.bias = part_of(mask.bias, mask.bias.rank() - 3, head, 1);
  part.alibi_slopes = part_of(mask.alibi_slopes, 0, head, 1);
  return part;
}

Mask mask_of_entries(const Mask& mask, std::int64_t begin, std::int64_t count) {
  Mask part = mask;
  part.key_lengths = part_of(mask.key_lengths, 0, begin, count);
  part.key_starts = part_of(mask.key_starts, 0, begin, count);
  part.q_documents = part_of(mask.q_documents, 0, begin, count);
  part.k_documents = part_of(mask.k_documents, 0, begin, count);
  part.allowed = part_of(mask.allowed, mask.allowed.rank() - 4, begin, count);
  part.bias = part_of(mask.bias, mask.bias.rank() - 4, begin, count);
  return part;
}

}  // namespace

void mean_weights(const ConstTensorView& q, const ConstTensorView& k, const ConstTensorView& lse,
                  const TensorView& mean, const AttentionOptions& options) {
  const std::int64_t batch = q.size(0), heads = q.size(1), tq = q.size(2), tk = k.size(2);
  // As many entries at once as stay in a cache from the weights of a head to their sum.
  constexpr std::int64_t kTogether = std::int64_t{1} << 18;
  const std::int64_t most = std::max<std::int64_t>(1, kTogether / std::max<std::int64_t>(1, tq * tk));
  const bool cut = most < batch && has_entries(k, options.mask, batch);
  const std::int64_t together = cut ? most : batch;
  const Dims room{together, 1, tq, tk};
  const Owned single = torch::empty(DType::kF32, room, contiguous_strides(room));
  const TensorView weights = torch::mutable_view_of(single.get());
  for (std::int64_t b = 0; b < batch; b += together) {
    const std::int64_t count = std::min(together, batch - b);
    const TensorView part(weights.data(), DType::kF32, Dims{count, 1, tq, tk});
    const auto entries_of = [&](const ConstTensorView& view) { return cut ? part_of(view, 0, b, count) : view; };
    const ConstTensorView own_q = entries_of(q), own_k = entries_of(k), own_lse = entries_of(lse);
    const Mask own_mask = cut ? mask_of_entries(options.mask, b, count) : options.mask;
    for (std::int64_t h = 0; h < heads; ++h) {
      AttentionOptions own = options;
      own.mask = mask_of_head(own_mask, h);
      own.sinks = part_of(options.sinks, 0, h, 1);
      own.dropout.first_head += h;
      own.dropout.first_entry += b;
      attention_weights(part_of(own_q, 1, h, 1), part_of(own_k, 1, h / (heads / k.size(1)), 1),
                        part_of(own_lse, 1, h, 1), part, own);
      struct Add {
        const float* from;
        float* to;
        std::int64_t elements;
        float factor;
        bool first;
      } add{static_cast<const float*>(part.data()), static_cast<float*>(mean.data()) + b * tq * tk, count * tq * tk,
            1.0f / static_cast<float>(heads), h == 0};
      constexpr std::int64_t kPiece = 1 << 14;
      torch::pool().run((add.elements + kPiece - 1) / kPiece,
                        [](void* context, std::int64_t piece) {
                          const Add& mine = *static_cast<const Add*>(context);
                          const std::int64_t end = std::min(mine.elements, (piece + 1) * kPiece);
                          for (std::int64_t i = piece * kPiece; i < end; ++i) {
                            mine.to[i] = (mine.first ? 0 : mine.to[i]) + mine.from[i] * mine.factor;
                          }
                        },
                        &add);
    }
  }
}

namespace {

void weights_op(IValue* stack, std::uint64_t, std::uint64_t) {
  const Arguments given(stack, "TTTtttttbiiiDdbttdt");
  const ConstTensorView q = torch::view_of(given.tensor(0).get(), "query"),
                        k = torch::view_of(given.tensor(1).get(), "key"),
                        lse = torch::view_of(given.tensor(2).get(), "lse");
  AttentionOptions options = options_of(given, {3, 0, 0, 8, 15, 17}, "attention_weights");
  if (q.rank() != 4 || k.rank() != 4) {
    throw Error(ErrorCode::kInvalidArgument, "attention_weights: expected query and key of 4 axes, query " +
                                                 q.shape().to_string() + ", key " + k.shape().to_string());
  }
  const std::int64_t batch = q.size(0), heads = q.size(1), tq = q.size(2), tk = k.size(2);
  count(kTakenWeights);
  if (!given.flag(14)) {
    const Dims shape{batch, heads, tq, tk};
    Owned weights = torch::empty(DType::kF32, shape, contiguous_strides(shape));
    attention_weights(q, k, lse, torch::mutable_view_of(weights.get()), options);
    stack[0] = reinterpret_cast<IValue>(weights.release());
    return;
  }
  // One head is taken out of each: all must have the call's heads.
  const auto per_head = [&](const ConstTensorView& view) { return !view.defined() || view.shape() == Dims{heads}; };
  const auto mask_heads = [&](const ConstTensorView& view) {
    return view.rank() < 3 || view.size(view.rank() - 3) == 1 || view.size(view.rank() - 3) == heads;
  };
  if (lse.shape() != Dims{batch, heads, tq} || k.size(1) == 0 || heads % k.size(1) != 0 || !per_head(options.sinks) ||
      !per_head(options.mask.alibi_slopes) || !mask_heads(options.mask.allowed) || !mask_heads(options.mask.bias)) {
    throw Error(
        ErrorCode::kInvalidArgument,
        "attention_weights: expected lse [B,Hq,Tq], Hq a multiple of Hkv, sinks and alibi_slopes [Hq], a mask of 1 or "
        "Hq heads; query " +
            q.shape().to_string() + ", key " + k.shape().to_string() + ", lse " + lse.shape().to_string() + ", sinks " +
            options.sinks.shape().to_string() + ", alibi_slopes " + options.mask.alibi_slopes.shape().to_string());
  }
  const Dims shape{batch, tq, tk};
  Owned mean = torch::empty(DType::kF32, shape, contiguous_strides(shape));
  mean_weights(q, k, lse, torch::mutable_view_of(mean.get()), options);
  stack[0] = reinterpret_cast<IValue>(mean.release());
}

// Registrations that an undo takes back.
class Uses {
 public:
  void begin(bool pytorch_backward) {
    const std::lock_guard lock(mutex_);
    if (depth_ > 0 && pytorch_backward != pytorch_backward_) {
      throw nb::value_error(pytorch_backward_ ? "start: backward='pytorch' is in use; stop() it first"
                                              : "start: backward='manyheads' is in use; stop() it first");
    }
    if (depth_++ > 0) return;
    pytorch_backward_ = pytorch_backward;
    try {
      implement("CPU", "_scaled_dot_product_flash_attention_for_cpu", flash_attention_for_cpu);
      implement("CPU", "scaled_dot_product_attention", sdpa);
      implement("AutogradCPU", "scaled_dot_product_attention", sdpa_autograd);
      implement("CPU", "_native_multi_head_attention", native_multi_head_attention);
      implement("CPU", "_transformer_encoder_layer_fwd", transformer_encoder_layer);
      implement("CPU", "_flash_attention_forward", varlen<flash_attention_forward>);
      implement("CPU", "_flash_attention_forward_no_dropout_inplace", varlen<flash_attention_forward_inplace>);
      if (!pytorch_backward) {
        implement("CPU", "_scaled_dot_product_flash_attention_for_cpu_backward", flash_attention_for_cpu_backward);
        implement("CPU", "_flash_attention_backward", flash_attention_backward);
      }
    } catch (...) {
      depth_ = 0;
      drop();
      throw;
    }
  }
  void end() {
    const std::lock_guard lock(mutex_);
    if (depth_ > 0 && --depth_ == 0) drop();
  }
  bool active() {
    const std::lock_guard lock(mutex_);
    return depth_ > 0;
  }
  bool pytorch_backward() const { return pytorch_backward_.load(std::memory_order_relaxed); }

 private:
  void implement(const char* key, const char* op, torch::Kernel kernel) {
    void* library = nullptr;
    torch::check(torch::api().library_impl_of("aten", key, "manyheads",
                                              static_cast<std::uint32_t>(libraries_.size() + 1), &library));
    libraries_.push_back(library);
    torch::check(torch::api().implement(library, op, kernel, torch::api().abi_version()));
  }
  void drop() {
    for (void* library : libraries_) torch::api().delete_library(library);
    libraries_.clear();
  }

  std::mutex mutex_;
  int depth_ = 0;
  std::atomic<bool> pytorch_backward_{false};
  std::vector<void*> libraries_;
};

Uses& uses() {
  static Uses* const uses = new Uses;  // PyTorch may end first
  return *uses;
}

void start(const std::string& library) {
  static bool started = false;
  if (started) return;
  torch::load(library.c_str());
  void* made = nullptr;
  torch::check(torch::api().library_def("manyheads", "manyheads", 1, &made));
  torch::check(torch::api().define(made, kAttentionSchema));
  torch::check(torch::api().define(made, kWeightsSchema));
  torch::check(torch::api().define(made, kBackwardSchema));
  void* cpu = nullptr;
  torch::check(torch::api().library_impl_of("manyheads", "CPU", "manyheads", 2, &cpu));
  torch::check(torch::api().implement(cpu, "attention", attention_op, torch::api().abi_version()));
  torch::check(torch::api().implement(cpu, "attention_weights", weights_op, torch::api().abi_version()));
  torch::check(torch::api().implement(cpu, "attention_backward", attention_backward_op, torch::api().abi_version()));
  started = true;
}

}  // namespace

bool pytorch_backward() { return uses().pytorch_backward(); }

void bind_torch(nb::module_& module) {
  using nb::literals::operator""_a;
  module.def("_torch_start", start, "library"_a);
  module.def("_torch_begin", [](bool pytorch_backward) { uses().begin(pytorch_backward); }, "pytorch_backward"_a);
  module.def("_torch_end", [] { uses().end(); });
  module.def("_torch_active", [] { return uses().active(); });
  module.def("_torch_pytorch_backward", pytorch_backward);
  module.def("_torch_forward_levels", set_forward_levels, "levels"_a);
  module.def(
      "_torch_count",
      [](const std::string& text) {
        const auto* const found = std::find(std::begin(kOutcomeTexts), std::end(kOutcomeTexts), text);
        if (found == std::end(kOutcomeTexts)) throw nb::value_error("_torch_count: no such outcome");
        count(static_cast<Outcome>(found - std::begin(kOutcomeTexts)));
      },
      "outcome"_a);
  module.def(
      "_torch_report",
      [](bool reset) {
        std::map<std::string, std::int64_t> counts;
        for (int i = 0; i < kOutcomes; ++i) {
          const auto at = static_cast<std::size_t>(i);
          const std::int64_t seen = reset ? outcomes[at].exchange(0) : outcomes[at].load();
          if (seen > 0) counts[kOutcomeTexts[i]] = seen;
        }
        return counts;
      },
      "reset"_a = false);
}

}  // namespace manyheads::python
