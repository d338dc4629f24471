#include "attention/check.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <tuple>
#include <utility>

#include <manyheads/error.hpp>

#include "attention/mask_tensors.hpp"
#include "attention/overlap.hpp"
#include "base/checked.hpp"
#include "base/fail.hpp"

namespace manyheads::attention_detail {
namespace {

using base::describe;
using base::fail;
using kernels::ForwardParams;
using kernels::ProbsParams;
using kernels::QkvMask;

// The most columns of a row: its product with a query block's sizes cannot wrap. Views of stride 0 take no memory,
// however wide.
constexpr std::int64_t kWidest = std::int64_t{1} << 32;
// The most values in a row of bytes whose products still add up in 32 bits.
constexpr std::int64_t kMostBytes = 131072;

// A tensor of rows in any layout, as batch, heads, rows, width.
struct Heads {
  std::int64_t batch = 0, heads = 0, rows = 0, width = 0;
  std::int64_t stride[4] = {};
};

Heads expect_heads(const char* function, const char* name, const ConstTensorView& view, bool packed, const char* layout,
                   bool quantised) {
  if (!view.defined()) fail(function, base::format("{} is undefined, expected {}", name, layout));
  if (view.rank() != (packed ? 3 : 4)) {
    fail(function, base::format("{} is {}, expected {}", name, describe(view), layout));
  }
  if (!base::is_float(view.dtype()) && !(quantised && view.dtype() == DType::kI8)) {
    fail(function,
         base::format("{} is {}, expected F32, BF16 {}", name, describe(view), quantised ? ", F16 or I8" : "or F16"));
  }
  // Nothing steps along an axis of one element, whatever its stride says. The last axis keeps its stride: it decides
  // whether rows are read as vectors.
  const auto stride = [&](int axis) { return view.size(axis) > 1 ? view.stride(axis) : 0; };
  const int last = view.rank() - 1;
  const std::int64_t inner = view.size(last) == 1 ? 1 : view.stride(last);
  if (packed) return {1, view.size(1), view.size(0), view.size(2), {0, stride(1), stride(0), inner}};
  return {view.size(0), view.size(1), view.size(2), view.size(3), {stride(0), stride(1), stride(2), inner}};
}

void copy_strides(const ConstTensorView& view, std::int64_t* to) {
  // Nothing steps along an axis of one element, whatever its stride says.
  for (int i = 0; i < view.rank(); ++i) to[i] = view.size(i) > 1 ? view.stride(i) : 0;
}

// Checks where packed sequences begin and end, and finds the longest.
kernels::IntegerView starts(const char* function, const char* name, const ConstTensorView& view, std::int64_t batch,
                            const char* rows_name, std::int64_t rows, std::int64_t* longest) {
  const kernels::IntegerView begins = check_integers(function, name, view, Dims{batch + 1});
  *longest = 0;
  for (std::int64_t b = 0; b <= batch; ++b) {
    const std::int64_t here = begins.at(b, 0);
    const std::int64_t before = b > 0 ? begins.at(b - 1, 0) : 0;
    if (b == 0 ? here != 0 : here < before) {
      fail(function, b == 0 ? base::format("{}[0] is {}, expected 0", name, here)
                            : base::format("{}[{}] is {}, less than {} before it", name, b, here, before));
    }
    *longest = std::max(*longest, here - before);
  }
  if (begins.at(batch, 0) != rows) {
    fail(function, base::format("{} ends at {}, {} has {} rows", name, begins.at(batch, 0), rows_name, rows));
  }
  return begins;
}

const float* scales(const char* function, const char* name, const ConstTensorView& view, const char* of,
                    const ConstTensorView& tensor, bool packed, std::int64_t* stride) {
  if (tensor.dtype() != DType::kI8) {
    if (view.defined()) fail(function, base::format("{} with {} {}: only I8 takes scales", name, of, describe(tensor)));
    return nullptr;
  }
  Dims expected = packed ? Dims{tensor.size(0), tensor.size(1)} : Dims{tensor.size(0), tensor.size(1), tensor.size(2)};
  if (!view.defined() || view.dtype() != DType::kF32 || !(view.shape() == expected)) {
    fail(function, base::format("{} is {}, expected F32 {} for {} {}", name, describe(view), expected.to_string(), of,
                                describe(tensor)));
  }
  stride[0] = packed ? 0 : view.stride(0);
  stride[1] = view.stride(1);
  stride[2] = packed ? view.stride(0) : view.stride(2);
  return static_cast<const float*>(view.data());
}

// Packed or paged rows have no one Tq or Tk.
struct Layouts {
  explicit Layouts(const AttentionOptions& options)
      : packed_q(options.cu_seqlens_q.defined()),
        packed_k(options.cu_seqlens_k.defined()),
        paged(options.page_table.defined()) {}
  bool packed_q, packed_k, paged;
};

// Checks everything but the outputs. v is null for probabilities.
void check_qkv(const char* function, const ConstTensorView& q, const ConstTensorView& k, const ConstTensorView* v,
               const AttentionOptions& options, QkvMask& params) {
  const auto [packed_q, packed_k, paged] = Layouts(options);
  if (packed_k && paged) fail(function, "cu_seqlens_k and page_table: keys are packed or paged, not both");
  if (v == nullptr && (packed_q || packed_k || paged)) {
    fail(function, "packed and paged calls have no one Tq and Tk; call it for each sequence");
  }
  const Heads queries = expect_heads(function, "q", q, packed_q, packed_q ? "[Tq,Hq,D]" : "[B,Hq,Tq,D]", false);
  const char* layout = packed_k ? "[Tk,Hkv,D]" : paged ? "[pages,Hkv,page size,D]" : "[B,Hkv,Tk,D]";
  const Heads keys = expect_heads(function, "k", k, packed_k, layout, v != nullptr);
  const CallShapes shapes{&q, &k, v};
  if (k.dtype() != q.dtype() && k.dtype() != DType::kI8) fail(function, "k must have q's type " + shapes());
  if (packed_q && options.cu_seqlens_q.rank() != 1) {
    fail(function, base::format("cu_seqlens_q is {}, expected I32 or I64 [B+1]", describe(options.cu_seqlens_q)));
  }
  params.batch = packed_q ? options.cu_seqlens_q.size(0) - 1 : queries.batch;
  if (params.batch < 0) fail(function, "cu_seqlens_q is empty, expected [B+1]");
  if (params.batch > kFar) fail(function, "more than 2^60 batch entries " + shapes());
  if (!packed_k && !paged && keys.batch != params.batch) {
    fail(function, base::format("k has batch {}, q has {} {}", keys.batch, params.batch, shapes()));
  }
  if (keys.width != queries.width) {
    fail(function, base::format("k has head size {}, q has {} {}", keys.width, queries.width, shapes()));
  }
  params.type = q.dtype();
  params.kv_type = k.dtype();
  params.q_heads = queries.heads;
  params.tq = queries.rows;
  params.d = queries.width;
  params.kv_heads = keys.heads;
  params.tk = keys.rows;
  if (params.d == 0) fail(function, "head size D is 0 " + shapes());
  if (params.q_heads > 0 && (params.kv_heads == 0 || params.q_heads % params.kv_heads != 0)) {
    fail(function,
         base::format("q has {} heads, not a multiple of k's {} {}", params.q_heads, params.kv_heads, shapes()));
  }
  if (packed_q) {
    params.q_starts =
        starts(function, "cu_seqlens_q", options.cu_seqlens_q, params.batch, "q", queries.rows, &params.tq);
  }
  if (packed_k) {
    params.k_starts = starts(function, "cu_seqlens_k", options.cu_seqlens_k, params.batch, "k", keys.rows, &params.tk);
  }
  if (paged) {
    const ConstTensorView& table = options.page_table;
    if (table.rank() != 2) {
      fail(function,
           base::format("page_table is {}, expected I32 or I64 [B,N] with B = {}", describe(table), params.batch));
    }
    const std::int64_t columns = table.size(1);
    params.pages = check_integers(function, "page_table", table, Dims{params.batch, columns});
    params.page_size = keys.rows;
    if (params.page_size < 16 || params.page_size % 16 != 0) {
      fail(function, base::format("k has pages of {} keys, expected a multiple of 16 {}", params.page_size, shapes()));
    }
    if (!base::multiply(columns, params.page_size, &params.tk)) params.tk = kFar + 1;
  }
  if (params.tk > kFar) fail(function, "more than 2^60 keys " + shapes());
  if (params.tq > kFar) fail(function, "more than 2^60 queries " + shapes());
  if (params.d > kWidest) fail(function, "head size D is more than 2^32 " + shapes());
  std::copy_n(queries.stride, 4, params.q_stride);
  std::copy_n(keys.stride, 4, params.k_stride);
  if (v != nullptr) {
    const Heads values = expect_heads(function, "v", *v, packed_k,
                                      packed_k ? "[Tk,Hkv,Dv]"
                                      : paged  ? "[pages,Hkv,page size,Dv]"
                                               : "[B,Hkv,Tk,Dv]",
                                      true);
    if (v->dtype() != k.dtype())
      fail(function, base::format("v must have {}'s type {}", k.dtype() == q.dtype() ? "q" : "k", shapes()));
    for (const auto& [axis, of_v, of_k] :
         {std::tuple{paged ? "pages" : "batch", values.batch, keys.batch},
          std::tuple{"heads", values.heads, keys.heads}, std::tuple{"keys", values.rows, keys.rows}}) {
      if (of_v != of_k) fail(function, base::format("v has {} {}, k has {} {}", of_v, axis, of_k, shapes()));
    }
    params.dv = values.width;
    if (params.dv > kWidest) fail(function, "head size Dv is more than 2^32 " + shapes());
    std::copy_n(values.stride, 4, params.v_stride);
    params.v = v->data();
    params.k_scales = scales(function, "k_scales", options.k_scales, "k", k, packed_k, params.k_scales_stride);
    params.v_scales = scales(function, "v_scales", options.v_scales, "v", *v, packed_k, params.v_scales_stride);
    params.int8_products = options.int8_products;
    if (params.int8_products && k.dtype() != DType::kI8)
      fail(function, "int8_products takes I8 keys and values " + shapes());
    if (params.int8_products && params.d > kMostBytes) {
      fail(function, base::format("int8_products takes head sizes up to {} {}", kMostBytes, shapes()));
    }
  }
  params.q = q.data();
  params.k = k.data();
  const double scale = options.scale.value_or(1.0 / std::sqrt(static_cast<double>(params.d)));
  if (!std::isfinite(scale)) fail(function, base::format("scale is {}, expected a finite number", scale));
  if (!std::isfinite(options.softcap) || options.softcap < 0) {
    fail(function, base::format("softcap is {}, expected 0 (none) or a finite positive number", options.softcap));
  }
  params.scale = scale;
  params.softcap = options.softcap;
  if (options.threads.num_threads < 0)
    fail(function, base::format("num_threads is {}, expected 0 or more", options.threads.num_threads));

  params.dropout = check_dropout(function, options.dropout);
  if (params.dropout.any() && (paged || k.dtype() == DType::kI8)) {
    fail(function, base::format("dropout with {}: it is of training, which these keys have not {}",
                                paged ? "page_table" : "I8 keys", shapes()));
  }

  check_mask(function, options.mask, params, &shapes);
  for (std::int64_t b = 0; paged && b < params.batch; ++b) {
    for (std::int64_t i = 0; i * params.page_size < params.key_end(b); ++i) {
      const std::int64_t page = params.pages.at(b, i);
      if (page < 0 || page >= keys.batch) {
        fail(function, base::format("page_table[{}, {}] is {}, k has {} pages", b, i, page, keys.batch));
      }
    }
  }
  if (options.sinks.defined()) {
    params.sinks = check_per_head(function, "sinks", options.sinks, params.q_heads, &params.sinks_stride);
  }
}

// Checks the row states of a call that is a part of a longer one.
void check_row_states(const char* function, RowStates& states, ForwardParams& params) {
  if (params.q_starts.defined() || params.k_starts.defined()) {
    fail(function, "row_states with cu_seqlens: packed sequences have no one Tq and Tk");
  }
  const Dims rows{RowStates::branches(states.keys_before, states.keys), params.batch, params.q_heads, params.tq};
  const Dims output{rows[0], rows[1], rows[2], rows[3], params.dv};
  if (states.keys != params.tk) {
    fail(function, base::format("row_states are of {} keys, the call has {}", states.keys, params.tk));
  }
  for (const auto& [name, tensor, shape] :
       {std::tuple{"max", &states.max, &rows}, std::tuple{"sum", &states.sum, &rows},
        std::tuple{"output", &states.output, &output}}) {
    if (!tensor->defined() || tensor->dtype() != DType::kF32 || !(tensor->shape() == *shape)) {
      fail(function,
           base::format("row_states.{} is {}, expected F32 {}", name, describe(tensor->cview()), shape->to_string()));
    }
  }
  params.first_chunk = states.keys_before / kernels::kChunkKeys;
  params.row_max = states.max.as<float>();
  params.row_sum = states.sum.as<float>();
  params.row_output = states.output.as<float>();
}

// Checks that an output overlaps no input of the call.
void check_inputs(const char* function, const char* name, const ConstTensorView& output, const ConstTensorView& q,
                  const ConstTensorView& k, const ConstTensorView* v, const AttentionOptions& options) {
  const std::pair<const char*, const ConstTensorView*> inputs[] = {{"q", &q},
                                                                   {"k", &k},
                                                                   {"v", v},
                                                                   {"sinks", &options.sinks},
                                                                   {"cu_seqlens_q", &options.cu_seqlens_q},
                                                                   {"cu_seqlens_k", &options.cu_seqlens_k},
                                                                   {"page_table", &options.page_table},
                                                                   {"k_scales", &options.k_scales},
                                                                   {"v_scales", &options.v_scales}};
  for (const auto& [input, view] : inputs) {
    if (view != nullptr && view->defined()) check_overlap(function, name, output, input, *view);
  }
  for (const auto& [input, option, view] : kMaskTensors) {
    if ((options.mask.*view).defined()) check_overlap(function, name, output, input, options.mask.*view);
  }
}

}  // namespace

kernels::Dropout check_dropout(const char* function, const Dropout& given) {
  if (!(given.p >= 0 && given.p <= 1)) fail(function, base::format("dropout.p is {}, expected 0 to 1", given.p));
  for (const auto& [name, first] : {std::pair{"first_query", given.first_query},
                                    {"first_head", given.first_head},
                                    {"first_entry", given.first_entry}}) {
    if (first < 0) fail(function, base::format("dropout.{} is {}, expected 0 or more", name, first));
  }
  kernels::Dropout dropout;
  dropout.p = given.p;
  dropout.dropped = static_cast<std::uint32_t>(std::ceil(given.p * 0x1p24));
  dropout.key[0] = static_cast<std::uint32_t>(given.seed);
  dropout.key[1] = static_cast<std::uint32_t>(given.seed >> 32);
  dropout.factor = dropout.dropped == 0x1000000 ? 0 : 1 / (1 - given.p);
  dropout.first_query = given.first_query;
  dropout.first_head = given.first_head;
  dropout.first_entry = given.first_entry;
  return dropout;
}

ForwardParams check_forward(const char* function, const ConstTensorView& q, const ConstTensorView& k,
                            const ConstTensorView& v, const TensorView& out, const AttentionOptions& options) {
  ForwardParams params;
  check_qkv(function, q, k, &v, options, params);

  const bool packed = options.cu_seqlens_q.defined();
  const char* layout = packed ? "[Tq,Hq,Dv]" : "[B,Hq,Tq,Dv]";
  const Heads rows = expect_heads(function, "out", out, packed, layout, false);
  const Dims expected =
      packed ? Dims{q.size(0), params.q_heads, params.dv} : Dims{params.batch, params.q_heads, params.tq, params.dv};
  if (!(out.shape() == expected)) {
    fail(function, base::format("out is {}, expected {} = {} (q {}, k {}, v {})", describe(out), layout,
                                expected.to_string(), describe(q), describe(k), describe(v)));
  }
  check_itself(function, "out", out);
  params.out = out.data();
  params.out_type = out.dtype();
  std::copy_n(rows.stride, 4, params.out_stride);
  check_inputs(function, "out", out, q, k, &v, options);

  if (const TensorView& lse = options.lse; lse.defined()) {
    const Dims shape = packed ? Dims{params.q_heads, q.size(0)} : Dims{params.batch, params.q_heads, params.tq};
    if (lse.dtype() != DType::kF32 || !(lse.shape() == shape)) {
      fail(function, base::format("lse is {}, expected F32 {} = {}", describe(lse), packed ? "[Hq,Tq]" : "[B,Hq,Tq]",
                                  shape.to_string()));
    }
    check_itself(function, "lse", lse);
    check_inputs(function, "lse", lse, q, k, &v, options);
    check_overlap(function, "out", out, "lse", lse);
    put_lse(lse, params);
  }
  if (options.row_states != nullptr) check_row_states(function, *options.row_states, params);
  return params;
}

namespace {

// What a backward reads besides q, k and v: of out's shape.
void check_out(const char* function, const char* name, const ConstTensorView& view, const AttentionOptions& options,
               const ConstTensorView& q, const kernels::BackwardParams& params, const CallShapes& shapes, DType* type,
               std::int64_t* stride) {
  const bool packed = options.cu_seqlens_q.defined();
  const char* layout = packed ? "[Tq,Hq,Dv]" : "[B,Hq,Tq,Dv]";
  const Heads rows = expect_heads(function, name, view, packed, layout, false);
  const Dims expected =
      packed ? Dims{q.size(0), params.q_heads, params.dv} : Dims{params.batch, params.q_heads, params.tq, params.dv};
  if (!(view.shape() == expected)) {
    fail(function,
         base::format("{} is {}, expected {} = {} {}", name, describe(view), layout, expected.to_string(), shapes()));
  }
  *type = view.dtype();
  std::copy_n(rows.stride, 4, stride);
}

// The gradients of a call, each of its input's shape.
class GradientChecks {
 public:
  GradientChecks(const char* function, const AttentionGradients& gradients, const ConstTensorView& q,
                 const ConstTensorView& k, const ConstTensorView& v, const AttentionOptions& options)
      : function_(function), gradients_(gradients), q_(q), k_(k), v_(v), options_(options) {}

