#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <manyheads/half.hpp>
#include <random>

namespace manyheads {
namespace {

// The value of a half type's bits, from its definition.
double value_of(std::uint32_t bits, int exponent_bits, int fraction_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const std::uint32_t exponent = (bits >> fraction_bits) & ((1u << exponent_bits) - 1);
  const double fraction = static_cast<double>(bits & ((1u << fraction_bits) - 1)) / (1 << fraction_bits);
  const double sign = (bits & 0x8000u) != 0 ? -1 : 1;
  if (exponent == (1u << exponent_bits) - 1) {
    return fraction == 0 ? sign * std::numeric_limits<double>::infinity() : std::numeric_limits<double>::quiet_NaN();
  }
  if (exponent == 0) return sign * std::ldexp(fraction, 1 - bias);
  return sign * std::ldexp(1 + fraction, static_cast<int>(exponent) - bias);
}

template <class Half>
struct Format;
template <>
struct Format<bfloat16> {
  static constexpr int exponent = 8, fraction = 7;
};
template <>
struct Format<float16> {
  static constexpr int exponent = 5, fraction = 10;
};

template <class Half>
class HalfTypes : public testing::Test {
 protected:
  static double value(std::uint32_t bits) { return value_of(bits, Format<Half>::exponent, Format<Half>::fraction); }

  // The nearest value of the type, ties to even bits, by search among the neighbours.
  static std::uint16_t nearest(float x) {
    const std::uint32_t sign = std::signbit(x) ? 0x8000u : 0u;
    const double a = std::fabs(static_cast<double>(x));
    const std::uint32_t top = ((1u << Format<Half>::exponent) - 1) << Format<Half>::fraction;  // infinity
    std::uint32_t low = 0, high = top;                                                         // value(low) <= a
    while (high - low > 1) {
      const std::uint32_t middle = (low + high) / 2;
      (value(middle) <= a ? low : high) = middle;
    }
    // Infinity stands one step above the largest finite value.
    const double above = high == top ? 2 * value(top - 1) - value(top - 2) : value(high);
    const double down = a - value(low), up = above - a;
    const bool take_high = up < down || (up == down && high % 2 == 0);
    return static_cast<std::uint16_t>(sign | (take_high ? high : low));
  }
};
using Types = testing::Types<bfloat16, float16>;
TYPED_TEST_SUITE(HalfTypes, Types);

TYPED_TEST(HalfTypes, All65536PatternsAreTheirValueAndComeBack) {
  for (std::uint32_t pattern = 0; pattern < 65536; ++pattern) {
    TypeParam half;
    half.bits = static_cast<std::uint16_t>(pattern);
    const double want = this->value(pattern);
    const float got = static_cast<float>(half);
    if (std::isnan(want)) {
      ASSERT_TRUE(std::isnan(got)) << pattern;
      ASSERT_TRUE(std::isnan(static_cast<float>(TypeParam(got)))) << pattern;
    } else {
      ASSERT_EQ(static_cast<double>(got), want) << pattern;
      ASSERT_EQ(std::signbit(got), (pattern & 0x8000u) != 0) << pattern;
      ASSERT_EQ(TypeParam(got).bits, pattern);
    }
  }
}

TYPED_TEST(HalfTypes, RoundsToNearestTiesToEven) {
  // Each boundary between two values, and the floats beside it.
  for (std::uint32_t pattern = 0;
       pattern + 1 < (((1u << Format<TypeParam>::exponent) - 1) << Format<TypeParam>::fraction); ++pattern) {
    const float tie = static_cast<float>((this->value(pattern) + this->value(pattern + 1)) / 2);
    for (const float x :
         {tie, std::nextafter(tie, 0.0f), std::nextafter(tie, std::numeric_limits<float>::infinity())}) {
      ASSERT_EQ(TypeParam(x).bits, this->nearest(x)) << x;
      ASSERT_EQ(TypeParam(-x).bits, this->nearest(-x)) << -x;
    }
  }
}

TYPED_TEST(HalfTypes, RandomFloats) {
  std::mt19937 engine(1);
  for (int i = 0; i < 300000; ++i) {
    const float x = std::bit_cast<float>(static_cast<std::uint32_t>(engine()));
    if (std::isnan(x)) {
      ASSERT_TRUE(std::isnan(static_cast<float>(TypeParam(x))));
    } else if (!std::isinf(x)) {
      ASSERT_EQ(TypeParam(x).bits, this->nearest(x)) << x;
    }
  }
}

TYPED_TEST(HalfTypes, TheEdges) {
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(static_cast<float>(TypeParam(infinity)), infinity);
  EXPECT_EQ(static_cast<float>(TypeParam(-infinity)), -infinity);
  EXPECT_EQ(static_cast<float>(TypeParam(std::numeric_limits<float>::max())), infinity);
  EXPECT_EQ(TypeParam(-0.0f).bits, 0x8000u);
  EXPECT_EQ(TypeParam().bits, 0u);
}

TEST(Float16, WhereItOverflowsAndUnderflows) {
  EXPECT_EQ(static_cast<float>(float16(65504.0f)), 65504.0f);
  EXPECT_EQ(static_cast<float>(float16(std::nextafter(65520.0f, 0.0f))), 65504.0f);
  EXPECT_EQ(static_cast<float>(float16(65520.0f)), std::numeric_limits<float>::infinity());
  EXPECT_EQ(float16(0x1p-24f).bits, 1u);
  EXPECT_EQ(float16(0x1p-25f).bits, 0u);  // a tie, to even
  EXPECT_EQ(float16(std::nextafter(0x1p-25f, 1.0f)).bits, 1u);
}

}  // namespace
}  // namespace manyheads
