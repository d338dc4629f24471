#pragma once

#include <cstddef>
#include <cstdint>
#include <manyheads/tensor.hpp>
#include <memory>
#include <vector>

namespace manyheads::test {

// Memory of exactly the elements, so that the address sanitizer sees a read of one more.
struct Exact {
  Exact(DType type, Dims shape) : dtype(type), dims(shape), bytes(std::make_unique<unsigned char[]>(size())) {
    if (type == DType::kF32) {
      for (std::int64_t i = 0; i < element_count(shape); ++i) as<float>()[i] = static_cast<float>(i % 13) / 13 - 0.5f;
    }
  }
  // Integers of either width.
  Exact(DType type, Dims shape, const std::vector<std::int64_t>& values) : Exact(type, shape) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (type == DType::kI64) {
        as<std::int64_t>()[i] = values[i];
      } else {
        as<std::int32_t>()[i] = static_cast<std::int32_t>(values[i]);
      }
    }
  }
  std::size_t size() const { return static_cast<std::size_t>(element_count(dims)) * size_of(dtype); }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(bytes.get());
  }
  TensorView view() const { return TensorView(bytes.get(), dtype, dims); }
  DType dtype;
  Dims dims;
  std::unique_ptr<unsigned char[]> bytes;
};

}  // namespace manyheads::test
