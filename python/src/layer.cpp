#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>

#include <algorithm>
#include <cstring>
#include <manyheads/multi_head_attention.hpp>
#include <utility>
#include <vector>

#include "arguments.hpp"
#include "torch_api.hpp"

namespace manyheads::python {
namespace {

constexpr const char* kForward = "MultiHeadAttention";
constexpr const char* kBackward = "MultiHeadAttention.backward";

DType layer_dtype(const std::string& name) {
  for (const DType type : {DType::kF32, DType::kBF16, DType::kF16}) {
    if (name == python_name(type)) return type;
  }
  throw nb::value_error(
      ("MultiHeadAttention: dtype is '" + name + "', expected 'float32', 'bfloat16' or 'float16'").c_str());
}

// Dense: the array's memory where it lies so, else a copy.
Tensor dense(Array array) {
  const ConstTensorView view = array.view();
  if (view.contiguous()) {
    return Tensor(std::make_shared<const Array>(std::move(array)), view.data(), view.dtype(), view.shape());
  }
  Tensor tensor(view.dtype(), view.shape());
  const std::size_t size = size_of(view.dtype());
  auto* to = static_cast<char*>(tensor.view().data());
  const auto* from = static_cast<const char*>(view.data());
  Dims at = view.shape();
  for (int i = 0; i < at.rank(); ++i) at[i] = 0;
  for (std::int64_t n = tensor.elements(); n > 0; --n, to += size) {
    std::int64_t offset = 0;
    for (int i = 0; i < at.rank(); ++i) offset += at[i] * view.stride(i);
    std::memcpy(to, from + offset * static_cast<std::int64_t>(size), size);
    for (int i = at.rank() - 1; i >= 0 && ++at[i] == view.size(i); --i) at[i] = 0;
  }
  return tensor;
}

// Its tensors stand on the arrays: it is read and destroyed with the GIL held, while they are there.
StateDict state_of(const nb::dict& given) {
  StateDict state;
  for (const auto& [name, array] : given) {
    const std::string key = nb::cast<std::string>(nb::str(name));
    state[key] = dense(Array(array, "MultiHeadAttention", key.c_str()));
  }
  return state;
}

// What a forward keeps for its backward.
struct LayerActivations {
  MultiHeadAttentionActivations kept;

  // q, k, v, heads and lse; k and v are None for self-attention.
  nb::tuple arrays() const {
    const auto one = [](const Tensor& tensor) { return tensor.defined() ? numpy_of(tensor, true) : nb::none(); };
    return nb::make_tuple(one(kept.q), one(kept.k), one(kept.v), one(kept.heads), one(kept.lse));
  }
  static LayerActivations of(nb::object q, nb::object k, nb::object v, nb::object heads, nb::object lse) {
    const auto one = [](const nb::object& object, const char* name) {
      return object.is_none() ? Tensor() : dense(Array(object, "LayerActivations", name));
    };
    return {{one(q, "q"), one(k, "k"), one(v, "v"), one(heads, "heads"), one(lse, "lse")}};
  }
  std::int64_t nbytes() const {
    std::int64_t bytes = 0;
    for (const Tensor* tensor : {&kept.q, &kept.k, &kept.v, &kept.heads, &kept.lse}) {
      if (tensor->defined()) bytes += tensor->elements() * static_cast<std::int64_t>(size_of(tensor->dtype()));
    }
    return bytes;
  }
};

// The inputs and options of a call, as forward and backward take them. The arrays live as long as the options.
struct Call {
  Array query, key, value, padding, added, scales;
  bool cross;
  PythonMask parts;
  MultiHeadAttentionOptions options;

