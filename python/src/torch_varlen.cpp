#include "torch_varlen.hpp"

#include <manyheads/attention.hpp>
#include <manyheads/error.hpp>
#include <string>
#include <string_view>

#include "arguments.hpp"
#include "torch_ops.hpp"

namespace manyheads::python {
namespace {

using torch::Arguments;
using torch::IValue;
using torch::Owned;

// Places behind key and value, from query on.
enum Place { kCuQ = 3, kCuK, kMaxQ, kMaxK, kDropout, kCausal, kDebug, kScale, kLeft, kRight, kUsed, kSlopes, kTable };

[[noreturn]] void refuse(const std::string& text, ErrorCode code = ErrorCode::kInvalidArgument) {
  throw Error(code, "_flash_attention_forward: " + text);
}

ConstTensorView optional_view(const Owned& tensor, const char* name) {
  return tensor ? torch::view_of(tensor.get(), name) : ConstTensorView();
}

// [B,T,H,D] as [B,H,T,D].
ConstTensorView heads_first(const ConstTensorView& view) {
  Dims shape = view.shape(), strides = view.strides();
  std::swap(shape[1], shape[2]);
  std::swap(strides[1], strides[2]);
  return ConstTensorView(view.data(), view.dtype(), shape, strides);
}

std::int64_t number_at(const ConstTensorView& view, std::int64_t i) {
  const std::int64_t at = i * view.stride(0);
  return view.dtype() == DType::kI64 ? static_cast<const std::int64_t*>(view.data())[at]
                                     : static_cast<const std::int32_t*>(view.data())[at];
}

// Rows [from, to) of an axis.
template <class View>
View rows(const View& view, int axis, std::int64_t from, std::int64_t to) {
  Dims shape = view.shape();
  shape[axis] = to - from;
  const std::int64_t bytes = from * view.stride(axis) * static_cast<std::int64_t>(size_of(view.dtype()));
  return View(static_cast<char*>(const_cast<void*>(static_cast<const void*>(view.data()))) + bytes, view.dtype(), shape,
              view.strides());
}

// Packed keys of which each sequence uses the first used[b]: one call for each sequence.
void each_sequence(const ConstTensorView& q, const ConstTensorView& k, const ConstTensorView& v, const TensorView& out,
                   const AttentionOptions& options, const ConstTensorView& used) {
  const ConstTensorView &cu_q = options.cu_seqlens_q, &cu_k = options.cu_seqlens_k;
  const std::int64_t batch = cu_q.rank() == 1 ? cu_q.size(0) - 1 : -1;
  const auto is_index = [](const ConstTensorView& view) {
    return view.rank() == 1 && (view.dtype() == DType::kI32 || view.dtype() == DType::kI64);
  };
  if (!is_index(cu_q) || !is_index(cu_k) || !is_index(used) || cu_k.size(0) != batch + 1 || used.size(0) != batch) {
    refuse("expected cum_seq_q and cum_seq_k [B+1], seqused_k [B] of int32 or int64, not " + cu_q.shape().to_string() +
           ", " + cu_k.shape().to_string() + ", " + used.shape().to_string());
  }
  // Everything is checked before anything is written.
  for (std::int64_t b = 0; b < batch; ++b) {
    const std::int64_t q0 = number_at(cu_q, b), q1 = number_at(cu_q, b + 1), k0 = number_at(cu_k, b),
                       k1 = number_at(cu_k, b + 1), count = number_at(used, b);
    if (q0 < 0 || q1 < q0 || q1 > q.size(0) || k0 < 0 || k1 < k0 || k1 > k.size(0) || count < 0 || count > k1 - k0) {
      refuse("sequence " + std::to_string(b) + " has queries " + std::to_string(q0) + " to " + std::to_string(q1) +
             ", keys " + std::to_string(k0) + " to " + std::to_string(k1) + " and seqused_k " + std::to_string(count) +
             "; there are " + std::to_string(q.size(0)) + " queries and " + std::to_string(k.size(0)) + " keys");
    }
  }
  if (batch == 0 ? q.size(0) != 0 : number_at(cu_q, 0) != 0 || number_at(cu_q, batch) != q.size(0)) {
    refuse("cum_seq_q does not ascend from 0 to " + std::to_string(q.size(0)));
  }
  for (std::int64_t b = 0; b < batch; ++b) {
    const std::int64_t q0 = number_at(cu_q, b), q1 = number_at(cu_q, b + 1), k0 = number_at(cu_k, b);
    if (q0 == q1) continue;
    const std::int64_t starts_q[] = {0, q1 - q0}, starts_k[] = {0, number_at(used, b)};
    AttentionOptions own = options;
    own.cu_seqlens_q = ConstTensorView(starts_q, Dims{2});
    own.cu_seqlens_k = ConstTensorView(starts_k, Dims{2});
    own.lse = rows(options.lse, 1, q0, q1);
    attention(rows(q, 0, q0, q1), rows(k, 0, k0, k0 + starts_k[1]), rows(v, 0, k0, k0 + starts_k[1]),
              rows(out, 0, q0, q1), own);
  }
}

// Writes into out, or into one of its own. Gives lse.
Owned run(IValue* stack, std::uint64_t count, bool inplace, Owned& out) {
  constexpr std::string_view kSchema = "TTTTttiidbbDIItttI";
  const std::string schema(inplace ? kSchema.substr(0, count) : kSchema.substr(1, count));
  const Arguments given(stack, schema.c_str());
  const int first = inplace ? 1 : 0;
  const auto tensor = [&](int place) -> const Owned& { return given.tensor(first + place); };
  if (given.number(first + kDropout) != 0) refuse("takes no dropout", ErrorCode::kUnsupported);
  if (given.flag(first + kDebug)) refuse("return_debug_mask is not supported", ErrorCode::kUnsupported);
  if (!tensor(kCuQ)) refuse("without cum_seq_q it is not supported; scaled_dot_product_attention takes such calls");
  const ConstTensorView q = torch::view_of(tensor(0).get(), "query");
  ConstTensorView k = torch::view_of(tensor(1).get(), "key"), v = torch::view_of(tensor(2).get(), "value");
  AttentionOptions options;
  options.cu_seqlens_q = torch::view_of(tensor(kCuQ).get(), "cum_seq_q");
  const ConstTensorView used = optional_view(tensor(kUsed), "seqused_k");
  if (schema.size() > static_cast<std::size_t>(first + kTable)) {
    options.page_table = optional_view(tensor(kTable), "block_table");
  }
  const int keys_rank = tensor(kCuK) && !options.page_table.defined() ? 3 : 4;
  if (q.rank() != 3 || k.rank() != keys_rank || v.rank() != keys_rank) {
    refuse("query " + q.shape().to_string() + ", key " + k.shape().to_string() + ", value " + v.shape().to_string() +
           ": expected query of 3 axes, key and value of " + std::to_string(keys_rank));
  }
  if (options.page_table.defined() && !used.defined()) refuse("block_table needs seqused_k");
  if (keys_rank == 4) {
    k = heads_first(k);
    v = heads_first(v);
  } else {
    options.cu_seqlens_k = torch::view_of(tensor(kCuK).get(), "cum_seq_k");
  }
  options.mask.causal = given.flag(first + kCausal);
  options.mask.alignment = Alignment::kBottomRight;
  const auto side = [&](int place) { return given.has(first + place) ? given.integer(first + place) : -1; };
  options.mask.window_left = std::max<std::int64_t>(side(kLeft), -1);
  options.mask.window_right = std::max<std::int64_t>(side(kRight), -1);
  options.mask.alibi_slopes = optional_view(tensor(kSlopes), "alibi_slopes");
  if (given.has(first + kScale)) options.scale = given.number(first + kScale);
  options.threads.executor = &torch::pool();
  options.workspace = &own_workspace();
  if (inplace) {
    out = given.tensor(0).again();
  } else {
    Dims shape = q.shape();
    shape[2] = v.size(v.rank() - 1);
    out = torch::empty(q.dtype(), shape, like_strides(q, shape));
  }
  Owned lse = torch::empty(DType::kF32, {q.size(1), q.size(0)}, {q.size(0), 1});
  options.lse = torch::mutable_view_of(lse.get());
  const TensorView result = torch::mutable_view_of(out.get());
  if (keys_rank == 3 && used.defined()) {
    each_sequence(q, k, v, result, options, used);
  } else {
    options.mask.key_lengths = used;
    attention(q, k, v, result, options);
  }
  return lse;
}

}  // namespace

void flash_attention_forward(IValue* stack, std::uint64_t arguments) {
  Owned out;
  Owned lse = run(stack, arguments, false, out);
  // What only dropout fills.
  Owned state = torch::empty(DType::kI64, {2}, {1}), unused = torch::empty(DType::kI64, {}, {}),
        debug = torch::empty(torch::view_of(out.get(), "output").dtype(), {0}, {1});
  Owned* const results[] = {&out, &lse, &state, &unused, &debug};
  for (int i = 0; i < 5; ++i) stack[i] = reinterpret_cast<IValue>(results[i]->release());
}

void flash_attention_forward_inplace(IValue* stack, std::uint64_t arguments) {
  Owned out;
  stack[0] = reinterpret_cast<IValue>(run(stack, arguments, true, out).release());
}

}  // namespace manyheads::python
