// The vector functions at each instruction set against double, over dense ranges.
#include <gtest/gtest.h>

#include <bit>
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
#include "kernels/algorithm/silu-inl.hpp"
#include "kernels/isa/mma_bf16-inl.hpp"

#ifndef MANYHEADS_MATH_TEST_ONCE
#define MANYHEADS_MATH_TEST_ONCE
namespace manyheads::kernels {
enum class Function { kExp2, kPowerOfTwo, kTanh, kGelu, kGeluTanh, kSilu };

struct TargetFunctions {
  std::int64_t target;
  bool fused;  // a multiply-add rounds once
  float (*apply)(Function, float);
  float (*weigh)(float score, float maximum);
  float (*weigh_short)(float score, float factor, float maximum);  // null where nothing multiplies pairs
};

inline std::vector<TargetFunctions>& target_functions() {
  static std::vector<TargetFunctions> list;
  return list;
}

struct RegisterFunctions {
  explicit RegisterFunctions(const TargetFunctions& functions) { target_functions().push_back(functions); }
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
      return hn::GetLane(Exp2(v));
    case Function::kPowerOfTwo:
      return hn::GetLane(PowerOfTwo(d, v));
    case Function::kTanh:
      return hn::GetLane(Tanh(d, v));
    case Function::kGelu:
      return hn::GetLane(Gelu(d, v));
    case Function::kGeluTanh:
      return hn::GetLane(GeluTanh(d, v));
    case Function::kSilu:
      return hn::GetLane(Silu(v));
  }
  return 0;
}

// As the kernels do it: scores far from 0 come nearer first.
template <class Mma>
float WeighWith(float score, float factor, float maximum) {
  const DF d;
  const VF x = hn::Set(d, score);
  const ExpMinusMax<Mma> weigh(hn::Set(d, maximum), hn::Set(d, factor));
  return hn::GetLane(weigh(weigh.far() ? weigh.Nearer(x) : x));
}
float Weigh(float score, float maximum) { return WeighWith<MmaF32>(score, 1, maximum); }

[[maybe_unused]] const RegisterFunctions kRegisterFunctions{{HWY_TARGET, kFusedMultiplyAdd, ApplyFunction, Weigh,
#if HWY_TARGET == HWY_AVX3
                                                             WeighWith<MmaBf16>
#else
                                                             nullptr
#endif
}};

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace manyheads::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kQuietNaN = std::numeric_limits<float>::quiet_NaN();

template <class F>
void for_each_target(F&& check) {
  int targets = 0;
  for (const TargetFunctions& t : target_functions()) {
    if ((hwy::SupportedTargets() & t.target) == 0) continue;
    SCOPED_TRACE(hwy::TargetName(t.target));
    ++targets;
    check(t);
  }
  EXPECT_GT(targets, 0);
}
template <class F>
void at_each_target(F&& check) {
  for_each_target(
      [&](const TargetFunctions& t) { check([&](Function f, float x) { return t.apply(f, x); }, t.fused); });
}

// The relative error of 2^x in units of 2^-24: a table's entry, 0.8, the last rounding, 1, and little else.
constexpr double kExp2Bound = 1.9;
// Without fused multiply-adds a small product is rounded by itself. Below 2^-120 it is denormal: half of 2^-149.
constexpr double kExp2LowBound = kExp2Bound + 1;

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
  for_each_target([](const TargetFunctions& t) {
    const auto exp2 = [&](float x) { return t.apply(Function::kExp2, x); };
    const auto exact = [](double x) { return std::exp2(x); };
    EXPECT_LE(largest_error(exp2, exact, -1, 1), kExp2Bound);
    EXPECT_LE(largest_error(exp2, exact, -120, 127), kExp2Bound);
    EXPECT_LE(largest_error(exp2, exact, -126, -120), t.fused ? kExp2Bound : kExp2LowBound);
    EXPECT_EQ(exp2(0.0f), 1.0f);
    EXPECT_EQ(exp2(-0.0f), 1.0f);
    for (int k = -126; k <= 127; ++k) EXPECT_EQ(exp2(static_cast<float>(k)), std::ldexp(1.0f, k)) << k;
    EXPECT_EQ(exp2(-126.001f), 0.0f);
    EXPECT_EQ(exp2(-127.0f), 0.0f);
    EXPECT_EQ(exp2(-1e30f), 0.0f);
    EXPECT_EQ(exp2(-kInfinity), 0.0f);
    EXPECT_TRUE(std::isnan(exp2(kQuietNaN)));
  });
}

