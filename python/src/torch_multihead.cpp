#include "torch_multihead.hpp"

#include <manyheads/attention.hpp>
#include <manyheads/error.hpp>

#include "torch_ops.hpp"

// The fast paths of nn.MultiheadAttention and nn.TransformerEncoderLayer: projections, layer norms and activations are
// PyTorch's own, attention and weights are ours. Types that are not ours go through PyTorch's math.
namespace manyheads::python {
namespace {

using torch::Arguments;
using torch::Call;
using torch::IValue;
using torch::Owned;

struct Multihead {
  const char* name;
  const Owned &query, &key, &value;
  std::int64_t embed_dim, num_heads;
  const Owned &qkv_weight, &qkv_bias, &proj_weight, &proj_bias;
  const Owned& mask;
  bool has_mask_type;
  std::int64_t mask_type;
  bool need_weights, average;
};

ConstTensorView view_of(const Owned& tensor, const char* argument) { return torch::view_of(tensor.get(), argument); }

Owned linear(const Owned& input, const Owned& weight, const Owned& bias) {
  Call call;
  return call.tensor(input).tensor(weight).optional(bias).run("aten::linear");
}

Owned narrow(const Owned& tensor, std::int64_t axis, std::int64_t start, std::int64_t length) {
  Call call;
  return call.tensor(tensor).integer(axis).integer(start).integer(length).run("aten::narrow");
}

Owned sum(const Owned& a, const Owned& b) {
  torch::Handle made = nullptr;
  torch::check(torch::api().add(a.get(), b.get(), 1, &made));
  return Owned(made);
}

[[noreturn]] void refuse(const Multihead& call, const std::string& what) {
  throw Error(ErrorCode::kInvalidArgument, std::string(call.name) + ": " + what);
}

void check_shapes(const Multihead& call, const ConstTensorView& q, const ConstTensorView& k, const ConstTensorView& v) {
  const std::int64_t e = call.embed_dim;
  if (q.rank() != 3 || k.rank() != 3 || v.rank() != 3 || q.size(2) != e || k.size(2) != e || v.size(2) != e ||
      k.size(0) != q.size(0) || v.size(0) != q.size(0) || k.size(1) != v.size(1)) {
    refuse(call, "expected query [B,T,embed_dim], key and value [B,S,embed_dim], query " + q.shape().to_string() +
                     ", key " + k.shape().to_string() + ", value " + v.shape().to_string() + ", embed_dim " +
                     std::to_string(e));
  }
  if (call.num_heads <= 0 || e % call.num_heads != 0) {
    refuse(call, "num_head " + std::to_string(call.num_heads) + " does not divide embed_dim " + std::to_string(e));
  }
  const ConstTensorView weight = view_of(call.qkv_weight, "qkv_weight"), bias = view_of(call.qkv_bias, "qkv_bias"),
                        proj = view_of(call.proj_weight, "proj_weight");
  if (weight.shape() != Dims{3 * e, e} || bias.shape() != Dims{3 * e} || proj.rank() != 2 || proj.size(1) != e) {
    refuse(call,
           "expected qkv_weight [3 embed_dim, embed_dim], qkv_bias [3 embed_dim] and proj_weight [.., embed_dim]"
           ", qkv_weight " +
               weight.shape().to_string() + ", qkv_bias " + bias.shape().to_string() + ", proj_weight " +
               proj.shape().to_string());
  }
}

// The mask as attention takes it: [T,S], [B,1,1,S] or [B,H,T,S]; where it is BOOL, true = attend.
Owned mask_of(const Multihead& call, const ConstTensorView& q, const ConstTensorView& k) {
  if (!call.mask) return {};
  const ConstTensorView given = view_of(call.mask, "mask");
  const std::int64_t batch = q.size(0), tq = q.size(1), tk = k.size(1);
  const Dims shapes[] = {{tq, tk}, {batch, tk}, {batch, call.num_heads, tq, tk}};
  if (!call.has_mask_type || call.mask_type < 0 || call.mask_type > 2) {
    refuse(call, "mask_type is 0 (a mask [T,S]), 1 (of keys, [B,S]) or 2 ([B,H,T,S]), and a mask needs it");
  }
  if (given.shape() != shapes[call.mask_type]) {
    refuse(call, "mask " + given.shape().to_string() + " of mask_type " + std::to_string(call.mask_type) +
                     ", expected " + shapes[call.mask_type].to_string());
  }
  if (given.dtype() != DType::kBool && given.dtype() != DType::kF64 && !computes(given.dtype())) {
    refuse(call, std::string("mask is ") + name_of(given.dtype()) + ", expected bool or a float");
  }
  Owned mask = call.mask.again();
  if (given.dtype() == DType::kBool) mask = Call().tensor(mask).run("aten::logical_not");
  for (int i = 0; call.mask_type == 1 && i < 2; ++i) mask = Call().tensor(mask).integer(1).run("aten::unsqueeze");
  return mask;
}

// [B,T,E] as the heads [B,H,T,E/H], from column `at` on.
ConstTensorView heads_of(const ConstTensorView& wide, std::int64_t at, const Multihead& call) {
  const std::int64_t d = call.embed_dim / call.num_heads;
  return ConstTensorView(
      static_cast<const char*>(wide.data()) + at * wide.stride(2) * static_cast<std::int64_t>(size_of(wide.dtype())),
      wide.dtype(), {wide.size(0), call.num_heads, wide.size(1), d},
      {wide.stride(0), d * wide.stride(2), wide.stride(1), wide.stride(2)});
}

struct Result {
  Owned out, weights;
};

// PyTorch's own projection of `input` by the part-th third of the weights.
Owned projected(const Multihead& call, const Owned& input, int part) {
  const std::int64_t e = call.embed_dim;
  return linear(input, narrow(call.qkv_weight, 0, part * e, e), narrow(call.qkv_bias, 0, part * e, e));
}

// Everything by PyTorch.
Result by_math(const Multihead& call, const Owned& mask) {
  Call math;
  const Owned* const inputs[] = {&call.query, &call.key, &call.value};
  Dims shape;
  for (int i = 0; i < 3; ++i) {
    const Owned wide = projected(call, *inputs[i], i);
    if (i == 0) shape = view_of(wide, "query").shape();
    const Owned heads = Call()
                            .tensor(wide)
                            .integer(2)
                            .integers({call.num_heads, call.embed_dim / call.num_heads})
                            .run("aten::unflatten", "int");
    math.tensor(Call().tensor(heads).integer(1).integer(2).run("aten::transpose", "int"));
  }
  math.optional(mask_for_math(mask)).number(0).flag(false).optional(Owned()).optional_number(false, 0).flag(false);
  const std::vector<IValue> results = math.run("aten::_scaled_dot_product_attention_math", "", 2);
  const Owned heads(reinterpret_cast<torch::Handle>(results[0]));
  Result result;
  result.weights = Owned(reinterpret_cast<torch::Handle>(results[1]));
  if (!call.need_weights) {
    result.weights = torch::undefined();
  } else if (call.average) {
    result.weights = Call().tensor(result.weights).optional_integers({1}).flag(false).none().run("aten::mean", "dim");
  }
  const Owned rows = Call().tensor(heads).integer(1).integer(2).run("aten::transpose", "int");
  result.out = linear(Call().tensor(rows).integer(2).integer(3).run("aten::flatten", "using_ints"), call.proj_weight,
                      call.proj_bias);
  return result;
}

bool same(const ConstTensorView& a, const ConstTensorView& b) {
  return a.data() == b.data() && a.dtype() == b.dtype() && a.shape() == b.shape() && a.strides() == b.strides();
}

Result multihead(const Multihead& call) {
  const ConstTensorView given_q = view_of(call.query, "query"), given_k = view_of(call.key, "key"),
                        given_v = view_of(call.value, "value");
  if (element_count(given_q.shape()) == 0) {
    return {torch::empty(given_q.dtype(), given_q.shape(), contiguous_strides(given_q.shape())), torch::undefined()};
  }
  check_shapes(call, given_q, given_k, given_v);
  const DType type = given_q.dtype();
  const Owned mask = mask_of(call, given_q, given_k);
  AttentionOptions options;
  if (mask) {
    const ConstTensorView view = view_of(mask, "mask");
    if (view.dtype() != DType::kBool && view.dtype() != DType::kF32 && view.dtype() != type) {
      count(kType);
      return by_math(call, mask);
    }
    options.mask = view.dtype() == DType::kBool ? mask::allowed(view) : mask::bias(view);
  }
  if (!computes(type)) {
    count(type == DType::kF64 ? kFloat64 : kType);
    return by_math(call, mask);
  }
  // Three projections at once for self-attention.
  Owned wide[3];
  ConstTensorView q, k, v;
  const bool self = same(given_q, given_k) && same(given_q, given_v);
  if (self) {
    wide[0] = linear(call.query, call.qkv_weight, call.qkv_bias);
    const ConstTensorView all = view_of(wide[0], "query");
    q = heads_of(all, 0, call), k = heads_of(all, call.embed_dim, call), v = heads_of(all, 2 * call.embed_dim, call);
  } else {
    wide[0] = projected(call, call.query, 0), wide[1] = projected(call, call.key, 1);
    wide[2] = projected(call, call.value, 2);
    q = heads_of(view_of(wide[0], "query"), 0, call), k = heads_of(view_of(wide[1], "key"), 0, call);
    v = heads_of(view_of(wide[2], "value"), 0, call);
  }
  const std::int64_t batch = q.size(0), heads = q.size(1), tq = q.size(2), tk = k.size(2);
  const Owned rows = torch::empty(type, given_q.shape(), contiguous_strides(given_q.shape()));
  const TensorView made = torch::mutable_view_of(rows.get());
  const ConstTensorView out = heads_of(made, 0, call);
  const Owned lse = call.need_weights ? empty_lse(batch, heads, tq) : Owned();
  if (lse) options.lse = torch::mutable_view_of(lse.get());
  use_pool(options);
  attention(q, k, v, TensorView(made.data(), type, out.shape(), out.strides()), options);
  Result result;
  if (!call.need_weights) {
    result.weights = torch::undefined();
  } else {
    const ConstTensorView sums = options.lse;
    options.lse = TensorView();
    const Dims shape = call.average ? Dims{batch, tq, tk} : Dims{batch, heads, tq, tk};
    result.weights = torch::empty(DType::kF32, shape, contiguous_strides(shape));
    const TensorView weights = torch::mutable_view_of(result.weights.get());
    if (call.average) {
      mean_weights(q, k, sums, weights, options);
    } else {
      attention_weights(q, k, sums, weights, options);
    }
    if (type != DType::kF32) {
      result.weights =
          Call().tensor(result.weights).tensor(call.query).flag(false).flag(false).none().run("aten::to", "other");
    }
  }
  result.out = linear(rows, call.proj_weight, call.proj_bias);
  count(kTakenMultihead);
  return result;
}

}  // namespace

// aten::_native_multi_head_attention(query, key, value, embed_dim, num_head, qkv_weight, qkv_bias, proj_weight,
//   proj_bias, mask?, need_weights, average_attn_weights, mask_type?) -> (out, weights)
void native_multi_head_attention(IValue* stack, std::uint64_t, std::uint64_t) {
  const Arguments given(stack, "TTTiiTTTTtbbI");
  Result result =
      multihead({"_native_multi_head_attention", given.tensor(0), given.tensor(1), given.tensor(2), given.integer(3),
                 given.integer(4), given.tensor(5), given.tensor(6), given.tensor(7), given.tensor(8), given.tensor(9),
                 given.has(12), given.integer(12), given.flag(10), given.flag(11)});
  stack[0] = reinterpret_cast<IValue>(result.out.release());
  stack[1] = reinterpret_cast<IValue>(result.weights.release());
}

// aten::_transformer_encoder_layer_fwd(src, embed_dim, num_heads, qkv_weight, qkv_bias, proj_weight, proj_bias,
//   use_gelu, norm_first, eps, norm_weight_1, norm_bias_1, norm_weight_2, norm_bias_2, ffn_weight_1, ffn_bias_1,
//   ffn_weight_2, ffn_bias_2, mask?, mask_type?) -> out
void transformer_encoder_layer(IValue* stack, std::uint64_t, std::uint64_t) {
  const Arguments given(stack, "TiiTTTTbbdTTTTTTTTtI");
  const Owned& src = given.tensor(0);
  const ConstTensorView shape = view_of(src, "src");
  const bool norm_first = given.flag(8);
  const auto norm = [&](const Owned& x, int weight) {
    return Call()
        .tensor(x)
        .integers({given.integer(1)})
        .optional(given.tensor(weight))
        .optional(given.tensor(weight + 1))
        .number(given.number(9))
        .flag(true)
        .run("aten::layer_norm");
  };
  Owned x = src.again();
  if (element_count(shape.shape()) > 0) {
    if (norm_first) x = norm(src, 10);
    x = multihead({"_transformer_encoder_layer_fwd", x, x, x, given.integer(1), given.integer(2), given.tensor(3),
                   given.tensor(4), given.tensor(5), given.tensor(6), given.tensor(18), given.has(19),
                   given.integer(19), false, false})
            .out;
    x = sum(x, src);
    if (!norm_first) x = norm(x, 10);
    Owned hidden = linear(norm_first ? norm(x, 12) : x.again(), given.tensor(14), given.tensor(15));
    hidden =
        given.flag(7) ? Call().tensor(hidden).text("none").run("aten::gelu") : Call().tensor(hidden).run("aten::relu");
    x = sum(linear(hidden, given.tensor(16), given.tensor(17)), x);
    if (!norm_first) x = norm(x, 12);
  }
  // The layout of empty_like(src), as the fake kernel announces.
  const Dims strides = like_strides(shape, shape.shape());
  if (element_count(shape.shape()) == 0 || view_of(x, "src").strides() != strides) {
    const Owned like = torch::empty(shape.dtype(), shape.shape(), strides);
    x = Call().tensor(like).tensor(x).flag(false).run("aten::copy_");
  }
  stack[0] = reinterpret_cast<IValue>(x.release());
}

}  // namespace manyheads::python
