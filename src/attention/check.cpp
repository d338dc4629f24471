#include "attention/check.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <span>
#include <string>
#include <tuple>
#include <utility>

#include <manyheads/error.hpp>

#include "base/checked.hpp"
#include "base/format.hpp"

namespace manyheads::attention_detail {
namespace {

using kernels::AttentionCall;

// Places and windows stay far from where their sums would wrap.
constexpr std::int64_t kFar = std::int64_t{1} << 60;
// Of a row: no product of it with a tile's sizes wraps. Views of stride 0 take no memory, however wide.
constexpr std::int64_t kWidest = std::int64_t{1} << 32;
// Values in a row of bytes whose products still add up within 32 bits.
constexpr std::int64_t kMostBytes = 131072;

[[noreturn]] void fail(const char* function, const std::string& what) {
  throw Error(ErrorCode::kInvalidArgument, base::format("{}: {}", function, what));
}

bool floating(DType type) { return type == DType::kF32 || type == DType::kBF16 || type == DType::kF16; }
bool integer(DType type) { return type == DType::kI32 || type == DType::kI64; }

std::string describe(const ConstTensorView& view) {
  return view.defined() ? base::format("{} {}", name_of(view.dtype()), view.shape().to_string()) : "undefined";
}

// A tensor of rows, seen as batch, heads, rows, width whatever its layout.
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
  if (!floating(view.dtype()) && !(quantised && view.dtype() == DType::kI8)) {
    fail(function,
         base::format("{} is {}, expected F32, BF16 {}", name, describe(view), quantised ? ", F16 or I8" : "or F16"));
  }
  // An axis of one element is never stepped along, whatever its stride says; but the inner one decides whether rows are
  // read as vectors.
  const auto stride = [&](int axis) { return view.size(axis) > 1 ? view.stride(axis) : 0; };
  const int last = view.rank() - 1;
  const std::int64_t inner = view.size(last) == 1 ? 1 : view.stride(last);
  if (packed) return {1, view.size(1), view.size(0), view.size(2), {0, stride(1), stride(0), inner}};
  return {view.size(0), view.size(1), view.size(2), view.size(3), {stride(0), stride(1), stride(2), inner}};
}

void copy_strides(const ConstTensorView& view, std::int64_t* to) {
  // An axis of one element is never stepped along, whatever its stride says.
  for (int i = 0; i < view.rank(); ++i) to[i] = view.size(i) > 1 ? view.stride(i) : 0;
}

// An integer tensor [B] or [B,T], dense in any stride.
kernels::IntegerView integers(const char* function, const char* name, const ConstTensorView& view, const Dims& shape) {
  if (!integer(view.dtype()) || !(view.shape() == shape)) {
    fail(function, base::format("{} is {}, expected I32 or I64 {}", name, describe(view), shape.to_string()));
  }
  kernels::IntegerView integers;
  integers.data = view.data();
  integers.wide = view.dtype() == DType::kI64;
  for (int i = 0; i < view.rank(); ++i) integers.stride[i] = view.stride(i);
  // An empty tensor may lie on a null pointer; there is then nothing to read.
  return integers;
}

const float* per_head(const char* function, const char* name, const ConstTensorView& view, std::int64_t heads,
                      std::int64_t* stride) {
  if (view.dtype() != DType::kF32 || !(view.shape() == Dims{heads})) {
    fail(function, base::format("{} is {}, expected F32 {}", name, describe(view), Dims{heads}.to_string()));
  }
  *stride = view.stride(0);
  return static_cast<const float*>(view.data());
}

// Strides of a tensor that broadcasts from the right to [B,Hq,Tq,Tk].
void broadcast(const char* function, const char* name, const ConstTensorView& view, const AttentionCall& call,
               std::int64_t* stride) {
  const Dims target{call.batch, call.q_heads, call.tq, call.tk};
  bool fits = view.rank() <= 4;
  for (int i = 0; fits && i < view.rank(); ++i) {
    const int axis = 4 - view.rank() + i;
    fits = view.size(i) == 1 || view.size(i) == target[axis];
    stride[axis] = view.size(i) == 1 ? 0 : view.stride(i);
  }
  if (!fits) {
    fail(function, base::format("{} is {}, which does not broadcast to [B,Hq,Tq,Tk] = {}", name, describe(view),
                                target.to_string()));
  }
}

// Where packed sequences begin and end; the longest of them.
kernels::IntegerView starts(const char* function, const char* name, const ConstTensorView& view, std::int64_t batch,
                            const char* rows_name, std::int64_t rows, std::int64_t* longest) {
  const kernels::IntegerView begins = integers(function, name, view, Dims{batch + 1});
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

std::int64_t window_side(const char* function, const char* side, std::int64_t value) {
  if (value < -1) fail(function, base::format("window {} is {}, expected -1 (unbounded) or more", side, value));
  return std::min(value, kFar);
}

// A view's axes of more than one element by ascending stride, with those that continue each other made one: a block of
// bytes that repeats at the remaining strides.
struct Layout {
  std::intptr_t begin = 0, end = 0;  // bytes
  std::int64_t block = 0;
  std::array<std::pair<std::int64_t, std::int64_t>, kMaxRank> axis{};  // stride in bytes, size
  int count = 0;

  std::span<const std::pair<std::int64_t, std::int64_t>> axes() const {
    return {axis.data(), static_cast<std::size_t>(count)};
  }
};

Layout layout_of(const ConstTensorView& view) {
  Layout layout;
  const std::int64_t element = static_cast<std::int64_t>(size_of(view.dtype()));
  layout.begin = layout.end = reinterpret_cast<std::intptr_t>(view.data());
  layout.block = element;
  auto& axes = layout.axis;
  int found = 0;
  for (int i = 0; i < view.rank(); ++i) {
    if (view.size(i) == 1) continue;
    const std::int64_t bytes = view.stride(i) * element;
    (bytes < 0 ? layout.begin : layout.end) += bytes * (view.size(i) - 1);
    axes[static_cast<std::size_t>(found++)] = {bytes < 0 ? -bytes : bytes, view.size(i)};
  }
  layout.end += element;
  std::sort(axes.begin(), axes.begin() + found);
  for (int i = 0; i < found; ++i) {
    const auto one = axes[static_cast<std::size_t>(i)];
    if (layout.count == 0 && one.first == layout.block) {
      layout.block *= one.second;
    } else {
      axes[static_cast<std::size_t>(layout.count++)] = one;
    }
  }
  return layout;
}

bool overlaps_itself(const ConstTensorView& view) {
  const Layout layout = layout_of(view);
  std::int64_t extent = layout.block;
  for (const auto& [stride, size] : layout.axes()) {
    if (stride < extent) return true;
    extent = stride * (size - 1) + extent;
  }
  return false;
}

bool may_share(const ConstTensorView& a, const ConstTensorView& b) {
  if (!a.defined() || !b.defined() || element_count(a.shape()) == 0 || element_count(b.shape()) == 0) return false;
  const Layout x = layout_of(a);
  const Layout y = layout_of(b);
  if (x.end <= y.begin || y.end <= x.begin) return false;
  // Interleaved views: every block starts at its view's begin plus a multiple of the strides' common divisor.
  std::int64_t step = 0;
  for (const auto& axis : x.axes()) step = std::gcd(step, axis.first);
  for (const auto& axis : y.axes()) step = std::gcd(step, axis.first);
  if (step == 0) return true;
  const std::int64_t apart = ((y.begin - x.begin) % step + step) % step;
  return !(apart >= x.block && step - apart >= y.block);
}

}  // namespace

void check_itself(const char* function, const char* name, const ConstTensorView& output) {
  if (element_count(output.shape()) > 0 && overlaps_itself(output)) {
    fail(function,
         base::format("{} {} with strides {} overlaps itself", name, describe(output), output.strides().to_string()));
  }
}

void check_overlap(const char* function, const char* name, const ConstTensorView& output, const char* other_name,
                   const ConstTensorView& other) {
  if (may_share(output, other)) {
    fail(function, base::format("{} {} overlaps {} {}", name, describe(output), other_name, describe(other)));
  }
}

void check_inputs(const char* function, const char* name, const ConstTensorView& output, const ConstTensorView& q,
                  const ConstTensorView& k, const ConstTensorView* v, const AttentionOptions& options) {
  const Mask& mask = options.mask;
  const std::pair<const char*, const ConstTensorView*> inputs[] = {{"q", &q},
                                                                   {"k", &k},
                                                                   {"v", v},
                                                                   {"mask", &mask.allowed},
                                                                   {"bias", &mask.bias},
                                                                   {"key_lengths", &mask.key_lengths},
                                                                   {"offsets", &mask.offsets},
                                                                   {"q_documents", &mask.q_documents},
                                                                   {"k_documents", &mask.k_documents},
                                                                   {"alibi_slopes", &mask.alibi_slopes},
                                                                   {"sinks", &options.sinks},
                                                                   {"cu_seqlens_q", &options.cu_seqlens_q},
                                                                   {"cu_seqlens_k", &options.cu_seqlens_k},
                                                                   {"page_table", &options.page_table},
                                                                   {"k_scales", &options.k_scales},
                                                                   {"v_scales", &options.v_scales}};
  for (const auto& [input, view] : inputs) {
    if (view != nullptr) check_overlap(function, name, output, input, *view);
  }
}

void check_lse(const char* function, const ConstTensorView& lse, AttentionCall& call) {
  const bool packed = call.q_starts.data != nullptr;
  const Dims expected =
      packed ? Dims{call.q_heads, call.q_starts.at(call.batch, 0)} : Dims{call.batch, call.q_heads, call.tq};
  if (!lse.defined() || lse.dtype() != DType::kF32 || !(lse.shape() == expected)) {
    fail(function, base::format("lse is {}, expected F32 {} = {}", describe(lse), packed ? "[Hq,Tq]" : "[B,Hq,Tq]",
                                expected.to_string()));
  }
  call.lse = static_cast<float*>(const_cast<void*>(lse.data()));
  copy_strides(lse, call.lse_stride + (packed ? 1 : 0));
}

void check_weights(const char* function, const TensorView& weights, AttentionCall& call) {
  const Dims expected{call.batch, call.q_heads, call.tq, call.tk};
  if (!weights.defined() || weights.dtype() != DType::kF32 || !(weights.shape() == expected)) {
    fail(function,
         base::format("weights is {}, expected F32 [B,Hq,Tq,Tk] = {}", describe(weights), expected.to_string()));
  }
  check_itself(function, "weights", weights);
  call.weights = static_cast<float*>(weights.data());
  copy_strides(weights, call.weights_stride);
}

kernels::AttentionCall check(const char* function, const ConstTensorView& q, const ConstTensorView& k,
                             const ConstTensorView* v, const TensorView* out, const AttentionOptions& options) {
  AttentionCall call;
  const bool packed_q = options.cu_seqlens_q.defined();
  const bool packed_k = options.cu_seqlens_k.defined();
  const bool paged = options.page_table.defined();
  if (packed_k && paged) fail(function, "cu_seqlens_k and page_table: keys are packed or paged, not both");
  if (v == nullptr && (packed_q || packed_k || paged)) {
    fail(function, "packed and paged calls have no one Tq and Tk; call it for each sequence");
  }
  const Heads queries = expect_heads(function, "q", q, packed_q, packed_q ? "[Tq,Hq,D]" : "[B,Hq,Tq,D]", false);
  const char* layout = packed_k ? "[Tk,Hkv,D]" : paged ? "[pages,Hkv,page size,D]" : "[B,Hkv,Tk,D]";
  const Heads keys = expect_heads(function, "k", k, packed_k, layout, v != nullptr);
  const auto shapes = [&] {
    return v != nullptr ? base::format("(q {}, k {}, v {})", describe(q), describe(k), describe(*v))
                        : base::format("(q {}, k {})", describe(q), describe(k));
  };
  if (k.dtype() != q.dtype() && k.dtype() != DType::kI8) fail(function, "k must have q's type " + shapes());
  if (packed_q && options.cu_seqlens_q.rank() != 1) {
    fail(function, base::format("cu_seqlens_q is {}, expected I32 or I64 [B+1]", describe(options.cu_seqlens_q)));
  }
  call.batch = packed_q ? options.cu_seqlens_q.size(0) - 1 : queries.batch;
  if (call.batch < 0) fail(function, "cu_seqlens_q is empty, expected [B+1]");
  if (call.batch > kFar) fail(function, "more than 2^60 batch entries " + shapes());
  if (!packed_k && !paged && keys.batch != call.batch) {
    fail(function, base::format("k has batch {}, q has {} {}", keys.batch, call.batch, shapes()));
  }
  if (keys.width != queries.width) {
    fail(function, base::format("k has head size {}, q has {} {}", keys.width, queries.width, shapes()));
  }
  call.type = q.dtype();
  call.kv_type = k.dtype();
  call.q_heads = queries.heads;
  call.tq = queries.rows;
  call.d = queries.width;
  call.kv_heads = keys.heads;
  call.tk = keys.rows;
  if (call.d == 0) fail(function, "head size D is 0 " + shapes());
  if (call.q_heads > 0 && (call.kv_heads == 0 || call.q_heads % call.kv_heads != 0)) {
    fail(function, base::format("q has {} heads, not a multiple of k's {} {}", call.q_heads, call.kv_heads, shapes()));
  }
  if (packed_q) {
    call.q_starts = starts(function, "cu_seqlens_q", options.cu_seqlens_q, call.batch, "q", queries.rows, &call.tq);
  }
  if (packed_k) {
    call.k_starts = starts(function, "cu_seqlens_k", options.cu_seqlens_k, call.batch, "k", keys.rows, &call.tk);
  }
  if (paged) {
    const ConstTensorView& table = options.page_table;
    if (table.rank() != 2) {
      fail(function,
           base::format("page_table is {}, expected I32 or I64 [B,N] with B = {}", describe(table), call.batch));
    }
    const std::int64_t columns = table.size(1);
    call.pages = integers(function, "page_table", table, Dims{call.batch, columns});
    call.page_size = keys.rows;
    if (call.page_size < 16 || call.page_size % 16 != 0) {
      fail(function, base::format("k has pages of {} keys, expected a multiple of 16 {}", call.page_size, shapes()));
    }
    if (!base::multiply(columns, call.page_size, &call.tk)) call.tk = kFar + 1;
  }
  if (call.tk > kFar) fail(function, "more than 2^60 keys " + shapes());
  if (call.tq > kFar) fail(function, "more than 2^60 queries " + shapes());
  if (call.d > kWidest) fail(function, "head size D is more than 2^32 " + shapes());
  std::copy_n(queries.stride, 4, call.q_stride);
  std::copy_n(keys.stride, 4, call.k_stride);
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
    call.dv = values.width;
    if (call.dv > kWidest) fail(function, "head size Dv is more than 2^32 " + shapes());
    std::copy_n(values.stride, 4, call.v_stride);
    call.v = v->data();
    call.k_scales = scales(function, "k_scales", options.k_scales, "k", k, packed_k, call.k_scales_stride);
    call.v_scales = scales(function, "v_scales", options.v_scales, "v", *v, packed_k, call.v_scales_stride);
    call.int8_products = options.int8_products;
    if (call.int8_products && k.dtype() != DType::kI8)
      fail(function, "int8_products takes I8 keys and values " + shapes());
    if (call.int8_products && call.d > kMostBytes) {
      fail(function, base::format("int8_products takes head sizes up to {} {}", kMostBytes, shapes()));
    }
  }
  call.q = q.data();
  call.k = k.data();
  if (out != nullptr) {
    const char* out_layout = packed_q ? "[Tq,Hq,Dv]" : "[B,Hq,Tq,Dv]";
    const Heads rows = expect_heads(function, "out", *out, packed_q, out_layout, false);
    const Dims expected =
        packed_q ? Dims{queries.rows, call.q_heads, call.dv} : Dims{call.batch, call.q_heads, call.tq, call.dv};
    if (!(out->shape() == expected)) {
      fail(function,
           base::format("out is {}, expected {} = {} {}", describe(*out), out_layout, expected.to_string(), shapes()));
    }
    check_itself(function, "out", *out);
    call.out = out->data();
    call.out_type = out->dtype();
    std::copy_n(rows.stride, 4, call.out_stride);
  }