  Call(const char* function, const nb::object& of_query, const nb::object& of_key, const nb::object& of_value,
       const nb::object& key_padding_mask, const nb::object& attn_mask, const nb::object& mask,
       const nb::object& head_scale, const Dropout& dropout)
      : query(of_query, function, "query"), cross(!of_key.is_none() || !of_value.is_none()) {
    if (cross) {
      key = Array(of_key.is_none() ? of_query : of_key, function, "key");
      value = Array(!of_value.is_none() ? of_value : of_key.is_none() ? of_query : of_key, function, "value");
    }
    padding = optional_array(key_padding_mask, function, "key_padding_mask");
    added = optional_array(attn_mask, function, "attn_mask");
    scales = optional_array(head_scale, function, "head_scale");
    if (!mask.is_none()) {
      parts = mask_of(mask, function);
      options.mask = parts.mask;
    }
    options.key_padding_mask = padding.view();
    options.attn_mask = added.view();
    options.head_scale = scales.view();
    options.dropout = dropout;
    options.workspace = &own_workspace();
  }
};

nb::object run(const MultiHeadAttention& self, const nb::object& query, Call& call, bool weights, nb::object out,
               bool keep) {
  const Array& q = call.query;
  MultiHeadAttentionOptions& options = call.options;
  const Maker maker(query, q);
  Maker::Result result = out.is_none() ? maker.make(q.view().dtype(), q.view().shape())
                                       : Maker::Result{out, Array(out, kForward, "out", true)};
  Maker::Result probabilities;
  if (weights) {
    Dims shape;
    if (q.view().rank() == 3 && (!call.cross || call.key.view().rank() == 3)) {
      const std::int64_t keys = call.cross ? call.key.view().size(1) : q.view().size(1);
      shape = {q.view().size(0), self.config().num_heads, q.view().size(1),
               keys + (self.config().add_bias_kv ? 1 : 0) + (self.config().add_zero_attn ? 1 : 0)};
    }
    probabilities = maker.make(DType::kF32, shape);
    options.weights = probabilities.array.mutable_view();
  }
  LayerActivations activations;
  if (keep) options.activations = &activations.kept;
  without_gil([&] {
    if (call.cross) {
      self.forward(q.view(), call.key.view(), call.value.view(), result.array.mutable_view(), options);
    } else {
      self.forward(q.view(), result.array.mutable_view(), options);
    }
  });
  nb::list given;
  given.append(out.is_none() ? maker.finish(std::move(result)) : std::move(out));
  if (weights) given.append(maker.finish(std::move(probabilities)));
  if (keep) given.append(nb::cast(std::move(activations)));
  return given.size() == 1 ? nb::object(given[0]) : nb::tuple(given);
}

nb::object forward(const MultiHeadAttention& self, nb::object query, nb::object key, nb::object value,
                   nb::object key_padding_mask, nb::object attn_mask, nb::object mask, bool weights,
                   nb::object head_scale, nb::object out, int num_threads, std::string bits, double dropout_p,
                   std::uint64_t dropout_seed, const DropoutOrigin& dropout_origin, bool keep) {
  check_threads(num_threads, kForward);
  Call call(kForward, query, key, value, key_padding_mask, attn_mask, mask, head_scale,
            dropout_of(dropout_p, dropout_seed, dropout_origin));
  call.options.threads.num_threads = num_threads;
  call.options.bits = bits;
  return run(self, query, call, weights, std::move(out), keep);
}

[[noreturn]] void refuse(const std::string& what) {
  throw nb::value_error((std::string(kBackward) + ": " + what).c_str());
}

// The gradients of a call, by name.
class AskedGradients {
 public:
  // asked: None for all, the names of some, or a dict: True makes one, False leaves it out, else an array takes it.
  AskedGradients(const MultiHeadAttention& self, const Call& call, const LayerActivations& activations, bool has_key,
                 bool has_value, const nb::object& asked, bool accumulate, const Maker& maker)
      : maker_(maker) {
    const bool apart = call.cross && activations.kept.k.defined();
    std::vector<std::pair<std::string, Dims>> all{{"query", call.query.view().shape()}};
    if (apart && has_key) all.emplace_back("key", call.key.view().shape());
    if (apart && has_value) all.emplace_back("value", call.value.view().shape());
    if (call.scales.given()) all.emplace_back("head_scale", call.scales.view().shape());
    for (const auto& [name, tensor] : self.state_dict()) all.emplace_back(name, tensor.shape());
    const nb::dict wanted = by_name(asked, all);
    check_names(wanted, all, call.cross && !apart);
    to.accumulate = accumulate;
    for (const auto& [name, shape] : all) {
      if (!wanted.contains(name.c_str())) continue;
      const nb::object how = wanted[name.c_str()];
      const bool made = nb::isinstance<nb::bool_>(how);
      if (made && !nb::cast<bool>(how)) continue;
      if (made && accumulate) refuse("accumulate adds to arrays, gradients has none for '" + name + "'");
      Maker::Result result =
          made ? maker.make(DType::kF32, shape) : Maker::Result{how, Array(how, kBackward, name.c_str(), true)};
      slot(name) = result.array.mutable_view();
      results_.push_back({name, std::move(result), made});
    }
    if (!apart || (has_key && has_value)) return;
    // The input that stands for another takes its gradient too.
    doubled_ = has_key ? "key" : "query";
    if (!slot(doubled_).defined()) return;
    other_ = maker.make(DType::kF32, call.key.view().shape());
    const TensorView other = other_.array.mutable_view();
    if (accumulate)
      std::memset(other.data(), 0, static_cast<std::size_t>(element_count(other.shape())) * sizeof(float));
    (has_key ? to.dvalue : to.dkey) = other;
  }

