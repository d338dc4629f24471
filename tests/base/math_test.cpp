#include "base/math.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

namespace manyheads {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

// The relative error against long double, in units of 2^-53.
template <class F, class Exact>
double largest_error(F&& f, Exact&& exact, double low, double high) {
  std::mt19937_64 engine(1);
  double worst = 0;
  for (int i = 0; i < 200000; ++i) {
    const double x = std::uniform_real_distribution<double>(low, high)(engine);
    const long double want = exact(static_cast<long double>(x));
    worst = std::fmax(worst, static_cast<double>(std::fabs((f(x) - want) / want) * 0x1p53L));
  }
  return worst;
}

TEST(BaseMath, IsNearTheExactValue) {
  const auto exp = [](double x) { return base::exp(x); };
  const auto log = [](double x) { return base::log(x); };
  EXPECT_LE(largest_error(exp, [](long double x) { return std::exp(x); }, -1, 1), 4);
  EXPECT_LE(largest_error(exp, [](long double x) { return std::exp(x); }, -700, 700), 4);
  EXPECT_LE(largest_error([](double x) { return base::exp2(x); }, [](long double x) { return std::exp2(x); }, -99, 99),
            4);
  EXPECT_LE(largest_error(log, [](long double x) { return std::log(x); }, 0.5, 2), 4);
  EXPECT_LE(largest_error(log, [](long double x) { return std::log(x); }, 1e-300, 1e-290), 4);
  EXPECT_LE(largest_error(log, [](long double x) { return std::log(x); }, 1, 1e6), 4);
  EXPECT_LE(largest_error([](double x) { return base::log2(x); }, [](long double x) { return std::log2(x); }, 2, 1e6),
            4);
  EXPECT_LE(
      largest_error([](double x) { return base::log1p(x); }, [](long double x) { return std::log1p(x); }, 0, 1e-3), 4);
  EXPECT_LE(largest_error([](double x) { return base::log1p(x); }, [](long double x) { return std::log1p(x); }, 0, 9),
            4);
  for (const double high : {1e-3, 0.5, 1.0, 25.0}) {
    EXPECT_LE(
        largest_error([](double x) { return base::tanh(x); }, [](long double x) { return std::tanh(x); }, -high, high),
        4)
        << high;
  }
}

TEST(BaseMath, Ends) {
  EXPECT_EQ(base::exp(0), 1);
  EXPECT_EQ(base::exp(-0.0), 1);
  EXPECT_EQ(base::exp(-kInf), 0);
  EXPECT_EQ(base::exp(kInf), kInf);
  EXPECT_EQ(base::exp(-1e300), 0);
  EXPECT_EQ(base::exp2(-3), 0.125);
  EXPECT_EQ(base::exp2(-kInf), 0);
  EXPECT_EQ(base::exp2(kInf), kInf);
  EXPECT_EQ(base::log(1), 0);
  EXPECT_EQ(base::log(0), -kInf);
  EXPECT_EQ(base::log(kInf), kInf);
  EXPECT_EQ(base::log2(8), 3);
  EXPECT_EQ(base::log1p(0), 0);
  EXPECT_EQ(base::log1p(1e-20), 1e-20);
  EXPECT_EQ(base::log1p(kInf), kInf);
  EXPECT_EQ(base::tanh(kInf), 1);
  EXPECT_EQ(base::tanh(-kInf), -1);
  EXPECT_EQ(base::tanh(1e-300), 1e-300);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const double y : {base::exp(nan), base::exp2(nan), base::log(nan), base::log(-1), base::tanh(nan)}) {
    EXPECT_TRUE(std::isnan(y));
  }
}

}  // namespace
}  // namespace manyheads
