#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <manyheads/safetensors.hpp>
#include <nlohmann/json.hpp>
#include <string>

#include "program.hpp"

namespace manyheads::cli_test {
namespace {

class CliStudy : public Folder {
 protected:
  std::size_t trainings() const {
    std::error_code none;
    std::size_t count = 0;
    for (const auto& entry : std::filesystem::directory_iterator(path("s") + "/trainings", none)) {
      count += entry.path().extension() == ".json" ? 1U : 0U;
    }
    return count;
  }
};

TEST_F(CliStudy, WhatItDoesNotTakeIsRefused) {
  for (const auto& [arguments, message] : std::vector<std::pair<std::vector<std::string>, std::string>>{
           {{"--seed", "-1"}, "--seed"},
           {{"--seed", "x"}, "--seed"},
           {{"--threads", "0"}, "--threads"},
           {{"--steps", "3"}, "unknown option \"--steps\""},
           {{"--out", ""}, "--out"},
           {{"--data", path("a"), "--out", path("b")}, "--data FILE trains nothing"},
           {{"--data", path("a"), "--json"}, "--data FILE trains nothing"}}) {
    std::vector<std::string> all = {"study"};
    all.insert(all.end(), arguments.begin(), arguments.end());
    const Result result = run(all);
    EXPECT_EQ(result.code, 2);
    EXPECT_TRUE(is_one_line(result, message)) << result.err;
  }
  std::ofstream(path("file")) << "text";
  const Result result = run({"study", "--quick", "-o", path("file")});
  EXPECT_EQ(result.code, 1);
  EXPECT_TRUE(is_one_line(result, "cannot make the folder")) << result.err;
  EXPECT_EQ(run({"study", "--data", path("no/such/folder")}).code, 1);
}

TEST_F(CliStudy, CtrlCKeepsWhatIsDone) {
  std::size_t done = 0;
  for (double seconds = 1; done == 0 && seconds < 100; seconds *= 1.5) {
    const Result result = run({"study", "--quick", "-o", path("s"), "--threads", "1"}, {.interrupt_after = seconds});
    if (result.code == 0) GTEST_SKIP() << "it was done before it could be stopped";
    ASSERT_EQ(result.signal, SIGINT) << result.err;
    if (result.err.empty()) continue;  // before it began
    EXPECT_TRUE(is_one_line(result, "the same command goes on from")) << result.err;
    done = trainings();
  }
  EXPECT_GT(done, 0U);
  EXPECT_FALSE(std::filesystem::exists(path("s") + "/study.html"));
  for (const auto& entry : std::filesystem::directory_iterator(path("s") + "/trainings")) {
    std::ifstream file(entry.path());
    EXPECT_EQ(nlohmann::json::parse(file).at("format"), 1) << entry.path();
  }
}

TEST_F(CliStudy, WritesTheSentences) {
  ASSERT_EQ(run({"study", "--quick", "--data", path("data.safetensors")}).code, 0);
  const SafetensorsFile file = load_safetensors(path("data.safetensors"));
  const auto words = nlohmann::json::parse(file.metadata.at("vocabulary")).get<std::vector<std::string>>();
  const Tensor& text = file.tensors.at("words");
  ASSERT_EQ(text.shape().to_string(), "[9600,20]");
  const std::int32_t* const ids = text.as<std::int32_t>();
  const std::int32_t* const before = file.tensors.at("before").as<std::int32_t>();
  for (std::int64_t i = 0; i < text.elements(); ++i) {
    ASSERT_LT(ids[i], static_cast<int>(words.size()));
    if (before[i] >= 0) {
      EXPECT_EQ(before[i], i % 20 - 3);
    }
  }
  for (const char* name : {"verb", "adjective", "object"}) EXPECT_EQ(file.tensors.at(name).shape(), text.shape());
}

}  // namespace
}  // namespace manyheads::cli_test