  nb::dict finish() {
    nb::dict given;
    for (One& one : results_) {
      nb::object array = one.made ? maker_.finish(std::move(one.result)) : std::move(one.result.object);
      if (one.name == doubled_) array.attr("__iadd__")(maker_.finish(std::move(other_)));
      given[one.name.c_str()] = array;
    }
    return given;
  }

  MultiHeadAttentionGradients to;

 private:
  struct One {
    std::string name;
    Maker::Result result;
    bool made;
  };
  using Shapes = std::vector<std::pair<std::string, Dims>>;

  static nb::dict by_name(const nb::object& asked, const Shapes& all) {
    if (nb::isinstance<nb::dict>(asked)) return nb::cast<nb::dict>(asked);
    nb::dict wanted;
    if (asked.is_none()) {
      for (const auto& [name, shape] : all) wanted[name.c_str()] = true;
      return wanted;
    }
    if (nb::isinstance<nb::str>(asked) || !nb::isinstance<nb::sequence>(asked)) {
      refuse("gradients is " + nb::cast<std::string>(nb::repr(asked)) +
             ", expected None, a list of names, or a dict of names to arrays");
    }
    for (const nb::handle name : asked) wanted[name] = true;
    return wanted;
  }
  static void check_names(const nb::dict& wanted, const Shapes& all, bool of_self_attention) {
    std::string unknown, known;
    for (const auto& [name, value] : wanted) {
      const std::string given = nb::cast<std::string>(nb::str(name));
      const auto is_it = [&](const auto& one) { return one.first == given; };
      if (std::none_of(all.begin(), all.end(), is_it)) unknown += (unknown.empty() ? "'" : ", '") + given + "'";
    }
    if (unknown.empty()) return;
    for (const auto& [name, shape] : all) known += (known.empty() ? "'" : ", '") + name + "'";
    refuse("gradients names " + unknown + ", this call has " + known +
           (of_self_attention ? "; 'query' holds all of self-attention's" : ""));
  }
  TensorView& slot(const std::string& name) {
    if (name == "query") return to.dquery;
    if (name == "key") return to.dkey;
    if (name == "value") return to.dvalue;
    if (name == "head_scale") return to.dhead_scale;
    return to.parameters[name];
  }

