#include "torch_sdpa.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <manyheads/attention.hpp>
#include <manyheads/error.hpp>
#include <span>
#include <vector>

#include "arguments.hpp"
#include "torch_ops.hpp"

namespace manyheads::python {
namespace {

using torch::Arguments;
using torch::Call;
using torch::IValue;
using torch::Owned;

// What attention_f64 reads.
void check_f64(const ConstTensorView& q, const ConstTensorView& k, const ConstTensorView& v, const Owned& mask) {
  bool fits = k.dtype() == DType::kF64 && v.dtype() == DType::kF64 && k.size(0) == q.size(0) &&
              v.size(0) == q.size(0) && k.size(1) > 0 && v.size(1) == k.size(1) && q.size(1) % k.size(1) == 0 &&
              v.size(2) == k.size(2) && k.size(3) == q.size(3) && v.size(3) == q.size(3);
  std::string text =
      "query " + q.shape().to_string() + ", key " + k.shape().to_string() + ", value " + v.shape().to_string();
  if (mask) {
    const ConstTensorView added = torch::view_of(mask.get(), "attn_mask");
    const Dims scores{q.size(0), q.size(1), q.size(2), k.size(2)};
    fits = fits && added.rank() <= 4 && (added.dtype() == DType::kF64 || added.dtype() == DType::kBool);
    for (int axis = 0; fits && axis < added.rank(); ++axis) {
      fits = added.size(axis) == 1 || added.size(axis) == scores[4 - added.rank() + axis];
    }
    text += std::string(", attn_mask ") + name_of(added.dtype()) + " " + added.shape().to_string();
  }
  if (!fits) {
    throw Error(ErrorCode::kInvalidArgument,
                "scaled_dot_product_flash_attention: float64 tensors that do not fit each other, " + text);
  }
}

// Attention in float64, three plain loops for each row.
void attention_f64(const ConstTensorView& q, const ConstTensorView& k, const ConstTensorView& v, const TensorView& out,
                   const TensorView& lse, const Owned& mask, bool causal, double scale) {
  const std::int64_t heads = q.size(1), tq = q.size(2), tk = k.size(2), group = heads / k.size(1);
  const ConstTensorView added = mask ? torch::view_of(mask.get(), "attn_mask") : ConstTensorView();
  const auto at = [](const ConstTensorView& view, std::int64_t a, std::int64_t b, std::int64_t c, std::int64_t d) {
    return static_cast<const double*>(view.data()) + a * view.stride(0) + b * view.stride(1) + c * view.stride(2) +
           d * view.stride(3);
  };
  const auto bias = [&](std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t j) {
    if (!added.defined()) return 0.0;
    const std::int64_t index[] = {b, h, i, j};
    std::int64_t offset = 0;
    for (int axis = 0; axis < added.rank(); ++axis) {
      if (added.size(axis) > 1) offset += index[4 - added.rank() + axis] * added.stride(axis);
    }
    if (added.dtype() == DType::kBool) {
      return static_cast<const bool*>(added.data())[offset] ? 0.0 : -std::numeric_limits<double>::infinity();
    }
    return static_cast<const double*>(added.data())[offset];
  };
  const auto row = [&](std::int64_t number) {
    const std::int64_t i = number % tq, h = number / tq % heads, b = number / tq / heads;
    std::vector<double> scores(static_cast<std::size_t>(tk), -std::numeric_limits<double>::infinity());
    double most = -std::numeric_limits<double>::infinity(), sum = 0;
    for (std::int64_t j = 0; j < (causal ? std::min(tk, i + 1) : tk); ++j) {
      double score = 0;
      for (std::int64_t e = 0; e < q.size(3); ++e) score += *at(q, b, h, i, e) * *at(k, b, h / group, j, e);
      scores[static_cast<std::size_t>(j)] = score * scale + bias(b, h, i, j);
      most = std::max(most, scores[static_cast<std::size_t>(j)]);
    }
    const bool none = most == -std::numeric_limits<double>::infinity();
    for (double& score : scores) sum += score = none ? 0 : std::exp(score - most);
    for (std::int64_t e = 0; e < v.size(3); ++e) {
      double value = 0;
      for (std::int64_t j = 0; j < tk; ++j) value += scores[static_cast<std::size_t>(j)] * *at(v, b, h / group, j, e);
      *const_cast<double*>(at(out, b, h, i, e)) = none ? 0 : value / sum;
    }
    static_cast<double*>(lse.data())[b * lse.stride(0) + h * lse.stride(1) + i * lse.stride(2)] =
        none ? -std::numeric_limits<double>::infinity() : most + std::log(sum);
  };
  torch::pool().run(
      q.size(0) * heads * tq,
      [](void* context, std::int64_t number) { (*static_cast<const decltype(row)*>(context))(number); },
      const_cast<void*>(static_cast<const void*>(&row)));
}

}  // namespace

void flash_attention_for_cpu(IValue* stack, std::uint64_t, std::uint64_t) {
  const Arguments given(stack, "TTTdbtD");
  const ConstTensorView q = torch::view_of(given.tensor(0).get(), "query"),
                        k = torch::view_of(given.tensor(1).get(), "key"),
                        v = torch::view_of(given.tensor(2).get(), "value");
  if (given.number(3) != 0) {
    throw Error(ErrorCode::kUnsupported, "scaled_dot_product_flash_attention: dropout is not supported on the CPU");
  }
  if (q.rank() != 4 || k.rank() != 4 || v.rank() != 4) {
    throw Error(ErrorCode::kInvalidArgument, "scaled_dot_product_flash_attention: expected 4 axes, query " +
                                                 q.shape().to_string() + ", key " + k.shape().to_string() + ", value " +
                                                 v.shape().to_string());
  }
  Owned out = torch::empty(q.dtype(), q.shape(), like_strides(q, q.shape()));
  if (q.dtype() == DType::kF64) {
    check_f64(q, k, v, given.tensor(5));
    count(kFloat64);
    Owned lse = torch::empty(DType::kF64, {q.size(0), q.size(1), q.size(2)}, {q.size(1) * q.size(2), 1, q.size(1)});
    attention_f64(q, k, v, torch::mutable_view_of(out.get()), torch::mutable_view_of(lse.get()), given.tensor(5),
                  given.flag(4), given.has(6) ? given.number(6) : 1 / std::sqrt(static_cast<double>(q.size(3))));
    stack[0] = reinterpret_cast<IValue>(out.release());
    stack[1] = reinterpret_cast<IValue>(lse.release());
    return;
  }
  AttentionOptions options;
  options.mask = mask_of(given.tensor(5), given.flag(4));
  if (given.has(6)) options.scale = given.number(6);
  Owned lse = empty_lse(q.size(0), q.size(1), q.size(2));
  options.lse = torch::mutable_view_of(lse.get());
  use_pool(options);
  attention(q, k, v, torch::mutable_view_of(out.get()), options);
  count(kTaken);
  stack[0] = reinterpret_cast<IValue>(out.release());
  stack[1] = reinterpret_cast<IValue>(lse.release());
}

namespace {

// A view of any number of leading axes as [B,H,T,D]; false where strides do not allow it.
bool as_four(const ConstTensorView& view, ConstTensorView& four) {
  const int rank = view.rank();
  if (rank == 4) {
    four = view;
    return true;
  }
  Dims shape{1, 1, 1, 1}, strides{0, 0, 0, 0};
  for (int i = 0; i < std::min(rank, 3); ++i) {
    shape[3 - i] = view.size(rank - 1 - i);
    strides[3 - i] = view.stride(rank - 1 - i);
  }
  // Axes before the head collapse into the batch.
  std::int64_t size = 1, stride = 0;
  for (int i = rank - 4; i >= 0; --i) {
    if (view.size(i) == 1) continue;
    if (size > 1 && view.stride(i) != stride * size) return false;
    if (size == 1) stride = view.stride(i);
    size *= view.size(i);
  }
  shape[0] = size;
  strides[0] = stride;
  four = ConstTensorView(view.data(), view.dtype(), shape, strides);
  return true;
}

struct Sdpa {
  const Arguments& given;
  const Owned& query() const { return given.tensor(0); }
  const Owned& key() const { return given.tensor(1); }
  const Owned& value() const { return given.tensor(2); }
  const Owned& mask() const { return given.tensor(3); }
  double dropout() const { return given.number(4); }
  bool causal() const { return given.flag(5); }
  bool gqa() const { return given.flag(7); }
};

// What aten::_fused_sdp_choice says: 0 error, 1 flash, ...
std::int64_t choice(const Sdpa& call, bool shapes_that_fit) {
  Call asked;
  const Owned none, small = shapes_that_fit ? torch::empty(DType::kF32, {1, 1, 1, 8}, {8, 8, 8, 1}) : Owned();
  const auto given = [&](const Owned& tensor) -> const Owned& { return shapes_that_fit ? small : tensor; };
  asked.tensor(given(call.query())).tensor(given(call.key())).tensor(given(call.value()));
  asked.optional(shapes_that_fit ? none : call.mask());
  asked.number(shapes_that_fit ? 0 : call.dropout()).flag(!shapes_that_fit && call.causal());
  asked.optional_number(call.given.has(6), call.given.number(6)).flag(!shapes_that_fit && call.gqa());
  return static_cast<std::int64_t>(asked.run("aten::_fused_sdp_choice", "", 1)[0]);
}

void math(const Sdpa& call, IValue* stack) {
  Call own;
  own.tensor(call.query()).tensor(call.key()).tensor(call.value()).optional(mask_for_math(call.mask()));
  own.number(call.dropout()).flag(call.causal()).optional(Owned());
  own.optional_number(call.given.has(6), call.given.number(6)).flag(call.gqa());
  const std::vector<IValue> results = own.run("aten::_scaled_dot_product_attention_math", "", 2);
  const Owned weights(reinterpret_cast<torch::Handle>(results[1]));
  stack[0] = results[0];
}

// A tensor without memory: PyTorch traces a graph, or there are no elements. Such a call becomes ops that have fake
// kernels.
bool traced(const Owned& tensor) {
  const void* data = nullptr;
  return torch::api().const_data(tensor.get(), &data) != 0 || data == nullptr;
}

// Takes the call without a gradient; false where it is PyTorch's own to take.
bool taken(const Sdpa& call, IValue* stack) {
  DType type, other;
  if (!torch::type_of(call.query().get(), type) || !computes(type) || !torch::type_of(call.key().get(), other) ||
      other != type || !torch::type_of(call.value().get(), other) || other != type) {
    return count(kType), false;
  }
  if (call.causal() && call.mask()) return count(kMaskAndCausal), false;
  const ConstTensorView whole = torch::view_of(call.query().get(), "query");
  const ConstTensorView given_k = torch::view_of(call.key().get(), "key"),
                        given_v = torch::view_of(call.value().get(), "value");
  ConstTensorView q, k, v;
  const auto [least, rank] = std::minmax({whole.rank(), given_k.rank(), given_v.rank()});
  if (least < 2 || (rank > 4 && least != rank) || !as_four(whole, q) || !as_four(given_k, k) || !as_four(given_v, v)) {
    return count(kShape), false;
  }
  const std::int64_t batch = std::max({q.size(0), k.size(0), v.size(0)});
  const std::int64_t heads = call.gqa() ? q.size(1) : std::max({q.size(1), k.size(1), v.size(1)});
  const auto fits = [](std::int64_t size, std::int64_t whole_size) { return size == whole_size || size == 1; };
  const bool same_heads = call.gqa() ? k.size(1) == v.size(1) && k.size(1) > 0 && heads % k.size(1) == 0
                                     : fits(q.size(1), heads) && fits(k.size(1), heads) && fits(v.size(1), heads);
  // Of five axes and more, those before the heads collapse: only equal ones are taken.
  const auto leads_alike = [&whole](const ConstTensorView& other) {
    for (int axis = 0; axis < whole.rank() - 3; ++axis) {
      if (other.size(axis) != whole.size(axis)) return false;
    }
    return true;
  };
  const bool leading = rank < 5 || (leads_alike(given_k) && leads_alike(given_v));
  if (!fits(q.size(0), batch) || !fits(k.size(0), batch) || !fits(v.size(0), batch) || !same_heads || !leading ||
      q.size(3) != k.size(3) || k.size(2) != v.size(2) || q.size(3) == 0 || v.size(3) == 0) {
    return count(kShape), false;
  }
  AttentionOptions options;
  if (call.mask()) {
    const ConstTensorView mask = torch::view_of(call.mask().get(), "attn_mask");
    ConstTensorView four;
    if (mask.dtype() != DType::kBool && mask.dtype() != DType::kF32 && mask.dtype() != type) {
      return count(kType), false;
    }
    const bool has_heads_alone = rank < 5 ? mask.rank() <= rank : mask.rank() <= 3;
    if (has_heads_alone) {
      four = mask;
    } else if (rank < 5 || mask.rank() != rank || !leads_alike(mask) || !as_four(mask, four)) {
      return count(kShape), false;
    }
    const Dims to{batch, heads, q.size(2), k.size(2)};
    for (int i = 0; i < four.rank(); ++i) {
      if (!fits(four.size(i), to[4 - four.rank() + i])) return count(kShape), false;
    }
    options.mask = mask.dtype() == DType::kBool ? mask::allowed(four) : mask::bias(four);
  }
  if (choice(call, false) != 1 && choice(call, true) != 1) return count(kBackendOff), false;
  if (call.causal()) options.mask = options.mask | mask::causal(Alignment::kTopLeft);
  if (call.given.has(6)) options.scale = call.given.number(6);
  // One head for all is read as grouped heads are.
  const std::int64_t kv_heads = call.gqa() || (k.size(1) == 1 && v.size(1) == 1) ? 0 : heads;
  q = expanded(q, batch, heads);
  k = expanded(k, batch, kv_heads);
  v = expanded(v, batch, kv_heads);
  // The result has query's layout where that has its shape, but for the last axis.
  Dims shape = whole.shape();
  if (rank > 4) {
    shape[rank - 1] = v.size(3);
    shape[rank - 3] = heads;
  } else {
    const std::int64_t sizes[] = {batch, heads, q.size(2), v.size(3)};
    shape = Dims(std::span<const std::int64_t>(sizes + 4 - rank, static_cast<std::size_t>(rank)));
  }
  const bool same = std::equal(shape.begin(), shape.end() - 1, whole.shape().begin(), whole.shape().end() - 1);
  Owned out = torch::empty(type, shape, same ? like_strides(whole, shape) : contiguous_strides(shape));
  ConstTensorView result;
  const TensorView made = torch::mutable_view_of(out.get());
  if (!as_four(made, result)) return count(kShape), false;
  options.dropout = dropout_of(call.dropout(), draw_seed(call.dropout()), "scaled_dot_product_attention");
  use_pool(options);
  attention(q, k, v, TensorView(made.data(), result.dtype(), result.shape(), result.strides()), options);
  count(kTaken);
  stack[0] = reinterpret_cast<IValue>(out.release());
  return true;
}

std::atomic<std::int64_t> forward_levels{0};

// Whether a transform of torch.func runs, or forward-mode derivatives may be asked for: our ops have no rules for them.
bool transformed(bool is_traced) {
  if (forward_levels.load(std::memory_order_relaxed) > 0) return true;
  if (!is_traced) return false;
  const nb::gil_scoped_acquire gil;
  return !nb::module_::import_("torch._C._functorch").attr("peek_interpreter_stack")().is_none();
}

// Whether PyTorch's flash attention takes the call, as far as its sizes are numbers. A float mask may want a gradient,
// which that op has not.
bool fits_flash(const Sdpa& call) {
  DType type, mask_type;
  if (!torch::type_of(call.query().get(), type) || !computes(type) || call.dropout() != 0) return false;
  if (call.mask() && (call.causal() || !torch::type_of(call.mask().get(), mask_type) || mask_type != DType::kBool)) {
    return false;
  }
  const Owned* const tensors[] = {&call.query(), &call.key(), &call.value()};
  std::int64_t* sizes[3] = {};
  for (int i = 0; i < 3; ++i) {
    DType own;
    std::int64_t rank = 0;
    torch::check(torch::api().dim(tensors[i]->get(), &rank));
    if (rank != 4 || !torch::type_of(tensors[i]->get(), own) || own != type ||
        torch::api().sizes(tensors[i]->get(), &sizes[i]) != 0) {
      return false;
    }
  }
  const std::int64_t *q = sizes[0], *k = sizes[1], *v = sizes[2];
  return q[0] == k[0] && q[1] == k[1] && q[3] == k[3] && std::equal(k, k + 4, v) && q[2] > 0 && k[2] > 0;
}

// The call as PyTorch itself makes it. Its flash attention, which is ours to compute, has rules for transforms.
void by_pytorch(const Sdpa& call, IValue* stack) {
  if (!fits_flash(call) || choice(call, true) != 1) return count(kTransformed), math(call, stack);
  Owned mask = mask_for_math(call.mask());
  if (mask) mask = Call().tensor(mask).tensor(call.query()).flag(false).flag(false).none().run("aten::to", "other");
  Call own;
  own.tensor(call.query()).tensor(call.key()).tensor(call.value()).number(0).flag(call.causal()).optional(mask);
  own.optional_number(call.given.has(6), call.given.number(6));
  const std::vector<IValue> results = own.run("aten::_scaled_dot_product_flash_attention_for_cpu", "", 2);
  const Owned lse(reinterpret_cast<torch::Handle>(results[1]));
  stack[0] = results[0];
}

// The call as ops that have gradients and fake kernels.
void by_ops(const Sdpa& call, IValue* stack, bool is_traced) {
  const Arguments& given = call.given;
  DType type;
  if (!torch::type_of(call.query().get(), type) || !computes(type)) return count(kType), math(call, stack);
  if (call.causal() && call.mask()) return count(kMaskAndCausal), math(call, stack);
  const Owned* inputs[] = {&call.query(), &call.key(), &call.value()};
  std::int64_t ranks[3] = {}, mask_rank = 0, *sizes[3] = {};
  bool known = true;  // sizes may be symbols in a trace
  for (int i = 0; i < 3; ++i) {
    torch::check(torch::api().dim(inputs[i]->get(), &ranks[i]));
    known = torch::api().sizes(inputs[i]->get(), &sizes[i]) == 0 && known;
  }
  if (call.mask()) torch::check(torch::api().dim(call.mask().get(), &mask_rank));
  const auto [least, rank] = std::minmax({ranks[0], ranks[1], ranks[2]});
  if (least < 2 || rank > 4 || mask_rank > rank) return count(kShape), math(call, stack);
  bool flash = false;
  if (known) {
    const auto size = [&](int i, int axis) {
      return axis <= ranks[i] ? sizes[i][ranks[i] - axis] : 1;
    };  // from the end
    const auto fits = [&](int axis) {
      const std::int64_t most = std::max({size(0, axis), size(1, axis), size(2, axis)});
      return std::all_of(ranks, ranks + 3, [&](const std::int64_t& of) {
        const std::int64_t own = size(static_cast<int>(&of - ranks), axis);
        return own == most || own == 1;
      });
    };
    const std::int64_t heads = size(0, 3), kv_heads = size(1, 3);
    const bool grouped = kv_heads == size(2, 3) && kv_heads > 0 && heads % kv_heads == 0;
    if (!fits(4) || !(call.gqa() ? grouped : fits(3)) || size(0, 1) != size(1, 1) || size(1, 2) != size(2, 2) ||
        size(0, 1) == 0 || size(2, 1) == 0) {
      return count(kShape), math(call, stack);
    }
    flash = !is_traced && !call.mask() && call.dropout() == 0 && least == rank && size(2, 1) == size(0, 1) &&
            size(0, 4) == size(1, 4) && size(0, 4) == size(2, 4) && (call.gqa() || (heads == kv_heads && grouped)) &&
            choice(call, false) == 1;
  }
  // PyTorch does not say to a trace which path it would take.
  if (!is_traced && !flash && choice(call, true) != 1) return count(kBackendOff), math(call, stack);
  Owned four[3];
  for (int i = 0; i < 3; ++i) {
    for (std::int64_t axes = ranks[i]; axes < 4; ++axes) {
      four[i] = Call().tensor(*inputs[i]).integer(0).run("aten::unsqueeze");
      inputs[i] = &four[i];
    }
  }
  Call own;
  own.tensor(*inputs[0]).tensor(*inputs[1]).tensor(*inputs[2]);
  if (flash) {
    own.number(0).flag(call.causal()).optional(Owned()).optional_number(given.has(6), given.number(6));
  } else {  // keeps a bool mask as it is; its gradients are registered in Python
    own.optional(call.mask());
    for (int i = 0; i < 7; ++i) own.optional(Owned());
    own.flag(call.causal()).integer(call.causal() ? 1 : 0).integer(-1).integer(-1);
    own.optional_number(given.has(6), given.number(6)).number(0);
    own.optional(Owned()).optional(Owned()).flag(pytorch_backward());
    own.number(call.dropout()).optional(draw_seed(call.dropout()));
  }
  const std::vector<IValue> results =
      own.run(flash ? "aten::_scaled_dot_product_flash_attention_for_cpu" : "manyheads::attention", "", 2);
  const Owned lse(reinterpret_cast<torch::Handle>(results[1]));
  Owned result(reinterpret_cast<torch::Handle>(results[0]));
  for (std::int64_t axes = 4; axes > rank; --axes) {
    result = Call().tensor(result).integer(0).run("aten::squeeze", "dim");
  }
  stack[0] = reinterpret_cast<IValue>(result.release());
}

}  // namespace

void set_forward_levels(std::int64_t levels) { forward_levels.store(levels); }

void sdpa(IValue* stack, std::uint64_t, std::uint64_t) {
  const Arguments given(stack, "TTTtdbDb");
  const Sdpa call{given};
  if (traced(call.query())) {
    by_ops(call, stack, true);
  } else if (!taken(call, stack)) {
    math(call, stack);
  }
}

void sdpa_autograd(IValue* stack, std::uint64_t, std::uint64_t) {
  const Arguments given(stack, "TTTtdbDb");
  const Sdpa call{given};
  const bool is_traced = traced(call.query());
  if (transformed(is_traced)) {
    by_pytorch(call, stack);
  } else if (is_traced || torch::api().grad_enabled()) {
    by_ops(call, stack, is_traced);
  } else if (!taken(call, stack)) {
    math(call, stack);
  }
}

}  // namespace manyheads::python
