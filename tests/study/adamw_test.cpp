#include "study/adamw.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "study/random.hpp"

namespace manyheads::study {
namespace {

// Loshchilov and Hutter 2019, algorithm 2, by hand.
TEST(AdamW, FollowsTheDefinition) {
  constexpr std::size_t kCount = 37;
  constexpr int kSteps = 50;
  const AdamWOptions options{.beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-8, .weight_decay = 0.1};
  AdamW optimizer(kCount, options);
  Random random(1);
  std::vector<float> values(kCount), gradients(kCount);
  for (float& value : values) value = random.uniform() - 0.5F;
  std::vector<double> want(values.begin(), values.end()), m(kCount), v(kCount);
  double moved = 0;
  for (int t = 1; t <= kSteps; ++t) {
    const double rate = 0.01 / t;
    for (float& gradient : gradients) gradient = random.uniform() - 0.4F;
    optimizer.step(values, gradients, rate);
    moved += rate;
    for (std::size_t i = 0; i < kCount; ++i) {
      const auto g = static_cast<double>(gradients[i]);
      m[i] = options.beta1 * m[i] + (1 - options.beta1) * g;
      v[i] = options.beta2 * v[i] + (1 - options.beta2) * g * g;
      const double m_hat = m[i] / (1 - std::pow(options.beta1, t)), v_hat = v[i] / (1 - std::pow(options.beta2, t));
      want[i] -= rate * (m_hat / (std::sqrt(v_hat) + options.epsilon) + options.weight_decay * want[i]);
    }
  }
  // |x| stays below 1: each step rounds x once (2^-24) and moves it by at most sqrt((1 - b1)^2 / (1 - b2)) < 1 rates,
  // or 1 / sqrt(1 - b2) < 5 of them at worst, with about ten roundings in it and in the t steps behind each moment.
  const double bound = kSteps * 0x1p-24 + 5 * moved * (10 + kSteps) * 0x1p-24;
  for (std::size_t i = 0; i < kCount; ++i) EXPECT_NEAR(static_cast<double>(values[i]), want[i], bound) << i;
}

}  // namespace
}  // namespace manyheads::study
