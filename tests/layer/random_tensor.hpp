#pragma once

#include <cstdint>
#include <manyheads/tensor.hpp>
#include <random>

#include "layer/convert.hpp"

namespace manyheads::layer_test {

// Normal values times `scale`, drawn as F32.
inline Tensor random_tensor(std::mt19937_64& random, Dims shape, double scale = 1, DType type = DType::kF32) {
  Tensor tensor(DType::kF32, shape);
  std::normal_distribution<double> normal;
  for (std::int64_t i = 0; i < tensor.elements(); ++i)
    tensor.as<float>()[i] = static_cast<float>(scale * normal(random));
  return layer::converted(tensor.cview(), type);
}

}  // namespace manyheads::layer_test
