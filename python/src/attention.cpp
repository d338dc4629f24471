#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <manyheads/attention_backward.hpp>
#include <manyheads/error.hpp>

#include "arguments.hpp"

namespace manyheads::python {
namespace {

// What the functions here take beside q, k and v. The arrays live as long as the options.
struct Options {
  AttentionOptions call;
  PythonMask mask;
  Array sinks, cu_seqlens_q, cu_seqlens_k, page_table, k_scales, v_scales;
  std::string bits;
};

struct Keywords {
  nb::object mask;
  std::optional<double> scale;
  double softcap;
  nb::object sinks, cu_seqlens_q, cu_seqlens_k, page_table, k_scales, v_scales;
  bool int8_products;
  int num_threads;
  std::string bits;
  Dropout dropout{};
};

void read(const Keywords& given, const char* function, Options& options) {
  check_threads(given.num_threads, function);
  AttentionOptions& call = options.call;
  if (!given.mask.is_none()) {
    options.mask = mask_of(given.mask, function);
    call.mask = options.mask.mask;
  }
  call.scale = given.scale;
  call.softcap = given.softcap;
  call.dropout = given.dropout;
  const auto take = [&](const nb::object& object, const char* argument, Array& array, ConstTensorView& view) {
    if (object.is_none()) return;
    array = Array(object, function, argument);
    view = array.view();
  };
  take(given.sinks, "sinks", options.sinks, call.sinks);
  take(given.cu_seqlens_q, "cu_seqlens_q", options.cu_seqlens_q, call.cu_seqlens_q);
  take(given.cu_seqlens_k, "cu_seqlens_k", options.cu_seqlens_k, call.cu_seqlens_k);
  take(given.page_table, "page_table", options.page_table, call.page_table);
  take(given.k_scales, "k_scales", options.k_scales, call.k_scales);
  take(given.v_scales, "v_scales", options.v_scales, call.v_scales);
  call.int8_products = given.int8_products;
  call.threads.num_threads = given.num_threads;
  options.bits = given.bits;
  call.bits = options.bits;
  call.workspace = &own_workspace();
}

// The shape of out: q's with the width of v.
Dims out_shape(const ConstTensorView& q, const ConstTensorView& v) {
  Dims shape = q.shape();
  if (shape.rank() > 0 && v.rank() > 0) shape[shape.rank() - 1] = v.size(v.rank() - 1);
  return shape;
}

// [B,Hq,Tq] of q [B,Hq,Tq,D], [Hq,Tq] of packed q [Tq,Hq,D].
Dims lse_shape(const ConstTensorView& q, bool packed) {
  if (q.rank() < 3) return {};
  if (packed) return {q.size(1), q.size(0)};
  return q.rank() == 4 ? Dims{q.size(0), q.size(1), q.size(2)} : Dims{};
}

Dims weights_shape(const ConstTensorView& q, const ConstTensorView& k) {
  if (q.rank() != 4 || k.rank() != 4) {
    throw nb::value_error(
        ("attention_weights: expected q and k of 4 axes, q " + q.shape().to_string() + ", k " + k.shape().to_string())
            .c_str());
  }
  return {q.size(0), q.size(1), q.size(2), k.size(2)};
}

nb::object attention_of(nb::object q, nb::object k, nb::object v, nb::object mask, std::optional<double> scale,
                        double softcap, nb::object sinks, bool lse, bool weights, nb::object out,
                        nb::object cu_seqlens_q, nb::object cu_seqlens_k, nb::object page_table, nb::object k_scales,
                        nb::object v_scales, bool int8_products, int num_threads, std::string bits, double dropout_p,
                        std::uint64_t dropout_seed, const DropoutOrigin& dropout_origin) {
  constexpr const char* kName = "attention";
  const Array query(q, kName, "q"), key(k, kName, "k"), value(v, kName, "v");
  Options options;
  read({std::move(mask), scale, softcap, std::move(sinks), std::move(cu_seqlens_q), std::move(cu_seqlens_k),
        std::move(page_table), std::move(k_scales), std::move(v_scales), int8_products, num_threads, std::move(bits),
        dropout_of(dropout_p, dropout_seed, dropout_origin)},
       kName, options);
  const Maker maker(q, query);
  const bool packed = options.call.cu_seqlens_q.defined();
  Maker::Result result, logs, probabilities;
  if (out.is_none()) {
    result = maker.make(query.view().dtype(), out_shape(query.view(), value.view()));
  } else {
    result = {out, Array(out, kName, "out", true)};
  }
  if (lse || weights) {
    logs = maker.make(DType::kF32, lse_shape(query.view(), packed));
    options.call.lse = logs.array.mutable_view();
  }
  if (weights) probabilities = maker.make(DType::kF32, weights_shape(query.view(), key.view()));
  without_gil([&] {
    attention(query.view(), key.view(), value.view(), result.array.mutable_view(), options.call);
    if (!weights) return;
    options.call.lse = {};
    attention_weights(query.view(), key.view(), logs.array.view(), probabilities.array.mutable_view(), options.call);
  });
  nb::object given = out.is_none() ? maker.finish(std::move(result)) : std::move(out);
  if (!lse && !weights) return given;
  if (!weights) return nb::make_tuple(given, maker.finish(std::move(logs)));
  if (!lse) return nb::make_tuple(given, maker.finish(std::move(probabilities)));
  return nb::make_tuple(given, maker.finish(std::move(logs)), maker.finish(std::move(probabilities)));
}

nb::object weights_of(nb::object q, nb::object k, nb::object lse, nb::object mask, std::optional<double> scale,
                      double softcap, nb::object sinks, nb::object out, int num_threads, std::string bits,
                      double dropout_p, std::uint64_t dropout_seed, const DropoutOrigin& dropout_origin) {
  constexpr const char* kName = "attention_weights";
  const Array query(q, kName, "q"), key(k, kName, "k"), logs(lse, kName, "lse");
  Options options;
  read({std::move(mask), scale, softcap, std::move(sinks), nb::none(), nb::none(), nb::none(), nb::none(), nb::none(),
        false, num_threads, std::move(bits), dropout_of(dropout_p, dropout_seed, dropout_origin)},
       kName, options);
  const Maker maker(q, query);
  Maker::Result result = out.is_none() ? maker.make(DType::kF32, weights_shape(query.view(), key.view()))
                                       : Maker::Result{out, Array(out, kName, "out", true)};
  without_gil(
      [&] { attention_weights(query.view(), key.view(), logs.view(), result.array.mutable_view(), options.call); });
  return out.is_none() ? maker.finish(std::move(result)) : out;
}

// A gradient of a call: False leaves it out, True makes it, else an array takes it.
class GradientArgument {
 public:
  // input: what it is the gradient of. missing: why there is none.
  GradientArgument(nb::object asked, const char* name, const ConstTensorView& input, const char* missing,
                   const Maker& maker, bool accumulate) {
    const auto refuse = [](const std::string& text) { throw nb::value_error(("attention_backward: " + text).c_str()); };
    const bool is_bool = nb::isinstance<nb::bool_>(asked);
    if (is_bool && !nb::cast<bool>(asked)) return;
    if (is_bool && accumulate) refuse(std::string("accumulate adds to an array, ") + name + " is True");
    if (is_bool && !input.defined()) refuse(std::string(name) + " is True and " + missing);
    if (is_bool) {
      result_ = maker.make(input.dtype(), input.shape());
    } else {
      result_ = {asked, Array(asked, "attention_backward", name, true)};
    }
    view_ = result_.array.mutable_view();
    made_ = is_bool;
  }
  const TensorView& view() const { return view_; }
  void finish(const Maker& maker, nb::list& results) {
    if (view_.defined()) results.append(made_ ? maker.finish(std::move(result_)) : result_.object);
  }

