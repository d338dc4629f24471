#pragma once

#include <cstdint>
#include <manyheads/parallel.hpp>
#include <manyheads/tensor.hpp>
#include <vector>

#include "base/fail.hpp"

namespace manyheads::layer {

using base::is_float;

// Copies a view of F32, BF16 or F16, of rank 3 or less, to dense row-major F32. Exact.
void copy_to_f32(ConstTensorView from, float* to, const Threads& threads = {});

// Copies dense row-major F32 into a view of rank 3 or less, rounded to nearest even.
void copy_from_f32(const float* from, TensorView to, const Threads& threads = {});

// A dense copy in another of the three types. Rounds once.
Tensor converted(ConstTensorView from, DType type);

// Tensors of one width, stacked along their first axis into one dense tensor.
Tensor stacked(const std::vector<Tensor>& parts, DType type);

}  // namespace manyheads::layer
