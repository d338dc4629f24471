#include <algorithm>
#include <cstdint>
#include <utility>

#include "attention/check.hpp"
#include "base/fail.hpp"

namespace manyheads::attention_detail {
namespace {

using base::describe;
using base::fail;
using kernels::QkvMask;

// Strides of a tensor that broadcasts from the right to [B,Hq,Tq,Tk].
void broadcast(const char* function, const char* name, const ConstTensorView& view, const QkvMask& params,
               std::int64_t* stride) {
  const Dims target{params.batch, params.q_heads, params.tq, params.tk};
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

std::int64_t window_side(const char* function, const char* side, std::int64_t value) {
  if (value < -1) fail(function, base::format("window {} is {}, expected -1 (unbounded) or more", side, value));
  return std::min(value, kFar);
}

// Checks which keys exist.
void check_keys(const char* function, const Mask& mask, QkvMask& params) {
  for (const auto& [name, view] : {std::pair{"key_lengths", &mask.key_lengths}, {"key_starts", &mask.key_starts}}) {
    if (params.k_starts.defined() && view->defined()) {
      fail(function, base::format("{} with cu_seqlens_k, which gives the lengths", name));
    }
  }
  if (mask.key_lengths.defined()) {
    params.key_lengths = check_integers(function, "key_lengths", mask.key_lengths, Dims{params.batch});
    for (std::int64_t b = 0; b < params.batch; ++b) {
      const std::int64_t length = params.key_lengths.at(b, 0);
      if (length < 0 || length > params.tk) {
        fail(function, base::format("key_lengths[{}] is {}, expected 0 to Tk = {}", b, length, params.tk));
      }
    }
  }
  if (mask.key_starts.defined()) {
    const kernels::IntegerView starts = check_integers(function, "key_starts", mask.key_starts, Dims{params.batch});
    for (std::int64_t b = 0; b < params.batch; ++b) {
      const std::int64_t start = starts.at(b, 0);
      if (start < 0 || start > params.key_end(b)) {
        fail(function,
             base::format("key_starts[{}] is {}, expected 0 to {} = {}", b, start,
                          mask.key_lengths.defined() ? base::format("key_lengths[{}]", b) : "Tk", params.key_end(b)));
      }
      if (params.page_size > 0 && start % kernels::kChainKeys != 0) {
        fail(function,
             base::format("key_starts[{}] is {}, expected a multiple of {} with pages", b, start, kernels::kChainKeys));
      }
    }
    params.key_starts = starts;
  }
}

// Checks the diagonal and what counts from it.
void check_diagonal(const char* function, const Mask& mask, QkvMask& params, const CallShapes* shapes) {
  params.causal = mask.causal;
  params.window_left = window_side(function, "left", mask.window_left);
  params.window_right = window_side(function, "right", mask.window_right);
  const bool packed = params.q_starts.defined() || params.k_starts.defined();
  if (mask.causal && mask.alignment == Alignment::kUnspecified && !mask.offsets.defined()) {
    // Key lengths without an alignment leave the diagonal at the top left, as for tensors of equal lengths.
    const bool lengths = packed || params.page_size > 0;
    for (std::int64_t b = 0; b < (lengths ? params.batch : 1); ++b) {
      const std::int64_t queries = lengths ? params.queries(b) : params.tq;
      const std::int64_t keys = lengths ? params.key_end(b) : params.tk;
      if (queries == keys) continue;
      fail(function,
           base::format("causal with {} queries and {} keys{}: say top_left or bottom_right{}", queries, keys,
                        lengths ? base::format(" in entry {}", b) : "", shapes != nullptr ? " " + (*shapes)() : ""));
    }
  }
  if (mask.offsets.defined()) {
    params.offsets = check_integers(function, "offsets", mask.offsets, Dims{params.batch});
    for (std::int64_t b = 0; b < params.batch; ++b) {
      const std::int64_t offset = params.offsets.at(b, 0);
      if (offset < -kFar || offset > kFar) {
        fail(function, base::format("offsets[{}] is {}, expected -2^60 to 2^60", b, offset));
      }
    }
  }
  if (mask.alignment == Alignment::kBottomRight) {
    params.offset = params.tk - params.tq;
    params.offset_from_length = packed || params.key_lengths.defined();
  }
}

// Checks the bool mask, in the sense of its name.
void check_bools(const char* function, const Mask& mask, QkvMask& params) {
  if (mask.allowed.defined() && mask.ignored.defined()) {
    fail(function, "allowed and ignored: a call takes one bool mask");
  }
  const bool allowed = mask.allowed.defined();
  const char* const name = allowed ? "allowed" : "ignored";
  const ConstTensorView& view = allowed ? mask.allowed : mask.ignored;
  if (!view.defined()) return;
  if (view.dtype() != DType::kBool) {
    fail(function, base::format("{} is {}, expected BOOL (a float mask is a bias)", name, describe(view)));
  }
  broadcast(function, name, view, params, params.allowed_stride);
  params.allowed = static_cast<const std::uint8_t*>(view.data());
  params.allowed_where = allowed;
}

}  // namespace

kernels::IntegerView check_integers(const char* function, const char* name, const ConstTensorView& view,
                                    const Dims& shape) {
  if (!base::is_index(view.dtype()) || !(view.shape() == shape)) {
    fail(function, base::format("{} is {}, expected I32 or I64 {}", name, describe(view), shape.to_string()));
  }
  kernels::IntegerView integers;
  integers.data = view.data();
  integers.wide = view.dtype() == DType::kI64;
  for (int i = 0; i < view.rank(); ++i) integers.stride[i] = view.stride(i);
  // An empty tensor may have a null pointer; nothing is read then.
  return integers;
}

const float* check_per_head(const char* function, const char* name, const ConstTensorView& view, std::int64_t heads,
                            std::int64_t* stride) {
  if (view.dtype() != DType::kF32 || !(view.shape() == Dims{heads})) {
    fail(function, base::format("{} is {}, expected F32 {}", name, describe(view), Dims{heads}.to_string()));
  }
  *stride = view.stride(0);
  return static_cast<const float*>(view.data());
}

std::string CallShapes::operator()() const {
  return v != nullptr ? base::format("(q {}, k {}, v {})", describe(*q), describe(*k), describe(*v))
                      : base::format("(q {}, k {})", describe(*q), describe(*k));
}

void check_mask(const char* function, const Mask& mask, QkvMask& params, const CallShapes* shapes) {
  check_keys(function, mask, params);
  check_diagonal(function, mask, params, shapes);
  for (const auto& [name, view] : {std::pair{"allowed", &mask.allowed},
                                   {"ignored", &mask.ignored},
                                   {"bias", &mask.bias},
                                   {"q_documents", &mask.q_documents}}) {
    if ((params.q_starts.defined() || params.k_starts.defined()) && view->defined()) {
      fail(function, base::format("{} with cu_seqlens: packed sequences have no one Tq and Tk", name));
    }
  }
  if (mask.q_documents.defined() != mask.k_documents.defined()) {
    fail(function, mask.q_documents.defined() ? "q_documents without k_documents" : "k_documents without q_documents");
  }
  if (mask.q_documents.defined()) {
    params.q_documents = check_integers(function, "q_documents", mask.q_documents, Dims{params.batch, params.tq});
    params.k_documents = check_integers(function, "k_documents", mask.k_documents, Dims{params.batch, params.tk});
  }
  check_bools(function, mask, params);
  if (mask.bias.defined()) {
    if (mask.bias.dtype() != DType::kF32 && mask.bias.dtype() != params.type) {
      fail(function,
           base::format("bias is {}, expected F32 or q's type {}", describe(mask.bias), name_of(params.type)));
    }
    broadcast(function, "bias", mask.bias, params, params.bias_stride);
    params.bias = mask.bias.data();
    params.bias_type = mask.bias.dtype();
  }
  if (mask.alibi_slopes.defined()) {
    params.alibi = check_per_head(function, "alibi_slopes", mask.alibi_slopes, params.q_heads, &params.alibi_stride);
  }
}

}  // namespace manyheads::attention_detail
