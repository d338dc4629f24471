#pragma once

#include <cstdint>
#include <manyheads/parallel.hpp>
#include <manyheads/tensor.hpp>
#include <vector>

namespace manyheads::layer {

// True for the types that layers compute on: F32, BF16 and F16.
bool is_float(DType type) noexcept;

// A view of rank 3 or less, of F32, BF16 or F16, as dense row-major F32. Exact.
void copy_to_f32(ConstTensorView from, float* to, int num_threads = 0, Executor* executor = nullptr);

// Dense row-major F32 into a view of rank 3 or less, rounded to nearest even.
void copy_from_f32(const float* from, TensorView to, int num_threads = 0, Executor* executor = nullptr);

// A dense tensor of another of the three types. Rounds once.
Tensor converted(ConstTensorView from, DType type);

// Tensors of one width below one another along their first axis, as one dense tensor.
Tensor stacked(const std::vector<Tensor>& parts, DType type);

}  // namespace manyheads::layer
