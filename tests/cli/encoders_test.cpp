// look and trace with the folders of RoBERTa and DistilBERT. embed_golden_test.cpp has embed.
#include <gtest/gtest.h>

#include <manyheads/safetensors.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "program.hpp"

namespace manyheads::cli_test {
namespace {

class CliEncoders : public Folder {
 protected:
  static std::string folder(const std::string& name) { return MANYHEADS_SOURCE_DIR "/tests/golden/embed/" + name; }
  static std::string words(int count) {
    std::string text = "the";
    for (int i = 1; i < count; ++i) text += " cat";
    return text;
  }
  static Result look(const std::string& model, const std::vector<std::string>& text) {
    std::vector<std::string> arguments = {"look", "--model", folder(model)};
    arguments.insert(arguments.end(), text.begin(), text.end());
    return run(arguments);
  }
  static bool says(const Result& result, const std::string& text) {
    return (result.out + result.err).find(text) != std::string::npos;
  }
};

TEST_F(CliEncoders, LookAtRoberta) {
  const Result one = look("tiny_roberta", {"the cat sat, the red cat"});
  EXPECT_EQ(one.code, 0) << one.err;
  EXPECT_TRUE(says(one, "<s> the Ġcat Ġsat , Ġthe Ġred Ġcat </s>")) << one.out;
  EXPECT_TRUE(says(one, "<s>: the model's mark before all text. </s>: its mark at the end of a text.")) << one.out;
  EXPECT_TRUE(says(one, "Ġ:\n  a blank before the token.")) << one.out;
  const Result pair = look("tiny_roberta", {"the cat", "--pair", "red cat"});
  EXPECT_EQ(pair.code, 0) << pair.err;
  EXPECT_TRUE(says(pair, "<s> the Ġcat </s> </s> red Ġcat </s>")) << pair.out;
}

TEST_F(CliEncoders, LookAtDistilBert) {
  const Result pair = look("tiny_distilbert", {"the cat", "--pair", "red cat"});
  EXPECT_EQ(pair.code, 0) << pair.err;
  EXPECT_TRUE(says(pair, "[CLS] the cat [SEP] red cat [SEP]")) << pair.out;
}

TEST_F(CliEncoders, ATextMayHaveAsManyTokensAsThereArePositions) {
  for (const char* model : {"tiny_roberta", "tiny_distilbert"}) {
    EXPECT_EQ(look(model, {words(38)}).code, 0) << model;
    const Result result = look(model, {words(39)});
    EXPECT_EQ(result.code, 1) << model;
    EXPECT_TRUE(says(result, "has 41 tokens, the model takes 40; --truncate cuts to that")) << result.err;
  }
}

TEST_F(CliEncoders, TraceHoldsEveryHead) {
  for (const char* model : {"tiny_roberta", "tiny_distilbert"}) {
    const Result result = run({"trace", "the cat sat", "--model", folder(model), "-o", path("trace.safetensors")});
    ASSERT_EQ(result.code, 0) << result.err;
    const SafetensorsFile file = load_safetensors(path("trace.safetensors"));
    EXPECT_EQ(file.metadata.at("model"), model);
    EXPECT_EQ(nlohmann::json::parse(file.metadata.at("tokens")).size(), 5u);
    for (const char* tensor : {"layers.0.q", "layers.1.k", "layers.1.lse"}) EXPECT_TRUE(file.tensors.contains(tensor));
  }
}

}  // namespace
}  // namespace manyheads::cli_test
