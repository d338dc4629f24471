#pragma once

#include <cstdint>
#include <optional>

#include "kernels/params.hpp"

// The definition of attention: float64, plain loops over every score.
namespace manyheads::kernels {

// Writes out, and lse where it is given.
void reference(const ForwardParams& params);
// The same for query i of entry b and head h. Kernels call it for a row whose scores or sums leave F32's range.
// Allocates O(Tk + D + Dv).
void reference_row(const ForwardParams& params, std::int64_t b, std::int64_t h, std::int64_t i);

// Writes the probabilities, whatever lse holds, and row_lse where it is given.
void reference_probs(const ProbsParams& params);
void reference_probs_row(const ProbsParams& params, std::int64_t b, std::int64_t h, std::int64_t i);

// Whether the mask leaves the row a key.
bool sees_a_key(const QkvMask& params, std::int64_t b, std::int64_t h, std::int64_t i);

// The bias that all keys of the row share, if they share one.
std::optional<double> one_bias(const QkvMask& params, std::int64_t b, std::int64_t h, std::int64_t i);

}  // namespace manyheads::kernels
