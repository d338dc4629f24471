#include "study/statistics.hpp"

#include <gtest/gtest.h>

#include <array>

namespace manyheads::study {
namespace {

TEST(Statistics, TheIntervalOfKnownNumbers) {
  // Mean 5, sample deviation sqrt(32 / 7), t(7, .975) = 2.36462.
  const std::array values = {2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0};
  const Interval interval = interval_of(values);
  EXPECT_DOUBLE_EQ(interval.mean, 5);
  EXPECT_NEAR(interval.high - 5, 1.78747, 1e-4);
  EXPECT_NEAR(5 - interval.low, 1.78747, 1e-4);
}

TEST(Statistics, OneNumberHasNoWidth) {
  const std::array one = {3.0};
  EXPECT_EQ(interval_of(one).low, 3);
  EXPECT_EQ(interval_of(one).high, 3);
}

}  // namespace
}  // namespace manyheads::study
