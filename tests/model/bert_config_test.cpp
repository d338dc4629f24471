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

  static json good(const std::string& type = "bert") {
    if (type == "distilbert") {
      return {{"model_type", "distilbert"},
              {"dim", 32},
              {"n_layers", 2},
              {"n_heads", 4},
              {"vocab_size", 50},
              {"hidden_dim", 64},
              {"max_position_embeddings", 40}};
    }
    return {{"model_type", type}, {"hidden_size", 32},       {"num_hidden_layers", 2},       {"num_attention_heads", 4},
            {"vocab_size", 50},   {"intermediate_size", 64}, {"max_position_embeddings", 40}};
  }
  BertConfig load(const json& config) {
    std::ofstream(folder_ / "config.json") << config;
    return load_bert_config(folder_);
  }
  // The error for the good file with one key changed (or left out, where the value is null), without the folder.
  std::string error(const std::string& key, const json& value, const std::string& type = "bert") {
    json config = good(type);
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

TEST_F(BertConfigFile, RobertaCountsPositionsFromBehindThePadding) {
  for (const char* type : {"roberta", "xlm-roberta", "camembert"}) {
    json config = good(type);
    BertConfig read = load(config);
    EXPECT_EQ(read.names->model_type, std::string(type));
    EXPECT_EQ(read.first_position, 2) << type;
    EXPECT_EQ(read.max_position_embeddings, 40);
    EXPECT_EQ(read.max_tokens(), 38);
    config["pad_token_id"] = 7;
    config["type_vocab_size"] = 1;
    read = load(config);
    EXPECT_EQ(read.first_position, 8);
    EXPECT_EQ(read.max_tokens(), 32);
    EXPECT_EQ(read.type_vocab_size, 1);
  }
  json config = good();
  config["pad_token_id"] = 7;  // BERT's says nothing of positions
  EXPECT_EQ(load(config).first_position, 0);
  EXPECT_EQ(load(config).max_tokens(), 40);
}

TEST_F(BertConfigFile, DistilBertHasItsOwnKeys) {
  json config = good("distilbert");
  BertConfig read = load(config);
  EXPECT_EQ(read.hidden_size, 32);
  EXPECT_EQ(read.num_hidden_layers, 2);
  EXPECT_EQ(read.num_attention_heads, 4);
  EXPECT_EQ(read.intermediate_size, 64);
  EXPECT_EQ(read.max_tokens(), 40);
  EXPECT_EQ(read.first_position, 0);
  EXPECT_EQ(read.type_vocab_size, 0);
  EXPECT_EQ(read.layer_norm_eps, 1e-12);
  EXPECT_EQ(read.hidden_act, layer::Activation::kGelu);
  // Keys of BERT mean nothing here.
  config.update({{"activation", "relu"}, {"hidden_act", "silu"}, {"layer_norm_eps", 1e-5}, {"type_vocab_size", 2}});
  config.update({{"sinusoidal_pos_embds", true}, {"pad_token_id", 3}});
  read = load(config);
  EXPECT_EQ(read.hidden_act, layer::Activation::kRelu);
  EXPECT_EQ(read.layer_norm_eps, 1e-12);
  EXPECT_EQ(read.type_vocab_size, 0);
  EXPECT_EQ(read.first_position, 0);
}

const json kNoSizes[] = {nullptr, 0, -1, 1.5, "32", true, json::array({32}), json::object(), std::int64_t{1} << 62,
                         1e30};

TEST_F(BertConfigFile, NamesTheKeyOfRobertaThatDoesNotFit) {
  const auto refused = [&](const std::string& key, const json& value) {
    const std::string what = error(key, value, "roberta");
    EXPECT_NE(what.find("\"" + key + "\""), std::string::npos) << key << " = " << value << ": " << what;
  };
  for (const char* key : {"hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size",
                          "max_position_embeddings"}) {
    for (const json& value : kNoSizes) refused(key, value);
  }
  for (const json& value : {json(-1), json(50), json(1.5), json("1"), json(true), json::array({1}), json::object()}) {
    refused("pad_token_id", value);
  }
  refused("max_position_embeddings", 1);
  EXPECT_NE(error("max_position_embeddings", 2, "roberta")
                .find("\"max_position_embeddings\" is 2; more than 2, as positions begin behind \"pad_token_id\", is "
                      "needed"),
            std::string::npos);
  json config = good("roberta");
  config["pad_token_id"] = nullptr;
  EXPECT_THROW(load(config), Error);
  config["pad_token_id"] = 39;
  EXPECT_THROW(load(config), Error);
  config["pad_token_id"] = 38;
  EXPECT_EQ(load(config).max_tokens(), 1);
}

TEST_F(BertConfigFile, NamesTheKeyOfDistilBertThatDoesNotFit) {
  const auto refused = [&](const std::string& key, const json& value) {
    const std::string what = error(key, value, "distilbert");
    EXPECT_NE(what.find("\"" + key + "\""), std::string::npos) << key << " = " << value << ": " << what;
  };
  for (const char* key : {"dim", "n_layers", "n_heads", "hidden_dim", "vocab_size", "max_position_embeddings"}) {
    for (const json& value : kNoSizes) refused(key, value);
  }
  refused("activation", "silu");
  refused("activation", 1);
  refused("n_heads", 5);
  EXPECT_NE(error("n_heads", 5, "distilbert").find("\"n_heads\" does not fit \"dim\": d_model 32"), std::string::npos);
}

TEST_F(BertConfigFile, NamesTheKeyThatDoesNotFit) {
  int refused = 0;
  for (const char* key : {"hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size",
                          "max_position_embeddings"}) {
    for (const json& value : kNoSizes) {
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
  EXPECT_NE(error("model_type", "gpt2")
                .find("\"gpt2\"; \"bert\" or \"roberta\" or \"xlm-roberta\" or \"camembert\" or \"distilbert\" is "
                      "needed"),
            std::string::npos);
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
