#include "model/tokenizer_config.hpp"

#include <gtest/gtest.h>

#include <manyheads/error.hpp>
#include <nlohmann/json.hpp>
#include <string>

#include "io/malformed.hpp"
#include "support.hpp"

namespace manyheads::model {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using test::TemporaryFolder;
using Tokens = std::vector<std::string>;

// The golden files have what each setting does to a vector; here is what is refused, and each by its name.
class TokenizerConfig : public testing::Test {
 protected:
  TokenizerConfig() { write("tokenizer.json", tokenizer()); }
  static Json tokenizer() {
    return Json::parse(std::ifstream(test::source_dir() / "tests/golden/embed/tiny/tokenizer.json"));
  }
  void write(const std::string& name, const Json& content) { folder_.write(name, content.dump()); }
  std::string error(const Json& settings) {
    write("tokenizer_config.json", settings);
    try {
      load_tokenizer(folder_.path());
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kMalformedFile);
      return error.what();
    }
    return "no error";
  }
  Tokens tokens(const std::string& text, bool lower_case = false) {
    return load_tokenizer(folder_.path(), lower_case).tokenizer.encode(text, false).tokens;
  }

  TemporaryFolder folder_;
};

TEST_F(TokenizerConfig, BertIsBuiltFromTheVocabulary) {
  EXPECT_EQ(tokens("The Cat"), (Tokens{"the", "cat"}));
  write("tokenizer_config.json", {{"do_lower_case", false}});
  EXPECT_EQ(tokens("The Cat"), (Tokens{"The", "Cat"}));
  EXPECT_EQ(tokens("The Cat", true), (Tokens{"the", "cat"}));
  // Another class is as tokenizer.json says.
  write("tokenizer_config.json", {{"do_lower_case", false}, {"tokenizer_class", "PreTrainedTokenizerFast"}});
  EXPECT_EQ(tokens("The Cat"), (Tokens{"the", "cat"}));
  write("tokenizer_config.json", {{"do_lower_case", false}, {"tokenizer_class", nullptr}});
  EXPECT_EQ(tokens("The Cat"), (Tokens{"The", "Cat"}));
  write("config.json", {{"tokenizer_class", "PreTrainedTokenizerFast"}});
  EXPECT_EQ(tokens("The Cat"), (Tokens{"the", "cat"}));
}

// The golden files have its vectors; here is what they cannot show.
TEST_F(TokenizerConfig, RobertaIsBuiltFromVocabularyAndMerges) {
  const Json roberta =
      Json::parse(std::ifstream(test::source_dir() / "tests/golden/embed/tiny_roberta/tokenizer.json"));
  write("tokenizer.json", roberta);
  write("config.json", {{"model_type", "roberta"}});
  const Tokenizer tokenizer = load_tokenizer(folder_.path()).tokenizer;
  EXPECT_EQ(tokenizer.encode("the cat", true).tokens, (Tokens{"<s>", "the", "Ġcat", "</s>"}));
  const Encoding pair = tokenizer.encode_pair("the", "cat");
  EXPECT_EQ(pair.tokens, (Tokens{"<s>", "the", "</s>", "</s>", "cat", "</s>"}));
  EXPECT_EQ(pair.type_ids, std::vector<std::int64_t>(6));
  EXPECT_EQ(pair.offsets[4], (std::array<std::int64_t, 2>{0, 3}));

  const auto refused = [&](const Json& settings, const std::string& says) {
    const std::string message = error(settings);
    EXPECT_NE(message.find(says), std::string::npos) << message;
  };
  EXPECT_EQ(error({{"add_prefix_space", true}}), "no error");
  EXPECT_EQ(tokens("the cat"), (Tokens{"Ġthe", "Ġcat"}));
  refused({{"add_prefix_space", "yes"}}, "\"add_prefix_space\" is \"yes\"");
  refused({{"trim_offsets", 1}}, "\"trim_offsets\" is 1");
  refused({{"cls_token", "[CLS]"}}, "[CLS]");
  refused({{"sep_token", nullptr}}, "sep_token");
  refused({{"tokenizer_class", "BertTokenizer"}}, "\"type\" is \"BPE\"; \"WordPiece\", as ");
  Json json = roberta;
  json["model"].erase("merges");
  write("tokenizer.json", json);
  refused(Json::object(), "\"merges\" is missing");
  json["model"]["merges"] = "t h";
  write("tokenizer.json", json);
  refused(Json::object(), "\"merges\" is \"t h\"");
  json["model"]["type"] = "Unigram";
  write("tokenizer.json", json);
  refused(Json::object(), "\"type\" is \"Unigram\"; \"BPE\", as ");
  write("config.json", {{"model_type", 3}});
  refused(Json::object(), "\"model_type\" is 3");
}

