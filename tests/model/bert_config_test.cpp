#include "model/bert_config.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <manyheads/error.hpp>
#include <nlohmann/json.hpp>
#include <string>

namespace manyheads::model {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

class BertConfigFile : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(testing::TempDir()) / ("manyheads_bert_config_" + std::to_string(getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  static json good() {
    return {{"model_type", "bert"},         {"hidden_size", 32}, {"num_hidden_layers", 2},
            {"num_attention_heads", 4},     {"vocab_size", 50},  {"intermediate_size", 64},
            {"max_position_embeddings", 40}};
  }
  BertConfig load(const json& config) {
    std::ofstream(folder_ / "config.json") << config;
    return load_bert_config(folder_);
  }
  // The error for the good file with one key changed (or left out, where the value is null), without the folder.
  std::string error(const std::string& key, const json& value) {
    json config = good();
    config[key] = value;
    if (value.is_null()) config.erase(key);
    try {
      load(config);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kMalformedFile);
      const std::string what = error.what();
      EXPECT_NE(what.find((folder_ / "config.json").string()), std::string::npos) << what;
      EXPECT_EQ(what.find('\n'), std::string::npos);
      return what;
    }
    return "no error";
  }

  fs::path folder_;
};

TEST_F(BertConfigFile, ReadsWhatItSays) {
  json config = good();
  config["hidden_act"] = "relu";
  config["layer_norm_eps"] = 1e-5;
  config["type_vocab_size"] = 3;
  config["transformers_version"] = "4.8.2";
  const BertConfig read = load(config);
  EXPECT_EQ(read.hidden_size, 32);
  EXPECT_EQ(read.num_hidden_layers, 2);
  EXPECT_EQ(read.num_attention_heads, 4);
  EXPECT_EQ(read.head_dim(), 8);
  EXPECT_EQ(read.intermediate_size, 64);
  EXPECT_EQ(read.vocab_size, 50);
  EXPECT_EQ(read.max_position_embeddings, 40);
  EXPECT_EQ(read.type_vocab_size, 3);
  EXPECT_EQ(read.layer_norm_eps, 1e-5);
  EXPECT_EQ(read.hidden_act, layer::Activation::kRelu);
}

TEST_F(BertConfigFile, OlderFilesLeaveOutWhatBertFixed) {
  const BertConfig read = load(good());
  EXPECT_EQ(read.type_vocab_size, 2);
  EXPECT_EQ(read.layer_norm_eps, 1e-12);
  EXPECT_EQ(read.hidden_act, layer::Activation::kGelu);
}

TEST_F(BertConfigFile, KnowsTheActivations) {
  for (const auto& [name, activation] :
       {std::pair{"gelu", layer::Activation::kGelu}, std::pair{"gelu_new", layer::Activation::kGeluTanh},
        std::pair{"gelu_pytorch_tanh", layer::Activation::kGeluTanh}, std::pair{"relu", layer::Activation::kRelu}}) {
    json config = good();
    config["hidden_act"] = name;
    EXPECT_EQ(load(config).hidden_act, activation) << name;
  }
}

TEST_F(BertConfigFile, NamesTheKeyThatDoesNotFit) {
  int refused = 0;
  for (const char* key : {"hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size",
                          "max_position_embeddings"}) {
    for (const json& value : {json(nullptr), json(0), json(-1), json(1.5), json("32"), json(true), json::array({32}),
                              json::object(), json(std::int64_t{1} << 62), json(1e30)}) {
      const std::string what = error(key, value);
      EXPECT_NE(what.find(key), std::string::npos) << key << " = " << value << ": " << what;
      ++refused;
    }
  }
  for (const auto& [key, value] : {std::pair<const char*, json>{"model_type", nullptr},
                                   {"model_type", "gpt2"},
                                   {"model_type", 3},
                                   {"type_vocab_size", 0},
                                   {"type_vocab_size", "2"},
                                   {"layer_norm_eps", "small"},
                                   {"layer_norm_eps", -1e-5},
                                   {"layer_norm_eps", 2.0},
                                   {"hidden_act", "silu"},
                                   {"hidden_act", 1},
                                   {"position_embedding_type", "relative_key"},
                                   {"position_embedding_type", 0},
                                   {"is_decoder", true},
                                   {"is_decoder", "no"},
                                   {"num_attention_heads", 5},
                                   {"num_attention_heads", 64}}) {
    const std::string what = error(key, value);
    EXPECT_NE(what.find(key), std::string::npos) << key << " = " << value << ": " << what;
    ++refused;
  }
  EXPECT_EQ(refused, 76);
}

TEST_F(BertConfigFile, SaysWhatWouldDo) {
  EXPECT_NE(error("num_attention_heads", 5)
                .find("d_model 32 is not divisible by 5 heads (32 = 5 * 6 + 2); 1, 2, 4, 8, "
                      "16, 32 would divide"),
            std::string::npos);
  EXPECT_NE(error("hidden_act", "silu").find("\"silu\""), std::string::npos);
  EXPECT_NE(error("hidden_act", "silu").find("gelu, gelu_new, gelu_pytorch_tanh or relu"), std::string::npos);
  EXPECT_NE(error("model_type", "gpt2").find("\"gpt2\""), std::string::npos);
}

TEST_F(BertConfigFile, AFolderWithoutItIsAnError) {
  try {
    load_bert_config(folder_ / "nowhere");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kIo);
    EXPECT_NE(std::string(error.what()).find("config.json"), std::string::npos);
  }
}

}  // namespace
}  // namespace manyheads::model
