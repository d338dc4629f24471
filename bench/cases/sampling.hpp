#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <manyheads/tensor.hpp>
#include <vector>

namespace manyheads::bench {

double seconds_now();

// Calls each function in turn, A B A B, and returns the values of each. After three rounds, `enough` seconds end it
// too: long samples are averages of their own.
std::vector<std::vector<double>> in_turn(int rounds, const std::vector<std::function<double()>>& samples,
                                         double enough = std::numeric_limits<double>::infinity());

// The same; the median of each one's values.
std::vector<double> medians_in_turn(int rounds, const std::vector<std::function<double()>>& samples);

// A sample of how long `work` takes: it is run as often as fills about `least` seconds, after one or two to
// warm up.
std::function<double()> timed(std::function<void()> work, double least = 4e-3);

// Random normal numbers times `scale`, from a fixed seed. F32, BF16 or F16.
Tensor normal(DType type, const Dims& shape, std::uint64_t seed, float scale = 1);

}  // namespace manyheads::bench
