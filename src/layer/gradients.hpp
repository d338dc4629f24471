#pragma once

#include <cstdint>

#include <manyheads/parallel.hpp>
#include <manyheads/tensor.hpp>

#include "layer/call.hpp"

// The backward of a projection y = x W^T + b with W [N,K]: dx = dy W, dW = dy^T x, db = the sum of dy.
namespace manyheads::layer {

// Rows [batch][rows] of floats.
struct Tokens {
  std::int64_t batch = 0, rows = 0;
};

// dW [N,K] F32, of any strides, from dy (N wide) and x (K wide). Tokens are summed in chunks of 512 of each entry,
// which are added up in two floats. Allocates; the bits do not depend on threads.
void weight_gradient(Rows<const float> dy, Rows<const float> x, const Tokens& tokens, const TensorView& gradient,
                     bool accumulate, const Threads& threads);

// The sums over tokens, ascending, in float64: db [N] F32, of any stride.
void bias_gradient(Rows<const float> dy, const Tokens& tokens, const TensorView& gradient, bool accumulate,
                   const Threads& threads);

// Writes a gradient [batch, rows, width] F32, of any strides, from dense rows.
void store_rows(const float* from, const TensorView& gradient, bool accumulate, const Threads& threads);

}  // namespace manyheads::layer
