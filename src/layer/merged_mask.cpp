#include "layer/merged_mask.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <manyheads/error.hpp>
#include <string>

#include "attention/check.hpp"
#include "base/aligned_buffer.hpp"
#include "base/fail.hpp"
#include "kernels/mask.hpp"
#include "kernels/tuning.hpp"
#include "layer/convert.hpp"
#include "base/parallel.hpp"

namespace manyheads::layer {
namespace {

constexpr const char* kForward = "MultiHeadAttention::forward";

[[noreturn]] void fail(const std::string& what) { base::fail(kForward, what); }

// To rank 4, with axes of size 1 in front. An axis of size 1 has stride 0.
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

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kLargest = std::numeric_limits<float>::max();

// -inf forbids whatever is added to it. Sets `beyond` where two finite biases leave the range of F32.
float sum_of_biases(float a, float b, bool& beyond) {
  if (a == -kInfinity || b == -kInfinity) return -kInfinity;
  const float sum = a + b;
  if (!std::isfinite(sum) && std::isfinite(a) && std::isfinite(b)) {
    beyond = true;
    return std::copysign(kLargest, sum);
  }
  return sum;
}

// Calls body(b, h, i, row) for each row of a tensor [B,H,T,width]; row is its number.
template <class Body>
void for_each_row(const Dims& shape, const Threads& threads, Body&& body) {
  base::parallel_for_rows(shape[0] * shape[1] * shape[2], shape[3], threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      body(row / shape[2] / shape[1], row / shape[2] % shape[1], row % shape[2], row);
    }
  });
}

// The shape of masks for `count` of its queries.
Dims of_queries(Dims shape, std::int64_t count) {
  if (shape[2] != 1) shape[2] = count;
  return shape;
}

void widen(Dims& shape, const Dims& by) {
  for (int axis = 0; axis < 3; ++axis) {
    if (by[axis] != 1) shape[axis] = by[axis];
  }
}

}  // namespace

