#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <manyheads/error.hpp>
#include <manyheads/model/encoder.hpp>
#include <memory>
#include <string>
#include <vector>

#include "io/malformed.hpp"
#include "support.hpp"

namespace manyheads::model {
namespace {

namespace fs = std::filesystem;
using test::error_of;

std::unique_ptr<const Encoder> tiny() {
  return load_encoder(test::source_dir() / "tests/golden/model/tiny_gelu");
}

TEST(Encoder, AFolderIsOpenedByItsModelType) {
  const std::unique_ptr<const Encoder> encoder = tiny();
  const EncoderConfig& config = encoder->config();
  EXPECT_EQ(config.hidden_size, 32);
  EXPECT_EQ(config.num_layers, 2);
  EXPECT_EQ(config.num_heads, 4);
  EXPECT_EQ(config.num_kv_heads, 4);
  EXPECT_EQ(config.head_dim, 8);
  EXPECT_DOUBLE_EQ(config.scale * config.scale * 8, 1);
  EXPECT_FALSE(config.causal);
  EXPECT_EQ(config.vocab_size, 50);
  EXPECT_EQ(config.max_position_embeddings, 40);
}

TEST(Encoder, AnUnknownModelTypeIsToldWithThoseThatAreKnown) {
  const test::TemporaryFolder folder;
  const auto error = [&](const std::string& config) {
    folder.write("config.json", config);
    return error_of([&] { load_encoder(folder.path()); }, ErrorCode::kMalformedFile);
  };
  const std::string unknown = error(R"({"model_type":"t5"})");
  EXPECT_NE(unknown.find(": \"model_type\" is \"t5\"; "), std::string::npos) << unknown;
  for (const char* known : {"bert", "roberta", "xlm-roberta", "camembert", "distilbert", "llama"}) {
    EXPECT_NE(unknown.find("\"" + std::string(known) + "\""), std::string::npos) << unknown;
  }
  EXPECT_NE(error("{}").find(": \"model_type\" is missing; a string is needed"), std::string::npos);
  EXPECT_NE(error(R"({"model_type":3})").find(": \"model_type\" is 3; a string is needed"), std::string::npos);
}

TEST(Encoder, RunNamesWhatDoesNotFit) {
  const std::unique_ptr<const Encoder> encoder = tiny();
  const auto error = [&](const TokenBatch& input) { return error_of([&] { encoder->run(input); }); };
  EXPECT_EQ(error({.batch = 1, .tokens = 2, .ids = {1}}), "Encoder::run: 1 ids for [B,T] = [1,2]");
  EXPECT_EQ(error({.batch = 1, .tokens = 1, .ids = {1}, .type_ids = {0, 0}}),
            "Encoder::run: 2 type_ids for [B,T] = [1,1]");
  EXPECT_EQ(error({.batch = 1, .tokens = 1, .ids = {1}, .lengths = {1, 1}}),
            "Encoder::run: 2 lengths for [B,T] = [1,1]");
  EXPECT_EQ(error({.batch = 1, .tokens = 1, .ids = {1}, .lengths = {2}}),
            "Encoder::run: length 2 of batch entry 0, expected 0 to 1");
  EXPECT_EQ(error({.batch = 1, .tokens = 1, .ids = {1}, .lengths = {-1}}),
            "Encoder::run: length -1 of batch entry 0, expected 0 to 1");
  EXPECT_EQ(error({.batch = 1, .tokens = 1, .ids = {50}}),
            "Encoder::run: token id 50 of batch entry 0, the vocabulary has 50");
  EXPECT_EQ(error({.batch = 1, .tokens = 1, .ids = {-1}}),
            "Encoder::run: token id -1 of batch entry 0, the vocabulary has 50");
  EXPECT_EQ(error({.batch = 1, .tokens = 1, .ids = {1}, .type_ids = {2}}),
            "Encoder::run: type id 2 of batch entry 0, the model has 2");
  EXPECT_EQ(error({.batch = 1, .tokens = 41, .ids = std::vector<std::int64_t>(41)}),
            "Encoder::run: 41 tokens, more than the 40 that the model takes");
  EXPECT_EQ(error({.batch = -1, .tokens = 1}), "shape [-1,1] has a negative size");
  Tensor scale(DType::kF32, {2, 3});
  EXPECT_EQ(error_of([&] { encoder->run(TokenBatch::from_rows({{1, 2, 3}}), {.head_scale = scale.cview()}); }),
            "Encoder::run: head_scale is F32 [2,3], expected F32 [layers,heads] = [2,4]");
  EXPECT_EQ(error_of([] { TokenBatch::from_rows({{1, 2}}, {{0}}); }),
            "TokenBatch::from_rows: row 0 has 2 ids and 1 type_ids");
  // Padding may hold anything, and nothing is fine.
  EXPECT_EQ(error({.batch = 1, .tokens = 41, .ids = std::vector<std::int64_t>(41, 99), .lengths = {0}}), "no error");
  EXPECT_EQ(error({.batch = 0, .tokens = 0}), "no error");
  EXPECT_EQ(error({.batch = 2, .tokens = 0}), "no error");
}

}  // namespace
}  // namespace manyheads::model