 private:
  Maker::Result result_;
  TensorView view_;
  bool made_ = false;
};

nb::object backward_of(nb::object q, nb::object k, nb::object v, nb::object out, nb::object dout, nb::object lse,
                       nb::object mask, std::optional<double> scale, double softcap, nb::object sinks, nb::object dlse,
                       nb::object dq, nb::object dk, nb::object dv, nb::object dbias, nb::object dsinks,
                       nb::object dalibi_slopes, bool accumulate, nb::object cu_seqlens_q, nb::object cu_seqlens_k,
                       int num_threads, std::string bits, double dropout_p, std::uint64_t dropout_seed,
                       const DropoutOrigin& dropout_origin) {
  constexpr const char* kName = "attention_backward";
  const Array query(q, kName, "q"), key(k, kName, "k"), value(v, kName, "v"), result(out, kName, "out"),
      by_result(dout, kName, "dout"), logs(lse, kName, "lse"), by_logs = optional_array(dlse, kName, "dlse");
  Options options;
  read({std::move(mask), scale, softcap, std::move(sinks), std::move(cu_seqlens_q), std::move(cu_seqlens_k), nb::none(),
        nb::none(), nb::none(), false, num_threads, std::move(bits),
        dropout_of(dropout_p, dropout_seed, dropout_origin)},
       kName, options);
  const Maker maker(q, query);
  const auto one = [&](nb::object& asked, const char* name, const ConstTensorView& input, const char* missing = "") {
    return GradientArgument(std::move(asked), name, input, missing, maker, accumulate);
  };
  GradientArgument asked[] = {one(dq, "dq", query.view()),
                              one(dk, "dk", key.view()),
                              one(dv, "dv", value.view()),
                              one(dbias, "dbias", options.call.mask.bias, "mask has no float mask"),
                              one(dsinks, "dsinks", options.call.sinks, "there are no sinks"),
                              one(dalibi_slopes, "dalibi_slopes", options.call.mask.alibi_slopes, "mask has no ALiBi")};
  AttentionGradients gradients{.dlse = by_logs.view(),
                               .dq = asked[0].view(),
                               .dk = asked[1].view(),
                               .dv = asked[2].view(),
                               .dbias = asked[3].view(),
                               .dsinks = asked[4].view(),
                               .dalibi_slopes = asked[5].view(),
                               .accumulate = accumulate};
  without_gil([&] {
    attention_backward(query.view(), key.view(), value.view(), result.view(), by_result.view(), logs.view(), gradients,
                       options.call);
  });
  nb::list results;
  for (GradientArgument& gradient : asked) gradient.finish(maker, results);
  return nb::tuple(results);
}

nb::object merge(nb::object out_a, nb::object lse_a, nb::object out_b, nb::object lse_b, int num_threads) {
  constexpr const char* kName = "merge_attention";
  check_threads(num_threads, kName);
  const Array oa(out_a, kName, "out_a"), la(lse_a, kName, "lse_a"), ob(out_b, kName, "out_b"),
      lb(lse_b, kName, "lse_b");
  const Maker maker(out_a, oa);
  Maker::Result out = maker.make(oa.view().dtype(), oa.view().shape());
  Maker::Result lse = maker.make(DType::kF32, la.view().shape());
  without_gil([&] {
    merge_attention(oa.view(), la.view(), ob.view(), lb.view(), out.array.mutable_view(), lse.array.mutable_view(),
                    {.num_threads = num_threads});
  });
  return nb::make_tuple(maker.finish(std::move(out)), maker.finish(std::move(lse)));
}

Explanation explanation_of(nb::object q, nb::object k, nb::object v, nb::object mask, std::optional<double> scale,
                           double softcap, nb::object sinks, nb::object cu_seqlens_q, nb::object cu_seqlens_k,
                           nb::object page_table, nb::object k_scales, nb::object v_scales, bool int8_products,
                           int num_threads, std::string bits) {
  constexpr const char* kName = "explain";
  const Array query(q, kName, "q"), key(k, kName, "k"), value(v, kName, "v");
  Options options;
  read({std::move(mask), scale, softcap, std::move(sinks), std::move(cu_seqlens_q), std::move(cu_seqlens_k),
        std::move(page_table), std::move(k_scales), std::move(v_scales), int8_products, num_threads, std::move(bits)},
       kName, options);
  const Maker::Result out = Maker(q, query).make(query.view().dtype(), out_shape(query.view(), value.view()));
  return explain(query.view(), key.view(), value.view(), out.array.mutable_view(), options.call);
}

constexpr const char* kAttentionDoc =
    R"(Multi-head attention, exactly, without a Tq x Tk matrix: softmax(scale * q k^T + bias) v.

q [B,Hq,Tq,D], k [B,Hkv,Tk,D], v [B,Hkv,Tk,Dv], of one of float32, bfloat16 and float16; Hq is a multiple of Hkv.
Returns out [B,Hq,Tq,Dv] of q's type, and of what came in: NumPy for NumPy, PyTorch for PyTorch.

mask: a Mask, or an array: bool with True = attend, or float, added to the scores.
scale: default 1 / sqrt(D). softcap: > 0 caps scores by tanh. sinks: float32 [Hq], a logit for each head.
lse=True returns (out, lse), lse float32 [B,Hq,Tq]: the log of each row's sum of exponentials.
weights=True returns (out, weights), weights float32 [B,Hq,Tq,Tk]; both: (out, lse, weights).
out: an array to write to.
cu_seqlens_q, cu_seqlens_k: packed rows q [Tq,Hq,D], k [Tk,Hkv,D], entry b from cu_seqlens[b] to cu_seqlens[b + 1].
page_table: keys and values in pages, k [pages,Hkv,size,D]. k_scales, v_scales: of int8 keys and values.
num_threads: default, as many as the process may use. bits: the family of bits that the result must have.
dropout_p, dropout_seed: weights become 0 with probability p, else weight / (1 - p); lse is that of all, weights are those
left. Which ones go follows from seed and place alone (docs/gradients.md#dropout): another step wants another seed.
dropout_origin: (entry, head, query) of the call's first ones in the larger call that it is a part of.

Nothing is copied or converted. Raises ValueError or TypeError that names the argument and the shapes.

>>> x = np.ones((1, 8, 7, 64), np.float32)
>>> attention(x, x, x, mask=mask.causal()).shape
(1, 8, 7, 64)
>>> out, weights = attention(x, x, x, mask=mask.causal(), weights=True)
>>> weights[0, 0, 1, :3].tolist()
[0.5, 0.5, 0.0]
>>> out, weights = attention(x, x, x, dropout_p=0.5, dropout_seed=1, weights=True)
>>> bool(abs(out - weights.sum(-1, keepdims=True)).max() < 1e-5)
True)";

constexpr const char* kBackwardDoc =
    R"(The gradients of attention from dout, the gradient of a loss by out: a tuple of those asked for, in order.

q, k, v and the options, dropout's too, are those of attention; out and lse are what it gave. dout has out's shape and any
float type.
dlse: the gradient by lse, where the loss reads lse too.
dq, dk, dv, dbias, dsinks, dalibi_slopes: True makes it, of the type and shape of what it is the gradient of; False
leaves it out; an array of any float type and strides is written to. dbias is that of a float mask, and sums what that
broadcasts.
accumulate=True adds to the arrays that are given.

P is recomputed: nothing of size Tq x Tk is kept. Nothing else is copied or converted.

>>> q = np.random.default_rng(0).standard_normal((1, 8, 7, 64), dtype=np.float32)
>>> out, lse = attention(q, q, q, mask=mask.causal(), lse=True)
>>> dq, dk, dv = attention_backward(q, q, q, out, np.ones_like(out), lse, mask=mask.causal())
>>> bool(abs(dv.sum() - out.size) < 1e-2)
True)";

}  // namespace