// Unigram with the blank as a character of its own, as XLM-RoBERTa's and CamemBERT's tokenizer.json have it.
TEST_F(TokenizerConfig, XlmRobertaIsAsTokenizerJsonSays) {
  const auto special = [](int id, const char* text) {
    return Json{{"id", id},        {"content", text},     {"single_word", false}, {"lstrip", false},
                {"rstrip", false}, {"normalized", false}, {"special", true}};
  };
  const auto token = [](const char* text) { return Json{{"SpecialToken", {{"id", text}, {"type_id", 0}}}}; };
  const auto text = [](const char* name) { return Json{{"Sequence", {{"id", name}, {"type_id", 0}}}}; };
  Json vocab = Json::array();
  for (const auto& [piece, score] : std::vector<std::pair<std::string, double>>{{"<s>", 0},
                                                                                {"<pad>", 0},
                                                                                {"</s>", 0},
                                                                                {"<unk>", 0},
                                                                                {"▁the", -1},
                                                                                {"▁c", -2},
                                                                                {"at", -2},
                                                                                {"▁", -3},
                                                                                {"s", -4}}) {
    vocab.push_back({piece, score});
  }
  write("tokenizer.json",
        {{"version", "1.0"},
         {"added_tokens", {special(0, "<s>"), special(1, "<pad>"), special(2, "</s>"), special(3, "<unk>")}},
         {"normalizer", nullptr},
         {"pre_tokenizer",
          {{"type", "Sequence"},
           {"pretokenizers",
            {{{"type", "WhitespaceSplit"}},
             {{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", "always"}, {"split", true}}}}}},
         {"post_processor",
          {{"type", "TemplateProcessing"},
           {"single", {token("<s>"), text("A"), token("</s>")}},
           {"pair", {token("<s>"), text("A"), token("</s>"), token("</s>"), text("B"), token("</s>")}},
           {"special_tokens",
            {{"<s>", {{"id", "<s>"}, {"ids", {0}}, {"tokens", {"<s>"}}}},
             {"</s>", {{"id", "</s>"}, {"ids", {2}}, {"tokens", {"</s>"}}}}}}}},
         {"decoder", nullptr},
         {"model", {{"type", "Unigram"}, {"unk_id", 3}, {"vocab", vocab}, {"byte_fallback", false}}}});
  const Tokens expected{"<s>", "▁the", "▁c", "at", "▁", "s", "at", "</s>"};
  for (const Json& config : {Json{{"model_type", "xlm-roberta"}}, Json{{"model_type", "camembert"}}}) {
    write("config.json", config);
    EXPECT_EQ(load_tokenizer(folder_.path()).tokenizer.encode("the cat  sat").tokens, expected) << config;
  }
  write("config.json", {{"model_type", "bert"}});
  EXPECT_NE(error(Json::object()).find("\"type\" is \"Unigram\""), std::string::npos);
  // As in the multilingual MiniLM of sentence-transformers.
  EXPECT_EQ(error({{"tokenizer_class", "XLMRobertaTokenizerFast"}}), "no error");
  EXPECT_EQ(load_tokenizer(folder_.path()).tokenizer.encode("the cat sat").tokens, expected);
}

TEST_F(TokenizerConfig, SmallLettersComeFirst) {
  for (const Json& normalizer :
       {Json(), Json{{"type", "NFC"}}, Json{{"type", "Lowercase"}},
        Json{{"type", "Sequence"}, {"normalizers", {{{"type", "NFC"}}, {{"type", "Lowercase"}}}}},
        Json{{"type", "Sequence"}, {"normalizers", {{{"type", "NFC"}}, {{"type", "NFD"}}}}}}) {
    Json json = tokenizer();
    json["normalizer"] = normalizer;
    write("tokenizer.json", json);
    write("tokenizer_config.json", {{"tokenizer_class", "TokenizersBackend"}});
    EXPECT_EQ(tokens("The CAT", true), (Tokens{"the", "cat"})) << normalizer;
  }
}

TEST_F(TokenizerConfig, LengthsAndNone) {
  const auto length = [&](const Json& settings) {
    write("tokenizer_config.json", settings);
    return load_tokenizer(folder_.path()).model_max_length;
  };
  EXPECT_EQ(length(Json::object()), std::nullopt);
  EXPECT_EQ(length({{"model_max_length", 7}}), 7);
  EXPECT_EQ(length({{"model_max_length", nullptr}, {"max_len", 8}}), 8);
  EXPECT_EQ(length({{"model_max_length", 1e30}}), std::nullopt);
  EXPECT_EQ(length(Json::parse(R"({"model_max_length": 1000000000000000019884624838656})")), std::nullopt);
}

TEST_F(TokenizerConfig, WhatIsNotKnownIsRefusedByName) {
  const auto refused = [&](const Json& settings, const std::string& says) {
    const std::string message = error(settings);
    EXPECT_NE(message.find(says), std::string::npos) << message;
    EXPECT_NE(message.find("token"), std::string::npos) << message;
  };
  EXPECT_EQ(error(Json::object()), "no error");
  refused({{"truncation_side", "left"}}, "\"truncation_side\" is \"left\"");
  refused({{"padding_side", "left"}}, "\"padding_side\" is \"left\"");
  refused({{"split_special_tokens", true}}, "\"split_special_tokens\" is true");
  refused({{"do_lower_case", "yes"}}, "\"do_lower_case\" is \"yes\"");
  refused({{"strip_accents", 1}}, "\"strip_accents\" is 1");
  refused({{"tokenize_chinese_chars", 0}}, "tokenize_chinese_chars");
  refused({{"model_max_length", 0}}, "\"model_max_length\" is 0");
  refused({{"model_max_length", "512"}}, "model_max_length");
  refused({{"model_max_length", 7.5}}, "model_max_length");
  refused({{"tokenizer_class", 3}}, "tokenizer_class");
  refused({{"cls_token", "[NONE]"}}, "[NONE]");
  refused({{"cls_token", nullptr}}, "cls_token");
  refused({{"sep_token", {{"text", "[SEP]"}}}}, "content");
  refused({{"added_tokens_decoder", {{"x", {{"content", "a"}}}}}}, "\"x\"");
  refused({{"added_tokens_decoder", {{"1", "a"}}}}, "\"1\"");
  refused({{"additional_special_tokens", {3}}}, "content");
  refused(Json::array(), "a JSON object is needed");
  Json json = tokenizer();
  json["truncation"] = {{"direction", "Left"}, {"max_length", 8}, {"strategy", "LongestFirst"}, {"stride", 0}};
  write("tokenizer.json", json);
  refused(Json::object(), "\"direction\" is \"Left\"");
  EXPECT_EQ(error({{"truncation_side", "right"}}), "no error");  // goes before the file's own
  json = tokenizer();
  json["model"]["type"] = "WordLevel";
  write("tokenizer.json", json);
  refused(Json::object(), "WordPiece");
  json["model"].erase("vocab");
  write("tokenizer.json", json);
  refused({{"tokenizer_class", "TokenizersBackend"}}, "not a tokenizer");
}

}  // namespace
}  // namespace manyheads::model