// Values of every magnitude, NaN and infinities among them.
TEST(KernelMath, TargetsThatFuseHaveTheSameBits) {
  const TargetFunctions* first = nullptr;
  int compared = 0;
  for_each_target([&](const TargetFunctions& t) {
    if (!t.fused) return;
    if (first == nullptr) {
      first = &t;
      return;
    }
    ++compared;
    const auto bits = [](float x) { return std::isnan(x) ? 0x7fc00000u : std::bit_cast<std::uint32_t>(x); };
    const auto same = [&](float x) {
      for (const Function f : {Function::kExp2, Function::kPowerOfTwo, Function::kTanh, Function::kGelu,
                               Function::kGeluTanh, Function::kSilu}) {
        if ((f == Function::kExp2 && x > 127) || (f == Function::kPowerOfTwo && !(x <= 0))) continue;
        const float in = f == Function::kPowerOfTwo ? std::floor(x) : x;
        ASSERT_EQ(bits(t.apply(f, in)), bits(first->apply(f, in))) << static_cast<int>(f) << " of " << in;
      }
      for (const float m : {0.0f, 7.0f, 4096.0f, -700000.0f}) {
        ASSERT_EQ(bits(t.weigh(m + x, m)), bits(first->weigh(m + x, m))) << x << " from " << m;
      }
    };
    std::uint32_t pattern = 1;
    for (int i = 0; i < 100000; ++i) {
      pattern = pattern * 1664525u + 1013904223u;
      same(std::bit_cast<float>(pattern));
      same(static_cast<float>(i - 90000) * 1e-3f);
    }
  });
  if (compared == 0) GTEST_SKIP() << "one target alone fuses multiply-adds here";
}

TEST(KernelMath, Weights) {
  constexpr float kNone = -std::numeric_limits<float>::max();  // a row that saw no key
  for_each_target([](const TargetFunctions& t) {
    // Maxima near 0 and far from it; steps so large that the difference is exact.
    for (const float m :
         {0.0f, 3.0f, -17.0f, 4096.0f, -65536.0f, 524287.0f, 524288.0f, -3000001.0f, 16777216.0f, -16777215.0f}) {
      const float step = std::fmax(std::fabs(m), 64.0f) * 0x1p-23f;
      double worst = 0;
      for (int i = 0; i < 100000; ++i) {
        const float below = std::floor(static_cast<float>(i) * (135.0f / 100000.0f) / step) * step;
        const float x = m + (40.0f - below);
        const double difference = static_cast<double>(x) - static_cast<double>(m);
        if (difference < -95.9) continue;
        const double want = std::exp2(difference);
        // What a float of the difference rounds.
        const double rounded = std::fabs(m) < 0x1p19f ? 0 : std::fabs(difference) * 0.7;
        const double error = std::fabs(static_cast<double>(t.weigh(x, m)) - want) / want / 0x1p-24;
        worst = std::max(worst, error - rounded);
      }
      EXPECT_LE(worst, kExp2Bound) << m;
      EXPECT_EQ(t.weigh(m, m), 1.0f) << m;
      EXPECT_EQ(t.weigh(-kInfinity, m), 0.0f) << m;
      EXPECT_EQ(t.weigh(m - 1000.0f, m), 0.0f) << m;
      EXPECT_TRUE(std::isnan(t.weigh(kQuietNaN, m))) << m;
    }
    EXPECT_EQ(t.weigh(-96.0f, 0.0f), 0x1p-96f);
    for (const float x : {-96.1f, -127.0f, -1e30f}) EXPECT_EQ(t.weigh(x, 0.0f), 0.0f) << x;
    for (const float m : {-3e38f, 3e38f}) {
      EXPECT_EQ(t.weigh(m, m), 1.0f) << m;
      EXPECT_EQ(t.weigh(-kInfinity, m), 0.0f) << m;
    }
    EXPECT_EQ(t.weigh(-3e38f, 3e38f), 0.0f);
    EXPECT_EQ(t.weigh(-kInfinity, kNone), 0.0f);
    EXPECT_TRUE(std::isnan(t.weigh(kQuietNaN, kNone)));
    EXPECT_TRUE(std::isnan(t.weigh(kInfinity, kInfinity)));
  });
}

