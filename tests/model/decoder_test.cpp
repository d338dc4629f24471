#include <manyheads/model/decoder.hpp>

#include <gtest/gtest.h>

#include <cstdint>
#include <manyheads/error.hpp>
#include <memory>
#include <string>
#include <vector>

#include "support.hpp"

namespace manyheads::model {
namespace {

using test::error_of;

// 64 positions, a vocabulary of 96.
std::unique_ptr<const Decoder> tiny() { return load_decoder(test::source_dir() / "tests/golden/decoder/tiny_grouped"); }

TEST(Decoder, RunNamesWhatDoesNotFit) {
  const std::unique_ptr<const Decoder> decoder = tiny();
  const auto error = [&](const TokenBatch& input) { return error_of([&] { decoder->run(input); }); };
  const std::vector<std::int64_t> long_prompt(65, 1);
  EXPECT_EQ(error(TokenBatch::from_rows({long_prompt})),
            "Encoder::run: 65 tokens, more than the 64 that the model takes");
  EXPECT_EQ(error(TokenBatch::from_rows({{1}, long_prompt})),
            "Encoder::run: 65 tokens, more than the 64 that the model takes");
  EXPECT_EQ(error(TokenBatch::from_rows({{1, 2}, {3, 96}})),
            "Encoder::run: token id 96 of batch entry 1, the vocabulary has 96");
  EXPECT_EQ(error(TokenBatch::from_rows({{-1}})), "Encoder::run: token id -1 of batch entry 0, the vocabulary has 96");
  EXPECT_EQ(error(TokenBatch::from_rows({{std::int64_t{1} << 62}})),
            "Encoder::run: token id 4611686018427387904 of batch entry 0, the vocabulary has 96");
  EXPECT_EQ(error(TokenBatch::from_rows({{1, 2}}, {{0, 1}})),
            "Encoder::run: type id 1 of batch entry 0, the model has 1");
  EXPECT_EQ(error({.batch = 1, .tokens = 2, .ids = {1}}), "Encoder::run: 1 ids for [B,T] = [1,2]");
  EXPECT_EQ(error({.batch = 1, .tokens = 1, .ids = {1}, .lengths = {2}}),
            "Encoder::run: length 2 of batch entry 0, expected 0 to 1");
  EXPECT_EQ(error({.batch = 1, .tokens = 1, .ids = {1}, .lengths = {-1}}),
            "Encoder::run: length -1 of batch entry 0, expected 0 to 1");
  EXPECT_EQ(error(TokenBatch::from_rows({std::vector<std::int64_t>(64, 1)})), "no error");
}

TEST(Decoder, NothingToRunIsNoError) {
  const std::unique_ptr<const Decoder> decoder = tiny();
  for (const TokenBatch& input :
       {TokenBatch{}, TokenBatch{.batch = 2}, TokenBatch{.batch = 0, .tokens = 7}, TokenBatch::from_rows({}),
        TokenBatch::from_rows({{}}), TokenBatch::from_rows({{}, {}}),
        TokenBatch{.batch = 2, .tokens = 2, .ids = {-1, 99, 98, 97}, .lengths = {0, 0}}}) {
    std::vector<LayerHeads> layers;
    std::vector<Tensor> hidden;
    const Tensor last = decoder->run(input, {.layers = &layers, .hidden_states = &hidden});
    EXPECT_EQ(last.shape(), (Dims{input.batch, input.tokens, 32}));
    for (std::int64_t i = 0; i < last.elements(); ++i) EXPECT_EQ(last.as<float>()[i], 0);
    ASSERT_EQ(layers.size(), 2U);
    for (std::int64_t b = 0; b < input.batch; ++b) EXPECT_EQ(layers[1].entry(b).q.shape(), (Dims{4, 0, 8}));
    ASSERT_EQ(hidden.size(), 3U);
    EXPECT_EQ(hidden[0].shape(), last.shape());
  }
  EXPECT_EQ(decoder->logits(Tensor(DType::kF32, {0, 32}).cview()).shape(), (Dims{0, 96}));
}

TEST(Decoder, ExtendRefusesNoChunks) {
  const std::unique_ptr<const Decoder> decoder = tiny();
  DecoderCache cache(decoder->config());
  EXPECT_EQ(error_of([&] { decoder->extend(cache, {}); }), "Decoder::extend: there are no chunks");
  const auto sequence = cache.add();
  EXPECT_EQ(error_of([&] { decoder->extend(cache, {}); }), "Decoder::extend: there are no chunks");
  EXPECT_EQ(cache.length(sequence), 0);
}

TEST(Decoder, APromptPastTheModelsLengthIsRefusedInOnePieceAndInChunks) {
  const std::unique_ptr<const Decoder> decoder = tiny();
  DecoderCache cache(decoder->config());
  const auto sequence = cache.add();
  const std::vector<std::int64_t> ids(65, 3);
  const auto extend = [&](std::size_t count) {
    const DecoderChunk chunk{sequence, std::span(ids).first(count)};
    return error_of([&] { decoder->extend(cache, {&chunk, 1}); });
  };
  const std::string most = " 65 tokens long, more than the 64 that the model takes";
  const std::string name = "Decoder::extend: chunk 0 makes sequence " + std::to_string(sequence);
  EXPECT_EQ(extend(65), name + most);
  EXPECT_EQ(extend(63), "no error");
  EXPECT_EQ(extend(2), name + most);
  EXPECT_EQ(extend(1), "no error");
  EXPECT_EQ(extend(1), name + most);
  EXPECT_EQ(cache.length(sequence), 64);
}

}  // namespace
}  // namespace manyheads::model
