#include "lens/passage_reader.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <manyheads/cpu.hpp>
#include <manyheads/error.hpp>

#include "lens/constructed_text.hpp"
#include "lens/head_scorer.hpp"
#include "lens/random_text.hpp"

namespace manyheads::lens {
namespace {

PassageReading read(const Trace& trace, std::size_t layer, std::int64_t head) {
  PassageReader::Memory memory;
  PassageReading reading;
  PassageReader(trace).read(layer, head, memory, reading);
  return reading;
}

// All that a reading tells, from the float64 matrix.
void expect_like_the_matrix(const Trace& trace, std::size_t layer, std::int64_t head, const std::string& what) {
  const auto n = static_cast<std::size_t>(trace.key_length);
  const PassageReading reading = read(trace, layer, head);
  const TokenKinds kinds = token_kinds(trace);
  HeadScorer scorer(kinds);
  std::vector<double> distance(2 * n - 1), given(n), received(n);
  for (std::size_t q = 0; q < n; ++q) {
    const std::vector<double> scores = row_scores(trace, layer, head, static_cast<std::int64_t>(q));
    const double lse = row_lse(trace, layer, head, scores);
    std::vector<float> row;
    for (std::size_t k = 0; k < n; ++k) {
      const double weight = std::exp(scores[k] - lse);
      row.push_back(static_cast<float>(weight));
      distance[q + n - 1 - k] += weight;
      if (q == k || trace.words[q] < 0 || trace.words[k] < 0) continue;
      given[q] += weight;
      received[k] += weight;
    }
    scorer.add(row.data());
  }
  const std::vector<Score> expected = scorer.finish().scores;
  ASSERT_EQ(reading.scores.size(), expected.size());
  for (const ScoreRule& rule : score_rules()) {
    const auto s = static_cast<std::size_t>(&rule - score_rules().data());
    const std::string of = what + " " + rule.name;
    ASSERT_EQ(reading.scores[s].value.has_value(), expected[s].value.has_value()) << of;
    if (!expected[s].value) continue;
    EXPECT_NEAR(*reading.scores[s].value, *expected[s].value, 4e-6 * std::max(1.0, std::fabs(*expected[s].value))) << of;
    EXPECT_EQ(reading.scores[s].place, expected[s].place) << of;
  }
  for (std::size_t i = 0; i < n; ++i) {
    EXPECT_NEAR(reading.given[i], given[i], 2e-6) << what << " " << i;
    EXPECT_NEAR(reading.received[i], received[i], 2e-6 * static_cast<double>(n)) << what << " " << i;
  }
  for (std::size_t i = 0; i < distance.size(); ++i) {
    EXPECT_NEAR(reading.distance_mass[i], distance[i], 2e-6 * static_cast<double>(n)) << what << " " << i;
  }
}

TEST(PassageReader, TellsWhatTheFloat64MatrixTells) {
  const std::string before = active_isa();
  for (const std::string& isa : available_isas()) {
    set_isa(isa);
    for (const std::int64_t tokens : {1, 2, 3, 17, 63, 64, 65, 150}) {
      for (const bool causal : {false, true}) {
        for (const double scale : {0.3, 4.0}) {
          const BatchText text = random_text({.tokens = tokens, .causal = causal, .scale = scale});
          for (const std::int64_t head : {0, 3}) {
            expect_like_the_matrix(text.trace, 1, head,
                                   isa + " " + std::to_string(tokens) + (causal ? " causal" : "") + " head " +
                                       std::to_string(head));
          }
        }
      }
    }
  }
  set_isa(before);
}

// An lse in F32 near 2000 is off by 1e-4; the row's own sum makes up for it.
TEST(PassageReader, DividesEachRowByItsOwnSum) {
  BatchText text = random_text({.tokens = 40});
  for (std::int64_t i = 0; i < 160; ++i) text.trace.layers[0].storage[2].as<float>()[i] += 3.0f;
  const PassageReading reading = read(text.trace, 0, 1);
  for (std::int64_t i = 0; i < 160; ++i) text.trace.layers[0].storage[2].as<float>()[i] -= 3.0f;
  const PassageReading expected = read(text.trace, 0, 1);
  for (std::size_t s = 0; s < expected.scores.size(); ++s) {
    ASSERT_EQ(reading.scores[s].value.has_value(), expected.scores[s].value.has_value());
    if (expected.scores[s].value) {
      EXPECT_NEAR(*reading.scores[s].value, *expected.scores[s].value, 2e-5) << score_rules()[s].name;
    }
  }
}

TEST(PassageReader, NamesTheRowWhoseLseIsForeign) {
  for (const float foreign : {-200.0f, INFINITY, NAN}) {
    BatchText text = random_text({.tokens = 12});
    text.trace.layers[1].storage[2].as<float>()[2 * 12 + 7] = foreign;
    try {
      read(text.trace, 1, 2);
      FAIL() << foreign;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("layer 1, head 2, row 7"), std::string::npos) << error.what();
    }
  }
}

TEST(PassageReader, RefusesATraceOfOtherKeys) {
  EXPECT_THROW(PassageReader(random_trace({.queries = 4, .keys = 5})), Error);
}

}  // namespace
}  // namespace manyheads::lens
