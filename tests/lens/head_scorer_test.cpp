#include "lens/head_scorer.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <manyheads/error.hpp>
#include <string>
#include <vector>

namespace manyheads::lens {
namespace {

// The scores of n rows of weights, one behind the other.
HeadScores score_head(const float* weights, const TokenKinds& tokens) {
  HeadScorer scorer(tokens);
  for (std::size_t q = 0; q < tokens.ids.size(); ++q) scorer.add(weights + q * tokens.ids.size());
  return scorer.finish();
}

// [CLS] a b a . [SEP], with each row's weights chosen so that every score has a value of its own.
class RolesTest : public testing::Test {
 protected:
  static constexpr std::int64_t kN = 6;
  std::vector<float> data_ = {
      0.5f,    0.125f, 0.125f, 0.125f,  0.0625f, 0.0625f,  //
      0.5f,    0.25f,  0,      0.125f,  0.0625f, 0.0625f,  //
      0,       0.75f,  0.125f, 0,       0,       0.125f,   //
      0.0625f, 0.5f,   0.25f,  0.0625f, 0.0625f, 0.0625f,  //
      0,       0,      0,      0.875f,  0,       0.125f,   //
      0.125f,  0.125f, 0.125f, 0.125f,  0.25f,   0.25f,
  };
  TokenKinds tokens_{
      {101, 7, 8, 7, 9, 102}, {false, false, false, false, false, true}, {false, false, false, false, true, false}};

