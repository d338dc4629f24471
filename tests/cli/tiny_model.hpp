#pragma once

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "program.hpp"

namespace manyheads::cli_test {

// A model folder that needs no download: the random encoder of the golden files (2 layers, 4 heads, 40 positions) with
// a tokenizer of 50 words.
class TinyModel : public Folder {
 protected:
  explicit TinyModel(const char* golden = "model/tiny_gelu") : golden_(golden) {}
  void SetUp() override {
    Folder::SetUp();
    model_ = path("tiny");
    const auto golden = std::filesystem::path(MANYHEADS_SOURCE_DIR) / "tests/golden" / golden_;
    std::filesystem::create_directories(model_);
    for (const char* name : {"config.json", "model.safetensors"}) {
      std::filesystem::copy_file(golden / name, std::filesystem::path(model_) / name);
    }
    std::ofstream(std::filesystem::path(model_) / "tokenizer.json") << tokenizer();
  }

  std::string model() const { return model_; }
  // The verb with --model; the result of the run.
  Result program(std::vector<std::string> arguments, const How& how = {}) const {
    arguments.insert(arguments.end(), {"--model", model_});
    return run(arguments, how);
  }
  static std::string many_words(int count) {
    std::string text;
    for (int i = 0; i < count; ++i) text += i % 2 == 0 ? "cat " : "sat ";
    return text;
  }

 private:
  static std::string tokenizer() {
    const std::vector<std::string> words = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "black", "cat",  "sat",
                                            "on",    "mat",   ".",     ",",     "dog", "em",    "##bed"};
    std::string vocabulary;
    for (std::size_t i = 0; i < 50; ++i) {
      const std::string word = i < words.size() ? words[i] : std::string(1, 'w').append(std::to_string(i));
      vocabulary += (i == 0 ? "\"" : ",\"") + word + "\":" + std::to_string(i);
    }
    const auto special = [](int id, const std::string& token) {
      return "{\"id\":" + std::to_string(id) + ",\"content\":\"" + token +
             "\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false,\"special\":true}";
    };
    const auto token = [](const std::string& name, int type) {
      return "{\"SpecialToken\":{\"id\":\"" + name + "\",\"type_id\":" + std::to_string(type) + "}}";
    };
    const auto sequence = [](const std::string& name, int type) {
      return "{\"Sequence\":{\"id\":\"" + name + "\",\"type_id\":" + std::to_string(type) + "}}";
    };
    const std::string single = token("[CLS]", 0) + "," + sequence("A", 0) + "," + token("[SEP]", 0);
    return R"({"version":"1.0","truncation":{"direction":"Right","max_length":8,"strategy":"LongestFirst","stride":0},)"
           R"("padding":{"strategy":{"Fixed":16},"direction":"Right","pad_to_multiple_of":null,"pad_id":0,)"
           R"("pad_type_id":0,"pad_token":"[PAD]"},"added_tokens":[)" +
           special(1, "[UNK]") + "," + special(2, "[CLS]") + "," + special(3, "[SEP]") +
           R"(],"normalizer":{"type":"BertNormalizer","clean_text":true,"handle_chinese_chars":true,)"
           R"("strip_accents":null,"lowercase":true},"pre_tokenizer":{"type":"BertPreTokenizer"},)"
           R"("post_processor":{"type":"TemplateProcessing","single":[)" +
           single + R"(],"pair":[)" + single + "," + sequence("B", 1) + "," + token("[SEP]", 1) +
           R"(],"special_tokens":{"[CLS]":{"id":"[CLS]","ids":[2],"tokens":["[CLS]"]},)"
           R"("[SEP]":{"id":"[SEP]","ids":[3],"tokens":["[SEP]"]}}},"decoder":null,)"
           R"("model":{"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##",)"
           R"("max_input_chars_per_word":100,"vocab":{)" +
           vocabulary + "}}}";
  }

  const char* golden_;
  std::string model_;
};

// The same of the random decoder (2 layers, 4 heads on 2 key/value heads).
class TinyDecoder : public TinyModel {
 protected:
  TinyDecoder() : TinyModel("decoder/tiny_grouped") {}
};

}  // namespace manyheads::cli_test
