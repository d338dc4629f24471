#pragma once

#include "attention/backward_plan.hpp"

namespace manyheads::attention_detail {

// Writes the gradients of a planned call; works in `workspace`, plan.bytes at a multiple of 64.
void run_backward(const kernels::BackwardParams& params, const kernels::BackwardKernels& kernels,
                  const BackwardPlan& plan, const Threads& threads, std::byte* workspace);

}  // namespace manyheads::attention_detail
