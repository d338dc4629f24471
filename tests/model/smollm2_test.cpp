#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <manyheads/model/decoder.hpp>
#include <manyheads/model/text_model.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "model/text_stream.hpp"
#include "model/tokenizer_config.hpp"
#include "support.hpp"

// SmolLM2-135M-Instruct against what others make of the same folder.
namespace manyheads::model {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

fs::path folder() { return test::source_dir() / "models/SmolLM2-135M-Instruct"; }

json golden(const char* name) { return json::parse(std::ifstream(test::source_dir() / "tests/golden/decoder" / name)); }

class SmolLM2 : public testing::Test {
 protected:
  void SetUp() override {
    if (!fs::exists(folder())) {
      GTEST_SKIP() << "models/SmolLM2-135M-Instruct is not here: scripts/fetch-model smollm2 fetches it";
    }
  }
};

TEST_F(SmolLM2, IdsOfAThousandTextsAreThoseOfTheReference) {
  const ConfiguredTokenizer configured = load_tokenizer(folder());
  const json texts = golden("smollm2_tokens.json");
  EXPECT_EQ(texts.size(), 1000U);
  std::size_t tokens = 0;
  for (const json& one : texts) {
    const auto text = one.at("text").get<std::string>();
    const auto ids = one.at("ids").get<std::vector<std::int64_t>>();
    EXPECT_EQ(configured.tokenizer.encode(text).ids, ids) << one.at("text");
    tokens += ids.size();
  }
  EXPECT_GT(tokens, 10'000U);
}

// Byte-level tokens spell a text whole. In some of the texts are bytes that have no token.
TEST_F(SmolLM2, AThousandTextsComeBackFromTheirIds) {
  const ConfiguredTokenizer configured = load_tokenizer(folder());
  int same = 0;
  for (const json& one : golden("smollm2_tokens.json")) {
    const auto ids = one.at("ids").get<std::vector<std::int64_t>>();
    const std::string text = configured.tokenizer.decode(ids, false);
    same += text == one.at("text").get<std::string>() ? 1 : 0;
    TextStream stream(configured.tokenizer, {}, false);
    std::string streamed;
    for (const std::int64_t id : ids) streamed += stream.push(id);
    EXPECT_EQ(streamed + stream.finish(), text);
  }
  EXPECT_EQ(same, 993);
}

// The two largest logits of a row.
struct Choice {
  std::int64_t first = 0, second = 0;
  float gap = 0, largest = 0;
};

// Goes on from a prompt one token at a time, in a cache.
class Writer {
 public:
  Writer(const Decoder& decoder, DType cache)
      : decoder_(decoder), cache_(decoder.config(), {.dtype = cache}), sequence_(cache_.add()) {}

  Choice next(const std::vector<std::int64_t>& ids) {
    const DecoderChunk chunk{sequence_, ids};
    const Tensor hidden = decoder_.extend(cache_, {&chunk, 1});
    const std::int64_t e = decoder_.config().hidden_size;
    const Tensor logits = decoder_.logits(ConstTensorView(hidden.as<float>() + (hidden.size(0) - 1) * e, {1, e}));
    const float* row = logits.as<float>();
    Choice choice{.second = 1};
    for (std::int64_t i = 0; i < logits.elements(); ++i) {
      choice.largest = std::max(choice.largest, std::abs(row[i]));
      if (row[i] > row[choice.first]) choice.first = i;
    }
    if (choice.first == 1) choice.second = 0;
    for (std::int64_t i = 0; i < logits.elements(); ++i) {
      if (i != choice.first && row[i] > row[choice.second]) choice.second = i;
    }
    choice.gap = row[choice.first] - row[choice.second];
    return choice;
  }

 private:
  const Decoder& decoder_;
  DecoderCache cache_;
  DecoderCache::Sequence sequence_;
};

TEST_F(SmolLM2, TwoHundredTokensAreThoseThatTransformersWrites) {
  const std::unique_ptr<const Decoder> decoder = load_decoder(folder());
  const json file = golden("smollm2_greedy.json");
  const auto prompt = file.at("prompt_ids").get<std::vector<std::int64_t>>();
  const auto ids = file.at("ids").get<std::vector<std::int64_t>>();
  const auto seconds = file.at("second_ids").get<std::vector<std::int64_t>>();
  const auto gaps = file.at("gaps").get<std::vector<double>>();
  ASSERT_EQ(ids.size(), 200U);
  EXPECT_EQ(load_tokenizer(folder()).tokenizer.encode(file.at("prompt").get<std::string>(), false).ids, prompt);
  // Each step after the reference's own tokens. A logit errs by 2e-5 of the largest one (GoldenSmolLM2), so two that
  // lie within twice that may change places, and a gap, which the file rounds to 4 digits, errs by as much.
  Writer led(*decoder, DType::kF32);
  Choice choice = led.next(prompt);
  std::int64_t changed = 0;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const double bound = 2 * 2e-5 * static_cast<double>(choice.largest);
    if (choice.first != ids[i]) {
      EXPECT_LE(gaps[i], bound) << "token " << i;
      EXPECT_EQ(choice.first, seconds[i]) << "token " << i;
      ++changed;
    } else {
      EXPECT_EQ(choice.second, seconds[i]) << "token " << i;
      EXPECT_NEAR(static_cast<double>(choice.gap), gaps[i], bound + 0.5e-4) << "token " << i;
    }
    choice = led.next({ids[i]});
  }
  // Where none is, its own tokens were these very calls.
  std::printf("%ld of 200 tokens otherwise than in the file\n", static_cast<long>(changed));
}

// Rounded weights may prefer the runner-up, and nothing else.
TEST_F(SmolLM2, Bf16WeightsWriteTheSameTokensOrTheRunnersUp) {
  const std::unique_ptr<const Decoder> decoder = load_decoder(folder(), DType::kBF16);
  const json file = golden("smollm2_greedy.json");
  const auto ids = file.at("ids").get<std::vector<std::int64_t>>();
  const auto seconds = file.at("second_ids").get<std::vector<std::int64_t>>();
  Writer led(*decoder, DType::kBF16);
  Choice choice = led.next(file.at("prompt_ids").get<std::vector<std::int64_t>>());
  int same = 0;
  for (std::size_t i = 0; i < 40; ++i) {
    if (choice.first == ids[i]) ++same;
    EXPECT_TRUE(choice.first == ids[i] || choice.first == seconds[i]) << "token " << i;
    choice = led.next({ids[i]});
  }
  std::printf("%d of 40 tokens with BF16 weights and cache\n", same);
  EXPECT_GE(same, 30);
}

}  // namespace
}  // namespace manyheads::model
