#include "model/llama_config.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <manyheads/error.hpp>
#include <manyheads/model/decoder.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "io/malformed.hpp"
#include "support.hpp"

namespace manyheads::model {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using test::error_of;

constexpr std::int64_t kHuge = std::int64_t{1} << 62;

class LlamaConfigFile : public testing::Test {
 protected:
  static json good() {
    return {{"model_type", "llama"},    {"hidden_size", 64},       {"num_hidden_layers", 2}, {"num_attention_heads", 4},
            {"num_key_value_heads", 2}, {"intermediate_size", 48}, {"vocab_size", 96}};
  }
  static json llama3() {
    return {{"rope_type", "llama3"},  {"rope_theta", 500000.0},  {"factor", 8.0},
            {"low_freq_factor", 1.0}, {"high_freq_factor", 4.0}, {"original_max_position_embeddings", 8192}};
  }
  LlamaConfig load(const json& config) const {
    folder_.write("config.json", config.dump());
    return load_llama_config(folder_.path());
  }
  // The good file with some keys changed; a null takes the key's place.
  LlamaConfig load_with(const json& changes) const {
    json config = good();
    config.update(changes);
    return load(config);
  }
  // The one line of the error, which names the file.
  std::string error(const json& config) const {
    const std::string what = error_of([&] { load(config); }, ErrorCode::kMalformedFile);
    if (what == "no error") return what;
    EXPECT_NE(what.find((folder_.path() / "config.json").string()), std::string::npos) << what;
    EXPECT_EQ(what.find_first_of("\n\r\t\x1b"), std::string::npos) << what;
    EXPECT_LT(what.size(), 400U) << what;
    return what;
  }
  std::string error_with(const json& changes) const {
    json config = good();
    config.update(changes);
    return error(config);
  }

