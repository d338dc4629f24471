#pragma once

#include <span>

namespace manyheads::study {

struct Interval {
  double mean = 0, low = 0, high = 0;
};

// The mean and its 95 % interval by Student's t; low and high are the mean itself for one value.
Interval interval_of(std::span<const double> values);

}  // namespace manyheads::study