  // Checks one gradient and returns it, its axes the last of batch, head, row, element.
  kernels::Gradient operator()(const char* name, TensorView AttentionGradients::* member, const char* of,
                               const ConstTensorView& input, bool packed) const {
    const TensorView& view = gradients_.*member;
    kernels::Gradient gradient;
    if (!view.defined()) return gradient;
    if (!input.defined()) fail(function_, base::format("{} without {}", name, of));
    const bool f32 = member == &AttentionGradients::dsinks || member == &AttentionGradients::dalibi_slopes;
    if (f32 ? view.dtype() != DType::kF32 : !base::is_float(view.dtype())) {
      fail(function_, base::format("{} is {}, expected {}", name, describe(view), f32 ? "F32" : "F32, BF16 or F16"));
    }
    if (!(view.shape() == input.shape())) {
      fail(function_, base::format("{} is {}, expected the shape of {} {}", name, describe(view), of, describe(input)));
    }
    check_itself(function_, name, view);
    check_inputs(function_, name, view, q_, k_, &v_, options_);
    gradient.data = view.data();
    gradient.type = view.dtype();
    for (std::int64_t& size : gradient.size) size = 1;
    const int rank = view.rank();
    for (int i = 0; i < rank; ++i) {
      const int axis = packed ? (i == 0 ? 2 : i == 1 ? 1 : 3) : f32 ? 1 : 4 - rank + i;
      gradient.size[axis] = view.size(i);
      gradient.stride[axis] = view.size(i) > 1 ? view.stride(i) : axis == 3 ? 1 : 0;
    }
    return gradient;
  }

