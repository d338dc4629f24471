#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "program.hpp"

namespace manyheads::cli_test {
namespace {

using nlohmann::json;

json dims(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), {"dims", "--json"});
  const Result result = run(arguments);
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(result.err, "");
  return json::parse(result.out);
}

TEST(CliDims, CountsTheWorkOfEachStep) {
  const json all = dims({"--no-time", "--d-model", "512", "--heads", "8", "--tokens", "7", "--batch", "2"});
  EXPECT_EQ(all.at("limits"), nullptr);
  ASSERT_EQ(all.at("heads").size(), 1u);
  const json& cut = all.at("heads")[0];
  EXPECT_EQ(cut.at("d_k"), 64);
  EXPECT_EQ(cut.at("parameters"), 4 * 512 * 512 + 4 * 512);
  EXPECT_EQ(cut.at("shapes").at("W_q_head"), json({512, 64}));
  EXPECT_EQ(cut.at("shapes").at("W_o"), json({512, 512}));
  EXPECT_EQ(cut.at("seconds"), nullptr);
  const json& steps = cut.at("steps");
  ASSERT_EQ(steps.size(), 5u);
  EXPECT_EQ(steps[0].at("step"), "projections");
  EXPECT_EQ(steps[0].at("flop"), 2.0 * 14 * 512 * 1536);
  EXPECT_EQ(steps[0].at("bytes"), 4.0 * (14 * 512 + 3 * 512 * 512 + 3 * 14 * 512));
  EXPECT_EQ(steps[1].at("step"), "scores");
  EXPECT_EQ(steps[1].at("flop"), 2.0 * 2 * 8 * 7 * 7 * 64);
  EXPECT_EQ(steps[1].at("bytes"), 4.0 * (2 * 14 * 512 + 2 * 8 * 7 * 7));
  EXPECT_EQ(steps[3].at("flop"), steps[1].at("flop"));
  EXPECT_EQ(steps[4].at("flop"), 2.0 * 14 * 512 * 512);
  for (const json& step : steps) EXPECT_EQ(step.at("limit"), nullptr);
}

TEST(CliDims, HalfTypesMoveHalfTheBytes) {
  const json f32 = dims({"--no-time", "--heads", "8"}), bf16 = dims({"--no-time", "--heads", "8", "--dtype", "bf16"});
  EXPECT_EQ(f32.at("heads")[0].at("steps")[0].at("bytes").get<double>(),
            2 * bf16.at("heads")[0].at("steps")[0].at("bytes").get<double>());
}

TEST(CliDims, SaysWhichHeadCountsDoNotDivide) {
  const json all = dims({"--no-time", "--heads", "7,8"});
  const json& seven = all.at("heads")[0];
  EXPECT_EQ(seven.at("divides"), false);
  EXPECT_EQ(seven.at("floor_d_k"), 73);
  EXPECT_EQ(seven.at("dropped"), 1);
  EXPECT_NE(seven.at("problem").get<std::string>().find("512"), std::string::npos);
  EXPECT_EQ(all.at("heads")[1].at("divides"), true);
  const Result text = run({"dims", "--no-time", "--heads", "7,8"});
  EXPECT_EQ(text.code, 0);
  EXPECT_NE(text.out.find("512 // 7 = 73"), std::string::npos) << text.out;
  EXPECT_NE(text.out.find("keeps 511 numbers and silently drops 1"), std::string::npos) << text.out;
}

TEST(CliDims, NoHeadCountThatDividesIsAnError) {
  for (const std::vector<std::string>& more : {std::vector<std::string>{}, {"--json"}, {"--no-time"}}) {
    std::vector<std::string> arguments = {"dims", "--heads", "7,9"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Result result = run(arguments);
    EXPECT_EQ(result.code, 1);
    EXPECT_EQ(result.out, "");
    EXPECT_TRUE(is_one_line(result, "512 is not divisible by 7 heads (512 = 7 * 73 + 1); 1, 2, 4"));
    EXPECT_TRUE(is_one_line(result, "not divisible by 9 heads (512 = 9 * 56 + 8)"));
  }
}

int count(const std::string& text, const std::string& part) {
  int found = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

TEST(CliDims, WhatNoHeadCountChangesIsSaidOnce) {
  const std::string many = run({"dims", "--no-time", "--heads", "1,2,4,8"}).out;
  EXPECT_EQ(count(many, "1,050,624"), 1) << many;
  EXPECT_EQ(count(many, "\n       output "), 1) << many;
  EXPECT_EQ(count(many, " projections "), 1) << many;
  EXPECT_EQ(count(many, " softmax "), 4) << many;
  const std::string one = run({"dims", "--no-time", "--heads", "8"}).out;
  EXPECT_EQ(count(one, " projections "), 1) << one;
  EXPECT_EQ(count(one, "\n  any "), 0) << one;
  for (const std::string& text :
       {many, one, run({"dims", "--heads", "3,7,32", "--d-model", "96", "--tokens", "4"}).out}) {
    for (std::size_t begin = 0; begin < text.size();) {
      const std::size_t end = text.find('\n', begin);
      EXPECT_LE(end - begin, 80u) << text.substr(begin, end - begin);
      begin = end + 1;
    }
  }
}

TEST(CliDims, SpeaksOfTheTextbookOnlyWithItsNumbers) {
  const auto speaks = [](const std::string& d_model, const std::string& heads) {
    return run({"dims", "--no-time", "--d-model", d_model, "--heads", heads}).out.find("textbook") != std::string::npos;
  };
  EXPECT_TRUE(speaks("512", "8"));
  EXPECT_TRUE(speaks("512", "7,8"));
  EXPECT_FALSE(speaks("512", "4"));
  EXPECT_FALSE(speaks("768", "8"));
}

TEST(CliDims, FirstLineAnswersFirst) {
  const Result text = run({"dims", "--no-time", "--heads", "1,8"});
  EXPECT_EQ(text.out.substr(0, text.out.find('\n')), "512 numbers a token, cut into 1 head of 512, 8 heads of 64.");
}

TEST(CliDims, MeasuresBesideTheSingleHead) {
  const json all = dims({"--d-model", "64", "--heads", "4,8", "--tokens", "16", "--threads", "1"});
  EXPECT_GT(all.at("limits").at("fma_gflops").get<double>(), 0);
  EXPECT_GT(all.at("limits").at("memory_gbs").get<double>(), 0);
  for (const json& cut : all.at("heads")) {
    EXPECT_GT(cut.at("seconds").get<double>(), 0);
    EXPECT_GT(cut.at("over_single_head").get<double>(), 0);
    for (const json& step : cut.at("steps")) {
      EXPECT_TRUE(step.at("limit") == "fma" || step.at("limit") == "memory") << step;
    }
  }
}

TEST(CliDims, TooLargeToMeasureIsSaid) {
  const Result result = run({"dims", "--d-model", "16777216", "--tokens", "16777216"});
  EXPECT_EQ(result.code, 1);
  EXPECT_TRUE(is_one_line(result, "--no-time"));
}

}  // namespace
}  // namespace manyheads::cli_test
