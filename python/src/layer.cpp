#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>

#include <cstring>
#include <manyheads/multi_head_attention.hpp>

#include "arguments.hpp"
#include "torch_api.hpp"

namespace manyheads::python {
namespace {

DType layer_dtype(const std::string& name) {
  for (const DType type : {DType::kF32, DType::kBF16, DType::kF16}) {
    if (name == python_name(type)) return type;
  }
  throw nb::value_error(
      ("MultiHeadAttention: dtype is '" + name + "', expected 'float32', 'bfloat16' or 'float16'").c_str());
}

// A dense copy.
Tensor copy_of(const ConstTensorView& view) {
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

StateDict state_of(const nb::dict& given) {
  StateDict state;
  for (const auto& [name, array] : given) {
    const std::string key = nb::cast<std::string>(nb::str(name));
    state[key] = copy_of(Array(array, "MultiHeadAttention", key.c_str()).view());
  }
  return state;
}

nb::object run(const MultiHeadAttention& self, nb::object query, nb::object key, nb::object value,
               nb::object key_padding_mask, nb::object attn_mask, nb::object mask, bool weights, nb::object head_scale,
               nb::object out, int num_threads, std::string bits, const Dropout& dropout, Executor* executor) {
  constexpr const char* kName = "MultiHeadAttention";
  const Array q(query, kName, "query");
  const bool cross = !key.is_none() || !value.is_none();
  const Array k = cross ? Array(key.is_none() ? query : key, kName, "key") : Array();
  const Array v = cross ? Array(value.is_none() ? (key.is_none() ? query : key) : value, kName, "value") : Array();
  const Array padding = optional_array(key_padding_mask, kName, "key_padding_mask"),
              added = optional_array(attn_mask, kName, "attn_mask"),
              scales = optional_array(head_scale, kName, "head_scale");
  MultiHeadAttentionOptions options;
  PythonMask parts;
  if (!mask.is_none()) {
    parts = mask_of(mask, kName);
    options.mask = parts.mask;
  }
  options.key_padding_mask = padding.view();
  options.attn_mask = added.view();
  options.head_scale = scales.view();
  options.dropout = dropout;
  options.threads.num_threads = num_threads;
  options.threads.executor = executor;
  options.bits = bits;
  options.workspace = &own_workspace();
  const Maker maker(query, q);
  Maker::Result result = out.is_none() ? maker.make(q.view().dtype(), q.view().shape())
                                       : Maker::Result{out, Array(out, kName, "out", true)};
  Maker::Result probabilities;
  if (weights) {
    Dims shape;
    if (q.view().rank() == 3 && (!cross || k.view().rank() == 3)) {
      const std::int64_t keys = cross ? k.view().size(1) : q.view().size(1);
      shape = {q.view().size(0), self.config().num_heads, q.view().size(1),
               keys + (self.config().add_bias_kv ? 1 : 0) + (self.config().add_zero_attn ? 1 : 0)};
    }
    probabilities = maker.make(DType::kF32, shape);
    options.weights = probabilities.array.mutable_view();
  }
  without_gil([&] {
    if (cross) {
      self.forward(q.view(), k.view(), v.view(), result.array.mutable_view(), options);
    } else {
      self.forward(q.view(), result.array.mutable_view(), options);
    }
  });
  nb::object given = out.is_none() ? maker.finish(std::move(result)) : std::move(out);
  return weights ? nb::object(nb::make_tuple(given, maker.finish(std::move(probabilities)))) : given;
}

nb::object forward(const MultiHeadAttention& self, nb::object query, nb::object key, nb::object value,
                   nb::object key_padding_mask, nb::object attn_mask, nb::object mask, bool weights,
                   nb::object head_scale, nb::object out, int num_threads, std::string bits, double dropout_p,
                   std::uint64_t dropout_seed, const DropoutOrigin& dropout_origin) {
  return run(self, std::move(query), std::move(key), std::move(value), std::move(key_padding_mask),
             std::move(attn_mask), std::move(mask), weights, std::move(head_scale), std::move(out), num_threads,
             std::move(bits), dropout_of(dropout_p, dropout_seed, dropout_origin), nullptr);
}

}  // namespace

void bind_layer(nb::module_& module) {
  using nb::literals::operator""_a;
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
              new (self) MultiHeadAttention(config, state_of(*state_dict));
            } else {
              new (self) MultiHeadAttention(config);
            }
          },
          "d_model"_a, "num_heads"_a, nb::kw_only(), "num_kv_heads"_a = 0, "kdim"_a = 0, "vdim"_a = 0, "bias"_a = true,
          "add_bias_kv"_a = false, "add_zero_attn"_a = false, "dtype"_a = "float32", "state_dict"_a = nb::none())
      .def(
          "_forward_on_torch",
          [](const MultiHeadAttention& self, nb::object query, nb::object key, nb::object value,
             nb::object key_padding_mask, nb::object attn_mask, nb::object mask, bool weights, nb::object out,
             double dropout_p, std::uint64_t dropout_seed, const DropoutOrigin& dropout_origin) {
            return run(self, std::move(query), std::move(key), std::move(value), std::move(key_padding_mask),
                       std::move(attn_mask), std::move(mask), weights, nb::none(), std::move(out), 0, "",
                       dropout_of(dropout_p, dropout_seed, dropout_origin), &torch::pool());
          },
          "query"_a, "key"_a.none(), "value"_a.none(), nb::kw_only(), "key_padding_mask"_a.none(), "attn_mask"_a.none(),
          "mask"_a.none(), "weights"_a, "out"_a, "dropout_p"_a = 0.0, "dropout_seed"_a = 0,
          "dropout_origin"_a = DropoutOrigin(), "The same by PyTorch's threads.")
      .def("__call__", forward, "query"_a, "key"_a = nb::none(), "value"_a = nb::none(), nb::kw_only(),
           "key_padding_mask"_a = nb::none(), "attn_mask"_a = nb::none(), "mask"_a = nb::none(), "weights"_a = false,
           "head_scale"_a = nb::none(), "out"_a = nb::none(), "num_threads"_a = 0, "bits"_a = "", "dropout_p"_a = 0.0,
           "dropout_seed"_a = 0, "dropout_origin"_a = DropoutOrigin(),
           "y [B,T,d_model] of query [B,T,d_model], key [B,S,kdim] and value [B,S,vdim]; weights=True: (y, weights\n"
           "[B,H,T,S]). key_padding_mask [B,S] and attn_mask [T,S] or [B H,T,S] as PyTorch's layer takes them: True\n"
           "means ignore. mask: a Mask, or an array with True = attend. head_scale [H]: 0 switches a head off.\n"
           "dropout_p, dropout_seed, dropout_origin: of the weights, as attention has them.")
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
