#include "lens/tour.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <manyheads/error.hpp>
#include <map>
#include <set>
#include <string>

#include "lens/relations.hpp"
#include "support.hpp"

namespace manyheads::lens {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

fs::path minilm() { return test::source_dir() / "models/all-MiniLM-L6-v2"; }

class TourTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!fs::exists(minilm())) GTEST_SKIP() << "models/all-MiniLM-L6-v2 is not here: scripts/fetch-model fetches it";
  }
};

TEST(TourSentencesTest, SixtyWithThreeLinksEachAndNoDistanceFindsHalf) {
  const std::vector<TreebankSentence> sentences = tour_treebank();
  ASSERT_EQ(sentences.size(), 60u);
  EXPECT_EQ(sentences[0].text, "The black cat sat on the mat.");
  std::set<std::string> texts;
  std::map<std::string, std::map<std::int64_t, int>> distances;
  for (const TreebankSentence& sentence : sentences) {
    texts.insert(sentence.text);
    for (std::size_t w = 0; w < sentence.words.size(); ++w) {
      const TreebankWord& word = sentence.words[w];
      if (word.relation.ends_with(":link")) ++distances[word.relation][word.head - static_cast<std::int64_t>(w)];
    }
  }
  EXPECT_EQ(texts.size(), 60u);
  ASSERT_EQ(distances.size(), 3u);
  for (const auto& [relation, counts] : distances) {
    int all = 0;
    for (const auto& [distance, count] : counts) {
      all += count;
      EXPECT_LT(count, 30) << relation << " " << distance;
    }
    EXPECT_EQ(all, 60) << relation;
  }
}

// The heads that are right text by text add up to what the relation says of each head.
TEST_F(TourTest, TextsAndRelationsAgree) {
  const model::TextModel model(minilm());
  double last = 0;
  const Json found = tour_relations(model, "MiniLM", {}, [&](double share) {
    EXPECT_GT(share, last);
    last = share;
    return true;
  });
  EXPECT_EQ(last, 1);
  ASSERT_EQ(found["texts"].size(), 60u);
  ASSERT_EQ(found["relations"].size(), 6u);
  EXPECT_EQ(found["texts"][0]["links"].dump(),
            R"([{"word":"black","head":"cat","offset":1},{"word":"cat","head":"sat","offset":1},)"
            R"({"word":"mat","head":"sat","offset":-3}])");
  for (std::size_t r = 0; r < 6; ++r) {
    const Json& relation = found["relations"][r];
    EXPECT_EQ(relation["scored_on"], 30);
    ASSERT_EQ(relation["heads"].size(), 72u);
    for (const Json& head : relation["heads"]) {
      std::int64_t right = 0;
      for (std::size_t i = 1; i < 60; i += 2) {
        const Json& hits = found["texts"][i]["hits"][r];
        right += std::count(hits.begin(), hits.end(), Json{head["layer"], head["head"]});
      }
      EXPECT_NEAR(head["accuracy"].get<double>(), static_cast<double>(right) / 30, 1e-12);
      EXPECT_EQ(head["interval"][0].get<double>(), wilson(right, 30)[0]);
    }
  }
  EXPECT_EQ(tour_relations(model, "MiniLM", {}, [](double) { return false; }).dump(), R"({"cancelled":true})");
}

TEST_F(TourTest, HeadsSwitchedOff) {
  const model::TextModel model(minilm());
  const model::PoolingConfig pooling = model::load_pooling(minilm());
  const Json found = tour_ablations(model, "MiniLM", pooling, "The black cat sat on the mat.", {});
  ASSERT_EQ(found["alone"].size(), 6u);
  ASSERT_EQ(found["in_order"].size(), 72u);
  EXPECT_GT(found["similarity"].get<double>(), 0.5);
  std::vector<double> alone;
  std::set<std::pair<int, int>> heads;
  for (const Json& head : found["in_order"]) {
    heads.emplace(head["layer"], head["head"]);
    alone.push_back(found["alone"][head["layer"].get<std::size_t>()][head["head"].get<std::size_t>()]["self"]);
  }
  EXPECT_EQ(heads.size(), 72u);
  EXPECT_TRUE(std::is_sorted(alone.rbegin(), alone.rend()));
  EXPECT_GT(alone.front(), alone.back());
  // The first off together is the first off alone; with all off little is left.
  EXPECT_EQ(found["in_order"][0]["self"].get<double>(), alone.front());
  EXPECT_LT(found["in_order"][71]["self"].get<double>(), alone.back());

  std::string words;
  for (int i = 0; i < 600; ++i) words += "cat ";
  EXPECT_THROW(tour_ablations(model, "MiniLM", pooling, words, {}), Error);
}

}  // namespace
}  // namespace manyheads::lens
