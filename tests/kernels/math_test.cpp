// The vector functions at each instruction set against double, over dense ranges.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

// Highway's headers convert freely.
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wshadow"

// No kernel runs on SVE, and g++ 12 ends where its header follows a precompiled one.
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/math_test.cpp"
#include "hwy/foreach_target.h"
// After it, so that the functions are read for each target.
#include "hwy/highway.h"
#include "kernels/algorithm/math-inl.hpp"

#ifndef MANYHEADS_MATH_TEST_ONCE
#define MANYHEADS_MATH_TEST_ONCE
namespace manyheads::kernels {
enum class Function { kExp2, kWeight, kPowerOfTwo, kTanh, kGelu, kGeluTanh };

struct TargetFunctions {
  std::int64_t target;
  bool fma;  // a multiply-add rounds once
  float (*apply)(Function, float);
};

inline std::vector<TargetFunctions>& target_functions() {
  static std::vector<TargetFunctions> list;
  return list;
}

struct RegisterFunctions {
  RegisterFunctions(std::int64_t target, bool fma, float (*apply)(Function, float)) {
    target_functions().push_back({target, fma, apply});
  }
};
}  // namespace manyheads::kernels
#endif

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {

// One value through all lanes: a lane's result follows from its own input.
float ApplyFunction(Function function, float x) {
  const hn::ScalableTag<float> d;
  const auto v = hn::Set(d, x);
  switch (function) {
    case Function::kExp2:
      return hn::GetLane(Exp2(d, v));
    case Function::kWeight:
      return hn::GetLane(Exp2<-96>(d, v));
    case Function::kPowerOfTwo:
      return hn::GetLane(PowerOfTwo(d, v));
    case Function::kTanh:
      return hn::GetLane(Tanh(d, v));
    case Function::kGelu:
      return hn::GetLane(Gelu(d, v));
    case Function::kGeluTanh:
      return hn::GetLane(GeluTanh(d, v));
  }
  return 0;
}

[[maybe_unused]] const RegisterFunctions kRegisterFunctions{HWY_TARGET, HWY_NATIVE_FMA != 0, ApplyFunction};

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace manyheads::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kQuietNaN = std::numeric_limits<float>::quiet_NaN();

template <class F>
void at_each_target(F&& check) {
  int targets = 0;
  for (const TargetFunctions& t : target_functions()) {
    if ((hwy::SupportedTargets() & t.target) == 0) continue;
    SCOPED_TRACE(hwy::TargetName(t.target));
    ++targets;
    check([&](Function f, float x) { return t.apply(f, x); }, t.fma);
  }
  EXPECT_GT(targets, 0);
}

// The largest relative error over [low, high], in units of 2^-24.
template <class Apply, class Exact>
double largest_error(Apply&& apply, Exact&& exact, double low, double high) {
  constexpr int kSteps = 100000;
  double worst = 0;
  for (int i = 0; i <= kSteps; ++i) {
    const float x = static_cast<float>(low + (high - low) * i / kSteps);
    const double want = exact(static_cast<double>(x));
    worst = std::max(worst, std::fabs(static_cast<double>(apply(x)) - want) / std::fabs(want) / 0x1p-24);
  }
  return worst;
}

TEST(KernelMath, Exp2) {
  at_each_target([](auto&& apply, bool fma) {
    const auto exp2 = [&](float x) { return apply(Function::kExp2, x); };
    const auto exact = [](double x) { return std::exp2(x); };
    EXPECT_LE(largest_error(exp2, exact, -1, 1), fma ? 1.5 : 1.7);
    EXPECT_LE(largest_error(exp2, exact, -126, 127), fma ? 1.5 : 1.7);
    EXPECT_EQ(exp2(0.0f), 1.0f);
    EXPECT_EQ(exp2(-0.0f), 1.0f);
    for (int k = -126; k <= 127; ++k) EXPECT_EQ(exp2(static_cast<float>(k)), std::ldexp(1.0f, k)) << k;
    EXPECT_EQ(exp2(-126.001f), 0.0f);
    EXPECT_EQ(exp2(-127.0f), 0.0f);
    EXPECT_EQ(exp2(-1e30f), 0.0f);
    EXPECT_EQ(exp2(-kInfinity), 0.0f);
    EXPECT_TRUE(std::isnan(exp2(kQuietNaN)));
    const auto weight = [&](float x) { return apply(Function::kWeight, x); };
    EXPECT_EQ(weight(-96.0f), 0x1p-96f);
    EXPECT_EQ(weight(-95.5f), exp2(-95.5f));
    for (const float x : {-96.001f, -127.0f, -1e30f, -kInfinity}) EXPECT_EQ(weight(x), 0.0f) << x;
    EXPECT_TRUE(std::isnan(weight(kQuietNaN)));
  });
}

TEST(KernelMath, PowerOfTwo) {
  at_each_target([](auto&& apply, bool) {
    for (int k = 0; k >= -126; --k) {
      EXPECT_EQ(apply(Function::kPowerOfTwo, static_cast<float>(k)), std::ldexp(1.0f, k)) << k;
    }
    for (const float k : {-127.0f, -1000.0f, -1e30f, -kInfinity}) EXPECT_EQ(apply(Function::kPowerOfTwo, k), 0.0f) << k;
    EXPECT_TRUE(std::isnan(apply(Function::kPowerOfTwo, kQuietNaN)));
  });
}

TEST(KernelMath, Tanh) {
  at_each_target([](auto&& apply, bool) {
    const auto tanh = [&](float x) { return apply(Function::kTanh, x); };
    const auto exact = [](double x) { return std::tanh(x); };
    EXPECT_LE(largest_error(tanh, exact, 1e-3, 0.7), 4);
    EXPECT_LE(largest_error(tanh, exact, 0.6, 20), 4);
    EXPECT_LE(largest_error(tanh, exact, -20, -1e-3), 4);
    for (const float tiny : {1e-30f, 1e-10f, -1e-20f}) EXPECT_EQ(tanh(tiny), tiny);
    EXPECT_EQ(tanh(0.0f), 0.0f);
    for (const float large : {30.0f, 1e10f, 3e38f, kInfinity}) {
      EXPECT_EQ(tanh(large), 1.0f) << large;
      EXPECT_EQ(tanh(-large), -1.0f) << large;
    }
    EXPECT_TRUE(std::isnan(tanh(kQuietNaN)));
  });
}

// The largest error over |x| <= 12, as a share of |x|.
template <class Apply, class Exact>
double largest_share(Apply&& apply, Exact&& exact) {
  double worst = 0;
  for (int i = -60000; i <= 60000; ++i) {
    const float x = static_cast<float>(i) * 2e-4f;
    if (x == 0.0f) continue;
    const double error = std::fabs(static_cast<double>(apply(x)) - exact(static_cast<double>(x)));
    worst = std::max(worst, error / std::fabs(static_cast<double>(x)));
  }
  return worst;
}

TEST(KernelMath, Gelu) {
  at_each_target([](auto&& apply, bool) {
    const auto gelu = [&](float x) { return apply(Function::kGelu, x); };
    // Half the error of the fit, and a few roundings.
    EXPECT_LE(largest_share(gelu, [](double x) { return x / 2 * std::erfc(-x / std::sqrt(2.0)); }),
              0.5 * 1e-8 + 3 * 0x1p-24);
    EXPECT_EQ(gelu(0.0f), 0.0f);
    EXPECT_EQ(gelu(20.0f), 20.0f);
    EXPECT_EQ(gelu(-20.0f), 0.0f);
    EXPECT_EQ(gelu(3e38f), 3e38f);
    EXPECT_EQ(gelu(-3e38f), 0.0f);
    EXPECT_TRUE(std::isnan(gelu(kQuietNaN)));
  });
}

TEST(KernelMath, GeluTanh) {
  at_each_target([](auto&& apply, bool) {
    const auto gelu = [&](float x) { return apply(Function::kGeluTanh, x); };
    const auto exact = [](double x) {
      return x / 2 * (1 + std::tanh(std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x)));
    };
    EXPECT_LE(largest_share(gelu, exact), 8 * 0x1p-24);
    EXPECT_EQ(gelu(0.0f), 0.0f);
    EXPECT_EQ(gelu(20.0f), 20.0f);
    EXPECT_EQ(gelu(-20.0f), 0.0f);
    EXPECT_EQ(gelu(3e38f), 3e38f);
    EXPECT_EQ(gelu(-3e38f), 0.0f);
    EXPECT_TRUE(std::isnan(gelu(kQuietNaN)));
  });
}

}  // namespace
}  // namespace manyheads::kernels
#endif
