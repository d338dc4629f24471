#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "support.hpp"
#include "tiny_model.hpp"

namespace manyheads::cli_test {
namespace {

using nlohmann::json;

const std::vector<std::string> kTexts = {"the black cat sat .", "the dog sat", "the mat"};

class CliRoles : public TinyModel {
 protected:
  json read(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), "roles");
    arguments.emplace_back("--json");
    const Result result = program(arguments);
    EXPECT_EQ(result.code, 0) << result.err;
    return json::parse(result.out);
  }
};
class CliRolesOfADecoder : public TinyDecoder {};

TEST_F(CliRoles, OverTextsEveryScoreIsAMeanWeightedByTokens) {
  const json all = read({kTexts[0], kTexts[1], kTexts[2], "--ablation"});
  EXPECT_EQ(all.at("model"), "tiny");
  EXPECT_EQ(all.at("texts"), 3);
  EXPECT_EQ(all.at("tokens"), 7 + 5 + 4);
  EXPECT_EQ(all.at("left_out"), 0);
  EXPECT_EQ(all.at("repeated_tokens"), 19);  // of 40 places
  EXPECT_EQ(all.at("first_loss"), nullptr);
  ASSERT_EQ(all.at("heads").size(), 8u);
  EXPECT_EQ(all.at("heads")[6].at("layer"), 1);
  EXPECT_EQ(all.at("heads")[6].at("head"), 2);
  EXPECT_EQ(all.at("alike"), nullptr);
  std::vector<json> each;
  for (const std::string& text : kTexts) each.push_back(read({text, "--ablation"}));
  const double tokens[] = {7, 5, 4}, kept[] = {5, 3, 2};
  for (const char* name : {"previous", "entropy", "previous_without_special", "distance", "ablation_cosine"}) {
    double mean = 0;
    for (std::size_t i = 0; i < 3; ++i) {
      const double share = std::string(name).ends_with("special") ? kept[i] / 10 : tokens[i] / 16;
      mean += each[i].at("heads")[3].at("scores").at(name).get<double>() * share;
    }
    EXPECT_NEAR(all.at("heads")[3].at("scores").at(name).get<double>(), mean, 1e-7) << name;
  }
  // What look says of one text.
  const json scores = json::parse(program({"look", kTexts[0], "--json"}).out).at("heads")[5].at("scores");
  for (const char* name : {"self", "next", "sink", "punctuation", "induction_abs"}) {
    EXPECT_EQ(each[0].at("heads")[5].at("scores").at(name), scores.at(name)) << name;
  }
}

TEST_F(CliRoles, EachScoreHasItsRule) {
  const json found = read({kTexts[0], "--ablation"});
  std::vector<std::string> names;
  for (const json& rule : found.at("score_rules")) {
    names.push_back(rule.at("score"));
    EXPECT_FALSE(rule.at("formula").get<std::string>().empty());
    EXPECT_FALSE(rule.at("source").get<std::string>().empty());
    EXPECT_EQ(rule.at("role").is_null(), rule.at("threshold").is_null());
    for (const json& head : found.at("heads")) {
      ASSERT_TRUE(head.at("scores").contains(names.back())) << names.back();
      const json& value = head.at("scores").at(names.back());
      const json& roles = head.at("roles");
      const bool has = std::find(roles.begin(), roles.end(), names.back()) != roles.end();
      if (rule.at("threshold").is_null() || value.is_null()) {
        EXPECT_FALSE(has);
      } else {
        EXPECT_EQ(has, value.get<double>() > rule.at("threshold").get<double>()) << names.back();
      }
    }
  }
  EXPECT_EQ(found.at("heads")[0].at("scores").size(), names.size());
  for (const char* name : {"previous", "induction_mul", "prefix_matching", "repeated_induction_mul",
                           "repeated_duplicate_token", "ablation_cosine", "distance_variance_without_special"}) {
    EXPECT_NE(std::find(names.begin(), names.end(), name), names.end()) << name;
  }
  EXPECT_EQ(std::find(names.begin(), names.end(), "copying"), names.end());  // of an encoder
}