void check_threads(int num_threads, const char* function) {
  if (num_threads < 0) {
    throw nb::value_error((std::string(function) + ": num_threads is " + std::to_string(num_threads) +
                           ", expected 1 or more, or 0 for the default")
                              .c_str());
  }
}

Workspace& own_workspace() {
  thread_local Workspace workspace;
  return workspace;
}

void bind_attention(nb::module_& module) {
  using nb::literals::operator""_a;
  module.def("attention", attention_of, "q"_a, "k"_a, "v"_a, nb::kw_only(), "mask"_a = nb::none(),
             "scale"_a = nb::none(), "softcap"_a = 0.0, "sinks"_a = nb::none(), "lse"_a = false, "weights"_a = false,
             "out"_a = nb::none(), "cu_seqlens_q"_a = nb::none(), "cu_seqlens_k"_a = nb::none(),
             "page_table"_a = nb::none(), "k_scales"_a = nb::none(), "v_scales"_a = nb::none(),
             "int8_products"_a = false, "num_threads"_a = 0, "bits"_a = "", "dropout_p"_a = 0.0, "dropout_seed"_a = 0,
             "dropout_origin"_a = DropoutOrigin(), kAttentionDoc);
  module.def("attention_backward", backward_of, "q"_a, "k"_a, "v"_a, "out"_a, "dout"_a, "lse"_a, nb::kw_only(),
             "mask"_a = nb::none(), "scale"_a = nb::none(), "softcap"_a = 0.0, "sinks"_a = nb::none(),
             "dlse"_a = nb::none(), "dq"_a = true, "dk"_a = true, "dv"_a = true, "dbias"_a = false, "dsinks"_a = false,
             "dalibi_slopes"_a = false, "accumulate"_a = false, "cu_seqlens_q"_a = nb::none(),
             "cu_seqlens_k"_a = nb::none(), "num_threads"_a = 0, "bits"_a = "", "dropout_p"_a = 0.0,
             "dropout_seed"_a = 0, "dropout_origin"_a = DropoutOrigin(), kBackwardDoc);
  module.def("attention_weights", weights_of, "q"_a, "k"_a, "lse"_a, nb::kw_only(), "mask"_a = nb::none(),
             "scale"_a = nb::none(), "softcap"_a = 0.0, "sinks"_a = nb::none(), "out"_a = nb::none(),
             "num_threads"_a = 0, "bits"_a = "", "dropout_p"_a = 0.0, "dropout_seed"_a = 0,
             "dropout_origin"_a = DropoutOrigin(),
             "The weights of each head, float32 [B,Hq,Tq,Tk], from q, k and the lse that attention gave; with its "
             "dropout,\nthose that are left, over 1 - p.\n\n"
             ">>> x = np.ones((1, 1, 2, 16), np.float32)\n"
             ">>> out, lse = attention(x, x, x, lse=True)\n"
             ">>> attention_weights(x, x, lse).tolist()\n"
             "[[[[0.5, 0.5], [0.5, 0.5]]]]");
  module.def("merge_attention", merge, "out_a"_a, "lse_a"_a, "out_b"_a, "lse_b"_a, nb::kw_only(), "num_threads"_a = 0,
             "Attention over two sets of keys from that over each: (out, lse).\n\n"
             ">>> x = np.ones((1, 1, 2, 16), np.float32)\n"
             ">>> a = attention(x, x, x, lse=True)\n"
             ">>> out, lse = merge_attention(*a, *a)\n"
             ">>> bool((lse - a[1] - np.log(2) < 1e-6).all())\n"
             "True");
  nb::class_<Explanation>(module, "Explanation", "What attention would do for a call; str() tells all of it.")
#define FIELD(name) .def_ro(#name, &Explanation::name)
      FIELD(isa) FIELD(bits) FIELD(path) FIELD(threads) FIELD(query_block_rows) FIELD(run_keys) FIELD(chunk_keys)
          FIELD(tasks) FIELD(query_blocks_together) FIELD(keys_together) FIELD(kv_splits) FIELD(runs)
              FIELD(skipped_runs) FIELD(flop) FIELD(bytes) FIELD(workspace_bytes) FIELD(tuning)
#undef FIELD
                  .def("__str__", &Explanation::to_string)
                  .def("__repr__", [](const Explanation& e) {
                    return "Explanation(" + e.path + ", " + e.isa + ", " + e.bits + ")";
                  });
  module.def("explain", explanation_of, "q"_a, "k"_a, "v"_a, nb::kw_only(), "mask"_a = nb::none(),
             "scale"_a = nb::none(), "softcap"_a = 0.0, "sinks"_a = nb::none(), "cu_seqlens_q"_a = nb::none(),
             "cu_seqlens_k"_a = nb::none(), "page_table"_a = nb::none(), "k_scales"_a = nb::none(),
             "v_scales"_a = nb::none(), "int8_products"_a = false, "num_threads"_a = 0, "bits"_a = "",
             "What attention would do for a call: instruction set, family of bits, path, splits, bytes.\n\n"
             ">>> x = np.ones((1, 8, 7, 64), np.float32)\n"
             ">>> explain(x, x, x).path\n"
             "'fused forward, F32'");
}

}  // namespace manyheads::python