  test::TemporaryFolder folder_;
};

TEST_F(LlamaConfigFile, ReadsWhatItSays) {
  const LlamaConfig read = load_with({{"head_dim", 20},
                                      {"max_position_embeddings", 77},
                                      {"rms_norm_eps", 1e-5},
                                      {"attention_bias", true},
                                      {"mlp_bias", true},
                                      {"tie_word_embeddings", true},
                                      {"hidden_act", "silu"},
                                      {"partial_rotary_factor", 1.0},
                                      {"use_cache", true},
                                      {"torch_dtype", "bfloat16"}});
  EXPECT_EQ(read.hidden_size, 64);
  EXPECT_EQ(read.num_hidden_layers, 2);
  EXPECT_EQ(read.num_attention_heads, 4);
  EXPECT_EQ(read.num_key_value_heads, 2);
  EXPECT_EQ(read.head_dim, 20);
  EXPECT_EQ(read.intermediate_size, 48);
  EXPECT_EQ(read.vocab_size, 96);
  EXPECT_EQ(read.max_position_embeddings, 77);
  EXPECT_EQ(read.rms_norm_eps, 1e-5);
  EXPECT_TRUE(read.attention_bias);
  EXPECT_TRUE(read.mlp_bias);
  EXPECT_TRUE(read.tie_word_embeddings);
  EXPECT_EQ(read.rope_frequencies.size(), 10U);
}

TEST_F(LlamaConfigFile, KeysLeftOutOrNullHaveTheFamilysValues) {
  json nulls = good();
  for (const char* key :
       {"num_key_value_heads", "head_dim", "max_position_embeddings", "rms_norm_eps", "attention_bias", "mlp_bias",
        "tie_word_embeddings", "hidden_act", "sliding_window", "quantization_config", "partial_rotary_factor",
        "rope_theta", "rope_scaling", "rope_parameters"}) {
    nulls[key] = nullptr;
  }
  json left_out = good();
  left_out.erase("num_key_value_heads");
  for (const json& config : {nulls, left_out}) {
    const LlamaConfig read = load(config);
    EXPECT_EQ(read.num_key_value_heads, 4);
    EXPECT_EQ(read.head_dim, 16);
    EXPECT_EQ(read.max_position_embeddings, 2048);
    EXPECT_EQ(read.rms_norm_eps, 1e-6);
    EXPECT_FALSE(read.attention_bias);
    EXPECT_FALSE(read.mlp_bias);
    EXPECT_FALSE(read.tie_word_embeddings);
    ASSERT_EQ(read.rope_frequencies.size(), 8U);
    EXPECT_FLOAT_EQ(read.rope_frequencies[4], 0.01F);
  }
}

TEST_F(LlamaConfigFile, TheBaseLiesInRopeParametersOrBeside) {
  const std::vector<float> beside = load_with({{"rope_theta", 500.0}}).rope_frequencies;
  EXPECT_FLOAT_EQ(beside[4], static_cast<float>(1 / std::sqrt(500.0)));
  const json within = {{"rope_theta", 500.0}};
  EXPECT_EQ(load_with({{"rope_parameters", within}}).rope_frequencies, beside);
  EXPECT_EQ(load_with({{"rope_parameters", within}, {"rope_theta", 7000}}).rope_frequencies, beside);
  EXPECT_EQ(load_with({{"rope_parameters", {{"rope_type", "default"}}}, {"rope_theta", 500}}).rope_frequencies, beside);
  EXPECT_EQ(load_with({{"rope_scaling", {{"type", "default"}}}, {"rope_theta", 500}}).rope_frequencies, beside);
}

// What transformers 5.23.0's LlamaRotaryEmbedding holds for heads of 32, in F32.
struct Frequencies {
  const char* name;
  json keys;
  std::vector<double> expected;
};

TEST_F(LlamaConfigFile, FrequenciesAreThoseOfTransformers) {
  json older = llama3();
  older.erase("rope_theta");
  older["factor"] = 32.0;
  const std::vector<Frequencies> cases = {
      {"default",
       {{"rope_theta", 100000.0}},
       {1.0, 0.486967533826828, 0.23713736236095428, 0.11547820270061493, 0.05623412877321243, 0.0273841954767704,
        0.01333521492779255, 0.006493816617876291, 0.003162277862429619, 0.0015399265103042126, 0.0007498941849917173,
        0.00036517411353997886, 0.00017782794020604342, 8.6596432083752e-05, 4.216965317027643e-05,
        2.0535249859676696e-05}},
      {"linear",
       {{"rope_scaling", {{"type", "linear"}, {"factor", 4.0}}}},
       {0.25, 0.14058533310890198, 0.07905694097280502, 0.04445698484778404, 0.02500000037252903, 0.014058532193303108,
        0.007905694656074047, 0.004445698577910662, 0.0024999999441206455, 0.0014058533124625683, 0.0007905694656074047,
        0.00044456985779106617, 0.0002500000118743628, 0.00014058532542549074, 7.905694656074047e-05,
        4.4456985051510856e-05}},
      {"llama3 within rope_parameters",
       {{"rope_parameters", llama3()}},
       {1.0, 0.44036662578582764, 0.193922758102417, 0.08539710193872452, 0.03760603070259094, 0.016560440883040428,
        0.00729266507551074, 0.0032114461064338684, 0.0005248460220173001, 7.784655463183299e-05, 3.428102354519069e-05,
        1.5096217794052791e-05, 6.647869668086059e-06, 2.927499735960737e-06, 1.289173155782919e-06,
        5.677088097399974e-07}},
      {"llama3 as rope_scaling beside rope_theta",
       {{"rope_scaling", older}, {"rope_theta", 500000.0}},
       {1.0, 0.44036662578582764, 0.193922758102417, 0.08539710193872452, 0.03760603070259094, 0.016560440883040428,
        0.00729266507551074, 0.0032114461064338684, 0.000429556705057621, 1.9461638657958247e-05, 8.570255886297673e-06,
        3.7740544485131977e-06, 1.6619674170215148e-06, 7.318749339901842e-07, 3.2229328894572973e-07,
        1.4192720243499934e-07}},
  };
  for (const Frequencies& one : cases) {
    json changes = one.keys;
    changes["head_dim"] = 32;
    const std::vector<float> got = load_with(changes).rope_frequencies;
    ASSERT_EQ(got.size(), one.expected.size()) << one.name;
    // The power, the division and the blend of transformers are rounded to F32 one by one.
    for (std::size_t i = 0; i < got.size(); ++i) {
      EXPECT_NEAR(got[i] / one.expected[i], 1, 8 * 0x1p-24) << one.name << " " << i;
    }
  }
}

TEST_F(LlamaConfigFile, EveryCountIsCheckedForItsTypeAndRange) {
  int refused = 0;
  const std::vector<json> never = {0,
                                   -1,
                                   1.5,
                                   "32",
                                   true,
                                   json::array({32}),
                                   json::object(),
                                   kHuge,
                                   1e30,
                                   -1e30,
                                   "",
                                   json(0.0),
                                   std::uint64_t{18446744073709551615U}};
  const auto check = [&](const std::string& key, const std::vector<json>& values) {
    for (const json& value : values) {
      const std::string what = error_with({{key, value}});
      EXPECT_NE(what.find("\"" + key + "\""), std::string::npos) << key << " = " << value << ": " << what;
      ++refused;
    }
  };
  for (const char* key :
       {"hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size"}) {
    check(key, never);
    json missing = good();
    missing.erase(key);
    EXPECT_NE(error(missing).find("\"" + std::string(key) + "\" is missing"), std::string::npos) << key;
    check(key, {nullptr});
    ++refused;
  }
  for (const char* key : {"num_key_value_heads", "max_position_embeddings", "head_dim"}) check(key, never);
  // One above the largest.
  check("hidden_size", {(1 << 20) + 1});
  check("num_hidden_layers", {4097});
  check("num_attention_heads", {(1 << 20) + 1, 1 << 20});
  check("num_key_value_heads", {5});
  check("head_dim", {1, (1 << 18) + 2});
  check("intermediate_size", {(1 << 20) + 1});
  check("vocab_size", {(1 << 30) + 1});
  check("max_position_embeddings", {(1 << 30) + 1});
  EXPECT_EQ(refused, 124);
}

// A key's value, and more that the line must say.
struct Refused {
  json changes;
  const char* key;
  const char* says;
};

TEST_F(LlamaConfigFile, NamesTheKeyThatDoesNotFit) {
  const json linear = {{"rope_type", "linear"}, {"factor", 2.0}};
  // Of the good object, one key otherwise.
  const auto with = [](json object, const char* key, const json& value) {
    object[key] = value;
    if (value.is_null()) object.erase(key);
    return json{{"rope_parameters", object}};
  };
  const auto typed = [](const char* type) { return json{{"rope_scaling", {{"rope_type", type}, {"factor", 2.0}}}}; };
  const std::vector<Refused> cases = {
      {{{"model_type", nullptr}}, "model_type", "a string is needed"},
      {{{"model_type", 3}}, "model_type", "3; a string is needed"},
      {{{"model_type", "mistral"}}, "model_type", "\"mistral\"; \"llama\" is needed"},
      {{{"model_type", "Llama"}}, "model_type", "\"llama\" is needed"},
      // Contradictions.
      {{{"num_key_value_heads", 3}}, "num_key_value_heads", "3; a divisor of num_attention_heads, 4 is needed"},
      {{{"num_attention_heads", 5}, {"num_key_value_heads", 5}}, "num_attention_heads", "64 is not divisible by 5"},
      {{{"num_attention_heads", 128}}, "num_attention_heads", "\"hidden_size\""},
      {{{"head_dim", 15}}, "head_dim", "even"},
      {{{"hidden_size", 60}}, "head_dim", "heads of 15"},
      // Other kinds.
      {{{"hidden_act", "gelu"}}, "hidden_act", "\"gelu\"; \"silu\" is needed"},
      {{{"hidden_act", "relu"}}, "hidden_act", "\"silu\" is needed"},
      {{{"hidden_act", ""}}, "hidden_act", "\"silu\" is needed"},
      {{{"hidden_act", 1}}, "hidden_act", "a string is needed"},
      {{{"hidden_act", json::array({"silu"})}}, "hidden_act", "a string is needed"},
      {{{"sliding_window", 4096}}, "sliding_window", "4096; null is needed"},
      {{{"sliding_window", 0}}, "sliding_window", "null is needed"},
      {{{"sliding_window", "no"}}, "sliding_window", "null is needed"},
      {{{"quantization_config", {{"quant_method", "gptq"}}}}, "quantization_config", "weights of F32, BF16 or F16"},
      {{{"quantization_config", json::object()}}, "quantization_config", "weights of F32, BF16 or F16"},
      {{{"quantization_config", "awq"}}, "quantization_config", "weights of F32, BF16 or F16"},
      {{{"partial_rotary_factor", 0.5}}, "partial_rotary_factor", "0.5; 1 is needed"},
      {{{"partial_rotary_factor", "1"}}, "partial_rotary_factor", "a number is needed"},
      {with(linear, "partial_rotary_factor", 0.25), "partial_rotary_factor", "0.25; 1 is needed"},
      // Numbers and flags.
      {{{"rms_norm_eps", -1e-6}}, "rms_norm_eps", "a number from 0"},
      {{{"rms_norm_eps", 1.5}}, "rms_norm_eps", "a number from 0"},
      {{{"rms_norm_eps", "1e-5"}}, "rms_norm_eps", "a number from 0"},
      {{{"rms_norm_eps", false}}, "rms_norm_eps", "a number from 0"},
      {{{"attention_bias", 1}}, "attention_bias", "true or false is needed"},
      {{{"attention_bias", "true"}}, "attention_bias", "true or false is needed"},
      {{{"mlp_bias", 0}}, "mlp_bias", "true or false is needed"},
      {{{"mlp_bias", json::array()}}, "mlp_bias", "true or false is needed"},
      {{{"tie_word_embeddings", 1.0}}, "tie_word_embeddings", "true or false is needed"},
      {{{"tie_word_embeddings", "yes"}}, "tie_word_embeddings", "true or false is needed"},
      // The base.
      {{{"rope_theta", 0}}, "rope_theta", "a number from 1"},
      {{{"rope_theta", -10000.0}}, "rope_theta", "a number from 1"},
      {{{"rope_theta", 0.5}}, "rope_theta", "a number from 1"},
      {{{"rope_theta", 1e13}}, "rope_theta", "a number from 1"},
      {{{"rope_theta", 1e300}}, "rope_theta", "a number from 1"},
      {{{"rope_theta", "10000"}}, "rope_theta", "a number from 1"},
      {{{"rope_theta", json::object()}}, "rope_theta", "a number from 1"},
      {{{"rope_parameters", {{"rope_theta", 0}}}}, "rope_theta", "\"rope_parameters\""},
      {{{"rope_parameters", {{"rope_theta", true}}}}, "rope_theta", "\"rope_parameters\""},
      // The object.
      {{{"rope_parameters", 1}}, "rope_parameters", "an object is needed"},
      {{{"rope_parameters", "linear"}}, "rope_parameters", "an object is needed"},
      {{{"rope_scaling", json::array()}}, "rope_scaling", "an object is needed"},
      {{{"rope_scaling", false}}, "rope_scaling", "an object is needed"},
      {{{"rope_scaling", 2.0}}, "rope_scaling", "an object is needed"},
      {{{"rope_scaling", linear}, {"rope_parameters", {{"rope_theta", 500}}}}, "rope_scaling", "rope_parameters"},
      {{{"rope_parameters", {{"full_attention", linear}}}}, "full_attention", "\"rope_parameters\""},
      // Kinds of scaling.
      {typed("dynamic"), "rope_type", "\"dynamic\"; default, linear or llama3 is needed"},
      {typed("yarn"), "rope_type", "\"yarn\"; default, linear or llama3 is needed"},
      {typed("longrope"), "rope_type", "\"longrope\"; default, linear or llama3 is needed"},
      {typed("su"), "rope_type", "\"su\""},
      {typed("proportional"), "rope_type", "\"proportional\""},
      {typed(""), "rope_type", "default, linear or llama3 is needed"},
      {typed("Linear"), "rope_type", "default, linear or llama3 is needed"},
      {{{"rope_scaling", {{"type", "dynamic"}, {"factor", 2.0}}}}, "type", "\"dynamic\"; default, linear or llama3"},
      {{{"rope_scaling", {{"type", 1}}}}, "type", "a string is needed"},
      {{{"rope_scaling", {{"rope_type", json::object()}}}}, "rope_type", "a string or a number is needed"},
      // linear
      {with(linear, "factor", nullptr), "factor", "missing"},
      {with(linear, "factor", 0), "factor", "a number from 1"},
      {with(linear, "factor", 0.5), "factor", "a number from 1"},
      {with(linear, "factor", -4), "factor", "a number from 1"},
      {with(linear, "factor", 1e7), "factor", "a number from 1"},
      {with(linear, "factor", "4"), "factor", "a number from 1"},
      // llama3
      {with(llama3(), "factor", nullptr), "factor", "missing"},
      {with(llama3(), "factor", 0.0), "factor", "a number from 1"},
      {with(llama3(), "factor", json::array({8})), "factor", "a number from 1"},
      {with(llama3(), "low_freq_factor", nullptr), "low_freq_factor", "missing"},
      {with(llama3(), "low_freq_factor", 0), "low_freq_factor", "a number from"},
      {with(llama3(), "low_freq_factor", -1), "low_freq_factor", "a number from"},
      {with(llama3(), "low_freq_factor", "1"), "low_freq_factor", "a number from"},
      {with(llama3(), "low_freq_factor", 4.0), "high_freq_factor", "above low_freq_factor"},
      {with(llama3(), "low_freq_factor", 5.0), "high_freq_factor", "above low_freq_factor"},
      {with(llama3(), "high_freq_factor", nullptr), "high_freq_factor", "missing"},
      {with(llama3(), "high_freq_factor", 0), "high_freq_factor", "a number from"},
      {with(llama3(), "high_freq_factor", 0.5), "high_freq_factor", "above low_freq_factor"},
      {with(llama3(), "high_freq_factor", true), "high_freq_factor", "a number from"},
      {with(llama3(), "original_max_position_embeddings", nullptr), "original_max_position_embeddings", "missing"},
      {with(llama3(), "original_max_position_embeddings", 0), "original_max_position_embeddings", "an integer from 1"},
      {with(llama3(), "original_max_position_embeddings", -8192), "original_max_position_embeddings", "an integer"},
      {with(llama3(), "original_max_position_embeddings", 8192.5), "original_max_position_embeddings", "an integer"},
      {with(llama3(), "original_max_position_embeddings", kHuge), "original_max_position_embeddings", "an integer"},
      {with(llama3(), "original_max_position_embeddings", "8192"), "original_max_position_embeddings", "an integer"},
  };
  for (const Refused& one : cases) {
    const std::string what = error_with(one.changes);
    EXPECT_NE(what.find("\"" + std::string(one.key) + "\""), std::string::npos) << one.changes << ": " << what;
    EXPECT_NE(what.find(one.says), std::string::npos) << one.changes << ": " << what;
  }
  EXPECT_EQ(cases.size(), 84U);
}

TEST_F(LlamaConfigFile, WhatIsNoObjectOfJsonIsRefused) {
  std::vector<test::Malformed> cases = test::not_json("{\"model_type\":\"llama\",\"hidden_size\":", "}");
  for (const char* text : {"[]", "3", "\"llama\"", "true", "[{\"model_type\":\"llama\"}]"}) {
    cases.push_back({text, "a JSON object is needed"});
  }
  cases.push_back({"", "empty"});
  test::expect_refused(cases, "config.json", 49, [](const fs::path& path) { load_llama_config(path.parent_path()); });
}

TEST_F(LlamaConfigFile, AFolderWithoutItIsAnError) {
  const std::string what = error_of([&] { load_decoder(folder_.path() / "nowhere"); }, ErrorCode::kIo);
  EXPECT_NE(what.find("config.json"), std::string::npos) << what;
}

TEST_F(LlamaConfigFile, AnotherModelTypeIsToldWithThoseThatAreKnown) {
  for (const char* type :
       {"gpt2", "mistral", "qwen2", "gemma2", "phi3", "mixtral", "t5", "bart", "llama4", "LLAMA", ""}) {
    json config = good();
    config["model_type"] = type;
    folder_.write("config.json", config.dump());
    const std::string any = error_of([&] { load_encoder(folder_.path()); }, ErrorCode::kMalformedFile);
    for (const std::string known : {"\"bert\"", "\"llama\""}) {
      EXPECT_NE(any.find(known), std::string::npos) << any;
    }
    const std::string decoder = error_of([&] { load_decoder(folder_.path()); }, ErrorCode::kMalformedFile);
    EXPECT_NE(decoder.find("\"model_type\" is " + json(type).dump() + "; \"llama\" is needed"), std::string::npos)
        << decoder;
  }
}

}  // namespace
}  // namespace manyheads::model