TEST_F(CliRoles, AFileIsATextALineAndThreadsChangeNothing) {
  std::ofstream(path("texts")) << kTexts[0] << "\n" << kTexts[1] << "\n\n" << kTexts[2] << "\n" << many_words(60);
  const json file = read({"--file", path("texts"), "--clusters", "3", "--ablation"});
  const json texts = read({kTexts[0], kTexts[1], kTexts[2], "--clusters", "3", "--ablation", "--threads", "3"});
  EXPECT_EQ(file.at("heads"), texts.at("heads"));
  EXPECT_EQ(file.at("alike"), texts.at("alike"));
  EXPECT_EQ(file.at("alike_without_special"), texts.at("alike_without_special"));
  EXPECT_NE(file.at("alike_without_special"), texts.at("alike"));
  EXPECT_EQ(file.at("left_out"), 2);  // a line without a token, and one of more than the model takes
  EXPECT_EQ(file.at("rollouts").size(), 0u);
  const Result in = program({"roles", "--file", "-", "--json"}, {.in = kTexts[0] + "\n"});
  ASSERT_EQ(in.code, 0) << in.err;
  EXPECT_EQ(json::parse(in.out).at("heads"), read({kTexts[0]}).at("heads"));
}

TEST_F(CliRoles, ClustersHoldEveryHeadOnce) {
  const json all = read({kTexts[0], kTexts[1], "--clusters", "3"});
  for (const char* name : {"alike", "alike_without_special"}) {
    const json& found = all.at(name);
    EXPECT_EQ(found.at("rows"), std::string(name) == "alike" ? 12 : 8);
    ASSERT_EQ(found.at("clusters").size(), 3u);
    std::vector<int> seen(8);
    for (const json& cluster : found.at("clusters")) {
      EXPECT_GE(cluster.at("mean_distance"), 0);
      for (const json& head : cluster.at("heads")) {
        ++seen[head.at("layer").get<std::size_t>() * 4 + head.at("head").get<std::size_t>()];
      }
    }
    EXPECT_EQ(seen, std::vector<int>(8, 1));
    ASSERT_EQ(found.at("distances").size(), 8u);
    for (std::size_t a = 0; a < 8; ++a) {
      EXPECT_EQ(found.at("distances")[a][a], 0);
      for (std::size_t b = 0; b < 8; ++b) EXPECT_EQ(found.at("distances")[a][b], found.at("distances")[b][a]);
    }
  }
}

TEST_F(CliRoles, RolloutSharesAddUpTo1) {
  const json found = read(kTexts);
  ASSERT_EQ(found.at("rollouts").size(), 3u);
  for (std::size_t i = 0; i < 3; ++i) {
    const json& rollout = found.at("rollouts")[i];
    EXPECT_EQ(rollout.at("text"), i);
    EXPECT_EQ(rollout.at("tokens")[0], "[CLS]");
    EXPECT_EQ(rollout.at("tokens").size(), rollout.at("shares").size());
    double sum = 0, kept = 0;
    for (const json& share : rollout.at("shares")) sum += share.get<double>();
    EXPECT_NEAR(sum, 1, 1e-6);
    const json& without = rollout.at("shares_without_special");
    ASSERT_EQ(without.size(), rollout.at("shares").size());
    EXPECT_EQ(without[0], nullptr);
    EXPECT_EQ(without.back(), nullptr);
    for (std::size_t t = 1; t + 1 < without.size(); ++t) {
      kept += without[t].get<double>();
      EXPECT_NEAR(without[t].get<double>() / without[1].get<double>(),
                  rollout.at("shares")[t].get<double>() / rollout.at("shares")[1].get<double>(), 1e-9);
    }
    EXPECT_NEAR(kept, 1, 1e-9);
  }
}

TEST_F(CliRoles, TheTableNamesScoresBestHeadsAndFormulas) {
  const Result table = program({"roles", kTexts[0], "--legend", "--clusters", "2", "--ablation"});
  ASSERT_EQ(table.code, 0) << table.err;
  for (const char* part :
       {"tiny, 2 layers of 4 heads, 1 text of 7 tokens\n", "\nOver the texts:\n", "\n  previous  ",
        "\n    without special tokens  ", "mean over q >= 1 of A[q,q-1] (Clark",
        "without special tokens, A renormalised", "\nSwitched off, how far the output moves:\n  ablation_cosine",
        "\nOn 19 random tokens that stand twice:\n", "\nClusters of heads", "rows without special tokens:", "within",
        "\nAttention rollout (Abnar & Zuidema 2020), what each token gets of the mean"}) {
    EXPECT_NE(table.out.find(part), std::string::npos) << part << "\n" << table.out;
  }
  // Without texts: what needs none.
  const Result bare = program({"roles", "--random-tokens", "5"});
  EXPECT_NE(bare.out.find("tiny, 2 layers of 4 heads\n"), std::string::npos) << bare.out;
  EXPECT_NE(bare.out.find("On 5 random tokens that stand twice"), std::string::npos) << bare.out;
  EXPECT_EQ(bare.out.find("Over the texts"), std::string::npos);
}

