#pragma once

#include <cstdint>

#include <manyheads/parallel.hpp>
#include <manyheads/tensor.hpp>

#include "base/aligned_buffer.hpp"

namespace manyheads::layer {

// What the epilogue of a projection does to each sum after the bias.
enum class Activation { kNone, kRelu, kGelu, kGeluTanh };

// y = activation(x W^T + b), with W [N,K] packed once into panels of columns. Each y is one chain of sums over k in
// ascending order, in F32: the bits of a row do not depend on the number of rows, threads or strides.
class Linear {
 public:
  Linear() = default;
  // weight [N,K] and bias [N] (or undefined) of F32, BF16 or F16, any strides. Converted to F32 exactly.
  Linear(ConstTensorView weight, ConstTensorView bias);

  std::int64_t in_features() const noexcept { return in_; }
  std::int64_t out_features() const noexcept { return out_; }

  // Rows lie x_stride and y_stride floats apart. x and y must not overlap.
  void run(const float* x, std::int64_t rows, std::int64_t x_stride, float* y, std::int64_t y_stride,
           Activation activation = Activation::kNone, int num_threads = 0, Executor* executor = nullptr) const;

 private:
  std::int64_t in_ = 0;
  std::int64_t out_ = 0;
  int panel_ = 0;                      // columns of a panel, as the instruction set wants them
  base::AlignedBuffer<float> packed_;  // [N / panel][K][panel], zeros behind N
  base::AlignedBuffer<float> bias_;    // [N rounded up to panel], zeros where there is none
};

}  // namespace manyheads::layer
