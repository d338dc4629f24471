#include <gtest/gtest.h>

#include <manyheads/multi_head_attention.hpp>
#include <manyheads/safetensors.hpp>
#include <nlohmann/json.hpp>

#include "program.hpp"
#include "tensors.hpp"

// layer --grad: the gradients of MultiHeadAttention::backward(), by the names of inputs and weights.
namespace manyheads::cli_test {
namespace {

using nlohmann::json;

class CliLayerGrad : public Folder {
 protected:
  std::mt19937 random_{47};

  MultiHeadAttention layer(const MultiHeadAttentionConfig& config) {
    MultiHeadAttention made(config);
    StateDict state;
    for (const auto& [name, tensor] : made.state_dict()) state[name] = normal(config.dtype, tensor.shape(), random_);
    made.load_state_dict(state);
    save_safetensors(path("weights"), state);
    return made;
  }

  StateDict inputs(DType type = DType::kF32) {
    return {{"query", normal(type, {2, 5, 32}, random_)}, {"dy", normal(type, {2, 5, 32}, random_)}};
  }

  Result program(const StateDict& in, std::vector<std::string> options) {
    save_safetensors(path("in"), in);
    options.insert(options.begin(), {"layer", path("weights"), path("in"), "-o", path("out"), "--heads", "4"});
    return run(options);
  }

