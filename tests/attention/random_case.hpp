#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include <manyheads/attention.hpp>

namespace manyheads::test {

// A tensor in a layout of one's own, in memory that is NaN wherever no element lies.
struct Strided {
  std::vector<unsigned char> memory;
  DType type = DType::kF32;
  Dims shape, strides;
  std::int64_t origin = 0;  // element index of [0, 0, ...]

  Strided() = default;
  // `order` lists the axes from the slowest to the fastest; rows of the fastest axis are `gap` elements longer than
  // needed, elements `step` apart, and the axis `reversed` (-1: none) runs backwards.
  Strided(DType type, Dims shape, std::vector<int> order, std::int64_t gap, std::int64_t step, int reversed,
          std::size_t misalign);
  ConstTensorView view() const;
  TensorView mutable_view();
  void set(std::int64_t offset_in_elements, double value);
  // Calls set for each element with a value from `make`.
  template <class F>
  void fill(F&& make) {
    std::vector<std::int64_t> index(static_cast<std::size_t>(shape.rank()), 0);
    if (element_count(shape) == 0) return;
    for (;;) {
      std::int64_t at = origin;
      for (int a = 0; a < shape.rank(); ++a) at += index[static_cast<std::size_t>(a)] * strides[a];
      set(at, make(index));
      int a = shape.rank() - 1;
      while (a >= 0 && ++index[static_cast<std::size_t>(a)] == shape[a]) index[static_cast<std::size_t>(a--)] = 0;
      if (a < 0) return;
    }
  }

 private:
  std::size_t shift_ = 0;
};

// A random call of attention: shapes, types, layouts, masks and edge values drawn from one seed.
struct RandomCase {
  explicit RandomCase(std::uint64_t seed);

  std::uint64_t seed;
  DType type = DType::kF32, out_type = DType::kF32;
  std::int64_t batch = 1, q_heads = 1, kv_heads = 1, tq = 1, tk = 1, d = 1, dv = 1;
  Strided q, k, v, out, lse;
  std::vector<Strided> parts;  // memory of the mask's tensors and the sinks
  AttentionOptions options;    // lse is set by run()
  std::string features;

  void run();  // attention() into out and lse
  std::string describe() const;
};

}  // namespace manyheads::test
