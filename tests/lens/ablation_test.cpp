#include "lens/ablation.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <manyheads/model/decoder.hpp>
#include <manyheads/model/pooling.hpp>
#include <manyheads/model/text_model.hpp>
#include <optional>
#include <string>
#include <vector>

#include "cli/tiny_model.hpp"
#include "lens/loss.hpp"

namespace manyheads::lens {
namespace {

const std::vector<std::string> kTexts = {"the black cat sat on the mat .", "the dog", "cat sat , dog sat"};

std::optional<std::string> text(std::size_t i) { return i < kTexts.size() ? std::optional(kTexts[i]) : std::nullopt; }

// Of every head, run for itself on one text after another.
class AblationOfAnEncoder : public cli_test::TinyModel {};
class AblationOfADecoder : public cli_test::TinyDecoder {};

RoleScore scored(const model::TextModel& model, int threads, const model::PoolingConfig& pooling = {}) {
  AblationScorer scorer(model, pooling);
  const BatchOptions options{{.num_threads = threads}, {}};
  for_each_batch(model, text, options, [&](std::span<const BatchText> texts) { scorer.add(texts, options); });
  return scorer.finish();
}

Tensor run_without(const model::TextModel& model, const model::Encoding& encoding, std::optional<std::size_t> head) {
  Tensor scale(DType::kF32, Dims{2, 4});
  for (std::size_t i = 0; i < 8; ++i) scale.as<float>()[i] = head && *head == i ? 0.0f : 1.0f;
  model::EncoderOptions options;
  options.head_scale = scale.cview();
  return model.encoder().run(model::TokenBatch::from_rows({encoding.ids}, {encoding.type_ids}), options);
}

TEST_F(AblationOfAnEncoder, IsHowFarTheTextsVectorTurns) {
  const model::TextModel text_model{std::filesystem::path(model())};
  using Mode = model::PoolingConfig::Mode;
  for (const auto mode : {Mode::kMean, Mode::kCls, Mode::kLastToken}) {
    const model::PoolingConfig pooling{.modes = {mode}, .normalize = false};
    const RoleScore found = scored(text_model, 2, pooling);
    EXPECT_EQ(found.name, "ablation_cosine");
    ASSERT_EQ(found.values.size(), 8u);
    for (std::size_t head = 0; head < 8; ++head) {
      double sum = 0, tokens = 0;
      for (const std::string& one : kTexts) {
        const model::Encoding encoding = text_model.encode(one);
        const auto n = static_cast<std::int64_t>(encoding.size());
        const auto vector = [&](std::optional<std::size_t> off) {
          const Tensor hidden = run_without(text_model, encoding, off);
          std::vector<double> mean(static_cast<std::size_t>(hidden.size(2)));
          for (std::int64_t t = mode == Mode::kLastToken ? n - 1 : 0; t < (mode == Mode::kCls ? 1 : n); ++t) {
            for (std::size_t e = 0; e < mean.size(); ++e) {
              mean[e] += static_cast<double>(hidden.as<float>()[t * hidden.size(2) + static_cast<std::int64_t>(e)]);
            }
          }
          return mean;
        };
        const std::vector<double> with = vector(std::nullopt), without = vector(head);
        double ab = 0, aa = 0, bb = 0;
        for (std::size_t e = 0; e < with.size(); ++e) {
          ab += with[e] * without[e];
          aa += with[e] * with[e];
          bb += without[e] * without[e];
        }
        sum += static_cast<double>(n) * (1 - ab / std::sqrt(aa) / std::sqrt(bb));
        tokens += static_cast<double>(n);
      }
      EXPECT_NEAR(*found.values[head], sum / tokens, 1e-6) << head;
      EXPECT_GT(*found.values[head], 1e-5) << head;
    }
    EXPECT_EQ(found.values, scored(text_model, 1, pooling).values);
  }
}

TEST_F(AblationOfADecoder, IsHowFarTheLossRises) {
  const model::TextModel text_model{std::filesystem::path(model())};
  const RoleScore found = scored(text_model, 2);
  EXPECT_EQ(found.name, "ablation_loss");
  ASSERT_EQ(found.values.size(), 8u);
  for (std::size_t head = 0; head < 8; ++head) {
    double sum = 0, tokens = 0;
    for (const std::string& one : kTexts) {
      const model::Encoding encoding = text_model.encode(one);
      const auto n = static_cast<std::int64_t>(encoding.size());
      const auto loss = [&](std::optional<std::size_t> off) {
        const Tensor hidden = run_without(text_model, encoding, off);
        const Tensor logits = text_model.decoder()->logits(ConstTensorView(hidden.as<float>(), Dims{n, 32}));
        double total = 0;
        for (std::int64_t t = 0; t + 1 < n; ++t) {
          double all = 0;
          for (int i = 0; i < 96; ++i) all += std::exp(static_cast<double>(logits.as<float>()[t * 96 + i]));
          const std::int64_t next = encoding.ids[static_cast<std::size_t>(t + 1)];
          total += std::log(all) - static_cast<double>(logits.as<float>()[t * 96 + next]);
        }
        return total;
      };
      sum += loss(head) - loss(std::nullopt);
      tokens += static_cast<double>(n - 1);
    }
    EXPECT_NEAR(*found.values[head], sum / tokens, 1e-9) << head;
    EXPECT_GT(std::abs(*found.values[head]), 1e-6) << head;
  }
  EXPECT_EQ(found.values, scored(text_model, 1).values);
}

// More tokens than stand in one piece of logits.
TEST_F(AblationOfADecoder, LossesOfALongTextAreThoseOfItsParts) {
  const model::TextModel text_model{std::filesystem::path(model())};
  Tensor hidden(DType::kF32, Dims{1, 150, 32});
  std::vector<std::int64_t> ids;
  for (std::int64_t i = 0; i < hidden.elements(); ++i)
    hidden.as<float>()[i] = static_cast<float>(i * 7919 % 1009) / 500 - 1;
  for (std::int64_t t = 0; t < 150; ++t) ids.push_back(t * 31 % 96);
  const std::vector<double> losses = token_losses(*text_model.decoder(), hidden, 0, ids, {}, {});
  ASSERT_EQ(losses.size(), 149u);
  for (std::int64_t t = 0; t < 149; ++t) {
    Tensor two(DType::kF32, Dims{1, 2, 32});
    std::copy_n(hidden.as<float>() + t * 32, 64, two.as<float>());
    const std::vector<std::int64_t> pair = {ids[static_cast<std::size_t>(t)], ids[static_cast<std::size_t>(t + 1)]};
    EXPECT_EQ(losses[static_cast<std::size_t>(t)], token_losses(*text_model.decoder(), two, 0, pair, {}, {})[0]) << t;
  }
  EXPECT_TRUE(token_losses(*text_model.decoder(), hidden, 0, {5}, {}, {}).empty());
}

}  // namespace
}  // namespace manyheads::lens