  // The program writes the output and the gradients of the library, bit for bit, and nothing else.
  void expect_library(const MultiHeadAttention& made, const StateDict& in, std::vector<std::string> arguments,
                      MultiHeadAttentionOptions options = {}) {
    arguments.emplace_back("--grad");
    const Result result = program(in, std::move(arguments));
    ASSERT_EQ(result.code, 0) << result.err;
    EXPECT_EQ(result.err, "");
    const Tensor& query = in.at("query");
    const Tensor& key = in.contains("key") ? in.at("key") : query;
    const Tensor& value = in.contains("value") ? in.at("value") : key;
    MultiHeadAttentionActivations kept;
    options.activations = &kept;
    StateDict expected{{"output", Tensor(query.dtype(), query.shape())}};
    made.forward(query.cview(), key.cview(), value.cview(), expected["output"].view(), options);
    const auto make = [&](const std::string& name, const Tensor& of) {
      return expected.emplace(name, Tensor(DType::kF32, of.shape())).first->second.view();
    };
    MultiHeadAttentionGradients gradients;
    gradients.dquery = make("dquery", query);
    if (in.contains("key")) gradients.dkey = make("dkey", key);
    if (in.contains("key")) gradients.dvalue = make("dvalue", value);
    if (in.contains("head_scale")) gradients.dhead_scale = make("dhead_scale", in.at("head_scale"));
    for (const auto& [name, tensor] : made.state_dict()) gradients.parameters[name] = make("grad." + name, tensor);
    made.backward(query.cview(), key.cview(), value.cview(), kept, in.at("dy").cview(), gradients, options);
    if (in.contains("key") && !in.contains("value")) {  // key is value too
      float* const sum = expected["dkey"].as<float>();
      const Tensor& dvalue = expected.at("dvalue");
      for (std::int64_t i = 0; i < dvalue.elements(); ++i) sum[i] += dvalue.as<float>()[i];
      expected.erase("dvalue");
    }

    const SafetensorsFile got = load_safetensors(path("out"));
    EXPECT_EQ(got.tensors.size(), expected.size());
    for (const auto& [name, tensor] : expected) {
      ASSERT_TRUE(got.tensors.contains(name)) << name;
      EXPECT_EQ(got.at(name).dtype(), tensor.dtype()) << name;
      EXPECT_EQ(difference(got.at(name), tensor), 0) << name;
    }
  }
};

TEST_F(CliLayerGrad, SelfAttention) { expect_library(layer({.d_model = 32, .num_heads = 4}), inputs(), {}); }

TEST_F(CliLayerGrad, HalfTypes) {
  for (const DType type : {DType::kBF16, DType::kF16}) {
    expect_library(layer({.d_model = 32, .num_heads = 4, .dtype = type}), inputs(type), {});
  }
}

TEST_F(CliLayerGrad, CrossAttention) {
  const auto made = layer({.d_model = 32, .num_heads = 4, .num_kv_heads = 2, .kdim = 12, .vdim = 20, .bias = false});
  StateDict in = inputs();
  in["key"] = normal(DType::kF32, {2, 6, 12}, random_);
  in["value"] = normal(DType::kF32, {2, 6, 20}, random_);
  MultiHeadAttentionOptions options;
  options.mask = mask::causal(Alignment::kTopLeft);
  expect_library(made, in, {"--kv-heads", "2", "--causal"}, options);
}

TEST_F(CliLayerGrad, AKeyWithoutValueHasTheSum) {
  StateDict in = inputs();
  in["key"] = normal(DType::kF32, {2, 6, 32}, random_);
  expect_library(layer({.d_model = 32, .num_heads = 4}), in, {});
}

TEST_F(CliLayerGrad, AddedKeysMasksAndHeadScale) {
  const auto made = layer({.d_model = 32, .num_heads = 4, .add_bias_kv = true, .add_zero_attn = true});
  StateDict in = inputs();
  in["key_padding_mask"] = uniform<bool>({2, 5}, 0, 1, random_);
  in["attn_mask"] = normal(DType::kF32, {8, 5, 5}, random_);
  in["head_scale"] = normal(DType::kF32, {4}, random_);
  MultiHeadAttentionOptions options;
  options.key_padding_mask = in["key_padding_mask"].cview();
  options.attn_mask = in["attn_mask"].cview();
  options.head_scale = in["head_scale"].cview();
  expect_library(made, in, {"--add-zero-attn"}, options);
}

TEST_F(CliLayerGrad, HeadScaleNeedsNoGradient) {
  layer({.d_model = 32, .num_heads = 4});
  StateDict in = inputs();
  in.erase("dy");
  in["head_scale"] = Tensor(DType::kF32, {4});
  ASSERT_EQ(program(in, {}).code, 0);
  const SafetensorsFile got = load_safetensors(path("out"));
  EXPECT_EQ(got.tensors.size(), 1u);
  for (std::int64_t i = 32; i < 320; ++i) {  // every head is off: a row is the bias
    EXPECT_EQ(number(got.at("output"), i), number(got.at("output"), i % 32));
  }
}

TEST_F(CliLayerGrad, NoTokensGiveZeros) {
  layer({.d_model = 32, .num_heads = 4});
  for (const Dims& shape : {Dims{2, 0, 32}, Dims{0, 5, 32}}) {
    const Tensor none(DType::kF32, shape);
    const Result result = program({{"query", none}, {"dy", none}}, {"--grad"});
    ASSERT_EQ(result.code, 0) << result.err;
    const SafetensorsFile got = load_safetensors(path("out"));
    const Tensor& weight = got.at("grad.in_proj_weight");
    EXPECT_EQ(difference(weight, Tensor(DType::kF32, {96, 32})), 0);
  }
}

TEST_F(CliLayerGrad, GradientsOfBF16WeightsAreOfF32ForAnyBits) {
  layer({.d_model = 32, .num_heads = 4, .dtype = DType::kBF16});
  const StateDict in = inputs(DType::kBF16);
  const Result plain = program(in, {"--grad", "--json"});
  ASSERT_EQ(plain.code, 0) << plain.err;
  const SafetensorsFile expected = load_safetensors(path("out"));
  const Result named = program(in, {"--grad", "--bits", json::parse(plain.out).at("bits")});
  ASSERT_EQ(named.code, 0) << named.err;
  EXPECT_EQ(difference(load_safetensors(path("out")).at("dquery"), expected.at("dquery")), 0);
}

TEST_F(CliLayerGrad, SaysWhatWasWritten) {
  layer({.d_model = 32, .num_heads = 4});
  const Result text = program(inputs(), {"--grad"});
  EXPECT_NE(text.out.find("dquery F32 [2,5,32], grad.in_proj_bias F32 [96]"), std::string::npos) << text.out;
  const json summary = json::parse(program(inputs(), {"--grad", "--json", "--threads", "8"}).out);
  EXPECT_EQ(summary.at("tensors").at("grad.in_proj_weight"), json({{"dtype", "F32"}, {"shape", {96, 32}}}));
  EXPECT_EQ(summary.at("tensors").size(), 6u);  // output, dquery and four of the weights
}

TEST_F(CliLayerGrad, BadInputIsOneLineAndNoFile) {
  layer({.d_model = 32, .num_heads = 4});
  const auto with = [&](const std::string& name, Tensor tensor) {
    StateDict in = inputs();
    in[name] = std::move(tensor);
    return in;
  };
  StateDict without = inputs();
  without.erase("dy");
  const std::vector<std::tuple<StateDict, std::vector<std::string>, std::string>> cases = {
      {inputs(), {}, "has dy: say --grad"},
      {without, {"--grad"}, "has no tensor \"dy\""},
      {with("dy", normal(DType::kF32, {2, 4, 32}, random_)),
       {"--grad"},
       "has the shape [2,4,32], expected that of query, [2,5,32]"},
      {with("dy", normal(DType::kF32, {5, 32}, random_)), {"--grad"}, "dy in"},
      {with("dy", uniform<std::int32_t>({2, 5, 32}, 0, 1, random_)), {"--grad"}, "dy is I32 [2,5,32]"},
      {with("head_scale", normal(DType::kF32, {3}, random_)), {"--grad"}, "head_scale"},
      {with("dquery", normal(DType::kF32, {2, 5, 32}, random_)), {"--grad"}, "\"dquery\", which is none of"},
  };
  for (const auto& [in, arguments, contains] : cases) {
    const Result result = program(in, arguments);
    EXPECT_EQ(result.code, 1) << contains;
    EXPECT_EQ(result.out, "");
    EXPECT_TRUE(is_one_line(result, contains));
    EXPECT_EQ(names(), (std::vector<std::string>{"in", "weights"})) << contains;
  }
}

}  // namespace
}  // namespace manyheads::cli_test
