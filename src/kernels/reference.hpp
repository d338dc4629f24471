#pragma once

#include <cstdint>
#include <optional>

#include "kernels/params.hpp"

// The definition of attention: float64, plain loops over every score.
namespace manyheads::kernels {

// Fills out, and lse where it is given.
void reference(const ForwardParams& params);
// The same for query i of entry b and head h. Kernels turn to it for a row whose scores or sums leave F32's range.
// Allocates O(Tk + D + Dv).
void reference_row(const ForwardParams& params, std::int64_t b, std::int64_t h, std::int64_t i);

// Fills the probabilities, whatever lse holds, and row_lse where it is given.
void reference_probs(const ProbsParams& params);
void reference_probs_row(const ProbsParams& params, std::int64_t b, std::int64_t h, std::int64_t i);

// Whether the row sees a key, by the mask alone.
bool sees_a_key(const QkvMask& params, std::int64_t b, std::int64_t h, std::int64_t i);

// The bias of all the keys that the row sees, where the call has biases and theirs are one.
std::optional<double> one_bias(const QkvMask& params, std::int64_t b, std::int64_t h, std::int64_t i);

}  // namespace manyheads::kernels
