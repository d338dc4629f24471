#pragma once

#include <cstdint>
#include <optional>

#include "kernels/kernel_table.hpp"

namespace manyheads::kernels {

// The definition of attention: float64, plain loops over every score. Fills out, lse and weights where they are given.
void reference(const AttentionCall& call);

// The same for query i of entry b and head h. Kernels turn to it for a row whose scores or sums leave F32's range.
// Allocates O(Tk + D + Dv).
void reference_row(const AttentionCall& call, std::int64_t b, std::int64_t h, std::int64_t i);

// Whether the row sees a key, by the mask alone.
bool sees_a_key(const AttentionCall& call, std::int64_t b, std::int64_t h, std::int64_t i);

// The bias of all the keys that the row sees, where the call has biases and theirs are one.
std::optional<double> one_bias(const AttentionCall& call, std::int64_t b, std::int64_t h, std::int64_t i);

}  // namespace manyheads::kernels
