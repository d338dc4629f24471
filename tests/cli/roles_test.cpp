#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>

#include "support.hpp"
#include "tiny_model.hpp"

namespace manyheads::cli_test {
namespace {

using nlohmann::json;

// So many sentences "the black cat sat .", with their tree.
std::string treebank(int sentences) {
  std::string text;
  for (int i = 0; i < sentences; ++i) {
    text +=
        "1\tthe\t_\tDET\t_\t_\t3\tdet\t_\t_\n2\tblack\t_\tADJ\t_\t_\t3\tamod\t_\t_\n3\tcat\t_\tNOUN\t_\t_\t4\tnsubj\t_"
        "\t_\n"
        "4\tsat\t_\tVERB\t_\t_\t0\troot\t_\tSpaceAfter=No\n5\t.\t_\tPUNCT\t_\t_\t4\tpunct\t_\t_\n\n";
  }
  return text;
}

class CliRelations : public TinyModel {
 protected:
  std::string write(const std::string& text) const {
    std::ofstream(path("trees.conllu"), std::ios::binary) << text;
    return path("trees.conllu");
  }
};
class CliRelationsOfADecoder : public TinyDecoder {
 protected:
  std::string write(const std::string& text) const {
    std::ofstream(path("trees.conllu"), std::ios::binary) << text;
    return path("trees.conllu");
  }
};

TEST_F(CliRelations, TellsForEachRelationAndDirectionTheHeadsBesideTheOffset) {
  const std::string file = write(treebank(50));
  const Result result = program({"roles", "--treebank", file, "--json"});
  ASSERT_EQ(result.code, 0) << result.err;
  const json found = json::parse(result.out);
  EXPECT_EQ(found.at("model"), "tiny");
  EXPECT_EQ(found.at("sentences"), 50);
  EXPECT_EQ(found.at("too_long"), 0);
  EXPECT_EQ(found.at("causal"), false);
  ASSERT_EQ(found.at("relations").size(), 6u);
  const json& amod = found.at("relations")[0];
  EXPECT_EQ(amod.at("relation"), "amod");
  EXPECT_EQ(amod.at("direction"), "to_head");
  EXPECT_EQ(amod.at("chosen_on"), 25);
  EXPECT_EQ(amod.at("scored_on"), 25);
  EXPECT_EQ(amod.at("offset"), 1);
  EXPECT_EQ(amod.at("offset_accuracy"), 1);
  ASSERT_EQ(amod.at("heads").size(), 3u);
  for (const json& relation : found.at("relations")) {
    for (const json& head : relation.at("heads")) {
      EXPECT_EQ(head.at("reads"), false);  // the offset finds all
      EXPECT_GE(head.at("accuracy"), head.at("interval")[0]);
      EXPECT_LE(head.at("accuracy"), head.at("interval")[1]);
    }
  }
  // Threads change nothing, and the table says the same.
  EXPECT_EQ(program({"roles", "--treebank", file, "--json", "--threads", "3"}).out, result.out);
  const Result table = program({"roles", "--treebank", file, "--relation", "amod"});
  EXPECT_NE(table.out.find("amod, word → its head: 50 words\n  +1       100 %\n"), std::string::npos) << table.out;
  EXPECT_NE(table.out.find("no head reads it"), std::string::npos);
  EXPECT_EQ(table.out.find("nsubj"), std::string::npos);
  const Result few = program({"roles", "--treebank", write(treebank(3))});
  EXPECT_NE(few.out.find("too few to say anything"), std::string::npos) << few.out;
}

TEST_F(CliRelations, ASentenceThatIsTooLongIsLeftOutAndCounted) {
  std::string words;
  for (int i = 1; i <= 60; ++i) {
    words += std::to_string(i) + "\tcat\t_\tNOUN\t_\t_\t" + (i == 1 ? "0\troot" : "1\tamod") + "\t_\t_\n";
  }
  const Result result = program({"roles", "--treebank", write(treebank(2) + words + "\n" + treebank(1)), "--json"});
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(json::parse(result.out).at("sentences"), 3);
  EXPECT_EQ(json::parse(result.out).at("too_long"), 1);
}

TEST_F(CliRelations, BadRequestsAreOneLine) {
  const std::string file = write(treebank(2));
  EXPECT_TRUE(is_one_line(program({"roles", "--treebank", path("none.conllu")}), "none.conllu"));
  EXPECT_TRUE(is_one_line(program({"roles", "--treebank", file, "--relation", "obj"}),
                          "has no \"obj\"; it has amod, det, nsubj"));
  EXPECT_TRUE(is_one_line(program({"roles", "--treebank", file, "--relation", "amod+"}), "has no \"\""));
  EXPECT_TRUE(is_one_line(run({"roles", "--model", path("none"), "--treebank", file}), "there is no folder"));
  EXPECT_EQ(run({"roles", "--treebank", file}).code, 2);
  const Result spoilt = program({"roles", "--treebank", write(treebank(1) + "1\tcat\n")});
  EXPECT_EQ(spoilt.code, 1);
  EXPECT_TRUE(is_one_line(spoilt, "line 7: 2 columns, expected 10"));
}

TEST_F(CliRelationsOfADecoder, SaysWhichDirectionIsInvisible) {
  const std::string file = write(treebank(50));
  const Result result = program({"roles", "--treebank", file, "--relation", "amod", "--json"});
  ASSERT_EQ(result.code, 0) << result.err;
  const json found = json::parse(result.out);
  EXPECT_EQ(found.at("causal"), true);
  EXPECT_EQ(found.at("relations")[0].at("unseen"), 50);
  EXPECT_EQ(found.at("relations")[0].at("scored_on"), 0);
  EXPECT_EQ(found.at("relations")[0].at("offset"), nullptr);
  EXPECT_EQ(found.at("relations")[1].at("scored_on"), 25);
  const Result table = program({"roles", "--treebank", file, "--relation", "amod"});
  EXPECT_NE(table.out.find("invisible to this model for 50 more"), std::string::npos) << table.out;
}

// The tables of docs/roles.md are what the program prints.
TEST(CliRelationsOfRealModels, AreThoseOfTheDocs) {
  std::ifstream file(test::source_dir() / "docs/roles.md");
  const std::string docs((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  int models = 0;
  for (const char* name : {"all-MiniLM-L6-v2", "bert-base-uncased", "SmolLM2-135M-Instruct"}) {
    const auto folder = test::source_dir() / "models" / name;
    if (!std::filesystem::exists(folder)) continue;
    const Result result = run({"roles", "--model", folder.string(), "--treebank",
                               (test::source_dir() / "examples/relations.conllu").string(), "--relation", "amod",
                               "--relation", "nsubj", "--relation", "obj+obl"});
    ASSERT_EQ(result.code, 0) << result.err;
    EXPECT_NE(docs.find("\n```\n" + result.out.substr(result.out.find("\n\n") + 2) + "```\n"), std::string::npos)
        << "docs/roles.md does not say:\n"
        << result.out;
    ++models;
  }
  if (models == 0) GTEST_SKIP() << "no model is here: scripts/fetch-model fetches them";
}

// So are the figures of the three links in README.md and docs/multi-head-attention.md.
TEST(CliRelationsOfRealModels, GiveTheFiguresOfTheLinks) {
  const auto folder = test::source_dir() / "models/all-MiniLM-L6-v2";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << "no model is here: scripts/fetch-model fetches it";
  const Result result = run({"roles", "--model", folder.string(), "--treebank",
                             (test::source_dir() / "examples/relations.conllu").string(), "--relation", "amod",
                             "--relation", "nsubj", "--relation", "obj+obl", "--json"});
  ASSERT_EQ(result.code, 0) << result.err;
  const json found = json::parse(result.out).at("relations");
  const auto percent = [](const json& share) { return std::to_string(std::lround(100 * share.get<double>())) + " %"; };
  const auto figures = [&](const json& reading) {
    std::string text;
    for (std::size_t i = 0; i < 2; ++i) {
      const json& head = reading.at("heads")[i];
      EXPECT_EQ(head.at("reads"), true);
      text += (i == 0 ? "" : " and ") + head.at("layer").dump() + "." + head.at("head").dump() + " in " +
              percent(head.at("accuracy"));
    }
    return text + " (a fixed distance: " + percent(reading.at("offset_accuracy")) + ")\n";
  };
  EXPECT_EQ(found[1].at("heads")[0].at("reads"), false);  // the other direction of the first two
  EXPECT_EQ(found[3].at("heads")[0].at("reads"), false);
  for (const char* name : {"README.md", "docs/multi-head-attention.md"}) {
    std::ifstream file(test::source_dir() / name);
    const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    const std::string by = std::string(name) == "README.md" ? " by " : ": ";
    EXPECT_NE(text.find("- black → cat" + by + figures(found[0])), std::string::npos) << name << figures(found[0]);
    EXPECT_NE(text.find("- cat → sat" + by + figures(found[2])), std::string::npos) << name << figures(found[2]);
    EXPECT_NE(text.find("- sat → mat" + by + figures(found[5])), std::string::npos) << name << figures(found[5]);
  }
}

}  // namespace
}  // namespace manyheads::cli_test
