#include "bench/cases/sampling.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <random>
#include <string>
#include <utility>
#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace manyheads::bench {
namespace {

// A line of /proc/self/status, in kB.
std::optional<double> status(const std::string& name) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(name + ":")) return std::stod(line.substr(name.size() + 1));
  }
  return std::nullopt;
}

}  // namespace

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

std::optional<double> peak_megabytes(const std::function<void()>& work) {
#ifdef __GLIBC__
  ::malloc_trim(0);  // freed memory that the process keeps would hide what is taken anew
#endif
  const bool reset = static_cast<bool>(std::ofstream("/proc/self/clear_refs") << "5" << std::flush);
  const std::optional<double> before = status("VmRSS");
  work();
  const std::optional<double> peak = status("VmHWM");
  if (!reset || !before || !peak) return std::nullopt;
  return (*peak - *before) / 1000;
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