  const float* weights() const { return data_.data(); }
  double at(std::int64_t q, std::int64_t k) const {
    return static_cast<double>(data_[static_cast<std::size_t>(q * kN + k)]);
  }
  static double value(const HeadScores& scores, ScoreId id) {
    const auto& score = scores.scores.at(static_cast<std::size_t>(id));
    EXPECT_TRUE(score.value.has_value()) << score_rules()[static_cast<std::size_t>(id)].name;
    return score.value.value_or(std::numeric_limits<double>::quiet_NaN());
  }
  static bool has_role(const HeadScores& scores, const std::string& role) {
    for (const ScoreRule* rule : scores.roles) {
      if (role == rule->role) return true;
    }
    return false;
  }
};

TEST_F(RolesTest, RulesStandInTheOrderOfTheirIds) {
  for (std::size_t i = 0; i < score_rules().size(); ++i) {
    EXPECT_EQ(static_cast<std::size_t>(score_rules()[i].id), i);
  }
  EXPECT_EQ(score_head(weights(), tokens_).scores.size(), score_rules().size());
}

TEST_F(RolesTest, FixedOffsetsTakeOnlyQueriesThatHaveThePlace) {
  const HeadScores scores = score_head(weights(), tokens_);
  EXPECT_DOUBLE_EQ(value(scores, ScoreId::kSelf), (0.5 + 0.25 + 0.125 + 0.0625 + 0 + 0.25) / 6);
  EXPECT_DOUBLE_EQ(value(scores, ScoreId::kPrevious), (0.5 + 0.75 + 0.25 + 0.875 + 0.25) / 5);
  EXPECT_DOUBLE_EQ(value(scores, ScoreId::kNext), (0.125 + 0 + 0 + 0.0625 + 0.125) / 5);
  EXPECT_TRUE(has_role(scores, "previous"));
  EXPECT_FALSE(has_role(scores, "self"));
  EXPECT_FALSE(has_role(scores, "next"));
}

TEST_F(RolesTest, MassOnKindsOfTokens) {
  const HeadScores scores = score_head(weights(), tokens_);
  EXPECT_DOUBLE_EQ(value(scores, ScoreId::kFirst), (0.5 + 0.5 + 0 + 0.0625 + 0 + 0.125) / 6);
  EXPECT_DOUBLE_EQ(value(scores, ScoreId::kSeparator), (0.0625 + 0.0625 + 0.125 + 0.0625 + 0.125 + 0.25) / 6);
  EXPECT_DOUBLE_EQ(value(scores, ScoreId::kPunctuation), (0.0625 + 0.0625 + 0 + 0.0625 + 0 + 0.25) / 6);
}

TEST_F(RolesTest, TwoSeparatorsCountTogether) {
  tokens_.separator[2] = true;
  const HeadScores scores = score_head(weights(), tokens_);
  double sum = 0;
  for (std::int64_t q = 0; q < kN; ++q) sum += at(q, 2) + at(q, 5);
  EXPECT_DOUBLE_EQ(value(scores, ScoreId::kSeparator), sum / 6);
}

TEST_F(RolesTest, EntropyIsOfTheSmoothedWeights) {
  double sum = 0;
  for (std::int64_t q = 0; q < kN; ++q) {
    for (std::int64_t k = 0; k < kN; ++k) {
      const double p = 0.9999 * at(q, k) + 0.0001 / 6;
      sum += -p * std::log(p);
    }
  }
  EXPECT_NEAR(value(score_head(weights(), tokens_), ScoreId::kEntropy), sum / 6, 1e-14);
}

TEST_F(RolesTest, EvenWeightsOverManyTokensAreBroad) {
  for (const std::int64_t n : {40, 50}) {  // log 40 = 3.69, log 50 = 3.91
    std::vector<float> even(static_cast<std::size_t>(n * n), 1.0f / static_cast<float>(n));
    TokenKinds kinds;
    for (std::int64_t t = 0; t < n; ++t) kinds.ids.push_back(t);
    kinds.separator.assign(static_cast<std::size_t>(n), false);
    kinds.punctuation.assign(static_cast<std::size_t>(n), false);
    const HeadScores scores = score_head(even.data(), kinds);
    EXPECT_NEAR(value(scores, ScoreId::kEntropy), std::log(static_cast<double>(n)), 1e-6);
    EXPECT_EQ(has_role(scores, "broad"), n == 50);
  }
}

TEST_F(RolesTest, DuplicateTokenCountsEarlierEqualTokens) {
  const HeadScores scores = score_head(weights(), tokens_);
  // The only earlier equal token: query 3 (a), key 1 (a), of weight 0.5. All rows add up to 1.
  EXPECT_DOUBLE_EQ(value(scores, ScoreId::kDuplicateTokenMul), 0.5 / 6);
  double distance = 0;
  for (std::int64_t q = 0; q < kN; ++q) {
    for (std::int64_t k = 0; k < kN; ++k) distance += std::abs(at(q, k) - (q == 3 && k == 1 ? 1.0 : 0.0));
  }
  EXPECT_DOUBLE_EQ(value(scores, ScoreId::kDuplicateTokenAbs), 1 - 6 * (distance / 36));

  tokens_.ids = {7, 7, 7, 7, 7, 7};
  double below = 0;
  for (std::int64_t q = 0; q < kN; ++q) {
    for (std::int64_t k = 0; k < q; ++k) below += at(q, k);
  }
  const HeadScores all_equal = score_head(weights(), tokens_);
  EXPECT_DOUBLE_EQ(value(all_equal, ScoreId::kDuplicateTokenMul), below / 6);
  EXPECT_TRUE(has_role(all_equal, "duplicate token"));
}

TEST_F(RolesTest, PreviousTokenIsThePatternOneBelowTheDiagonal) {
  const HeadScores scores = score_head(weights(), tokens_);
  EXPECT_DOUBLE_EQ(value(scores, ScoreId::kPreviousTokenMul), (0.5 + 0.75 + 0.25 + 0.875 + 0.25) / 6);
  double difference = 0;
  for (std::int64_t q = 0; q < kN; ++q) {
    for (std::int64_t k = 0; k < kN; ++k) difference += std::abs(at(q, k) - (k + 1 == q ? 1.0 : 0.0));
  }
  EXPECT_DOUBLE_EQ(value(scores, ScoreId::kPreviousTokenAbs), 1 - difference / 6);
}

// As TransformerLens makes the pattern: that of duplicate tokens, moved one key to the right, its first column 0, and
// nothing above the diagonal.
TEST_F(RolesTest, InductionIsThePatternOfDuplicateTokensMovedOneKeyOn) {
  for (const std::vector<std::int64_t>& ids :
       {std::vector<std::int64_t>{101, 7, 8, 7, 9, 102}, {5, 6, 5, 6, 5, 6}, {4, 4, 4, 4, 4, 4}}) {
    tokens_.ids = ids;
    double on = 0, difference = 0;
    for (std::int64_t q = 0; q < kN; ++q) {
      std::vector<bool> duplicates(kN), moved(kN);
      for (std::size_t k = 0; k < static_cast<std::size_t>(q); ++k) {
        duplicates[k] = ids[k] == ids[static_cast<std::size_t>(q)];
      }
      for (std::size_t k = 1; k <= static_cast<std::size_t>(q); ++k) moved[k] = duplicates[k - 1];
      for (std::int64_t k = 0; k < kN; ++k) {
        const bool p = moved[static_cast<std::size_t>(k)];
        if (p) on += at(q, k);
        difference += std::abs(at(q, k) - (p ? 1.0 : 0.0));
      }
    }
    const HeadScores scores = score_head(weights(), tokens_);
    EXPECT_DOUBLE_EQ(value(scores, ScoreId::kInductionMul), on / 6);
    EXPECT_DOUBLE_EQ(value(scores, ScoreId::kInductionAbs), 1 - difference / 6);
  }
}

TEST_F(RolesTest, DistanceIsAMeanOverRowsThatSeeAKey) {
  for (std::int64_t k = 0; k < kN; ++k) data_[static_cast<std::size_t>(4 * kN + k)] = 0;
  data_[1 * kN] = 0;  // a row that adds up to a half
  double mean = 0, variance = 0;
  for (const std::int64_t q : {0, 1, 2, 3, 5}) {
    double sum = 0, d = 0, v = 0;
    for (std::int64_t k = 0; k < kN; ++k) sum += at(q, k);
    for (std::int64_t k = 0; k < kN; ++k) d += at(q, k) / sum * static_cast<double>(std::abs(q - k));
    for (std::int64_t k = 0; k < kN; ++k) {
      v += at(q, k) / sum * std::pow(static_cast<double>(std::abs(q - k)) - d, 2);
    }
    mean += d / 5;
    variance += v / 5;
  }
  const HeadScores scores = score_head(weights(), tokens_);
  EXPECT_NEAR(value(scores, ScoreId::kDistance), mean, 1e-14);
  EXPECT_NEAR(value(scores, ScoreId::kDistanceVariance), variance, 1e-14);
}

TEST_F(RolesTest, ConfidenceLeavesSeparatorsOut) {
  // Rows 0 to 4, columns 0 to 4.
  EXPECT_DOUBLE_EQ(value(score_head(weights(), tokens_), ScoreId::kConfidence), (0.5 + 0.5 + 0.75 + 0.5 + 0.875) / 5);
  // The separator's column holds the largest weight of row 2 now, and is still left out.
  data_[2 * kN + 5] = 0.9f;
  EXPECT_DOUBLE_EQ(value(score_head(weights(), tokens_), ScoreId::kConfidence), (0.5 + 0.5 + 0.75 + 0.5 + 0.875) / 5);
}

TEST_F(RolesTest, PositionalIsTheShareOfTheMostFrequentOffset) {
  const HeadScores scores = score_head(weights(), tokens_);
  // Argmax by row: 0, 0, 1, 1, 3: offsets 0, -1, -1, -2, -1. Queries 1 to 4 have a previous token.
  const Score& positional = scores.scores[static_cast<std::size_t>(ScoreId::kPositional)];
  EXPECT_EQ(positional.place, -1);
  EXPECT_DOUBLE_EQ(*positional.value, 3.0 / 4);
  EXPECT_FALSE(has_role(scores, "positional"));

  data_[3 * kN + 2] = 0.9f;  // query 3 looks at the previous token as well
  const HeadScores all = score_head(weights(), tokens_);
  EXPECT_DOUBLE_EQ(*all.scores[static_cast<std::size_t>(ScoreId::kPositional)].value, 1.0);
  EXPECT_TRUE(has_role(all, "positional"));
}

TEST_F(RolesTest, SinkIsTheKeyWithTheLargestMeanFromItselfOn) {
  double best = -1;
  std::int64_t key = -1;
  for (std::int64_t k = 0; k < kN; ++k) {
    double sum = 0;
    for (std::int64_t q = k; q < kN; ++q) sum += at(q, k);
    const double mean = sum / static_cast<double>(kN - k);
    if (mean > best) {
      best = mean;
      key = k;
    }
  }
  const HeadScores scores = score_head(weights(), tokens_);
  const Score& sink = scores.scores[static_cast<std::size_t>(ScoreId::kSink)];
  EXPECT_DOUBLE_EQ(*sink.value, best);
  EXPECT_EQ(sink.place, key);
  EXPECT_EQ(has_role(scores, "sink"), best > 0.3);
}

TEST_F(RolesTest, FewTokensLeaveScoresWithoutAValue) {
  const float one = 1;
  const HeadScores scores = score_head(&one, {{101}, {false}, {false}});
  const auto none = [&](ScoreId id) { return !scores.scores[static_cast<std::size_t>(id)].value.has_value(); };
  EXPECT_TRUE(none(ScoreId::kPrevious));
  EXPECT_TRUE(none(ScoreId::kNext));
  EXPECT_TRUE(none(ScoreId::kSeparator));
  EXPECT_TRUE(none(ScoreId::kPunctuation));
  EXPECT_DOUBLE_EQ(value(scores, ScoreId::kSelf), 1);
  EXPECT_DOUBLE_EQ(value(scores, ScoreId::kDuplicateTokenMul), 0);

  const std::vector<float> two = {0.5f, 0.5f, 0.25f, 0.75f};
  const HeadScores separators = score_head(two.data(), {{101, 102}, {true, true}, {false, false}});
  EXPECT_FALSE(separators.scores[static_cast<std::size_t>(ScoreId::kConfidence)].value.has_value());
  EXPECT_FALSE(separators.scores[static_cast<std::size_t>(ScoreId::kPositional)].value.has_value());

  for (const Score& score : score_head(nullptr, {}).scores) EXPECT_FALSE(score.value.has_value());
}

TEST_F(RolesTest, NanWeightsGiveNoRole) {
  for (float& weight : data_) weight = std::numeric_limits<float>::quiet_NaN();
  const HeadScores scores = score_head(weights(), tokens_);
  EXPECT_TRUE(scores.roles.empty());
  EXPECT_TRUE(std::isnan(value(scores, ScoreId::kSelf)));
  EXPECT_TRUE(std::isnan(value(scores, ScoreId::kConfidence)));
}

TEST_F(RolesTest, TokensOfAnotherLengthAreAnError) {
  tokens_.ids.pop_back();
  EXPECT_THROW(score_head(weights(), tokens_), Error);
}

}  // namespace
}  // namespace manyheads::lens
