#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>

#include <manyheads/multi_head_attention.hpp>

#include "base/fail.hpp"
#include "layer/convert.hpp"
#include "layer/linear.hpp"
#include "layer/weights.hpp"

// What the forward and the backward of a layer share.
namespace manyheads {
namespace layer {

// Rows of floats at two strides, [batch, rows].
template <class T>
struct Rows {
  T* data = nullptr;
  std::int64_t batch_stride = 0;
  std::int64_t stride = 0;
};

// Whether the kernels read or write the floats of a view [B,T,E] where they lie.
inline bool usable_in_place(const ConstTensorView& x) {
  return x.dtype() == DType::kF32 && (x.size(2) == 1 || x.stride(2) == 1) &&
         reinterpret_cast<std::uintptr_t>(x.data()) % alignof(float) == 0;
}

inline void project(const Linear& linear, Rows<const float> x, Rows<float> y, std::int64_t batch, std::int64_t rows,
                    const Threads& threads, float* workspace) {
  if (rows == 0) return;
  if (rows == 1) {
    x.stride = x.batch_stride;
    y.stride = y.batch_stride;
  }
  if (rows == 1 || (x.batch_stride == rows * x.stride && y.batch_stride == rows * y.stride)) {
    rows *= batch;
    batch = 1;
  }
  for (std::int64_t b = 0; b < batch; ++b) {
    linear.run(x.data + b * x.batch_stride, rows, x.stride, y.data + b * y.batch_stride, y.stride,
               layer::Activation::kNone, threads, workspace);
  }
}

inline bool same_view(const ConstTensorView& a, const ConstTensorView& b) {
  return a.data() == b.data() && a.dtype() == b.dtype() && a.shape() == b.shape() && a.strides() == b.strides();
}

inline void check_input(const char* function, const ConstTensorView& x, const char* name, std::int64_t width,
                        DType type) {
  const auto is = [&] { return std::string(name) + " is " + x.shape().to_string(); };
  if (!x.defined()) base::fail(function, std::string(name) + " is missing");
  if (x.rank() != 3) base::fail(function, is() + ", expected [batch, tokens, " + std::to_string(width) + "]");
  if (x.size(2) != width) base::fail(function, is() + ", expected a last dimension of " + std::to_string(width));
  if (!layer::is_float(x.dtype())) {
    base::fail(function, std::string(name) + " is " + name_of(x.dtype()) + ", expected F32, BF16 or F16");
  }
  if (x.dtype() != type) {
    base::fail(function, std::string(name) + " is " + name_of(x.dtype()) + ", query is " + name_of(type) +
                             ": they must be of one type");
  }
}

// Makes a tensor of floats of this shape, where it is not one already; undefined where the shape has no axis.
inline void make(Tensor& tensor, const Dims& shape) {
  if (shape.rank() == 0) {
    tensor = {};
  } else if (!tensor.defined() || tensor.dtype() != DType::kF32 || !(tensor.shape() == shape)) {
    tensor = Tensor(DType::kF32, shape);
  }
}

}  // namespace layer

struct MultiHeadAttention::Impl {
  MultiHeadAttentionConfig config;
  layer::Sizes sizes;
  std::unique_ptr<const layer::Weights> weights;

  explicit Impl(const MultiHeadAttentionConfig& given);
  Impl(const MultiHeadAttentionConfig& given, const StateDict& tensors, const Threads& threads);

  void forward(ConstTensorView query, ConstTensorView key, ConstTensorView value, TensorView y,
               MultiHeadAttentionOptions options) const;
  void backward(ConstTensorView query, ConstTensorView key, ConstTensorView value,
                const MultiHeadAttentionActivations& activations, ConstTensorView dy,
                const MultiHeadAttentionGradients& gradients, MultiHeadAttentionOptions options) const;
};

}  // namespace manyheads
