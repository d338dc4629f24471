#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <manyheads/safetensors.hpp>
#include <nlohmann/json.hpp>
#include <string>

#include "tiny_model.hpp"

namespace manyheads::cli_test {
namespace {

using nlohmann::json;

class CliTrace : public TinyModel {};

TEST_F(CliTrace, HoldsAllThatRebuildsTheWeights) {
  const std::string text = "The embed caf\xc3\xa9 sat.";
  const Result result = program({"trace", text, "-o", path("t.safetensors")});
  ASSERT_EQ(result.code, 0) << result.err;
  const SafetensorsFile file = load_safetensors(path("t.safetensors"));
  EXPECT_EQ(file.tensors.size(), 8u);
  const json tokens = json::parse(file.metadata.at("tokens"));
  EXPECT_EQ(tokens, json({"[CLS]", "the", "em", "##bed", "[UNK]", "sat", ".", "[SEP]"}));
  EXPECT_EQ(json::parse(file.metadata.at("token_ids")), json({2, 4, 13, 14, 1, 7, 10, 3}));
  EXPECT_EQ(json::parse(file.metadata.at("words")), json({-1, 0, 1, 1, 2, 3, 4, -1}));
  EXPECT_EQ(json::parse(file.metadata.at("offsets")),
            json({{0, 0}, {0, 3}, {4, 6}, {6, 9}, {10, 15}, {16, 19}, {19, 20}, {0, 0}}));  // bytes
  EXPECT_EQ(file.metadata.at("manyheads_trace"), "1");
  EXPECT_EQ(file.metadata.at("text"), text);
  EXPECT_EQ(file.metadata.at("model"), "tiny");
  EXPECT_EQ(file.metadata.at("causal"), "false");
  EXPECT_EQ(file.metadata.at("key_length"), "8");
  EXPECT_EQ(file.metadata.count("text2"), 0u);
  EXPECT_EQ(std::stod(file.metadata.at("scale")), 1 / std::sqrt(8.0));

  for (const std::string layer : {"layers.0.", "layers.1."}) {
    EXPECT_EQ(file.at(layer + "q").shape(), Dims({4, 8, 8}));
    EXPECT_EQ(file.at(layer + "lse").shape(), Dims({4, 8}));
    EXPECT_EQ(file.at(layer + "row_sum").shape(), Dims({4, 8}));
    for (int row = 0; row < 32; ++row) EXPECT_NEAR(file.at(layer + "row_sum").as<float>()[row], 1, 1e-6);
    const float* q = file.at(layer + "q").as<float>();
    const float* k = file.at(layer + "k").as<float>();
    const float* lse = file.at(layer + "lse").as<float>();
    for (int row = 0; row < 32; ++row) {
      double sum = 0;
      for (int j = 0; j < 8; ++j) {
        double score = 0;
        for (int d = 0; d < 8; ++d) {
          score += static_cast<double>(q[row * 8 + d]) * static_cast<double>(k[(row / 8 * 8 + j) * 8 + d]);
        }
        sum += std::exp(score / std::sqrt(8.0) - static_cast<double>(lse[row]));
      }
      EXPECT_NEAR(sum, 1, 1e-6) << layer << row;
    }
  }
}

TEST_F(CliTrace, KeepsValuesWhereAsked) {
  ASSERT_EQ(program({"trace", "the cat sat", "-o", path("v.safetensors"), "--values"}).code, 0);
  const SafetensorsFile file = load_safetensors(path("v.safetensors"));
  EXPECT_EQ(file.tensors.size(), 10u);
  for (const std::string layer : {"layers.0.", "layers.1."}) EXPECT_EQ(file.at(layer + "v").shape(), Dims({4, 5, 8}));
  ASSERT_EQ(program({"trace", "the cat sat", "-o", path("t.safetensors")}).code, 0);
  EXPECT_EQ(load_safetensors(path("t.safetensors")).tensors.count("layers.0.v"), 0u);
}

TEST_F(CliTrace, OfAPairEachTokenNamesItsText) {
  ASSERT_EQ(program({"trace", "the cat", "--pair", "dog sat", "-o", path("t.safetensors")}).code, 0);
  const SafetensorsFile file = load_safetensors(path("t.safetensors"));
  EXPECT_EQ(file.metadata.at("text2"), "dog sat");
  EXPECT_EQ(json::parse(file.metadata.at("sequences")), json({-1, 0, 0, -1, 1, 1, -1}));
  EXPECT_EQ(json::parse(file.metadata.at("offsets")), json({{0, 0}, {0, 3}, {4, 7}, {0, 0}, {0, 3}, {4, 7}, {0, 0}}));
  EXPECT_EQ(json::parse(file.metadata.at("words")), json({-1, 0, 1, -1, 2, 3, -1}));
}

TEST_F(CliTrace, JsonSaysWhatWasWritten) {
  const Result result = program({"trace", "the cat", "-o", path("t.safetensors"), "--json"});
  const json said = json::parse(result.out);
  EXPECT_EQ(said.at("out"), path("t.safetensors"));
  EXPECT_EQ(said.at("tokens").size(), 4u);
  EXPECT_EQ(said.at("num_layers"), 2);
  EXPECT_EQ(said.at("num_heads"), 4);
  EXPECT_EQ(said.at("head_dim"), 8);
}

TEST_F(CliTrace, BadRequestsLeaveNoFile) {
  const std::string out = path("t.safetensors");
  struct Case {
    std::vector<std::string> arguments;
    int code;
    std::string says;
  };
  const std::vector<Case> cases = {
      {{"trace", "", "-o", out}, 1, "TEXT is empty"},
      {{"trace", "\xff", "-o", out}, 1, "not UTF-8"},
      {{"trace", many_words(60), "-o", out}, 1, "62 tokens"},
      {{"trace", "the cat"}, 2, "--out is required"},
      {{"trace", "-o", out}, 2, "TEXT is required"},
      {{"trace", "the cat", "-o", model()}, 1, "it is a folder"},
      {{"trace", "the cat", "-o", path("none/t")}, 1, "there is no folder"},
      {{"trace", "the cat", "-o", path("tiny/config.json/t")}, 1, "there is no folder"},
      {{"trace", "the cat", "-o", "/dev/full"}, 1, "No space left"},
  };
  for (const Case& test : cases) {
    const Result result = program(test.arguments);
    EXPECT_EQ(result.code, test.code) << result.err;
    EXPECT_TRUE(is_one_line(result, test.says));
    EXPECT_EQ(names(), std::vector<std::string>{"tiny"});
  }
  EXPECT_EQ(program({"trace", many_words(60), "-o", out, "--truncate"}).code, 0);
  EXPECT_EQ(load_safetensors(out).metadata.at("key_length"), "40");
}

// The weights that a reader rebuilds from the file, against those evaluated elsewhere in float64.
TEST_F(CliTrace, MiniLmAgreesWithTheGoldenWeights) {
  const std::filesystem::path source = MANYHEADS_SOURCE_DIR;
  const auto minilm = source / "models/all-MiniLM-L6-v2";
  if (!std::filesystem::exists(minilm)) GTEST_SKIP() << minilm << " is not here: scripts/fetch-model fetches it";
  for (const std::string name : {"minilm_cat", "minilm_pair"}) {
    const SafetensorsFile golden = load_safetensors(source / "tests/golden/model" / (name + ".safetensors"));
    const json texts = json::parse(golden.metadata.at("texts"))[0];
    std::vector<std::string> arguments = {
        "trace", texts[0].get<std::string>(), "-o", path("t.safetensors"), "--model", minilm.string()};
    if (!texts[1].is_null()) arguments.insert(arguments.end(), {"--pair", texts[1].get<std::string>()});
    ASSERT_EQ(run(arguments).code, 0);
    const SafetensorsFile trace = load_safetensors(path("t.safetensors"));
    EXPECT_EQ(json::parse(trace.metadata.at("tokens")), json::parse(golden.metadata.at("tokens"))[0]);
    const double scale = std::stod(trace.metadata.at("scale"));
    for (int l = 0; l < 6; ++l) {
      const std::string layer = "layers." + std::to_string(l) + ".";
      const Tensor& q = trace.at(layer + "q");
      const float* k = trace.at(layer + "k").as<float>();
      const float* lse = trace.at(layer + "lse").as<float>();
      const Tensor& weights = golden.at("weights." + std::to_string(l));
      ASSERT_EQ(weights.dtype(), DType::kF32);
      const std::int64_t t = q.size(1);
      const std::int64_t dim = q.size(2);
      double worst = 0;
      for (std::int64_t row = 0; row < q.size(0) * t; ++row) {
        for (std::int64_t j = 0; j < t; ++j) {
          double score = 0;
          for (std::int64_t d = 0; d < dim; ++d) {
            score +=
                static_cast<double>(q.as<float>()[row * dim + d]) * static_cast<double>(k[(row / t * t + j) * dim + d]);
          }
          const double weight = std::exp(scale * score - static_cast<double>(lse[row]));
          worst = std::max(worst, std::abs(weight - static_cast<double>(weights.as<float>()[row * t + j])));
        }
      }
      EXPECT_LE(worst, 1e-5) << name << " " << layer;
    }
  }
}

}  // namespace
}  // namespace manyheads::cli_test