  const Maker& maker_;
  std::vector<One> results_;
  std::string doubled_;
  Maker::Result other_;
};

nb::dict run_backward(const MultiHeadAttention& self, const nb::object& dy, const LayerActivations& activations,
                      const nb::object& query, const Call& call, bool has_key, bool has_value,
                      const nb::object& gradients, bool accumulate) {
  const Array by_y(dy, kBackward, "dy");
  const Maker maker(query, call.query);
  AskedGradients asked(self, call, activations, has_key, has_value, gradients, accumulate, maker);
  without_gil([&] {
    if (call.cross) {
      self.backward(call.query.view(), call.key.view(), call.value.view(), activations.kept, by_y.view(), asked.to,
                    call.options);
    } else {
      self.backward(call.query.view(), activations.kept, by_y.view(), asked.to, call.options);
    }
  });
  return asked.finish();
}

nb::dict backward_of(const MultiHeadAttention& self, nb::object dy, const LayerActivations& activations,
                     nb::object query, nb::object key, nb::object value, nb::object key_padding_mask,
                     nb::object attn_mask, nb::object mask, nb::object head_scale, nb::object gradients,
                     bool accumulate, int num_threads, std::string bits, double dropout_p, std::uint64_t dropout_seed,
                     const DropoutOrigin& dropout_origin) {
  check_threads(num_threads, kBackward);
  Call call(kBackward, query, key, value, key_padding_mask, attn_mask, mask, head_scale,
            dropout_of(dropout_p, dropout_seed, dropout_origin));
  call.options.threads.num_threads = num_threads;
  call.options.bits = bits;
  return run_backward(self, dy, activations, query, call, !key.is_none(), !value.is_none(), gradients, accumulate);
}

constexpr const char* kBackwardDoc =
    R"(The gradients of a call that kept activations, from dy, the gradient of a loss by y: a dict of float32 arrays by name.

query, key, value and the options, dropout's too, are those of the call. dy has y's shape and any float type.
- 'query', 'key' and 'value'. For self-attention 'query' is all of it. An input that stood for a missing one has both.
- 'head_scale' where it is given: how much the loss moves with each head (Michel et al. 2019).
- The weights and biases, by their names in state_dict().
gradients: None for all; a list of names for those alone; or a dict by name, where True makes one, False leaves it out and
an array of float32 and any strides is written to. accumulate=True adds to the arrays that are given.

>>> layer = MultiHeadAttention(64, 8)
>>> x = np.random.default_rng(0).standard_normal((1, 7, 64), dtype=np.float32)
>>> y, activations = layer(x, keep=True)
>>> gradients = layer.backward(np.ones_like(y), activations, x)
>>> gradients['query'].shape, gradients['in_proj_weight'].shape
((1, 7, 64), (192, 64))
>>> bool(np.all(gradients['out_proj.bias'] == 7))
True)";

}  // namespace

