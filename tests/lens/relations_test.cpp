#include "lens/relations.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <manyheads/error.hpp>
#include <random>
#include <string>
#include <vector>

#include "lens/constructed_text.hpp"
#include "support.hpp"

namespace manyheads::lens {
namespace {

using test::add_layer;
using test::constructed_text;

constexpr double kSharp = 12;  // a score so far above the others takes all the weight

// A tree of one relation "x" from its word to its head, and of a root; a word a letter.
TreebankSentence tree_of(std::int64_t words, std::size_t word, std::size_t head) {
  TreebankSentence tree;
  for (std::int64_t w = 0; w < words; ++w) {
    tree.text += w == 0 ? "w" : " w";
    tree.words.push_back({{2 * w, 2 * w + 1}, static_cast<std::int64_t>(head), "dep"});
  }
  tree.words[head].head = -1;
  tree.words[head].relation = "root";
  tree.words[word].relation = "x";
  return tree;
}

struct Sample {
  std::vector<TreebankSentence> trees;
  std::vector<BatchText> texts;
};

// `count` sentences whose partners stand 1 to 8 words apart, on either side.
Sample sample(std::uint32_t seed, std::size_t count, bool causal = false) {
  std::mt19937 random(seed);
  Sample sample;
  for (std::size_t i = 0; i < count; ++i) {
    const auto words = static_cast<std::int64_t>(9 + random() % 6);
    const std::size_t word = random() % static_cast<std::size_t>(words);
    std::size_t head = word;
    while (head == word || std::max(head, word) - std::min(head, word) > 8) {
      head = random() % static_cast<std::size_t>(words);
    }
    sample.trees.push_back(tree_of(words, word, head));
    sample.texts.push_back(constructed_text(i, words, causal));
  }
  return sample;
}

std::size_t word_of(const TreebankSentence& tree) {
  for (std::size_t w = 0; w < tree.words.size(); ++w) {
    if (tree.words[w].relation == "x") return w;
  }
  return 0;
}

TEST(WilsonTest, KnownIntervals) {
  const auto expect = [](std::int64_t right, std::int64_t n, double low, double high) {
    EXPECT_NEAR(wilson(right, n)[0], low, 1e-12) << right << " of " << n;
    EXPECT_NEAR(wilson(right, n)[1], high, 1e-12) << right << " of " << n;
  };
  expect(42, 60, 0.574912920531, 0.801018338612);
  expect(0, 10, 0, 0.277532799863);
  expect(10, 10, 0.722467200137, 1);
  expect(1, 2, 0.094531205734, 0.905468794266);
  EXPECT_EQ(wilson(0, 0), (std::array<double, 2>{0, 1}));
}

// The bare formula gives -1e-17 for 0 of 21 and 1 + 2e-16 for 11 of 11.
TEST(WilsonTest, LiesAroundTheShareAndWithinZeroAndOne) {
  for (std::int64_t n = 1; n <= 300; ++n) {
    EXPECT_EQ(wilson(0, n)[0], 0) << n;
    EXPECT_EQ(wilson(n, n)[1], 1) << n;
    for (std::int64_t right = 0; right <= n; ++right) {
      const auto [low, high] = wilson(right, n);
      const double share = static_cast<double>(right) / static_cast<double>(n);
      EXPECT_GE(low, 0) << right << " of " << n;
      EXPECT_LE(low, share) << right << " of " << n;
      EXPECT_GE(high, share) << right << " of " << n;
      EXPECT_LE(high, 1) << right << " of " << n;
      // The other answer's interval, mirrored.
      EXPECT_NEAR(low, 1 - wilson(n - right, n)[1], 1e-15) << right << " of " << n;
    }
  }
}

TEST(AlignTest, TokensBelongToTheWordTheyStandIn) {
  TreebankSentence tree;
  tree.text = "do n't del sit";
  // "do" and "n't" share the token "on"; the fourth and fifth words are one form.
  tree.words = {{{0, 1}, -1, "root"}, {{2, 3}, 0, "x"},  {{4, 6}, 0, "x"},
                {{7, 10}, 0, "x"},    {{7, 10}, 0, "x"}, {{11, 14}, 0, "x"}};
  model::Encoding encoding;
  const auto add = [&](std::int64_t begin, std::int64_t end, std::int32_t sequence) {
    encoding.ids.push_back(1);
    encoding.offsets.push_back({begin, end});
    encoding.sequences.push_back(sequence);
  };
  add(0, 1, -1);  // no part of the text, whatever its place
  add(0, 1, 0);
  add(1, 5, 0);    // " n" and the first half of the third word
  add(5, 6, 0);    // its second half
  add(6, 10, 0);   // with the blank before it
  add(10, 11, 0);  // a blank alone
  add(11, 12, 0);
  add(12, 14, 0);
  add(13, 13, 0);  // nothing
  add(14, 14, 0);
  const AlignedSentence aligned = align(tree, encoding);
  ASSERT_EQ(aligned.words.size(), 4u);
  EXPECT_EQ(aligned.words[0].first_token, 1);
  EXPECT_EQ(aligned.words[1].first_token, 2);
  EXPECT_EQ(aligned.words[1].num_tokens, 2);
  EXPECT_EQ(aligned.words[3].first_token, 6);
  EXPECT_EQ(aligned.words[3].num_tokens, 2);
  const std::optional<std::size_t> none;
  EXPECT_EQ(aligned.word_of, (std::vector<std::optional<std::size_t>>{0, none, none, none, none, 3}));
}

TEST(AlignTest, WordsMayTouchAndATokenMayBeginInOneAndEndInTheNext) {
  TreebankSentence tree;
  tree.text = "it's to go";
  tree.words = {{{0, 2}, -1, "root"}, {{2, 4}, 0, "x"}, {{5, 7}, 0, "x"}, {{8, 10}, 0, "x"}};
  model::Encoding encoding;
  for (const auto& [begin, end] : {std::array<std::int64_t, 2>{0, 2}, {2, 4}, {5, 6}, {6, 9}, {9, 10}}) {
    encoding.ids.push_back(1);
    encoding.offsets.push_back({begin, end});
    encoding.sequences.push_back(0);
  }
  const AlignedSentence aligned = align(tree, encoding);
  ASSERT_EQ(aligned.words.size(), 3u);
  EXPECT_EQ(aligned.words[2].num_tokens, 3);
  const std::optional<std::size_t> none;
  EXPECT_EQ(aligned.word_of, (std::vector<std::optional<std::size_t>>{0, 1, none, none}));
}

TEST(RelationsTest, ThoseOfATreebankStandByFrequencyWithoutSubtypesRootAndPunctuation) {
  TreebankSentence tree;
  for (const char* name : {"obl:tmod", "root", "punct", "obj", "punct", "obl", "amod", "punct", "obl:agent", "obj"}) {
    tree.words.push_back({{}, 1, name});
  }
  EXPECT_EQ(relations_of({tree, tree}), (std::vector<std::string>{"obl", "obj", "amod"}));
}

TEST(RelationsTest, AHeadThatKnowsTheTreeReadsTheRelation) {
  Sample s = sample(1, 80);
  for (std::size_t i = 0; i < 80; ++i) {
    const std::size_t word = word_of(s.trees[i]);
    const auto head = static_cast<std::size_t>(s.trees[i].words[word].head);
    for (int layer = 0; layer < 2; ++layer) {
      add_layer(s.texts[i].trace, 2, [&](std::int64_t h, std::int64_t q, std::int64_t k) {
        if (layer == 0) return 0.0;  // no opinion
        const std::size_t from = h == 0 ? word : head, to = h == 0 ? head : word;
        return q == static_cast<std::int64_t>(from) + 1 && k == static_cast<std::int64_t>(to) + 1 ? kSharp : 0.0;
      });
    }
  }
  RelationScorer scorer({"x"}, 2, 2, false);
  scorer.add(s.trees, s.texts, {});
  const std::vector<RelationReading> found = scorer.finish(3);
  ASSERT_EQ(found.size(), 2u);
  for (std::size_t direction = 0; direction < 2; ++direction) {
    const RelationReading& reading = found[direction];
    EXPECT_EQ(reading.to_head, direction == 0);
    EXPECT_EQ(reading.chosen_on, 40);
    EXPECT_EQ(reading.scored_on, 40);
    ASSERT_EQ(reading.best.size(), 3u);
    EXPECT_EQ(reading.best[0].layer, 1u);
    EXPECT_EQ(reading.best[0].head, static_cast<std::int64_t>(direction));
    EXPECT_EQ(reading.best[0].accuracy, 1);
    EXPECT_GT(reading.best[0].mean_weight, 0.99);
    EXPECT_TRUE(reading.best[0].reads);
    EXPECT_FALSE(reading.best[1].reads);
    EXPECT_LT(reading.offset_accuracy, 0.5);
    EXPECT_GT(reading.offset_accuracy, 0);
  }
}

// A share above the offset's is not enough: the interval must lie above it, in each half, with 20 words in each.
TEST(RelationsTest, AHeadThatIsHardlyBetterThanTheOffsetDoesNotRead) {
  // The head knows so many of `of` sentences in each half; the offset +1 finds half of these.
  const auto reads = [](std::size_t of, std::array<std::size_t, 2> known) {
    std::vector<TreebankSentence> trees;
    std::vector<BatchText> texts;
    for (std::size_t i = 0; i < 2 * of; ++i) {
      const std::size_t n = i / 2;
      const std::size_t word = 2, head = n % 2 == 0 ? 3 : 4 + n % 7;
      trees.push_back(tree_of(12, word, head));
      texts.push_back(constructed_text(i, 12));
      add_layer(texts[i].trace, 1, [&](std::int64_t, std::int64_t q, std::int64_t k) {
        const std::size_t to = n < known[i % 2] ? head : 11;
        return q == 3 && k == static_cast<std::int64_t>(to) + 1 ? kSharp : 0.0;
      });
    }
    RelationScorer scorer({"x"}, 1, 1, false);
    scorer.add(trees, texts, {});
    const RelationReading reading = scorer.finish(1)[0];
    EXPECT_EQ(reading.offset, 1);
    EXPECT_EQ(reading.offset_accuracy, 0.5);
    EXPECT_EQ(reading.best[0].accuracy, static_cast<double>(known[1]) / static_cast<double>(of));
    return reading.best[0].reads;
  };
  EXPECT_TRUE(reads(40, {40, 40}));
  EXPECT_FALSE(reads(40, {40, 24}));  // 45 to 74 %
  EXPECT_FALSE(reads(40, {24, 40}));
  EXPECT_TRUE(reads(20, {20, 20}));
  EXPECT_FALSE(reads(18, {18, 18}));
}

TEST(RelationsTest, TheBestHeadsAreThoseOfTheHalfThatDoesNotScore) {
  Sample s = sample(2, 40);
  for (std::size_t i = 0; i < 40; ++i) {
    const std::size_t word = word_of(s.trees[i]);
    add_layer(s.texts[i].trace, 2, [&](std::int64_t h, std::int64_t q, std::int64_t k) {
      const bool knows = i % 2 == static_cast<std::size_t>(h);
      const std::int64_t to = knows ? s.trees[i].words[word].head : static_cast<std::int64_t>(word);
      return q == static_cast<std::int64_t>(word) + 1 && k == to + 1 ? kSharp : 0.0;
    });
  }
  RelationScorer scorer({"x"}, 1, 2, false);
  scorer.add(s.trees, s.texts, {});
  const RelationReading reading = scorer.finish(1)[0];
  ASSERT_EQ(reading.best.size(), 1u);
  EXPECT_EQ(reading.best[0].head, 0);
  EXPECT_EQ(reading.best[0].chosen_by, 1);
  EXPECT_LT(reading.best[0].accuracy, 0.5);
}

TEST(RelationsTest, OfEqualOffsetsTheNearestStandsAndThenTheLeft) {
  const auto offset = [](std::int64_t first, std::int64_t second) {
    std::vector<TreebankSentence> trees;
    std::vector<BatchText> texts;
    for (std::size_t i = 0; i < 8; ++i) {
      trees.push_back(tree_of(12, 5, static_cast<std::size_t>(5 + (i / 2 % 2 == 0 ? first : second))));
      texts.push_back(constructed_text(i, 12));
      add_layer(texts[i].trace, 1, [](std::int64_t, std::int64_t, std::int64_t) { return 0.0; });
    }
    RelationScorer scorer({"x"}, 1, 1, false);
    scorer.add(trees, texts, {});
    const RelationReading reading = scorer.finish(1)[0];
    EXPECT_EQ(reading.offset_accuracy, 0.5);
    return reading.offset;
  };
  EXPECT_EQ(offset(-4, 2), 2);
  EXPECT_EQ(offset(3, -1), -1);
  EXPECT_EQ(offset(2, -2), -2);
}

// Whatever the sentences, and also where one distance finds nearly every partner.
TEST(RelationsTest, AHeadThatLooksAtAFixedOffsetNeverReads) {
  constexpr std::int64_t kHeads = 16;  // an offset each
  const auto offset_of = [](std::int64_t h) { return h < 8 ? h - 8 : h - 7; };
  int readings = 0;
  for (std::uint32_t seed = 0; seed < 100; ++seed) {
    const bool causal = seed % 3 == 0;
    Sample s = sample(seed, 60, causal);
    std::mt19937 random(seed);
    for (std::size_t i = 0; i < s.texts.size(); ++i) {
      if (seed % 2 == 1 && i % 10 != 0) s.trees[i] = tree_of(static_cast<std::int64_t>(s.trees[i].words.size()), 3, 6);
      add_layer(s.texts[i].trace, kHeads, [&](std::int64_t h, std::int64_t q, std::int64_t k) {
        return k == q + offset_of(h) ? kSharp : static_cast<double>(random() % 100) / 100;
      });
    }
    RelationScorer scorer({"x"}, 1, kHeads, causal);
    scorer.add(s.trees, s.texts, {});
    for (const RelationReading& reading : scorer.finish(kHeads)) {
      for (const HeadOnRelation& head : reading.best) {
        EXPECT_FALSE(head.reads) << "seed " << seed << ", offset " << offset_of(head.head);
        ++readings;
      }
    }
  }
  EXPECT_EQ(readings, 100 * 2 * kHeads);
}

// Sums over pieces, means over pieces and the heaviest word, from the whole matrices in double.
TEST(RelationsTest, WordByWordAsFromTheWholeMatrix) {
  constexpr std::int64_t kWords = 7, kHeads = 5;
  std::mt19937 random(7);
  std::normal_distribution<double> normal(0, 2);
  for (const bool causal : {false, true}) {
    std::vector<TreebankSentence> trees;
    std::vector<BatchText> texts;
    std::vector<std::array<std::array<double, 2>, 2>> right(kHeads), weight(kHeads);
    std::array<std::array<std::int64_t, 2>, 2> asked{};
    for (std::size_t i = 0; i < 30; ++i) {
      const std::size_t word = random() % kWords, head = (word + 1 + random() % (kWords - 1)) % kWords;
      trees.push_back(tree_of(kWords, word, head));
      BatchText text = constructed_text(i, kWords, causal);
      // The third word in three pieces, the last in two.
      const auto split = [&](std::size_t w, int pieces) {
        for (std::size_t t = 0; t < text.encoding.size(); ++t) {
          if (text.encoding.words[t] != static_cast<std::int64_t>(w)) continue;
          for (int p = 1; p < pieces; ++p) {
            text.encoding.ids.insert(text.encoding.ids.begin() + static_cast<std::ptrdiff_t>(t), 6);
            text.encoding.offsets.insert(text.encoding.offsets.begin() + static_cast<std::ptrdiff_t>(t),
                                         text.encoding.offsets[t]);
            text.encoding.sequences.insert(text.encoding.sequences.begin() + static_cast<std::ptrdiff_t>(t), 0);
            text.encoding.words.insert(text.encoding.words.begin() + static_cast<std::ptrdiff_t>(t),
                                       static_cast<std::int64_t>(w));
          }
          return;
        }
      };
      split(2, 3);
      split(kWords - 1, 2);
      const auto n = static_cast<std::int64_t>(text.encoding.size());
      text.trace.key_length = n;
      std::vector<double> scores(static_cast<std::size_t>(kHeads * n * n));
      for (double& score : scores) score = normal(random);
      const auto score = [&](std::int64_t h, std::int64_t q, std::int64_t k) {
        return static_cast<double>(static_cast<float>(scores[static_cast<std::size_t>((h * n + q) * n + k)]));
      };
      add_layer(text.trace, kHeads, score);
      const std::vector<std::int64_t>& of = text.encoding.words;
      for (int direction = 0; direction < 2; ++direction) {
        const auto query = static_cast<std::int64_t>(direction == 0 ? word : head);
        const auto partner = static_cast<std::int64_t>(direction == 0 ? head : word);
        if (causal && (partner > query || partner == 0)) continue;
        ++asked[static_cast<std::size_t>(direction)][i % 2];
        for (std::int64_t h = 0; h < kHeads; ++h) {
          std::vector<double> mass(kWords);
          double pieces = 0;
          for (std::int64_t q = 0; q < n; ++q) {
            if (of[static_cast<std::size_t>(q)] != query) continue;
            ++pieces;
            double sum = 0;
            for (std::int64_t k = 0; k < (causal ? q + 1 : n); ++k) sum += std::exp(score(h, q, k));
            for (std::int64_t k = 0; k < (causal ? q + 1 : n); ++k) {
              if (of[static_cast<std::size_t>(k)] >= 0) {
                mass[static_cast<std::size_t>(of[static_cast<std::size_t>(k)])] += std::exp(score(h, q, k)) / sum;
              }
            }
          }
          const double given = mass[static_cast<std::size_t>(partner)] / pieces;
          mass[static_cast<std::size_t>(query)] = -1;
          if (causal) mass[0] = -1;
          const auto heaviest = std::max_element(mass.begin(), mass.end()) - mass.begin();
          const auto d = static_cast<std::size_t>(direction);
          weight[static_cast<std::size_t>(h)][d][i % 2] += given;
          if (heaviest == partner) ++right[static_cast<std::size_t>(h)][d][i % 2];
        }
      }
      texts.push_back(std::move(text));
    }
    for (const int threads : {1, 3}) {
      RelationScorer scorer({"x"}, 1, kHeads, causal);
      const std::span<const BatchText> all(texts);
      scorer.add(trees, all.subspan(0, 11), {.num_threads = threads});
      scorer.add(trees, all.subspan(11), {.num_threads = threads});
      const std::vector<RelationReading> found = scorer.finish(kHeads);
      for (std::size_t d = 0; d < 2; ++d) {
        EXPECT_EQ(found[d].chosen_on, asked[d][0]);
        EXPECT_EQ(found[d].scored_on, asked[d][1]);
        EXPECT_EQ(found[d].unseen + found[d].left_out, 30 - asked[d][0] - asked[d][1]);
        ASSERT_EQ(found[d].best.size(), static_cast<std::size_t>(kHeads));
        for (const HeadOnRelation& head : found[d].best) {
          const auto h = static_cast<std::size_t>(head.head);
          const auto n = static_cast<double>(asked[d][1]);
          EXPECT_DOUBLE_EQ(head.chosen_by, right[h][d][0] / static_cast<double>(asked[d][0]));
          EXPECT_DOUBLE_EQ(head.accuracy, right[h][d][1] / n);
          EXPECT_NEAR(head.mean_weight, weight[h][d][1] / n, 1e-6);
        }
      }
    }
  }
}

TEST(RelationsTest, WhereWordsSeeOnlyEarlierOnesTheOtherDirectionIsCounted) {
  // Word 2 hangs on word 5; word 1 of the second tree on word 0, which is the first token.
  const std::vector<TreebankSentence> trees = {tree_of(6, 2, 5), tree_of(6, 1, 0)};
  std::vector<BatchText> texts;
  for (std::size_t i = 0; i < 2; ++i) {
    texts.push_back(constructed_text(i, 6, true));
    add_layer(texts.back().trace, 1, [](std::int64_t, std::int64_t, std::int64_t) { return 0.0; });
  }
  RelationScorer scorer({"x"}, 1, 1, true);
  scorer.add(trees, texts, {});
  const std::vector<RelationReading> found = scorer.finish(1);
  EXPECT_EQ(found[0].unseen, 1);
  EXPECT_EQ(found[0].left_out, 1);
  EXPECT_EQ(found[0].chosen_on + found[0].scored_on, 0);
  EXPECT_FALSE(found[0].enough());
  EXPECT_EQ(found[1].unseen, 1);
  EXPECT_EQ(found[1].chosen_on, 1);
  EXPECT_EQ(found[1].offset, std::nullopt);  // the scored half is empty
}

TEST(RelationsTest, AHeadOfSeveralWordsIsAskedOnceAndANameStandsForItsSubtypes) {
  std::vector<TreebankSentence> trees;
  std::vector<BatchText> texts;
  for (std::size_t i = 0; i < 2; ++i) {
    trees.push_back(tree_of(5, 0, 4));
    trees[i].words[0].relation = "obj";
    trees[i].words[1].relation = "obl:tmod";
    trees[i].words[2].relation = "object";
    texts.push_back(constructed_text(i, 5));
    add_layer(texts[i].trace, 1,
              [](std::int64_t, std::int64_t, std::int64_t k) { return k == 2 ? kSharp : 0.0; });  // word 1
  }
  RelationScorer scorer({"obj+obl", "obj"}, 1, 1, false);
  scorer.add(trees, texts, {});
  const std::vector<RelationReading> found = scorer.finish(1);
  ASSERT_EQ(found.size(), 4u);
  EXPECT_EQ(found[0].scored_on, 2);  // each of the two words
  EXPECT_EQ(found[1].scored_on, 1);  // the head once
  EXPECT_EQ(found[1].best[0].accuracy, 1);
  EXPECT_EQ(found[2].scored_on, 1);
  EXPECT_EQ(found[3].best[0].accuracy, 0);
  EXPECT_EQ(relations_of(trees), (std::vector<std::string>{"dep", "obj", "object", "obl"}));
}

TEST(RelationsTest, WhatIsNotAskedCountsAsNothing) {
  // Word 1 hangs on word 3 and shares its token with word 2.
  std::vector<TreebankSentence> trees = {tree_of(5, 1, 3), tree_of(5, 1, 3)};
  std::vector<BatchText> texts;
  for (std::size_t i = 0; i < 2; ++i) {
    texts.push_back(constructed_text(i, 5));
    texts[i].encoding.offsets[2][1] = 5;
    add_layer(texts[i].trace, 1, [](std::int64_t, std::int64_t, std::int64_t) { return 0.0; });
  }
  RelationScorer scorer({"x", "root", "nowhere"}, 1, 1, false);
  scorer.add(trees, texts, {});
  EXPECT_TRUE(scorer.hits().empty());
  const std::vector<RelationReading> found = scorer.finish(100);
  ASSERT_EQ(found.size(), 6u);
  for (std::size_t q = 0; q < 6; ++q) EXPECT_EQ(found[q].left_out, q < 2 ? 2 : 0) << q;
  for (const RelationReading& reading : found) {
    EXPECT_EQ(reading.chosen_on + reading.scored_on, 0) << reading.relation;
    EXPECT_EQ(reading.offset_accuracy, 0);
    ASSERT_EQ(reading.best.size(), 1u);
    EXPECT_EQ(reading.best[0].accuracy, 0);
    EXPECT_EQ(reading.best[0].mean_weight, 0);
    EXPECT_FALSE(reading.best[0].reads);
  }
}

TEST(RelationsTest, OfEqualWordsTheFirstIsTheHeaviest) {
  for (const std::size_t partner : {0u, 1u, 4u}) {
    const std::vector<TreebankSentence> trees = {tree_of(5, 2, partner), tree_of(5, 2, partner)};
    std::vector<BatchText> texts;
    for (std::size_t i = 0; i < 2; ++i) {
      texts.push_back(constructed_text(i, 5));
      add_layer(texts[i].trace, 1, [](std::int64_t, std::int64_t, std::int64_t) { return 0.0; });
    }
    RelationScorer scorer({"x"}, 1, 1, false);
    scorer.add(trees, texts, {});
    EXPECT_EQ(scorer.finish(1)[0].best[0].accuracy, partner == 0 ? 1 : 0);
  }
}

// In an encoder, and behind a token that is no word, the first word is a partner like others.
TEST(RelationsTest, OnlyTheFirstTokenOfADecoderIsNoPartner) {
  for (const bool causal : {false, true}) {
    for (const bool first : {false, true}) {
      const std::vector<TreebankSentence> trees = {tree_of(4, 2, 0), tree_of(4, 2, 0)};
      std::vector<BatchText> texts;
      for (std::size_t i = 0; i < 2; ++i) {
        texts.push_back(constructed_text(i, 4, first));
        texts[i].trace.causal = causal;
        add_layer(texts[i].trace, 1, [](std::int64_t, std::int64_t, std::int64_t) { return 0.0; });
      }
      RelationScorer scorer({"x"}, 1, 1, causal);
      scorer.add(trees, texts, {});
      EXPECT_EQ(scorer.finish(1)[0].left_out, causal && first ? 2 : 0);
    }
  }
}

TEST(RelationsTest, AHeadIsUnseenOnlyWhereAllOfItsWordsStandLater) {
  // Words 0 and 4 hang on word 2: the first token is no partner, the other stands later.
  std::vector<TreebankSentence> trees = {tree_of(5, 4, 2)};
  trees[0].words[0].relation = "x";
  std::vector<BatchText> texts = {constructed_text(0, 5, true)};
  add_layer(texts[0].trace, 1, [](std::int64_t, std::int64_t, std::int64_t) { return 0.0; });
  RelationScorer scorer({"x"}, 1, 1, true);
  scorer.add(trees, texts, {});
  EXPECT_EQ(scorer.finish(1)[1].unseen, 0);
  EXPECT_EQ(scorer.finish(1)[1].left_out, 1);
}

TEST(RelationsTest, ANameThatIsNoneIsRefused) {
  for (const char* name : {"", "+", "obj+", "+obj", "a++b"}) {
    EXPECT_NE(test::error_of([&] { RelationScorer({name}, 1, 1, false); }).find("is no relation"), std::string::npos)
        << name;
  }
}

}  // namespace
}  // namespace manyheads::lens
