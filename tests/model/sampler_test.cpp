#include "model/sampler.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <manyheads/error.hpp>
#include <map>
#include <vector>

#include "support.hpp"

namespace manyheads::model {
namespace {

using Logits = std::vector<float>;
using test::error_of;

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(Sampler, GreedyTakesTheLowestIdAmongEquals) {
  EXPECT_EQ(sample(Logits{1, 3, 2, 3}, {}, 0, 0), 1);
  EXPECT_EQ(sample(Logits{-kInfinity, -5, -5}, {.seed = 7}, 3, 9), 1);
  EXPECT_EQ(sample(Logits{0.0f, -0.0f}, {}, 0, 0), 0);
  EXPECT_EQ(sample(Logits{4}, {}, 0, 0), 0);
}

TEST(Sampler, TheLikeliestHaveTheSoftmaxsProbabilities) {
  const Logits logits = {0, 3, 1, 3, -kInfinity, 2};
  const std::vector<LikelyToken> tokens = likeliest(logits, 4);
  const double sum = 1 + 2 * std::exp(3.0) + std::exp(1.0) + std::exp(2.0);
  ASSERT_EQ(tokens.size(), 4u);
  const std::int64_t ids[] = {1, 3, 5, 2};
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(tokens[i].id, ids[i]);
    EXPECT_NEAR(tokens[i].probability, std::exp(static_cast<double>(logits[static_cast<std::size_t>(ids[i])])) / sum, 1e-15);
  }
  EXPECT_EQ(likeliest(logits, 99).size(), 6u);
  EXPECT_EQ(likeliest(logits, 99).back().probability, 0);
  EXPECT_NEAR(likeliest(Logits{1e30f, -1e30f}, 1)[0].probability, 1, 0);
  EXPECT_NE(error_of([] { likeliest(Logits{1, kNaN}, 1); }).find("NaN"), std::string::npos);
  EXPECT_NE(error_of([] { likeliest({}, 1); }), "");
}

// Counts of a draw from n trials are binomial: within five standard deviations, but once in 10^6.
TEST(Sampler, DrawsFollowTheSoftmax) {
  const Logits logits = {0, 1, 2, -kInfinity, -1};
  const auto check = [&](double temperature, double top_p, const std::vector<int>& kept) {
    constexpr int kTrials = 20'000;
    std::map<std::int64_t, int> counts;
    for (int i = 0; i < kTrials; ++i) {
      ++counts[sample(logits, {temperature, top_p, 5}, static_cast<std::uint64_t>(i % 7),
                      static_cast<std::uint64_t>(i))];
    }
    double total = 0;
    for (const int id : kept) total += std::exp(logits[static_cast<std::size_t>(id)] / temperature);
    int counted = 0;
    for (const int id : kept) {
      const double p = std::exp(logits[static_cast<std::size_t>(id)] / temperature) / total;
      EXPECT_NEAR(counts[id], kTrials * p, 5 * std::sqrt(kTrials * p * (1 - p)) + 1e-9) << id;
      counted += counts[id];
    }
    EXPECT_EQ(counted, kTrials);
  };
  check(1, 1, {0, 1, 2, 4});
  check(0.5, 1, {0, 1, 2, 4});
  check(3, 1, {0, 1, 2, 4});
  // Probabilities .644, .237, .087, .032.
  check(1, 0.64, {2});
  check(1, 0.65, {1, 2});
  check(1, 0.88, {1, 2});
  check(1, 0.89, {0, 1, 2});
  check(1, 1e-9, {2});
}

TEST(Sampler, EqualTokensEnterTheNucleusByTheirIds) {
  for (std::uint64_t place = 0; place < 200; ++place) {
    EXPECT_LT(sample(Logits(100, 1.0f), {.temperature = 1, .top_p = 0.0499}, 0, place), 5);
  }
}

TEST(Sampler, ADrawDependsOnSeedPromptAndPlace) {
  const Logits logits(1000, 0.0f);
  const auto draw = [&](std::uint64_t seed, std::uint64_t prompt, std::uint64_t place) {
    return sample(logits, {.temperature = 1, .seed = seed}, prompt, place);
  };
  EXPECT_EQ(draw(1, 2, 3), draw(1, 2, 3));
  int same = 0;
  for (std::uint64_t i = 0; i < 100; ++i) {
    same += draw(i, 0, 0) == draw(0, i, 0) ? 1 : 0;
    same += draw(0, i, 0) == draw(0, 0, i) ? 1 : 0;
  }
  EXPECT_LT(same, 8);  // two are the draw (0, 0, 0); of the others each agrees once in a thousand
  // So that no machine draws otherwise.
  EXPECT_EQ(draw(0, 0, 0), 138);
  EXPECT_EQ(draw(42, 3, 17), 618);
}

TEST(Sampler, LogProbabilities) {
  const Logits logits = {0, 1, 2, -kInfinity};
  const double sum = std::log(1 + std::exp(1.0) + std::exp(2.0));
  for (const std::int64_t id : {0, 1, 2}) {
    EXPECT_NEAR(log_probability(logits, id), static_cast<double>(id) - sum, 4e-16 * 3);  // three roundings below 4
  }
  EXPECT_EQ(log_probability(logits, 3), -std::numeric_limits<double>::infinity());
  EXPECT_EQ(log_probability(Logits{1e30f, -1e30f}, 0), 0);
}

TEST(Sampler, RefusesWhatIsNoNumber) {
  for (const Sampling& sampling : {Sampling{}, Sampling{.temperature = 1}}) {
    EXPECT_NE(error_of([&] { sample(Logits{1, kNaN}, sampling, 0, 0); }).find("logits that are NaN"),
              std::string::npos);
    EXPECT_NE(error_of([&] { sample(Logits{kNaN, 1}, sampling, 0, 0); }).find("logits that are NaN"),
              std::string::npos);
    EXPECT_NE(error_of([&] { sample(Logits{1, kInfinity}, sampling, 0, 0); }).find("largest logit is inf"),
              std::string::npos);
    EXPECT_NE(error_of([&] { sample(Logits{-kInfinity}, sampling, 0, 0); }).find("largest logit is -inf"),
              std::string::npos);
    EXPECT_NE(error_of([&] { sample(Logits{}, sampling, 0, 0); }).find("gave no logits"), std::string::npos);
  }
  for (const double temperature : {-1.0, -1e-300, std::nan(""), HUGE_VAL}) {
    EXPECT_NE(error_of([&] { check_sampling({.temperature = temperature}); }).find("generate: temperature is"),
              std::string::npos);
  }
  for (const double top_p : {0.0, -0.5, 1.0000001, std::nan(""), HUGE_VAL}) {
    EXPECT_NE(error_of([&] { check_sampling({.temperature = 1, .top_p = top_p}); }).find("generate: top_p is"),
              std::string::npos);
  }
  check_sampling({.temperature = 1e-300, .top_p = 1e-300});
  EXPECT_EQ(sample(Logits{1, 2}, {.temperature = 1e-300, .top_p = 1e-300}, 0, 0), 1);
}

}  // namespace
}  // namespace manyheads::model
