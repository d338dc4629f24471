#pragma once

#include "kernels/kernel_table.hpp"

namespace manyheads::kernels {

// The definition of attention: float64, plain loops over every score. Fills out, lse and weights where they are given.
void reference(const AttentionCall& call);

}  // namespace manyheads::kernels