TEST_F(CliRoles, ASeedIsADraw) {
  const json one = read({"--seed", "1"});
  EXPECT_EQ(read({}), one);
  EXPECT_NE(read({"--seed", "2"}), one);
}

TEST_F(CliRolesOfADecoder, HasLossesAndWhatHeadsWrite) {
  const Result result = program({"roles", "the black cat sat", "--ablation", "--json"});
  ASSERT_EQ(result.code, 0) << result.err;
  const json found = json::parse(result.out);
  EXPECT_GT(found.at("first_loss"), 0);
  EXPECT_GT(found.at("second_loss"), 0);
  double moved = 0;
  for (const json& head : found.at("heads")) {
    const json& scores = head.at("scores");
    moved += std::abs(scores.at("ablation_loss").get<double>());
    EXPECT_LE(std::abs(scores.at("copying").get<double>()), 1);
    EXPECT_GE(scores.at("copying_share"), 0);
    EXPECT_LE(scores.at("copying_share"), 1);
    EXPECT_TRUE(scores.at("copying_logit").is_number());
  }
  EXPECT_GT(moved, 0);
  const Result table = program({"roles", "the black cat sat"});
  for (const char* part : {"  loss ", "What it writes on reading a token", "of the last token's output"}) {
    EXPECT_NE(table.out.find(part), std::string::npos) << table.out;
  }
}

TEST_F(CliRoles, BadRequestsAreOneLine) {
  std::ofstream(path("trees")) << "1\tcat\t_\tNOUN\t_\t_\t0\troot\t_\t_\n\n";
  std::ofstream(path("bytes")) << "the cat\n\xff\n";
  using Arguments = std::vector<std::string>;
  for (const Arguments& more : std::vector<Arguments>{{"the cat", "--treebank", path("trees")},
                                                      {"--treebank", path("trees"), "--ablation"},
                                                      {"--treebank", path("trees"), "--clusters", "2"},
                                                      {"--treebank", path("trees"), "--seed", "2"},
                                                      {"--treebank", path("trees"), "--legend"},
                                                      {"the cat", "--file", path("bytes")},
                                                      {"--relation", "amod"},
                                                      {"--ablation"},
                                                      {"--clusters", "2"},
                                                      {"the cat", "--clusters", "0"},
                                                      {"the cat", "--clusters", "two"},
                                                      {"--random-tokens", "1"},
                                                      {"--seed", "-1"}}) {
    Arguments arguments{"roles"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Result result = program(arguments);
    EXPECT_EQ(result.code, 2) << more[0] << " " << more.back() << result.err;
    EXPECT_TRUE(result.out.empty());
  }
  EXPECT_TRUE(is_one_line(program({"roles", "the cat", "--clusters", "9"}), "--clusters: 9 clusters of 8 heads"));
  EXPECT_TRUE(is_one_line(program({"roles", ""}), "TEXT"));
  EXPECT_TRUE(is_one_line(program({"roles", "\xff"}), "TEXT"));
  EXPECT_TRUE(is_one_line(program({"roles", "--file", path("none")}), "none"));
  EXPECT_TRUE(is_one_line(program({"roles", "--file", path("bytes")}), "line 2 of"));
  EXPECT_TRUE(is_one_line(run({"roles", "the cat", "--model", path("none")}), "there is no folder"));
  EXPECT_EQ(run({"roles", "the cat"}).code, 2);
}

// Texts that the model does not take leave nothing to say of them.
TEST_F(CliRoles, TextsThatAreAllTooLongAreCounted) {
  const json found = read({many_words(60), "--clusters", "2", "--ablation"});
  EXPECT_EQ(found.at("texts"), 0);
  EXPECT_EQ(found.at("left_out"), 1);
  EXPECT_EQ(found.at("alike"), nullptr);
  const Result table = program({"roles", many_words(60)});
  EXPECT_NE(table.out.find("1 left out: longer than the model takes"), std::string::npos) << table.out;
}

// The table of docs/roles.md is what the program prints.
TEST(CliRolesOfSmolLM2, IsThatOfTheDocs) {
  const auto folder = test::source_dir() / "models/SmolLM2-135M-Instruct";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << "the model is not here: scripts/fetch-model smollm2 fetches it";
  std::ifstream file(test::source_dir() / "docs/roles.md");
  const std::string docs((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const Result result = run({"roles", "--model", folder.string()});
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_NE(docs.find("\n```\n" + result.out.substr(result.out.find("\n\n") + 2) + "```\n"), std::string::npos)
      << "docs/roles.md does not say:\n"
      << result.out;
}

}  // namespace
}  // namespace manyheads::cli_test
