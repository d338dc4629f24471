#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <limits>
#include <manyheads/error.hpp>
#include <manyheads/lens/read_heads.hpp>
#include <string>

#include "attention/child.hpp"
#include "lens/head_scorer.hpp"
#include "lens/link_reader.hpp"

namespace manyheads::lens {
namespace {

// Two layers of two heads over [CLS] a a [SEP]; q and k make head h of layer l look at token (2 l + h).
Trace looking_trace() {
  Trace trace;
  trace.text = "a, a";
  trace.tokens = {"[CLS]", "a", ",", "[SEP]"};
  trace.token_ids = {101, 5, 6, 102};
  trace.offsets = {{0, 0}, {0, 1}, {1, 2}, {0, 0}};
  trace.words = {-1, 0, 1, -1};
  trace.sequences = {-1, 0, 0, -1};
  trace.scale = 1;
  trace.key_length = 4;
  for (std::int64_t l = 0; l < 2; ++l) {
    Tensor q(DType::kF32, {2, 4, 1});
    Tensor k(DType::kF32, {2, 4, 1});
    Tensor lse(DType::kF32, {2, 4});
    for (std::int64_t h = 0; h < 2; ++h) {
      for (std::int64_t t = 0; t < 4; ++t) {
        q.as<float>()[h * 4 + t] = 1;
        k.as<float>()[h * 4 + t] = t == 2 * l + h ? 3.0f : 0.0f;
        lse.as<float>()[h * 4 + t] = std::log(std::exp(3.0f) + 3.0f);
      }
    }
    trace.layers.push_back({q.cview(), k.cview(), lse.cview(), {}, {}, {}, {q, k, lse}});
  }
  return trace;
}

TEST(ReadHeadsTest, EveryHeadInOrderWithItsLinks) {
  const Trace trace = looking_trace();
  const std::vector<Word> words = words_of(trace);
  ASSERT_EQ(words.size(), 2u);
  const double peak = std::exp(3.0) / (std::exp(3.0) + 3);
  const double rest = 1 / (std::exp(3.0) + 3);
  for (const int threads : {1, 3}) {
    const std::vector<HeadReading> heads = read_heads(trace, words, {{0, 1}}, 3, {.num_threads = threads});
    ASSERT_EQ(heads.size(), 4u);
    for (std::size_t i = 0; i < 4; ++i) {
      EXPECT_EQ(heads[i].layer, i / 2);
      EXPECT_EQ(heads[i].head, static_cast<std::int64_t>(i % 2));
      ASSERT_EQ(heads[i].asked.size(), 1u);
      EXPECT_NEAR(heads[i].asked[0].weight, i == 2 ? peak : rest, 1e-6);  // key "," is token 2
      EXPECT_EQ(heads[i].asked[0].offset_mean, std::nullopt);             // no other word has a next one
      EXPECT_EQ(heads[i].strongest.size(), 2u);
      const auto first = static_cast<std::size_t>(ScoreId::kFirst);
      EXPECT_NEAR(*heads[i].scores.scores[first].value, i == 0 ? peak : rest, 1e-6);
    }
    EXPECT_STREQ(heads[0].scores.roles.at(0)->role, "first");
    EXPECT_STREQ(heads[2].scores.roles.at(0)->role, "punctuation");
    EXPECT_STREQ(heads[3].scores.roles.at(0)->role, "separator");

    const std::vector<LinkReading> ranked = rank_heads(heads, {{0, 1}});
    ASSERT_EQ(ranked.size(), 1u);
    ASSERT_EQ(ranked[0].best.size(), 4u);
    EXPECT_EQ(ranked[0].best[0].layer, 1u);
    EXPECT_EQ(ranked[0].best[0].head, 0);
    EXPECT_NEAR(ranked[0].mean, (peak + 3 * rest) / 4, 1e-6);
  }
}

// Above the head's own mean at the offset first; then those without such a mean, by weight; then what is not a number.
TEST(ReadHeadsTest, HeadsRankByWhatIsAboveTheOffset) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const WeighedLink asked[] = {{{0, 1}, nan, 0.1}, {{0, 1}, 0.9, 0.8},          {{0, 1}, 0.3, 0.1},
                               {{0, 1}, 0.5, nan}, {{0, 1}, 0.6, std::nullopt}, {{0, 1}, 0.7, std::nullopt}};
  std::vector<HeadReading> heads(6);
  for (std::size_t i = 0; i < 6; ++i) {
    heads[i].head = static_cast<std::int64_t>(i);
    heads[i].asked = {asked[i]};
  }
  const LinkReading reading = rank_heads(heads, {{0, 1}}).at(0);
  const std::int64_t order[] = {2, 1, 3, 5, 4, 0};
  for (std::size_t i = 0; i < 6; ++i) EXPECT_EQ(reading.best[i].head, order[i]) << i;
  EXPECT_TRUE(std::isnan(reading.mean));
}

TEST(TokenKindsTest, SeparatorsAndPunctuation) {
  Trace trace = looking_trace();
  TokenKinds kinds = token_kinds(trace);
  EXPECT_EQ(kinds.separator, (std::vector<bool>{false, false, false, true}));
  EXPECT_EQ(kinds.punctuation, (std::vector<bool>{false, false, true, false}));
  EXPECT_EQ(kinds.ids, trace.token_ids);
  trace.tokens[1] = "[SEP]";  // written by hand into the text
  EXPECT_TRUE(token_kinds(trace).separator[1]);
}

// A head of size 1 over n tokens that gives all of them the same.
Trace even_trace(std::int64_t n, bool own_words) {
  Trace trace;
  trace.key_length = n;
  for (std::int64_t t = 0; t < n; ++t) trace.tokens.push_back(std::to_string(t));
  if (!own_words) trace.words.assign(static_cast<std::size_t>(n), 0);
  Tensor q(DType::kF32, {1, n, 1}), k(DType::kF32, {1, n, 1}), lse(DType::kF32, {1, n});
  for (std::int64_t t = 0; t < n; ++t) lse.as<float>()[t] = std::log(static_cast<float>(n));
  trace.layers.push_back({q.cview(), k.cview(), lse.cview(), {}, {}, {}, {q, k, lse}});
  return trace;
}

// Several blocks of rows: the scores are those of all rows.
TEST(ReadHeadsTest, BlocksOfRowsAreReadAsOne) {
  constexpr std::int64_t kTokens = 700;
  Trace trace = even_trace(kTokens, true);
  auto* q = trace.layers[0].storage[0].as<float>();
  auto* k = trace.layers[0].storage[1].as<float>();
  auto* lse = trace.layers[0].storage[2].as<float>();
  for (std::int64_t t = 0; t < kTokens; ++t) {
    q[t] = static_cast<float>(t % 7) / 4;
    k[t] = static_cast<float>(t % 5) / 2;
  }
  for (std::int64_t i = 0; i < kTokens; ++i) {
    double sum = 0;
    for (std::int64_t j = 0; j < kTokens; ++j) sum += std::exp(static_cast<double>(q[i] * k[j]));
    lse[i] = static_cast<float>(std::log(sum));
  }
  const TokenKinds kinds = token_kinds(trace);
  const std::vector<Word> words = words_of(trace);
  HeadScorer scorer(kinds);
  LinkReader reader(words, {{699, 3}}, 3);
  Tensor whole(DType::kF32, {kTokens, kTokens});
  trace_weights(trace, 0, 0, whole.view(), {.num_threads = 1});
  for (std::int64_t i = 0; i < kTokens; ++i) {
    scorer.add(whole.as<float>() + i * kTokens);
    reader.add(whole.as<float>() + i * kTokens);
  }
  const HeadReading heads = read_heads(trace, words, {{699, 3}}, 3, {.num_threads = 1}).at(0);
  const HeadScores expected = scorer.finish();
  for (std::size_t i = 0; i < expected.scores.size(); ++i) {
    EXPECT_EQ(heads.scores.scores[i].value, expected.scores[i].value) << score_rules()[i].name;
    EXPECT_EQ(heads.scores.scores[i].place, expected.scores[i].place) << score_rules()[i].name;
  }
  EXPECT_EQ(heads.asked[0].weight, reader.asked()[0].weight);
  EXPECT_EQ(heads.asked[0].offset_mean, reader.asked()[0].offset_mean);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(heads.strongest[i].weight, reader.strongest()[i].weight);
}

TEST(ReadHeadsLimits, ALongTraceTakesNoSquareOfMemory) {
  if (test::kSanitized) GTEST_SKIP() << "a sanitizer's memory would count too";
  for (const bool own_words : {false, true}) {
    EXPECT_EQ(test::in_a_child([&] {
                constexpr std::int64_t kTokens = 5000;  // 100 MB as a matrix of F32
                const Trace trace = even_trace(kTokens, own_words);
                const std::vector<Word> words = words_of(trace);
                const std::size_t before = test::own_status("VmHWM");
                read_heads(trace, words, {}, 3, {.num_threads = 1});
                return test::own_status("VmHWM") - before < 24 << 10 ? 0 : 1;
              }),
              0);
  }
}

TEST(ReadHeadsLimits, NoNumberOfThreadsMeansAllOfThem) {
  if (test::kSanitized) GTEST_SKIP() << "the thread sanitizer ends children that start threads";
  EXPECT_EQ(test::in_a_child([] {
              ::setenv("MANYHEADS_NUM_THREADS", "3", 1);
              const Trace trace = looking_trace();  // 4 heads
              read_heads(trace, words_of(trace), {}, 3);
              return static_cast<int>(test::own_status("Threads"));
            }),
            3);
}

TEST(ReadHeadsTest, AnotherNumberOfKeysIsAnError) {
  Trace trace = looking_trace();
  for (TraceLayer& layer : trace.layers) {
    layer.q = ConstTensorView(static_cast<const float*>(layer.q.data()), Dims{2, 3, 1}, Dims{4, 1, 1});
    layer.lse = ConstTensorView(static_cast<const float*>(layer.lse.data()), Dims{2, 3}, Dims{4, 1});
  }
  EXPECT_THROW(read_heads(trace, words_of(trace), {}, 3), Error);
}

}  // namespace
}  // namespace manyheads::lens
