#include "layer/merged_mask.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <manyheads/error.hpp>
#include <string>

#include "layer/convert.hpp"
#include "layer/rows.hpp"

namespace manyheads::layer {
namespace {

[[noreturn]] void fail(const std::string& what) {
  throw Error(ErrorCode::kInvalidArgument, "MultiHeadAttention::forward: " + what);
}

// Rank 4 by axes of size 1 in front; an axis of size 1 is read again and again.
ConstTensorView broadcast4(const ConstTensorView& view) {
  Dims shape{1, 1, 1, 1}, strides{0, 0, 0, 0};
  for (int axis = 0; axis < view.rank(); ++axis) {
    const int to = axis + 4 - view.rank();
    shape[to] = view.size(axis);
    strides[to] = view.size(axis) == 1 ? 0 : view.stride(axis);
  }
  return ConstTensorView(view.data(), view.dtype(), shape, strides);
}

std::int64_t row_offset(const ConstTensorView& view, std::int64_t b, std::int64_t h, std::int64_t i) {
  return b * view.stride(0) + h * view.stride(1) + i * view.stride(2);
}

std::int64_t integer_at(const ConstTensorView& view, std::int64_t offset) {
  if (view.dtype() == DType::kI32) return static_cast<const std::int32_t*>(view.data())[offset];
  return static_cast<const std::int64_t*>(view.data())[offset];
}

float float_at(const ConstTensorView& view, std::int64_t offset) {
  switch (view.dtype()) {
    case DType::kBF16:
      return static_cast<float>(static_cast<const bfloat16*>(view.data())[offset]);
    case DType::kF16:
      return static_cast<float>(static_cast<const float16*>(view.data())[offset]);
    default:
      return static_cast<const float*>(view.data())[offset];
  }
}

// -inf forbids whatever is added to it; two finite masks never add up to -inf, which would forbid.
float sum_of_biases(float a, float b) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr float kLargest = std::numeric_limits<float>::max();
  if (a == -kInfinity || b == -kInfinity) return -kInfinity;
  const float sum = a + b;
  return std::isfinite(a) && std::isfinite(b) ? std::clamp(sum, -kLargest, kLargest) : sum;
}

// Calls body(b, h, i, row) for each row of a tensor [B,H,T,width], row being its number.
template <class Body>
void for_each_row(const Dims& shape, int num_threads, Executor* executor, Body&& body) {
  for_row_blocks(shape[0] * shape[1] * shape[2], shape[3], num_threads, executor,
                 [&](std::int64_t begin, std::int64_t end) {
                   for (std::int64_t row = begin; row < end; ++row) {
                     body(row / shape[2] / shape[1], row / shape[2] % shape[1], row % shape[2], row);
                   }
                 });
}

void widen(Dims& shape, const Dims& by) {
  for (int axis = 0; axis < 3; ++axis) {
    if (by[axis] != 1) shape[axis] = by[axis];
  }
}

}  // namespace

MergedMask::MergedMask(const MultiHeadAttentionOptions& options, const ScoreShape& shape)
    : shape_(shape), positions_(options.mask), expanded_(shape.added_keys > 0) {
  positions_.allowed = positions_.bias = {};
  const Dims four{shape.batch, shape.heads, shape.queries, shape.keys};

  if (const ConstTensorView& padding = options.key_padding_mask; padding.defined()) {
    if (padding.rank() != 2 || padding.size(0) != shape.batch || padding.size(1) != shape.keys) {
      fail("key_padding_mask is " + padding.shape().to_string() +
           ", expected [B,S] = " + Dims{shape.batch, shape.keys}.to_string());
    }
    take(ConstTensorView(padding.data(), padding.dtype(), {shape.batch, 1, 1, shape.keys},
                         {padding.stride(0), 0, 0, padding.stride(1)}),
         "key_padding_mask", four);
  }

  if (const ConstTensorView& mask = options.attn_mask; mask.defined()) {
    const bool flat = mask.rank() == 2 && mask.size(0) == shape.queries && mask.size(1) == shape.keys;
    const bool heads = mask.rank() == 3 && mask.size(0) == shape.batch * shape.heads && mask.size(1) == shape.queries &&
                       mask.size(2) == shape.keys;
    if (!flat && !heads) {
      fail("attn_mask is " + mask.shape().to_string() +
           ", expected [T,S] = " + Dims{shape.queries, shape.keys}.to_string() +
           " or [B*H,T,S] = " + Dims{shape.batch * shape.heads, shape.queries, shape.keys}.to_string());
    }
    if (flat) {
      take(mask, "attn_mask", four);
    } else {
      take(ConstTensorView(mask.data(), mask.dtype(), four,
                           {shape.heads * mask.stride(0), mask.stride(0), mask.stride(1), mask.stride(2)}),
           "attn_mask", four);
    }
  }

  const Mask& mask = options.mask;
  if (mask.allowed.defined()) {
    if (mask.allowed.dtype() != DType::kBool) {
      fail(std::string("mask.allowed is ") + name_of(mask.allowed.dtype()) + ", expected BOOL");
    }
    take(mask.allowed, "mask.allowed", four);
    bools_.back().true_is_ignore = false;
  }
  if (mask.bias.defined()) {
    if (!is_float(mask.bias.dtype())) {
      fail(std::string("mask.bias is ") + name_of(mask.bias.dtype()) + ", expected F32, BF16 or F16");
    }
    take(mask.bias, "mask.bias", four);
  }

  const bool positions_forbid =
      expanded_ && (positions_.causal || positions_.window_left >= 0 || positions_.window_right >= 0 ||
                    positions_.key_lengths.defined() || positions_.q_documents.defined());
  const bool alibi = expanded_ && positions_.alibi_slopes.defined();
  if (positions_forbid) {
    const bool by_batch =
        positions_.key_lengths.defined() || positions_.offsets.defined() || positions_.q_documents.defined();
    widen(allowed_shape_, {by_batch ? shape.batch : 1, 1, shape.queries});
  }
  if (alibi) {
    const bool by_batch = positions_.key_lengths.defined() || positions_.offsets.defined();
    widen(bias_shape_, {by_batch ? shape.batch : 1, shape.heads, shape.queries});
  }
  allowed_shape_[3] = bias_shape_[3] = shape.keys + shape.added_keys;

  const bool as_it_lies = shape.added_keys == 0;
  allowed_copied_ =
      positions_forbid || bools_.size() > 1 || (bools_.size() == 1 && !(as_it_lies && !bools_[0].true_is_ignore));
  bias_copied_ =
      alibi || floats_.size() > 1 || (floats_.size() == 1 && !(as_it_lies && floats_[0].dtype() == DType::kF32));
}

