#pragma once

#include <cstddef>

// Sums in two floats, high + low: what each addition to `high` rounds off goes to `low` (Knuth's two-sum).
namespace manyheads::base {

inline void add_exactly(const float* x, std::size_t count, float* high, float* low) {
  for (std::size_t e = 0; e < count; ++e) {
    const float sum = high[e] + x[e];
    const float of_x = sum - high[e];
    low[e] += (high[e] - (sum - of_x)) + (x[e] - of_x);
    high[e] = sum;
  }
}

// What rounding took from a sum beyond F32 is no number.
inline float sum_of(float high, float low) { return high - high == 0.0f ? high + low : high; }

}  // namespace manyheads::base
