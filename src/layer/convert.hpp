#pragma once

#include <cstdint>
#include <manyheads/parallel.hpp>
#include <manyheads/tensor.hpp>
#include <vector>

#include "base/fail.hpp"

namespace manyheads::layer {

using base::is_float;

// A view of rank 3 or less, of F32, BF16 or F16, as dense row-major F32. Exact.
void copy_to_f32(ConstTensorView from, float* to, const Threads& threads = {});

// Dense row-major F32 into a view of rank 3 or less, rounded to nearest even.
void copy_from_f32(const float* from, TensorView to, const Threads& threads = {});

// A dense tensor of another of the three types. Rounds once.
Tensor converted(ConstTensorView from, DType type);

// Tensors of one width below one another along their first axis, as one dense tensor.
Tensor stacked(const std::vector<Tensor>& parts, DType type);

}  // namespace manyheads::layer
