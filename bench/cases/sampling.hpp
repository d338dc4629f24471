#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <manyheads/tensor.hpp>
#include <optional>
#include <vector>

namespace manyheads::bench {

double seconds_now();

// Calls the functions in turn, A B A B, and returns the values of each. Ends after `rounds`, or after three and
// `enough` seconds: long samples are averages already.
std::vector<std::vector<double>> in_turn(int rounds, const std::vector<std::function<double()>>& samples,
                                         double enough = std::numeric_limits<double>::infinity());

// The same; returns the median of each function's values.
std::vector<double> medians_in_turn(int rounds, const std::vector<std::function<double()>>& samples);

// A function that samples how long `work` takes. It runs `work` as often as fills about `least` seconds. One or two
// runs here warm up.
std::function<double()> timed(std::function<void()> work, double least = 4e-3);

// Megabytes that the process grows by, at most, while `work` runs; empty where the system does not tell.
std::optional<double> peak_megabytes(const std::function<void()>& work);

// Random normal numbers times `scale`, from a fixed seed. F32, BF16 or F16.
Tensor normal(DType type, const Dims& shape, std::uint64_t seed, float scale = 1);

}  // namespace manyheads::bench
