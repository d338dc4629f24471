#pragma once

#include <cmath>
#include <cstdint>
#include <manyheads/tensor.hpp>
#include <random>
#include <type_traits>

namespace manyheads::cli_test {

// Random normal numbers.
inline Tensor normal(DType type, const Dims& shape, std::mt19937& random) {
  Tensor tensor(type, shape);
  std::normal_distribution<float> distribution;
  const auto fill = [&](auto* to) {
    using T = std::remove_pointer_t<decltype(to)>;
    for (std::int64_t i = 0; i < tensor.elements(); ++i) to[i] = static_cast<T>(distribution(random));
  };
  if (type == DType::kF32) fill(tensor.as<float>());
  if (type == DType::kBF16) fill(tensor.as<bfloat16>());
  if (type == DType::kF16) fill(tensor.as<float16>());
  return tensor;
}

// Whole numbers of [low, high].
template <class T>
Tensor uniform(const Dims& shape, int low, int high, std::mt19937& random) {
  Tensor tensor(dtype_of<T>::value, shape);
  std::uniform_int_distribution<int> distribution(low, high);
  T* to = tensor.as<T>();
  for (std::int64_t i = 0; i < tensor.elements(); ++i) to[i] = static_cast<T>(distribution(random));
  return tensor;
}

inline double number(const Tensor& tensor, std::int64_t i) {
  switch (tensor.dtype()) {
    case DType::kBF16:
      return static_cast<float>(tensor.as<bfloat16>()[i]);
    case DType::kF16:
      return static_cast<float>(tensor.as<float16>()[i]);
    default:
      return tensor.as<float>()[i];
  }
}

// The largest difference; infinite where the shapes or the places of infinities differ.
inline double difference(const Tensor& a, const Tensor& b) {
  if (!(a.shape() == b.shape())) return HUGE_VAL;
  double worst = 0;
  for (std::int64_t i = 0; i < a.elements(); ++i) {
    const double x = number(a, i), y = number(b, i);
    if (x == y) continue;
    worst = std::isfinite(x) && std::isfinite(y) ? std::max(worst, std::abs(x - y)) : HUGE_VAL;
  }
  return worst;
}

}  // namespace manyheads::cli_test