MergedMask::MergedMask(const MultiHeadAttentionOptions& options, const ScoreShape& shape)
    : shape_(shape), positions_(options.mask), expanded_(shape.added_keys > 0) {
  positions_.allowed = positions_.ignored = positions_.bias = {};
  params_.batch = shape.batch;
  params_.q_heads = params_.kv_heads = shape.heads;
  params_.tq = shape.queries;
  params_.tk = shape.keys;
  attention_detail::check_mask(kForward, positions_, params_);
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
      const std::int64_t entry = shape.batch > 1 ? shape.heads * mask.stride(0) : 0;
      take(ConstTensorView(mask.data(), mask.dtype(), four, {entry, mask.stride(0), mask.stride(1), mask.stride(2)}),
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
  if (mask.ignored.defined()) {
    if (mask.ignored.dtype() != DType::kBool) {
      fail(std::string("mask.ignored is ") + name_of(mask.ignored.dtype()) + ", expected BOOL");
    }
    take(mask.ignored, "mask.ignored", four);
  }
  if (mask.bias.defined()) {
    if (!is_float(mask.bias.dtype())) {
      fail(std::string("mask.bias is ") + name_of(mask.bias.dtype()) + ", expected F32, BF16 or F16");
    }
    take(mask.bias, "mask.bias", four);
  }

  const bool positions_forbid = expanded_ && (positions_.causal || positions_.window_left >= 0 ||
                                              positions_.window_right >= 0 || positions_.key_lengths.defined() ||
                                              positions_.key_starts.defined() || positions_.q_documents.defined());
  const bool alibi = expanded_ && positions_.alibi_slopes.defined();
  const bool by_place = positions_.causal || positions_.window_left >= 0 || positions_.window_right >= 0 ||
                        positions_.q_documents.defined();
  const bool by_entry = positions_.key_lengths.defined() || positions_.key_starts.defined() ||
                        positions_.offsets.defined() || positions_.q_documents.defined();
  const Dims positions_shape{by_entry ? shape.batch : 1, 1, by_place ? shape.queries : 1};
  if (positions_forbid) widen(allowed_shape_, positions_shape);
  if (alibi) {
    const bool by_batch = positions_.key_lengths.defined() || positions_.offsets.defined();
    widen(bias_shape_, {by_batch ? shape.batch : 1, shape.heads, shape.queries});
  }
  if (floats_.size() + (alibi ? 1 : 0) > 1) {
    // A shifted row depends on the keys that its query sees.
    Dims each = bias_shape_;
    widen(each, allowed_shape_);
    widen(each, positions_shape);
    if (!(each == bias_shape_) && leaves_range()) bias_shape_ = each;
  }
  allowed_shape_[3] = bias_shape_[3] = shape.keys + shape.added_keys;

  const bool as_it_lies = shape.added_keys == 0;
  allowed_copied_ = positions_forbid || bools_.size() > 1 || (bools_.size() == 1 && !as_it_lies);
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

// Whether sums of the float masks may leave the range of F32.
bool MergedMask::leaves_range() const {
  double sum = 0;
  for (const ConstTensorView& part : floats_) {
    float largest = 0;
    for_each_row(part.shape(), {.num_threads = 1}, [&](std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t) {
      const std::int64_t start = row_offset(part, b, h, i);
      for (std::int64_t j = 0; j < part.size(3); ++j) {
        const float size = std::fabs(float_at(part, start + j * part.stride(3)));
        if (size > largest && size <= kLargest) largest = size;
      }
    });
    sum += static_cast<double>(largest);
  }
  // ALiBi, where it is written out.
  if (expanded_ && positions_.alibi_slopes.defined()) sum += static_cast<double>(kLargest);
  constexpr double kHalfAStep = 0x1p103;  // of F32 at its end: less is rounded away
  return sum >= static_cast<double>(kLargest) + kHalfAStep;
}

// Clears the keys of a row that its position forbids.
void MergedMask::keep_within(std::int64_t b, std::int64_t i, bool* allowed) const {
  const kernels::KeyRange keys = kernels::Band(params_, b).keys_of(i);
  const std::int64_t start = params_.key_start(b);
  const std::int64_t begin = std::min(start + keys.begin, shape_.keys), end = std::min(start + keys.end, shape_.keys);
  std::fill(allowed, allowed + begin, false);
  std::fill(allowed + end, allowed + shape_.keys, false);
  if (!params_.documents()) return;
  const std::int64_t id = params_.q_documents.at(b, i);
  for (std::int64_t j = begin; j < end; ++j) allowed[j] = allowed[j] && params_.k_documents.at(b, j) == id;
}

// Clears the keys of a row that the bool masks forbid.
void MergedMask::keep_allowed(std::int64_t b, std::int64_t h, std::int64_t i, bool* allowed) const {
  for (const BoolPart& part : bools_) {
    const auto* in = static_cast<const std::uint8_t*>(part.view.data()) + row_offset(part.view, b, h, i);
    for (std::int64_t j = 0; j < shape_.keys; ++j) {
      allowed[j] = allowed[j] && (in[j * part.view.stride(3)] != 0) != part.true_is_ignore;
    }
  }
}

// What the float masks add to a score, and ALiBi where it is written out.
double MergedMask::added(std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t j) const {
  double sum = 0;
  bool forbidden = false;
  for (const ConstTensorView& part : floats_) {
    const float value = float_at(part, row_offset(part, b, h, i) + j * part.stride(3));
    forbidden = forbidden || value == -kInfinity;
    sum += static_cast<double>(value);
  }
  if (expanded_ && positions_.alibi_slopes.defined()) {
    const ConstTensorView& slopes = positions_.alibi_slopes;
    sum -= static_cast<double>(static_cast<const float*>(slopes.data())[h * slopes.stride(0)]) *
           std::fabs(static_cast<double>(j - i - diagonal_of(b)));
  }
  return forbidden ? -std::numeric_limits<double>::infinity() : sum;
}

// Shifts a row whose sums leave the range of F32.
void MergedMask::shift_row(std::int64_t b, std::int64_t h, std::int64_t i, float* bias) const {
  const std::int64_t all = shape_.keys + shape_.added_keys;
  base::AlignedBuffer<bool> visible(static_cast<std::size_t>(all));
  std::fill_n(visible.data(), all, true);
  keep_allowed(b, h, i, visible.data());
  keep_within(b, i, visible.data());
  double most = -std::numeric_limits<double>::infinity();
  const auto sum = [&](std::int64_t j) { return j < shape_.keys ? added(b, h, i, j) : 0.0; };
  for (std::int64_t j = 0; j < all; ++j) {
    if (visible[static_cast<std::size_t>(j)] && !(sum(j) <= most)) most = sum(j);
  }
  if (!std::isfinite(most)) return;  // no key is visible, or the row is NaN
  const double shift = most + std::fabs(most) * 0x1p-29;
  for (std::int64_t j = 0; j < all; ++j) {
    // No probability needs more than this far below the largest, and the sum with a score stays a number.
    if (std::isfinite(sum(j))) bias[j] = static_cast<float>(std::clamp(sum(j) - shift, -0x1p127, 0x1p127));
  }
}

std::int64_t MergedMask::queries_at_once() const {
  constexpr std::int64_t kLeast = 64;
  if (!expanded_) return shape_.queries;
  double bytes = 0;  // of one query
  const auto count = [&](const Dims& shape, double element) {
    if (shape[2] != 1) bytes += static_cast<double>(shape[0] * shape[1]) * static_cast<double>(shape[3]) * element;
  };
  if (allowed_copied_) count(allowed_shape_, 1);
  if (bias_copied_) count(bias_shape_, sizeof(float));
  if (bytes == 0) return shape_.queries;
  const auto fit = static_cast<std::int64_t>(static_cast<double>(kernels::tuning().written_mask_bytes) / bytes);
  return std::min(shape_.queries, std::max(kLeast, fit));
}

std::int64_t MergedMask::allowed_elements() const {
  return allowed_copied_ ? element_count(of_queries(allowed_shape_, queries_at_once())) : 0;
}
std::int64_t MergedMask::bias_elements() const {
  return bias_copied_ ? element_count(of_queries(bias_shape_, queries_at_once())) : 0;
}

Mask MergedMask::mask(const bool* allowed, const float* bias, std::int64_t count) const {
  Mask mask = expanded_ ? Mask{} : positions_;
  if (!bools_.empty() && !allowed_copied_) {
    (bools_[0].true_is_ignore ? mask.ignored : mask.allowed) = bools_[0].view;
  }
  if (!floats_.empty() && !bias_copied_) mask.bias = floats_[0];
  if (allowed_copied_) mask.allowed = ConstTensorView(allowed, of_queries(allowed_shape_, count));
  if (bias_copied_) mask.bias = ConstTensorView(bias, of_queries(bias_shape_, count));
  return mask;
}

void MergedMask::fill(bool* allowed, float* bias, std::int64_t first, std::int64_t count,
                      const Threads& threads) const {
  // Query i of the buffers. Where no query widens a shape, it has one row for all, and its masks do not look at i.
  if (allowed_copied_) {
    for_each_row(of_queries(allowed_shape_, count), threads,
                 [&](std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t row) {
                   bool* out = allowed + row * allowed_shape_[3];
                   std::fill_n(out, allowed_shape_[3], true);
                   keep_allowed(b, h, first + i, out);
                   if (expanded_) keep_within(b, first + i, out);
                 });
  }

  if (bias_copied_) {
    const ConstTensorView& slopes = positions_.alibi_slopes;
    for_each_row(of_queries(bias_shape_, count), threads,
                 [&](std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t row) {
                   float* out = bias + row * bias_shape_[3];
                   i += first;
                   bool beyond = false;
                   std::fill_n(out, bias_shape_[3], 0.0f);
                   for (const ConstTensorView& part : floats_) {
                     const std::int64_t start = row_offset(part, b, h, i);
                     for (std::int64_t j = 0; j < shape_.keys; ++j) {
                       out[j] = sum_of_biases(out[j], float_at(part, start + j * part.stride(3)), beyond);
                     }
                   }
                   if (expanded_ && slopes.defined()) {
                     const float slope = static_cast<const float*>(slopes.data())[h * slopes.stride(0)];
                     for (std::int64_t j = 0; j < shape_.keys; ++j) {
                       const auto distance = static_cast<float>(std::abs(j - i - diagonal_of(b)));
                       out[j] = sum_of_biases(out[j], -slope * distance, beyond);
                     }
                   }
                   if (beyond) shift_row(b, h, i, out);
                 });
  }
}

}  // namespace manyheads::layer