void MergedMask::take(ConstTensorView mask, const char* name, const Dims& four) {
  if (mask.dtype() != DType::kBool && !is_float(mask.dtype())) {
    fail(std::string(name) + " is " + name_of(mask.dtype()) + ", expected BOOL, F32, BF16 or F16");
  }
  bool fits = mask.rank() <= 4;
  for (int axis = 0; fits && axis < mask.rank(); ++axis) {
    fits = mask.size(axis) == 1 || mask.size(axis) == four[axis + 4 - mask.rank()];
  }
  if (!fits) {
    fail(std::string(name) + " is " + mask.shape().to_string() +
         ", which does not broadcast to [B,H,T,S] = " + four.to_string());
  }
  const ConstTensorView view = broadcast4(mask);
  if (mask.dtype() == DType::kBool) {
    bools_.push_back({view, true});
    widen(allowed_shape_, view.shape());
  } else {
    floats_.push_back(view);
    widen(bias_shape_, view.shape());
  }
}

// o of the diagonal j = i + o.
std::int64_t MergedMask::diagonal(std::int64_t b) const {
  if (positions_.offsets.defined()) return integer_at(positions_.offsets, b * positions_.offsets.stride(0));
  if (positions_.alignment != Alignment::kBottomRight) return 0;
  const ConstTensorView& lengths = positions_.key_lengths;
  return (lengths.defined() ? integer_at(lengths, b * lengths.stride(0)) : shape_.keys) - shape_.queries;
}

bool MergedMask::within(std::int64_t b, std::int64_t i, std::int64_t j) const {
  const Mask& p = positions_;
  const std::int64_t place = j - i - diagonal(b);
  if (p.causal && place > 0) return false;
  if (p.window_left >= 0 && place < -p.window_left) return false;
  if (p.window_right >= 0 && place > p.window_right) return false;
  if (p.key_lengths.defined() && j >= integer_at(p.key_lengths, b * p.key_lengths.stride(0))) return false;
  if (!p.q_documents.defined()) return true;
  return integer_at(p.q_documents, b * p.q_documents.stride(0) + i * p.q_documents.stride(1)) ==
         integer_at(p.k_documents, b * p.k_documents.stride(0) + j * p.k_documents.stride(1));
}

Mask MergedMask::mask(const bool* allowed, const float* bias) const {
  Mask mask = expanded_ ? Mask{} : positions_;
  if (!bools_.empty() && !allowed_copied_) mask.allowed = bools_[0].view;
  if (!floats_.empty() && !bias_copied_) mask.bias = floats_[0];
  if (allowed_copied_) mask.allowed = ConstTensorView(allowed, allowed_shape_);
  if (bias_copied_) mask.bias = ConstTensorView(bias, bias_shape_);
  return mask;
}

void MergedMask::fill(bool* allowed, float* bias, int num_threads, Executor* executor) const {
  if (allowed_copied_) {
    for_each_row(
        allowed_shape_, num_threads, executor, [&](std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t row) {
          bool* out = allowed + row * allowed_shape_[3];
          std::fill_n(out, allowed_shape_[3], true);
          for (const BoolPart& part : bools_) {
            const auto* in = static_cast<const std::uint8_t*>(part.view.data()) + row_offset(part.view, b, h, i);
            for (std::int64_t j = 0; j < shape_.keys; ++j) {
              out[j] = out[j] && (in[j * part.view.stride(3)] != 0) != part.true_is_ignore;
            }
          }
          for (std::int64_t j = 0; expanded_ && j < shape_.keys; ++j) out[j] = out[j] && within(b, i, j);
        });
  }

  if (bias_copied_) {
    const ConstTensorView& slopes = positions_.alibi_slopes;
    for_each_row(bias_shape_, num_threads, executor,
                 [&](std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t row) {
                   float* out = bias + row * bias_shape_[3];
                   std::fill_n(out, bias_shape_[3], 0.0f);
                   for (const ConstTensorView& part : floats_) {
                     const std::int64_t start = row_offset(part, b, h, i);
                     for (std::int64_t j = 0; j < shape_.keys; ++j) {
                       out[j] = sum_of_biases(out[j], float_at(part, start + j * part.stride(3)));
                     }
                   }
                   if (!expanded_ || !slopes.defined()) return;
                   const float slope = static_cast<const float*>(slopes.data())[h * slopes.stride(0)];
                   for (std::int64_t j = 0; j < shape_.keys; ++j) {
                     const auto distance = static_cast<float>(std::abs(j - i - diagonal(b)));
                     out[j] = sum_of_biases(out[j], -slope * distance);
                   }
                 });
  }
}

}  // namespace manyheads::layer