TEST(KernelMath, ShortWeights) {
  int short_ones = 0;
  for_each_target([&](const TargetFunctions& t) {
    if (t.weigh_short == nullptr) return;
    ++short_ones;
    for (const float m : {0.0f, -9.0f, 70000.0f, 3000000.0f, -16777216.0f}) {
      for (const float factor : {0x1p-3f, 0.18033688f, 1.0f, 20.0f}) {
        double worst = 0;
        for (int i = 0; i < 20000; ++i) {
          const float x = (m + 40.0f - static_cast<float>(i) * (135.0f / 20000.0f)) / factor;
          const double difference = static_cast<double>(x) * static_cast<double>(factor) - static_cast<double>(m);
          if (difference < -95.9) continue;
          const double want = std::exp2(difference);
          // Far from 0 the score's own last place, 0.7 of it as a share of the weight.
          const double rounded = std::fabs(m) < 0x1p19f ? 0 : 0.7 * (std::fabs(difference + m) + std::fabs(difference));
          const double error = std::fabs(static_cast<double>(t.weigh_short(x, factor, m)) - want) / want / 0x1p-24;
          worst = std::max(worst, error - rounded);
        }
        EXPECT_LE(worst, 8 + 1.9) << m << " " << factor;
        // The score whose product was rounded to the maximum itself.
        for (const float x : {3.1e9f, 7.7e12f, 5.3e29f}) EXPECT_EQ(t.weigh_short(x, factor, x * factor), 1.0f) << x;
        EXPECT_EQ(t.weigh_short(-kInfinity, factor, m), 0.0f);
        EXPECT_TRUE(std::isnan(t.weigh_short(kQuietNaN, factor, m)));
      }
    }
  });
  if (short_ones == 0) GTEST_SKIP() << "no instruction set of this machine multiplies pairs of BF16";
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

TEST(KernelMath, Silu) {
  at_each_target([](auto&& apply, bool fused) {
    const auto silu = [&](float x) { return apply(Function::kSilu, x); };
    const auto exact = [](double x) { return x / (1 + std::exp(-x)); };
    EXPECT_LE(largest_error(silu, exact, 1e-30, 1e-3), 6);
    EXPECT_LE(largest_error(silu, exact, 1e-3, 20), 6);
    EXPECT_LE(largest_error(silu, exact, 20, 3e38), 6);
    for (int z = 0; z < 90; ++z) {
      const double low = -z - 1, high = z == 0 ? -1e-30 : -z;
      EXPECT_LE(largest_error(silu, exact, low, high), fused ? 6 : 7 - low) << z;
    }
    // Denormals, to half their last place.
    for (int i = 0; i <= 40000; ++i) {
      const float z = -87.0f - static_cast<float>(i) * 1e-3f;
      const double want = exact(static_cast<double>(z));
      EXPECT_LE(std::fabs(static_cast<double>(silu(z)) - want),
                0x1p-150 + (fused ? 6 : 107) * 0x1p-24 * std::fabs(want))
          << z;
    }
    for (const float z : {-0.0f, -109.0f, -200.0f, -1000.0f, -1e30f, -3.4e38f}) {
      EXPECT_EQ(silu(z), 0.0f) << z;
      EXPECT_TRUE(std::signbit(silu(z))) << z;
    }
    EXPECT_EQ(silu(0.0f), 0.0f);
    EXPECT_FALSE(std::signbit(silu(0.0f)));
    for (const float z : {20.0f, 200.0f, 3.4e38f, kInfinity}) EXPECT_EQ(silu(z), z);
    EXPECT_TRUE(std::isnan(silu(-kInfinity)));
    EXPECT_TRUE(std::isnan(silu(kQuietNaN)));
  });
}

}  // namespace
}  // namespace manyheads::kernels
#endif
