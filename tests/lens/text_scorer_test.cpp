#include "lens/text_scorer.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "lens/constructed_text.hpp"
#include "lens/score_named.hpp"
#include "lens/without_special.hpp"

namespace manyheads::lens {
namespace {

using test::add_layer;
using test::constructed_text;
using test::named;

using Matrix = std::vector<std::vector<double>>;

model::EncoderConfig heads(std::int64_t count) {
  model::EncoderConfig config;
  config.num_layers = 1;
  config.num_heads = count;
  return config;
}

// The weights of a head of constructed_text.
Matrix softmax(std::int64_t n, const std::vector<double>& scores, bool causal) {
  Matrix rows;
  for (std::int64_t q = 0; q < n; ++q) {
    std::vector<double> row(static_cast<std::size_t>(n));
    double sum = 0;
    for (std::int64_t k = 0; k < (causal ? q + 1 : n); ++k) {
      sum += row[static_cast<std::size_t>(k)] =
          std::exp(static_cast<double>(static_cast<float>(scores[static_cast<std::size_t>(q * n + k)])));
    }
    for (double& weight : row) weight /= sum;
    rows.push_back(std::move(row));
  }
  return rows;
}

// Rows and keys begin to end, each row made to add up to 1.
Matrix part(const Matrix& all, std::size_t begin, std::size_t end) {
  Matrix rows;
  for (std::size_t q = begin; q < end; ++q) {
    std::vector<double> row(all[q].begin() + static_cast<std::ptrdiff_t>(begin),
                            all[q].begin() + static_cast<std::ptrdiff_t>(end));
    double sum = 0;
    for (const double weight : row) sum += weight;
    for (double& weight : row) weight /= sum;
    rows.push_back(std::move(row));
  }
  return rows;
}

double previous(const Matrix& a) {
  double sum = 0;
  for (std::size_t q = 1; q < a.size(); ++q) sum += a[q][q - 1];
  return sum / static_cast<double>(a.size() - 1);
}

double distance(const Matrix& a) {
  double sum = 0;
  for (std::size_t q = 0; q < a.size(); ++q) {
    for (std::size_t k = 0; k < a.size(); ++k) {
      sum += a[q][k] * std::abs(static_cast<double>(q) - static_cast<double>(k));
    }
  }
  return sum / static_cast<double>(a.size());
}

double entropy(const Matrix& a) {
  const auto n = static_cast<double>(a.size());
  double sum = 0;
  for (const std::vector<double>& row : a) {
    for (const double weight : row) {
      const double p = 0.9999 * weight + 0.0001 / n;
      sum -= p * std::log(p);
    }
  }
  return sum / n;
}

// From the whole matrices: the mean over texts of each text's own, weighted by its rows; without special tokens that of
// the part between them.
TEST(TextScorerTest, IsTheMeanOverTextsOfTheWholeMatrices) {
  std::mt19937 random(3);
  std::normal_distribution<double> normal(0, 2);
  for (const bool causal : {false, true}) {
    TextScorer scorer(heads(1));
    double sums[2][3] = {}, rows[2] = {};
    for (std::size_t i = 0; i < 3; ++i) {
      std::vector<BatchText> text{constructed_text(i, 4 + 3 * static_cast<std::int64_t>(i), causal)};
      const std::int64_t n = text[0].trace.key_length;
      std::vector<double> scores(static_cast<std::size_t>(n * n));
      for (double& score : scores) score = normal(random);
      add_layer(text[0].trace, 1, [&](std::int64_t, std::int64_t q, std::int64_t k) {
        return scores[static_cast<std::size_t>(q * n + k)];
      });
      scorer.add(text, {});
      const Matrix all = softmax(n, scores, causal);
      for (const int without : {0, 1}) {
        // A decoder's first token stands for the special ones.
        const Matrix a = without == 0 ? all : part(all, 1, all.size() - (causal ? 0 : 1));
        const auto weight = static_cast<double>(a.size());
        sums[without][0] += weight * previous(a);
        sums[without][1] += weight * distance(a);
        sums[without][2] += weight * entropy(a);
        rows[without] += weight;
      }
    }
    const std::vector<RoleScore> found = scorer.finish();
    ASSERT_EQ(found.size(), 2 * score_rules().size());
    EXPECT_EQ(found[2].name, "previous");
    EXPECT_EQ(found[3].name, "previous_without_special");
    for (const int without : {0, 1}) {
      const std::string suffix = without == 1 ? "_without_special" : "";
      // F32 weights: some roundings of 2^-24, times the largest distance.
      EXPECT_NEAR(*named(found, "previous" + suffix).values[0], sums[without][0] / rows[without], 1e-6);
      EXPECT_NEAR(*named(found, "distance" + suffix).values[0], sums[without][1] / rows[without], 1e-5);
      EXPECT_NEAR(*named(found, "entropy" + suffix).values[0], sums[without][2] / rows[without], 1e-5);
    }
    EXPECT_EQ(named(found, "punctuation").values[0], std::nullopt);
  }
}

TEST(TextScorerTest, NeitherBatchesNorThreadsChangeABit) {
  std::vector<BatchText> texts;
  std::mt19937 random(5);
  for (std::size_t i = 0; i < 5; ++i) {
    texts.push_back(constructed_text(i, 6));
    add_layer(texts[i].trace, 6,
              [&](std::int64_t, std::int64_t, std::int64_t) { return static_cast<double>(random() % 1000) / 200; });
  }
  TextScorer one(heads(6)), other(heads(6));
  one.add(texts, {.num_threads = 1});
  const std::span<const BatchText> all(texts);
  other.add(all.subspan(0, 2), {.num_threads = 3});
  other.add(all.subspan(2), {.num_threads = 3});
  const std::vector<RoleScore> a = one.finish(), b = other.finish();
  for (std::size_t s = 0; s < a.size(); ++s) EXPECT_EQ(a[s].values, b[s].values) << a[s].name;
}

TEST(TextScorerTest, ARoleIsPassedAboveItsThresholdOrWhereSaidAtIt) {
  RoleScore score{"s", "role", 0.5, true, false, "", "", {0.5, 0.6, std::nullopt}};
  EXPECT_FALSE(score.passes(0));
  EXPECT_TRUE(score.passes(1));
  EXPECT_FALSE(score.passes(2));
  score.at_threshold = true;
  EXPECT_TRUE(score.passes(0));
  score.role = nullptr;
  EXPECT_FALSE(score.passes(1));
}

TEST(WithoutSpecialTest, ARowThatGivesAllToSpecialTokensIsZeroes) {
  const BatchText text = constructed_text(0, 2);  // [CLS] w w [SEP]
  const WithoutSpecial without(text.trace);
  EXPECT_EQ(without.kinds().ids, (std::vector<std::int64_t>{5, 5}));
  std::vector<float> row;
  const float all[] = {0.5f, 0, 0, 0.5f}, some[] = {0.25f, 0.125f, 0.375f, 0.25f};
  EXPECT_FALSE(without.renormalise(0, all, row));
  EXPECT_FALSE(without.renormalise(3, some, row));
  ASSERT_TRUE(without.renormalise(1, all, row));
  EXPECT_EQ(row, (std::vector<float>{0, 0}));
  ASSERT_TRUE(without.renormalise(2, some, row));
  EXPECT_EQ(row, (std::vector<float>{0.25f, 0.75f}));
}

}  // namespace
}  // namespace manyheads::lens
