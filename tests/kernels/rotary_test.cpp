#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "attention/call.hpp"
#include "kernels/dispatch.hpp"

namespace manyheads::test {
namespace {

struct Rows {
  Rows(std::int64_t rows, std::int64_t heads, std::int64_t rotated_heads, std::int64_t head_dim, std::int64_t gap = 0)
      : call{},
        stride(static_cast<std::size_t>(heads * head_dim + gap)),
        x(static_cast<std::size_t>(rows) * stride),
        cos(static_cast<std::size_t>(rows * head_dim / 2)),
        sin(cos.size()),
        y(x.size(), 777.0f) {
    std::mt19937_64 engine(static_cast<std::uint64_t>(head_dim));
    std::normal_distribution<double> normal;
    for (float& value : x) value = static_cast<float>(normal(engine));
    for (std::size_t i = 0; i < cos.size(); ++i) {
      const double angle = 7 * normal(engine);
      cos[i] = static_cast<float>(std::cos(angle));
      sin[i] = static_cast<float>(std::sin(angle));
    }
    call.x = x.data();
    call.cos = cos.data();
    call.sin = sin.data();
    call.y = y.data();
    call.x_stride = call.y_stride = static_cast<std::int64_t>(stride);
    call.heads = heads;
    call.rotated_heads = rotated_heads;
    call.head_dim = head_dim;
  }

  kernels::RotaryParams call;
  std::size_t stride;
  std::vector<float> x, cos, sin, y;
};

struct Shape {
  std::int64_t heads, rotated_heads, head_dim;
};
constexpr Shape kShapes[] = {{1, 1, 2},  {3, 2, 6},   {4, 0, 8},   {2, 2, 10},  {3, 1, 34},  {9, 3, 64},
                             {5, 3, 66}, {2, 1, 128}, {3, 2, 130}, {1, 1, 254}, {2, 1, 256}, {2, 2, 300}};

class Rotary : public AtEachIsa {};
MANYHEADS_AT_EACH_ISA(Rotary);

TEST_P(Rotary, AgreesWithDouble) {
  for (const Shape& shape : kShapes) {
    for (const std::int64_t gap : {0, 5}) {
      Rows rows(4, shape.heads, shape.rotated_heads, shape.head_dim, gap);
      kernels::active_table().rotary(rows.call, 0, 4);
      const std::size_t width = static_cast<std::size_t>(shape.heads * shape.head_dim);
      const std::size_t dim = static_cast<std::size_t>(shape.head_dim), half = dim / 2;
      for (std::size_t i = 0; i < rows.y.size(); ++i) {
        const std::size_t r = i / rows.stride, column = i % rows.stride, e = column % dim;
        if (column >= width) {
          EXPECT_EQ(rows.y[i], 777.0f);
        } else if (column >= static_cast<std::size_t>(shape.rotated_heads) * dim) {
          EXPECT_EQ(rows.y[i], rows.x[i]);
        } else {
          const double cos = static_cast<double>(rows.cos[r * half + e % half]);
          const double sin = static_cast<double>(rows.sin[r * half + e % half]);
          const double one = static_cast<double>(rows.x[i]) * cos;
          const double other =
              e < half ? -static_cast<double>(rows.x[i + half]) * sin : static_cast<double>(rows.x[i - half]) * sin;
          // The products, where each is rounded, and the sum.
          const double bound = (std::fabs(one) + std::fabs(other) + std::fabs(one + other)) * 0x1p-24 * (1 + 0x1p-20);
          EXPECT_LE(std::fabs(static_cast<double>(rows.y[i]) - (one + other)), bound) << dim << " " << column;
        }
      }
    }
  }
}

TEST_P(Rotary, InPlace) {
  for (const Shape& shape : kShapes) {
    Rows apart(3, shape.heads, shape.rotated_heads, shape.head_dim, 3);
    Rows in_place(3, shape.heads, shape.rotated_heads, shape.head_dim, 3);
    kernels::active_table().rotary(apart.call, 0, 3);
    in_place.call.y = in_place.x.data();
    kernels::active_table().rotary(in_place.call, 0, 3);
    for (std::size_t i = 0; i < apart.y.size(); ++i) {
      if (apart.y[i] == 777.0f) continue;
      EXPECT_EQ(in_place.x[i], apart.y[i]) << shape.head_dim << " " << i;
    }
  }
}

template <class Half>
void expect_rounded(DType type) {
  for (const Shape& shape : kShapes) {
    Rows rows(4, shape.heads, shape.rotated_heads, shape.head_dim);
    rows.x[0] = 1e-6f;  // below F16's normal numbers
    kernels::active_table().rotary(rows.call, 0, 4);
    const std::size_t width = static_cast<std::size_t>(shape.heads * shape.head_dim), stride = width + 3;
    std::vector<Half> y(4 * stride, Half(777.0f));
    rows.call.y = y.data();
    rows.call.y_type = type;
    rows.call.y_stride = static_cast<std::int64_t>(stride);
    kernels::active_table().rotary(rows.call, 0, 4);
    for (std::size_t i = 0; i < y.size(); ++i) {
      const std::size_t row = i / stride, column = i % stride;
      const Half want = column < width ? Half(rows.y[row * width + column]) : Half(777.0f);
      EXPECT_EQ(y[i].bits, want.bits) << shape.head_dim << " " << i;
    }
  }
}
TEST_P(Rotary, ToBf16) { expect_rounded<bfloat16>(DType::kBF16); }
TEST_P(Rotary, ToF16) { expect_rounded<float16>(DType::kF16); }

TEST_P(Rotary, RowsOutsideTheRangeAreLeftAloneAndEachStandsAlone) {
  Rows all(9, 3, 2, 26), part(9, 3, 2, 26);
  kernels::active_table().rotary(all.call, 0, 9);
  kernels::active_table().rotary(part.call, 3, 5);
  for (std::size_t i = 0; i < part.y.size(); ++i) {
    EXPECT_EQ(part.y[i], i / 78 == 3 || i / 78 == 4 ? all.y[i] : 777.0f);
  }
}

TEST(RotaryBits, AreThoseOfTheFamilyAtEachInstructionSet) {
  for (std::int64_t head_dim = 2; head_dim <= 140; head_dim += 2) {
    std::map<std::string, std::vector<float>> first;  // by family
    for (const kernels::KernelTable& table : kernels::available_tables()) {
      Rows rows(2, 3, 2, head_dim);
      table.rotary(rows.call, 0, 2);
      const auto [at, is_new] = first.try_emplace(table.bits_of(kernels::Products::kF32), rows.y);
      EXPECT_EQ(std::memcmp(at->second.data(), rows.y.data(), rows.y.size() * sizeof(float)), 0)
          << table.name << ", " << head_dim;
    }
  }
}

}  // namespace
}  // namespace manyheads::test
