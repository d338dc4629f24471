#include "bench/cases/sampling.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <random>
#include <utility>

namespace manyheads::bench {

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::vector<std::vector<double>> in_turn(int rounds, const std::vector<std::function<double()>>& samples,
                                         double enough) {
  std::vector<std::vector<double>> values(samples.size());
  const double begin = seconds_now();
  for (int round = 0; round < rounds && (round < 3 || seconds_now() - begin < enough); ++round) {
    for (std::size_t i = 0; i < samples.size(); ++i) values[i].push_back(samples[i]());
  }
  return values;
}

std::vector<double> medians_in_turn(int rounds, const std::vector<std::function<double()>>& samples) {
  std::vector<double> medians;
  for (std::vector<double>& v : in_turn(rounds, samples)) {
    const auto middle = v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2);
    std::nth_element(v.begin(), middle, v.end());
    medians.push_back(*middle);
  }
  return medians;
}

std::function<double()> timed(std::function<void()> work, double least) {
  const auto seconds = [&] {
    const double begin = seconds_now();
    work();
    return std::max(seconds_now() - begin, 1e-9);
  };
  // A first run is slow for reasons of its own: it is enough for long work only.
  double once = seconds();
  if (once < 10 * least) once = seconds();
  const auto runs = static_cast<std::int64_t>(std::clamp(std::ceil(least / once), 1.0, 1e6));
  return [work = std::move(work), runs] {
    const double start = seconds_now();
    for (std::int64_t i = 0; i < runs; ++i) work();
    return (seconds_now() - start) / static_cast<double>(runs);
  };
}

Tensor normal(DType type, const Dims& shape, std::uint64_t seed, float scale) {
  Tensor tensor(type, shape);
  const std::int64_t count = tensor.elements();
  std::mt19937_64 random(seed);
  std::normal_distribution<float> distribution;
  const auto fill = [&](auto* to) {
    using T = std::remove_pointer_t<decltype(to)>;
    for (std::int64_t i = 0; i < count; ++i) to[i] = static_cast<T>(scale * distribution(random));
  };
  if (type == DType::kBF16) {
    fill(tensor.as<bfloat16>());
  } else if (type == DType::kF16) {
    fill(tensor.as<float16>());
  } else {
    fill(tensor.as<float>());
  }
  return tensor;
}

}  // namespace manyheads::bench
