#include <gtest/gtest.h>

#include <filesystem>
#include <manyheads/multi_head_attention.hpp>
#include <manyheads/safetensors.hpp>
#include <nlohmann/json.hpp>

#include "program.hpp"
#include "tensors.hpp"

namespace manyheads::cli_test {
namespace {

using nlohmann::json;

class CliLayer : public Folder {
 protected:
  std::mt19937 random_{31};

  MultiHeadAttention layer(const MultiHeadAttentionConfig& config) {
    MultiHeadAttention made(config);
    StateDict state;
    for (const auto& [name, tensor] : made.state_dict()) state[name] = normal(config.dtype, tensor.shape(), random_);
    made.load_state_dict(state);
    save_safetensors(path("weights"), state);
    return made;
  }

  Result program(const StateDict& in, std::vector<std::string> options) {
    save_safetensors(path("in"), in);
    options.insert(options.begin(), {"layer", path("weights"), path("in"), "-o", path("out")});
    return run(options);
  }

  // The program's output and weights are the library's, bit for bit.
  void expect_library(const MultiHeadAttention& made, const StateDict& in, std::vector<std::string> arguments,
                      MultiHeadAttentionOptions options, std::int64_t keys) {
    arguments.push_back("--weights");
    const Result result = program(in, std::move(arguments));
    ASSERT_EQ(result.code, 0) << result.err;
    const Tensor& query = in.at("query");
    const Tensor& key = in.count("key") != 0 ? in.at("key") : query;
    const Tensor& value = in.count("value") != 0 ? in.at("value") : key;
    Tensor y(query.dtype(), query.shape());
    Tensor weights(DType::kF32, {query.size(0), made.config().num_heads, query.size(1), keys});
    const TensorView weights_view = weights.view();
    options.weights = weights_view;
    made.forward(query.cview(), key.cview(), value.cview(), y.view(), options);
    const SafetensorsFile got = load_safetensors(path("out"));
    EXPECT_EQ(got.at("output").dtype(), query.dtype());
    EXPECT_EQ(difference(got.at("output"), y), 0);
    EXPECT_EQ(difference(got.at("weights"), weights), 0);
  }
};

TEST_F(CliLayer, SelfAttention) {
  const auto made = layer({.d_model = 32, .num_heads = 4});
  expect_library(made, {{"query", normal(DType::kF32, {2, 5, 32}, random_)}}, {"--heads", "4"}, {}, 5);
}

TEST_F(CliLayer, HalfTypes) {
  for (const DType type : {DType::kBF16, DType::kF16}) {
    const auto made = layer({.d_model = 32, .num_heads = 4, .dtype = type});
    expect_library(made, {{"query", normal(type, {2, 5, 32}, random_)}}, {"--heads", "4"}, {}, 5);
  }
}

TEST_F(CliLayer, CausalIsTopLeft) {
  const auto made = layer({.d_model = 32, .num_heads = 4});
  const StateDict in{{"query", normal(DType::kF32, {2, 3, 32}, random_)},
                     {"key", normal(DType::kF32, {2, 6, 32}, random_)}};
  MultiHeadAttentionOptions options;
  options.mask = mask::causal(Alignment::kTopLeft);
  expect_library(made, in, {"--heads", "4", "--causal"}, options, 6);
  EXPECT_EQ(number(load_safetensors(path("out")).at("weights"), 1), 0);  // query 0, key 1
  EXPECT_EQ(number(load_safetensors(path("out")).at("weights"), 0), 1);
}

TEST_F(CliLayer, SizesComeFromTheStateDict) {
  const auto made = layer({.d_model = 32, .num_heads = 4, .num_kv_heads = 2, .kdim = 12, .vdim = 20, .bias = false});
  const StateDict in{{"query", normal(DType::kF32, {1, 3, 32}, random_)},
                     {"key", normal(DType::kF32, {1, 6, 12}, random_)},
                     {"value", normal(DType::kF32, {1, 6, 20}, random_)}};
  expect_library(made, in, {"--heads", "4", "--kv-heads", "2"}, {}, 6);
}

TEST_F(CliLayer, AddedKeysAndMasks) {
  const auto made = layer({.d_model = 32, .num_heads = 4, .add_bias_kv = true, .add_zero_attn = true});
  StateDict in{{"query", normal(DType::kF32, {2, 5, 32}, random_)},
               {"key_padding_mask", uniform<bool>({2, 5}, 0, 1, random_)},
               {"attn_mask", normal(DType::kF32, {8, 5, 5}, random_)}};
  MultiHeadAttentionOptions options;
  options.key_padding_mask = in["key_padding_mask"].cview();
  options.attn_mask = in["attn_mask"].cview();
  expect_library(made, in, {"--heads", "4", "--add-zero-attn"}, options, 7);
}

TEST_F(CliLayer, JsonSaysTheSizes) {
  layer({.d_model = 32, .num_heads = 4});
  const Result result = program({{"query", normal(DType::kF32, {2, 5, 32}, random_)}}, {"--heads", "4", "--json"});
  ASSERT_EQ(result.code, 0) << result.err;
  const json summary = json::parse(result.out);
  EXPECT_EQ(summary.at("d_model"), 32);
  EXPECT_EQ(summary.at("d_k"), 8);
  EXPECT_EQ(summary.at("parameters"), 4 * 32 * 32 + 4 * 32);
  EXPECT_EQ(summary.at("tensors").at("output").at("shape"), json({2, 5, 32}));
  EXPECT_FALSE(summary.at("tensors").contains("weights"));
}

TEST_F(CliLayer, BadInputIsOneLineAndNoFile) {
  layer({.d_model = 32, .num_heads = 4});
  const Tensor query = normal(DType::kF32, {2, 5, 32}, random_);
  const std::vector<std::tuple<StateDict, std::vector<std::string>, std::string>> cases = {
      {{{"query", query}}, {"--heads", "7"}, "32 is not divisible by 7"},
      {{{"query", query}}, {"--heads", "0"}, "0"},
      {{{"query", query}}, {"--heads", "-4"}, "-4"},
      {{{"query", query}}, {"--heads", "4", "--kv-heads", "2"}, "in_proj_weight"},
      {{{"query", query}}, {"--heads", "4", "--kv-heads", "3"}, "3"},
      {{}, {"--heads", "4"}, "no tensor \"query\""},
      {{{"query", normal(DType::kF32, {5, 32}, random_)}}, {"--heads", "4"}, "query"},
      {{{"query", normal(DType::kF32, {2, 5, 31}, random_)}}, {"--heads", "4"}, "[2,5,31]"},
      {{{"query", query}, {"value", query}}, {"--heads", "4"}, "value and no key"},
      {{{"query", query}, {"mask", query}}, {"--heads", "4"}, "\"mask\""},
      {{{"query", query}, {"attn_mask", uniform<bool>({5, 4}, 0, 1, random_)}}, {"--heads", "4"}, "attn_mask"},
      {{{"query", query}, {"key_padding_mask", uniform<bool>({2, 4}, 0, 1, random_)}},
       {"--heads", "4"},
       "key_padding_mask"},
  };
  for (const auto& [in, arguments, contains] : cases) {
    const Result result = program(in, arguments);
    EXPECT_EQ(result.code, 1) << contains << ": " << result.err;
    EXPECT_TRUE(is_one_line(result, contains));
    EXPECT_EQ(names(), (std::vector<std::string>{"in", "weights"})) << contains;
  }
}

TEST_F(CliLayer, BadStateDictIsOneLine) {
  const StateDict in{{"query", normal(DType::kF32, {2, 5, 32}, random_)}};
  const MultiHeadAttention made = layer({.d_model = 32, .num_heads = 4});
  const auto with = [&](const char* name, Tensor tensor) {
    StateDict state = made.state_dict();
    state[name] = std::move(tensor);
    return state;
  };
  const auto without = [&](const char* name) {
    StateDict state = made.state_dict();
    state.erase(name);
    return state;
  };
  const std::vector<std::pair<StateDict, std::string>> cases = {
      {without("out_proj.weight"), "out_proj.weight"},
      {without("out_proj.bias"), "out_proj.bias"},
      {without("in_proj_weight"), "in_proj_weight"},
      {with("out_proj.weight", normal(DType::kF32, {32}, random_)), "out_proj.weight"},
      {with("out_proj.weight", normal(DType::kF32, {0, 1000000}, random_)), "[0,1000000]"},
      {with("in_proj_weight", normal(DType::kF32, {95, 32}, random_)), "[95,32]"},
      {with("bias_k", normal(DType::kF32, {1, 1, 32}, random_)), "bias_v"},
      {with("more", normal(DType::kF32, {1}, random_)), "\"more\""},
  };
  for (const auto& [state, contains] : cases) {
    save_safetensors(path("weights"), state);
    const Result result = program(in, {"--heads", "4"});
    EXPECT_EQ(result.code, 1) << contains;
    EXPECT_TRUE(is_one_line(result, contains));
    EXPECT_EQ(names(), (std::vector<std::string>{"in", "weights"})) << contains;
  }
}

}  // namespace
}  // namespace manyheads::cli_test