void bind_layer(nb::module_& module) {
  using nb::literals::operator""_a;
  nb::class_<LayerActivations>(
      module, "LayerActivations",
      "What MultiHeadAttention keeps of a call with keep=True, for its backward.\n\n"
      ">>> y, activations = MultiHeadAttention(512, 8)(np.ones((2, 7, 512), np.float32), keep=True)\n"
      ">>> activations\n"
      "LayerActivations(2 x 7 tokens, 115136 bytes)")
      .def_prop_ro("nbytes", &LayerActivations::nbytes, "The bytes that are kept.")
      .def("_arrays", &LayerActivations::arrays, "(q, k, v, heads, lse); k and v are None for self-attention.")
      .def_static("_of", &LayerActivations::of, "q"_a, "k"_a.none(), "v"_a.none(), "heads"_a, "lse"_a,
                  "Those of these arrays, which are dense.")
      .def("__repr__", [](const LayerActivations& a) {
        const Dims& heads = a.kept.heads.shape();
        return "LayerActivations(" + std::to_string(heads[0]) + " x " + std::to_string(heads[1]) + " tokens, " +
               std::to_string(a.nbytes()) + " bytes)";
      });
  nb::class_<MultiHeadAttention>(module, "MultiHeadAttention",
                                 R"(Multi-head attention with its projections (Vaswani et al. 2017, section 3.2.2).

head_i = attention(x W_q^i, x W_k^i, x W_v^i), y = concat(head_1 .. head_h) W_o. d_k = d_model / num_heads.
Weights have PyTorch's names and layouts: state_dict() and load_state_dict() go both ways. dtype: 'float32',
'bfloat16' or 'float16'. state_dict: weights to begin with, else Xavier-uniform ones from a fixed seed.

>>> layer = MultiHeadAttention(512, 8)
>>> layer.d_k
64
>>> y, weights = layer(np.ones((1, 7, 512), np.float32), weights=True)
>>> y.shape, weights.shape
((1, 7, 512), (1, 8, 7, 7)))")
      .def(
          "__init__",
          [](MultiHeadAttention* self, std::int64_t d_model, std::int64_t num_heads, std::int64_t num_kv_heads,
             std::int64_t kdim, std::int64_t vdim, bool bias, bool add_bias_kv, bool add_zero_attn,
             const std::string& dtype, std::optional<nb::dict> state_dict) {
            const MultiHeadAttentionConfig config{.d_model = d_model,
                                                  .num_heads = num_heads,
                                                  .num_kv_heads = num_kv_heads,
                                                  .kdim = kdim,
                                                  .vdim = vdim,
                                                  .bias = bias,
                                                  .add_bias_kv = add_bias_kv,
                                                  .add_zero_attn = add_zero_attn,
                                                  .dtype = layer_dtype(dtype)};
            if (state_dict) {
              const StateDict state = state_of(*state_dict);
              without_gil([&] { new (self) MultiHeadAttention(config, state); });
            } else {
              new (self) MultiHeadAttention(config);
            }
          },
          "d_model"_a, "num_heads"_a, nb::kw_only(), "num_kv_heads"_a = 0, "kdim"_a = 0, "vdim"_a = 0, "bias"_a = true,
          "add_bias_kv"_a = false, "add_zero_attn"_a = false, "dtype"_a = "float32", "state_dict"_a = nb::none())
      .def_static(
          "_made_on_torch",
          [](std::int64_t d_model, std::int64_t num_heads, std::int64_t kdim, std::int64_t vdim, bool bias,
             bool add_bias_kv, bool add_zero_attn, const std::string& dtype, const nb::dict& state_dict) {
            const MultiHeadAttentionConfig config{.d_model = d_model,
                                                  .num_heads = num_heads,
                                                  .kdim = kdim,
                                                  .vdim = vdim,
                                                  .bias = bias,
                                                  .add_bias_kv = add_bias_kv,
                                                  .add_zero_attn = add_zero_attn,
                                                  .dtype = layer_dtype(dtype)};
            const StateDict state = state_of(state_dict);
            const Threads threads{.executor = &torch::pool()};
            std::optional<MultiHeadAttention> made;
            without_gil([&] { made.emplace(config, state, threads); });
            return std::move(*made);
          },
          "d_model"_a, "num_heads"_a, nb::kw_only(), "kdim"_a, "vdim"_a, "bias"_a, "add_bias_kv"_a, "add_zero_attn"_a,
          "dtype"_a, "state_dict"_a, "A layer that PyTorch's threads pack.")
      .def(
          "_forward_on_torch",
          [](const MultiHeadAttention& self, nb::object query, nb::object key, nb::object value,
             nb::object key_padding_mask, nb::object attn_mask, nb::object mask, bool weights, nb::object out,
             double dropout_p, std::uint64_t dropout_seed, const DropoutOrigin& dropout_origin, bool keep) {
            Call call(kForward, query, key, value, key_padding_mask, attn_mask, mask, nb::none(),
                      dropout_of(dropout_p, dropout_seed, dropout_origin));
            call.options.threads.executor = &torch::pool();
            return run(self, query, call, weights, std::move(out), keep);
          },
          "query"_a, "key"_a.none(), "value"_a.none(), nb::kw_only(), "key_padding_mask"_a.none(), "attn_mask"_a.none(),
          "mask"_a.none(), "weights"_a, "out"_a, "dropout_p"_a = 0.0, "dropout_seed"_a = 0,
          "dropout_origin"_a = DropoutOrigin(), "keep"_a = false, "The same by PyTorch's threads.")
      .def("__call__", forward, "query"_a, "key"_a = nb::none(), "value"_a = nb::none(), nb::kw_only(),
           "key_padding_mask"_a = nb::none(), "attn_mask"_a = nb::none(), "mask"_a = nb::none(), "weights"_a = false,
           "head_scale"_a = nb::none(), "out"_a = nb::none(), "num_threads"_a = 0, "bits"_a = "", "dropout_p"_a = 0.0,
           "dropout_seed"_a = 0, "dropout_origin"_a = DropoutOrigin(), "keep"_a = false,
           "y [B,T,d_model] of query [B,T,d_model], key [B,S,kdim] and value [B,S,vdim]; weights=True: (y, weights\n"
           "[B,H,T,S]). key_padding_mask [B,S] and attn_mask [T,S] or [B H,T,S] as PyTorch's layer takes them: True\n"
           "means ignore. mask: a Mask, or an array with True = attend. head_scale [H]: 0 switches a head off.\n"
           "dropout_p, dropout_seed, dropout_origin: of the weights, as attention has them.\n"
           "keep=True returns LayerActivations last, for backward: 4 (2 d_model + 2 num_kv_heads d_k + num_heads) "
           "bytes\n"
           "a token, 8,224 for d_model 512 and 8 heads.")
      .def("backward", backward_of, "dy"_a, "activations"_a, "query"_a, "key"_a = nb::none(), "value"_a = nb::none(),
           nb::kw_only(), "key_padding_mask"_a = nb::none(), "attn_mask"_a = nb::none(), "mask"_a = nb::none(),
           "head_scale"_a = nb::none(), "gradients"_a = nb::none(), "accumulate"_a = false, "num_threads"_a = 0,
           "bits"_a = "", "dropout_p"_a = 0.0, "dropout_seed"_a = 0, "dropout_origin"_a = DropoutOrigin(), kBackwardDoc)
      .def(
          "_backward_on_torch",
          [](const MultiHeadAttention& self, nb::object dy, const LayerActivations& activations, nb::object query,
             nb::object key, nb::object value, nb::object key_padding_mask, nb::object attn_mask, nb::object mask,
             nb::object gradients, double dropout_p, std::uint64_t dropout_seed, const DropoutOrigin& dropout_origin) {
            Call call(kBackward, query, key, value, key_padding_mask, attn_mask, mask, nb::none(),
                      dropout_of(dropout_p, dropout_seed, dropout_origin));
            call.options.threads.executor = &torch::pool();
            return run_backward(self, dy, activations, query, call, !key.is_none(), !value.is_none(), gradients, false);
          },
          "dy"_a, "activations"_a, "query"_a, "key"_a.none(), "value"_a.none(), nb::kw_only(),
          "key_padding_mask"_a.none(), "attn_mask"_a.none(), "mask"_a.none(), "gradients"_a, "dropout_p"_a = 0.0,
          "dropout_seed"_a = 0, "dropout_origin"_a = DropoutOrigin(), "The same by PyTorch's threads.")
      .def(
          "load_state_dict",
          [](MultiHeadAttention& self, const nb::dict& given) { self.load_state_dict(state_of(given)); },
          "state_dict"_a, "Takes the arrays of a torch.nn.MultiheadAttention of these sizes.")
      .def(
          "state_dict",
          [](const MultiHeadAttention& self) {
            nb::dict state;
            for (const auto& [name, tensor] : self.state_dict()) state[name.c_str()] = numpy_of(tensor, false);
            return state;
          },
          "The weights as read-only NumPy arrays that share the layer's memory.")
      .def_prop_ro(
          "d_model", [](const MultiHeadAttention& self) { return self.config().d_model; }, "d_model.")
      .def_prop_ro(
          "num_heads", [](const MultiHeadAttention& self) { return self.config().num_heads; }, "The number of heads.")
      .def_prop_ro("d_k", &MultiHeadAttention::d_k, "The width of a head, d_model / num_heads.")
      .def_prop_ro("parameter_count", &MultiHeadAttention::parameter_count, "The number of weights and biases.");
  module.def("head_count_problem", &head_count_problem, "d_model"_a, "num_heads"_a,
             "Why d_model does not divide by num_heads, and which counts would; '' where it does.\n\n"
             ">>> head_count_problem(512, 8)\n''\n"
             ">>> head_count_problem(512, 7)[:41]\n'd_model 512 is not divisible by 7 heads ('");
}

}  // namespace manyheads::python