  const double scale = options.scale.value_or(1.0 / std::sqrt(static_cast<double>(call.d)));
  if (!std::isfinite(scale)) fail(function, base::format("scale is {}, expected a finite number", scale));
  if (!std::isfinite(options.softcap) || options.softcap < 0) {
    fail(function, base::format("softcap is {}, expected 0 (none) or a finite positive number", options.softcap));
  }
  call.scale = scale;
  call.softcap = options.softcap;
  if (options.num_threads < 0)
    fail(function, base::format("num_threads is {}, expected 0 or more", options.num_threads));

  const Mask& mask = options.mask;
  call.causal = mask.causal;
  call.window_left = window_side(function, "left", mask.window_left);
  call.window_right = window_side(function, "right", mask.window_right);
  if (mask.key_lengths.defined()) {
    if (packed_k) fail(function, "key_lengths with cu_seqlens_k, which gives the lengths");
    call.key_lengths = integers(function, "key_lengths", mask.key_lengths, Dims{call.batch});
    for (std::int64_t b = 0; b < call.batch; ++b) {
      const std::int64_t length = call.key_lengths.at(b, 0);
      if (length < 0 || length > call.tk) {
        fail(function, base::format("key_lengths[{}] is {}, expected 0 to Tk = {}", b, length, call.tk));
      }
    }
  }
  for (std::int64_t b = 0; paged && b < call.batch; ++b) {
    for (std::int64_t i = 0; i * call.page_size < call.key_length(b); ++i) {
      const std::int64_t page = call.pages.at(b, i);
      if (page < 0 || page >= keys.batch) {
        fail(function, base::format("page_table[{}, {}] is {}, k has {} pages", b, i, page, keys.batch));
      }
    }
  }
  if (mask.causal && mask.alignment == Alignment::kUnspecified && !mask.offsets.defined()) {
    // Key lengths without a word on the alignment leave the diagonal at the top left, as for tensors of equal lengths.
    const bool lengths = packed_q || packed_k || paged;
    for (std::int64_t b = 0; b < (lengths ? call.batch : 1); ++b) {
      const std::int64_t rows = lengths ? call.queries(b) : call.tq;
      const std::int64_t columns = lengths ? call.key_length(b) : call.tk;
      if (rows == columns) continue;
      fail(function, base::format("causal with {} queries and {} keys{}: say top_left or bottom_right {}", rows,
                                  columns, lengths ? base::format(" in entry {}", b) : "", shapes()));
    }
  }
  if (mask.offsets.defined()) {
    call.offsets = integers(function, "offsets", mask.offsets, Dims{call.batch});
    for (std::int64_t b = 0; b < call.batch; ++b) {
      const std::int64_t offset = call.offsets.at(b, 0);
      if (offset < -kFar || offset > kFar) {
        fail(function, base::format("offsets[{}] is {}, expected -2^60 to 2^60", b, offset));
      }
    }
  }
  if (mask.alignment == Alignment::kBottomRight) {
    call.offset = call.tk - call.tq;
    call.offset_from_length = packed_q || packed_k || call.key_lengths.data != nullptr;
  }
  for (const auto& [name, view] :
       {std::pair{"mask", &mask.allowed}, {"bias", &mask.bias}, {"q_documents", &mask.q_documents}}) {
    if ((packed_q || packed_k) && view->defined()) {
      fail(function, base::format("{} with cu_seqlens: packed sequences have no one Tq and Tk", name));
    }
  }
  if (mask.q_documents.defined() != mask.k_documents.defined()) {
    fail(function, mask.q_documents.defined() ? "q_documents without k_documents" : "k_documents without q_documents");
  }
  if (mask.q_documents.defined()) {
    call.q_documents = integers(function, "q_documents", mask.q_documents, Dims{call.batch, call.tq});
    call.k_documents = integers(function, "k_documents", mask.k_documents, Dims{call.batch, call.tk});
  }
  if (mask.allowed.defined()) {
    if (mask.allowed.dtype() != DType::kBool) {
      fail(function, base::format("mask is {}, expected BOOL (a float mask is a bias)", describe(mask.allowed)));
    }
    broadcast(function, "mask", mask.allowed, call, call.allowed_stride);
    call.allowed = static_cast<const std::uint8_t*>(mask.allowed.data());
  }
  if (mask.bias.defined()) {
    if (mask.bias.dtype() != DType::kF32 && mask.bias.dtype() != q.dtype()) {
      fail(function, base::format("bias is {}, expected F32 or q's type {}", describe(mask.bias), name_of(q.dtype())));
    }
    broadcast(function, "bias", mask.bias, call, call.bias_stride);
    call.bias = mask.bias.data();
    call.bias_type = mask.bias.dtype();
  }
  if (mask.alibi_slopes.defined()) {
    call.alibi = per_head(function, "alibi_slopes", mask.alibi_slopes, call.q_heads, &call.alibi_stride);
  }
  if (options.sinks.defined()) {
    call.sinks = per_head(function, "sinks", options.sinks, call.q_heads, &call.sinks_stride);
  }
  if (options.lse != nullptr && out != nullptr) {
    check_lse(function, *options.lse, call);
    check_itself(function, "lse", *options.lse);
  }

  if (out != nullptr) {
    check_inputs(function, "out", *out, q, k, v, options);
    if (options.lse != nullptr) {
      check_inputs(function, "lse", *options.lse, q, k, v, options);
      check_overlap(function, "out", *out, "lse", *options.lse);
    }
  }
  return call;
}

}  // namespace manyheads::attention_detail