 private:
  const char* function_;
  const AttentionGradients& gradients_;
  const ConstTensorView& q_;
  const ConstTensorView& k_;
  const ConstTensorView& v_;
  const AttentionOptions& options_;
};

constexpr std::pair<const char*, TensorView AttentionGradients::*> kGradients[] = {
    {"dq", &AttentionGradients::dq},         {"dk", &AttentionGradients::dk},
    {"dv", &AttentionGradients::dv},         {"dbias", &AttentionGradients::dbias},
    {"dsinks", &AttentionGradients::dsinks}, {"dalibi_slopes", &AttentionGradients::dalibi_slopes}};

}  // namespace

kernels::BackwardParams check_backward(const char* function, const ConstTensorView& q, const ConstTensorView& k,
                                       const ConstTensorView& v, const ConstTensorView* out,
                                       const ConstTensorView& dout, const ConstTensorView* lse,
                                       const AttentionGradients& gradients, const AttentionOptions& options) {
  kernels::BackwardParams params;
  if (options.page_table.defined()) fail(function, "page_table: keys in pages have no gradient");
  if (k.defined() && k.dtype() == DType::kI8) fail(function, base::format("k is {}: I8 has no gradient", describe(k)));
  check_qkv(function, q, k, &v, options, params);
  const CallShapes shapes{&q, &k, &v};
  const bool packed = options.cu_seqlens_q.defined();
  params.rows = packed ? q.size(0) : params.batch * params.tq;
  check_out(function, "dout", dout, options, q, params, shapes, &params.dout_type, params.dout_stride);
  params.dout = dout.data();
  if (out != nullptr) {
    check_out(function, "out", *out, options, q, params, shapes, &params.out_type, params.out_stride);
    params.out = out->data();
  }
  const auto per_row = [&](const char* name, const ConstTensorView& view, std::int64_t* stride) {
    const Dims shape = packed ? Dims{params.q_heads, q.size(0)} : Dims{params.batch, params.q_heads, params.tq};
    if (!view.defined() || view.dtype() != DType::kF32 || !(view.shape() == shape)) {
      fail(function, base::format("{} is {}, expected F32 {} = {} {}", name, describe(view),
                                  packed ? "[Hq,Tq]" : "[B,Hq,Tq]", shape.to_string(), shapes()));
    }
    for (int i = 0; i < view.rank(); ++i) stride[3 - view.rank() + i] = view.size(i) > 1 ? view.stride(i) : 0;
    return static_cast<const float*>(view.data());
  };
  if (lse != nullptr) params.lse = per_row("lse", *lse, params.lse_stride);
  if (gradients.dlse.defined()) params.dlse = per_row("dlse", gradients.dlse, params.dlse_stride);
  const GradientChecks check(function, gradients, q, k, v, options);
  params.dq = check("dq", &AttentionGradients::dq, "q", q, packed);
  params.dk = check("dk", &AttentionGradients::dk, "k", k, options.cu_seqlens_k.defined());
  params.dvalue = check("dv", &AttentionGradients::dv, "v", v, options.cu_seqlens_k.defined());
  params.dbias = check("dbias", &AttentionGradients::dbias, "mask.bias", options.mask.bias, false);
  params.dsinks = check("dsinks", &AttentionGradients::dsinks, "sinks", options.sinks, false);
  params.dalibi =
      check("dalibi_slopes", &AttentionGradients::dalibi_slopes, "mask.alibi_slopes", options.mask.alibi_slopes, false);
  params.accumulate = gradients.accumulate;
  for (const auto& [name, member] : kGradients) {
    const TensorView& gradient = gradients.*member;
    if (!gradient.defined()) continue;
    check_overlap(function, name, gradient, "dout", dout);
    if (out != nullptr) check_overlap(function, name, gradient, "out", *out);
    if (lse != nullptr) check_overlap(function, name, gradient, "lse", *lse);
    if (gradients.dlse.defined()) check_overlap(function, name, gradient, "dlse", gradients.dlse);
    for (const auto& [other, other_member] : kGradients) {
      if (other_member == member) break;
      if ((gradients.*other_member).defined()) check_overlap(function, name, gradient, other, gradients.*other_member);
    }
  }
  return params;
}

ProbsParams check_probs(const char* function, const ConstTensorView& q, const ConstTensorView& k,
                        const ConstTensorView* lse, const TensorView& weights, const AttentionOptions& options) {
  ProbsParams params;
  check_qkv(function, q, k, nullptr, options, params);
  if (lse != nullptr) {
    const Dims shape{params.batch, params.q_heads, params.tq};
    if (!lse->defined() || lse->dtype() != DType::kF32 || !(lse->shape() == shape)) {
      fail(function, base::format("lse is {}, expected F32 [B,Hq,Tq] = {}", describe(*lse), shape.to_string()));
    }
    params.lse = static_cast<const float*>(lse->data());
    copy_strides(*lse, params.lse_stride);
  }
  const Dims expected{params.batch, params.q_heads, params.tq, params.tk};
  if (!weights.defined() || weights.dtype() != DType::kF32 || !(weights.shape() == expected)) {
    fail(function,
         base::format("weights is {}, expected F32 [B,Hq,Tq,Tk] = {}", describe(weights), expected.to_string()));
  }
  check_itself(function, "weights", weights);
  if (lse != nullptr) check_overlap(function, "weights", weights, "lse", *lse);
  check_inputs(function, "weights", weights, q, k, nullptr, options);
  params.probs = static_cast<float*>(weights.data());
  copy_strides(weights, params.probs_stride);
  return params;
}

}  // namespace manyheads::attention_detail
