#include "model/bert.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <manyheads/attention.hpp>
#include <manyheads/cpu.hpp>
#include <manyheads/error.hpp>
#include <manyheads/model/pooling.hpp>
#include <manyheads/safetensors.hpp>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "allocations.hpp"
#include "kernels/dispatch.hpp"
#include "layer/convert.hpp"
#include "model/checkpoint.hpp"
#include "support.hpp"

namespace manyheads::model {
namespace {

namespace fs = std::filesystem;

fs::path golden() { return test::source_dir() / "tests/golden/model"; }
fs::path minilm() { return test::source_dir() / "models/all-MiniLM-L6-v2"; }

double value(const Tensor& tensor, std::int64_t i) {
  return tensor.dtype() == DType::kF64 ? tensor.as<double>()[i] : tensor.as<float>()[i];
}

std::vector<std::int64_t> integers(const Tensor& tensor) {
  return {tensor.as<std::int64_t>(), tensor.as<std::int64_t>() + tensor.elements()};
}

TokenBatch input_of(const SafetensorsFile& file) {
  const Tensor& ids = file.at("input_ids");
  return {.batch = ids.size(0),
          .tokens = ids.size(1),
          .ids = integers(ids),
          .type_ids = file.tensors.contains("token_type_ids") ? integers(file.at("token_type_ids"))
                                                              : std::vector<std::int64_t>(),
          .lengths = integers(file.at("lengths"))};
}

double largest_difference(const Tensor& got, const Tensor& expected) {
  EXPECT_EQ(got.shape(), expected.shape()) << got.shape().to_string() << expected.shape().to_string();
  double largest = 0;
  for (std::int64_t i = 0; i < got.elements(); ++i) {
    const double difference = std::abs(value(got, i) - value(expected, i));
    largest = difference <= largest ? largest : difference;  // a NaN counts
  }
  return largest;
}

// Compares all that a golden file holds: hidden states within 1e-4, each stored head's weights, recomputed from its q,
// k and lse, within 1e-5.
void compare(const BertEncoder& encoder, const SafetensorsFile& file, const std::vector<std::int64_t>& heads) {
  const TokenBatch input = input_of(file);
  std::vector<LayerHeads> layers;
  std::vector<Tensor> hidden;
  const Tensor last = encoder.run(input, {.layers = &layers, .hidden_states = &hidden});
  const auto count = static_cast<std::size_t>(encoder.config().num_layers);
  ASSERT_EQ(hidden.size(), count + 1);
  ASSERT_EQ(layers.size(), count);
  EXPECT_EQ(largest_difference(last, hidden.back()), 0);
  int compared = 0;
  for (std::size_t i = 0; i <= count; ++i) {
    const auto found = file.tensors.find("hidden_states." + std::to_string(i));
    if (found == file.tensors.end()) continue;
    EXPECT_LE(largest_difference(hidden[i], found->second), 1e-4) << "hidden state " << i;
    ++compared;
  }
  for (std::size_t i = 0; i < count; ++i) {
    const auto found = file.tensors.find("weights." + std::to_string(i));
    if (found == file.tensors.end()) continue;
    const Tensor& expected = found->second;
    for (std::int64_t b = 0; b < input.batch; ++b) {
      const std::int64_t length = input.lengths[static_cast<std::size_t>(b)];
      const auto& [q, k, v, lse] = layers[i].entry(b);
      ASSERT_EQ(q.shape(), (Dims{encoder.config().num_heads, length, encoder.config().head_dim}));
      const auto one = [](const ConstTensorView& view) {
        Dims shape{1}, strides{0};
        std::vector<std::int64_t> s{1}, t{0};
        s.insert(s.end(), view.shape().begin(), view.shape().end());
        t.insert(t.end(), view.strides().begin(), view.strides().end());
        return ConstTensorView(view.data(), view.dtype(), Dims(s), Dims(t));
      };
      Tensor weights(DType::kF32, {1, q.size(0), length, length});
      attention_weights(one(q), one(k), one(lse), weights.view());
      for (std::size_t n = 0; n < heads.size(); ++n) {
        for (std::int64_t at = 0; at < length * length; ++at) {
          const std::int64_t row = at / length, column = at % length, width = input.tokens;
          const std::int64_t from =
              ((b * static_cast<std::int64_t>(heads.size()) + static_cast<std::int64_t>(n)) * width + row) * width +
              column;
          ASSERT_NEAR(weights.as<float>()[heads[n] * length * length + at], value(expected, from), 1e-5)
              << "layer " << i << " head " << heads[n];
        }
      }
    }
    ++compared;
  }
  EXPECT_GT(compared, 0);
  const Tensor sentence = pool(last.cview(), input.lengths, {});
  EXPECT_LE(largest_difference(sentence, file.at("sentence_embedding")), 1e-5);
}

class GoldenMiniLM : public testing::TestWithParam<const char*> {};

TEST_P(GoldenMiniLM, MatchesTransformers) {
  if (!fs::exists(minilm())) GTEST_SKIP() << "models/all-MiniLM-L6-v2 is not here: scripts/fetch-model fetches it";
  static const BertEncoder encoder = BertEncoder::load(minilm());
  const SafetensorsFile file = load_safetensors(golden() / ("minilm_" + std::string(GetParam()) + ".safetensors"));
  std::vector<std::int64_t> heads;
  for (const auto& head : nlohmann::json::parse(file.metadata.at("heads"))) heads.push_back(head);
  if (std::string(GetParam()) == "full") {
    const Tensor last = encoder.run(input_of(file));
    EXPECT_EQ(last.size(1), 512);
    EXPECT_LE(largest_difference(pool(last.cview(), {}, {}), file.at("sentence_embedding")), 1e-5);
    return;
  }
  compare(encoder, file, heads);
}

INSTANTIATE_TEST_SUITE_P(Texts, GoldenMiniLM, testing::Values("cat", "unicode", "longer", "pair", "batch", "full"),
                         [](const auto& text) { return std::string(text.param); });

class GoldenBertBase : public testing::TestWithParam<const char*> {};

TEST_P(GoldenBertBase, MatchesTransformers) {
  const fs::path folder = test::source_dir() / "models/bert-base-uncased";
  if (!fs::exists(folder)) {
    GTEST_SKIP() << "models/bert-base-uncased is not here: scripts/fetch-model bert-base fetches it";
  }
  static const BertEncoder encoder = BertEncoder::load(folder);
  const SafetensorsFile file = load_safetensors(golden() / ("bert_base_" + std::string(GetParam()) + ".safetensors"));
  const auto heads = nlohmann::json::parse(file.metadata.at("heads")).get<std::vector<std::int64_t>>();
  compare(encoder, file, heads);
}

INSTANTIATE_TEST_SUITE_P(Texts, GoldenBertBase, testing::Values("cat", "pair"),
                         [](const auto& text) { return std::string(text.param); });

class GoldenTiny : public testing::TestWithParam<const char*> {};

TEST_P(GoldenTiny, MatchesTransformers) {
  const fs::path folder = golden() / ("tiny_" + std::string(GetParam()));
  const BertEncoder encoder = BertEncoder::load(folder);
  std::vector<std::int64_t> heads;
  for (std::int64_t h = 0; h < encoder.config().num_heads; ++h) heads.push_back(h);
  compare(encoder, load_safetensors(folder / "expected.safetensors"), heads);
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenTiny,
                         testing::Values("gelu", "gelu_new", "relu", "legacy_names", "f16", "shards", "roberta",
                                         "roberta_prefix", "distilbert", "distilbert_prefix"),
                         [](const auto& model) { return std::string(model.param); });

BertEncoder tiny() { return BertEncoder::load(golden() / "tiny_gelu"); }

TokenBatch random_input(std::uint64_t seed, const std::vector<std::int64_t>& lengths) {
  std::mt19937_64 random(seed);
  std::vector<std::vector<std::int64_t>> ids, types;
  for (const std::int64_t length : lengths) {
    ids.emplace_back();
    types.emplace_back();
    for (std::int64_t t = 0; t < length; ++t) {
      ids.back().push_back(static_cast<std::int64_t>(random() % 50));
      types.back().push_back(static_cast<std::int64_t>(random() % 2));
    }
  }
  return TokenBatch::from_rows(ids, types);
}

bool same_bits(const float* a, const float* b, std::int64_t count) {
  return std::memcmp(a, b, static_cast<std::size_t>(count) * sizeof(float)) == 0;
}

class BertBits : public testing::TestWithParam<DType> {
 protected:
  const BertEncoder encoder = BertEncoder::load(golden() / "tiny_gelu", GetParam());
};
INSTANTIATE_TEST_SUITE_P(Weights, BertBits, testing::Values(DType::kF32, DType::kBF16),
                         [](const auto& weights) { return std::string(name_of(weights.param)); });

TEST_P(BertBits, RowsDoNotDependOnBatchPaddingOrThreads) {
  const std::vector<std::int64_t> lengths{7, 7, 40, 0, 1, 7, 23};
  const TokenBatch input = random_input(1, lengths);
  EXPECT_EQ(input.tokens, 40);
  const Tensor all = encoder.run(input, {.threads = {.num_threads = 1}});
  for (const int threads : {2, 3, 8}) {
    const Tensor again = encoder.run(input, {.threads = {.num_threads = threads}});
    EXPECT_TRUE(same_bits(std::as_const(all).as<float>(), std::as_const(again).as<float>(), all.elements()));
  }
  std::vector<LayerHeads> layers;
  const Tensor tapped = encoder.run(input, {.layers = &layers});
  EXPECT_TRUE(same_bits(std::as_const(all).as<float>(), std::as_const(tapped).as<float>(), all.elements()));
  for (std::size_t b = 0; b < lengths.size(); ++b) {
    if (lengths[b] == 0) continue;
    const auto begin = input.ids.begin() + static_cast<std::ptrdiff_t>(b * 40);
    const auto types = input.type_ids.begin() + static_cast<std::ptrdiff_t>(b * 40);
    const TokenBatch one = TokenBatch::from_rows({{begin, begin + lengths[b]}}, {{types, types + lengths[b]}});
    std::vector<LayerHeads> own;
    const Tensor y = encoder.run(one, {.layers = &own});
    const float* row = std::as_const(all).as<float>() + static_cast<std::int64_t>(b) * 40 * 32;
    EXPECT_TRUE(same_bits(std::as_const(y).as<float>(), row, lengths[b] * 32)) << b;
    for (std::int64_t i = lengths[b] * 32; i < 40 * 32; ++i) ASSERT_EQ(row[i], 0);
    const ConstTensorView in_batch = layers[1].entry(static_cast<std::int64_t>(b)).lse, alone = own[1].entry().lse;
    for (std::int64_t h = 0; h < 4; ++h) {
      EXPECT_TRUE(same_bits(static_cast<const float*>(in_batch.data()) + h * in_batch.stride(0),
                            static_cast<const float*>(alone.data()) + h * alone.stride(0), lengths[b]));
    }
  }
}

TEST_P(BertBits, ManyRowsAreThoseOfOneText) {
  std::vector<std::vector<std::int64_t>> ids(40, random_input(4, {25}).ids);  // more than one block of rows
  const Tensor one = encoder.run(TokenBatch::from_rows({ids[0]}));
  for (const int threads : {1, 2, 3, 8}) {
    const Tensor all = encoder.run(TokenBatch::from_rows(ids), {.threads = {.num_threads = threads}});
    for (std::int64_t b = 0; b < 40; ++b) {
      EXPECT_TRUE(same_bits(all.as<float>() + b * 25 * 32, one.as<float>(), 25 * 32)) << b << ", " << threads;
    }
  }
}

TEST_P(BertBits, LongEntriesOfDifferentLengthsAreThoseOfOneText) {
  const fs::path folder = golden() / "tiny_gelu";
  BertConfig config = load_bert_config(folder);
  StateDict tensors = load_checkpoint(folder).tensors;
  config.max_position_embeddings = 300;
  Tensor& positions = tensors.at("embeddings.position_embeddings.weight");
  const Tensor few = layer::converted(positions.cview(), DType::kF32);
  positions = Tensor(DType::kF32, {300, 32});
  for (std::int64_t i = 0; i < 300 * 32; ++i) positions.as<float>()[i] = few.as<float>()[i % few.elements()];
  const BertEncoder long_encoder(config, tensors, GetParam());

  const std::vector<std::int64_t> lengths{300, 5, 5, 0, 270, 256};
  const TokenBatch input = random_input(8, lengths);
  const Tensor all = long_encoder.run(input, {.threads = {.num_threads = 2}});
  for (std::size_t b = 0; b < lengths.size(); ++b) {
    const auto at = static_cast<std::ptrdiff_t>(b * 300);
    const auto ids = input.ids.begin() + at, types = input.type_ids.begin() + at;
    const TokenBatch one = TokenBatch::from_rows({{ids, ids + lengths[b]}}, {{types, types + lengths[b]}});
    const Tensor alone = long_encoder.run(one);
    EXPECT_TRUE(same_bits(all.as<float>() + at * 32, alone.as<float>(), lengths[b] * 32)) << b;
  }
}

TEST_P(BertBits, AWorkspaceIsAllThatARunAllocatesBesidesItsResult) {
  Workspace workspace;
  const TokenBatch input = random_input(5, {30, 30, 4, 17}), fewer = random_input(6, {8, 1});
  for (const int threads : {1, 2}) {
    const EncoderOptions options{.threads = {.num_threads = threads}, .workspace = &workspace};
    const Tensor first = encoder.run(input, options);
    const std::size_t capacity = workspace.capacity();
    encoder.run(fewer, options);
    const std::int64_t before = test::allocations();
    const Tensor shape_of_result(DType::kF32, first.shape());
    const std::int64_t between = test::allocations();
    const Tensor again = encoder.run(input, options);
    EXPECT_EQ(test::allocations() - between, between - before);
    EXPECT_EQ(workspace.capacity(), capacity);
    EXPECT_TRUE(same_bits(first.as<float>(), again.as<float>(), first.elements()));
    EXPECT_TRUE(same_bits(first.as<float>(), encoder.run(input).as<float>(), first.elements()));
  }
}

TEST(BertEncoder, Bf16WeightsAreThoseOfTheRoundedModel) {
  const fs::path folder = golden() / "tiny_gelu";
  const BertConfig config = load_bert_config(folder);
  const StateDict tensors = load_checkpoint(folder).tensors;
  StateDict rounded = tensors;
  for (auto& [name, tensor] : rounded) {
    if (name.find("encoder.layer") == std::string::npos || tensor.rank() != 2) continue;
    tensor = layer::converted(layer::converted(tensor.cview(), DType::kBF16).cview(), DType::kF32);
  }
  const TokenBatch input = random_input(7, {20, 33});
  for (const std::string& isa : available_isas()) {
    set_isa(isa);
    const Tensor kept = BertEncoder(config, tensors, DType::kBF16).run(input);
    const Tensor same = BertEncoder(config, rounded).run(input);
    const Tensor exact = BertEncoder(config, tensors).run(input);
    if (kernels::active_table().linear.rounds_rows_to_bf16) {
      EXPECT_GT(largest_difference(kept, same), 0) << isa;  // the rows were rounded too
    } else {
      EXPECT_TRUE(same_bits(kept.as<float>(), same.as<float>(), kept.elements())) << isa;
    }
    EXPECT_GT(largest_difference(kept, exact), 0) << isa;
    // Eight projections in a row, weights and rows of each rounded by 2^-9, the queries, keys, values and weights of
    // two attentions too, and numbers that the norms keep below 4: what it comes to if all errors add up.
    EXPECT_LE(largest_difference(kept, exact), 24 * 0x1p-9 * 4) << isa;
  }
  set_isa("");
}

TEST(BertEncoder, Bf16WeightsKeepTheMeaningOfASentence) {
  if (!fs::exists(minilm())) GTEST_SKIP() << "models/all-MiniLM-L6-v2 is not here: scripts/fetch-model fetches it";
  const SafetensorsFile file = load_safetensors(golden() / "minilm_batch.safetensors");
  const TokenBatch input = input_of(file);
  const Tensor& expected = file.at("sentence_embedding");
  for (const std::string& isa : available_isas()) {
    if (!isa.starts_with("avx512") && isa != available_isas().front()) continue;
    set_isa(isa);
    const BertEncoder encoder = BertEncoder::load(minilm(), DType::kBF16);
    const Tensor sentence = pool(encoder.run(input).cview(), input.lengths, {});
    for (std::int64_t b = 0; b < input.batch; ++b) {
      double cosine = 0;
      for (std::int64_t i = 0; i < 384; ++i) cosine += value(sentence, b * 384 + i) * value(expected, b * 384 + i);
      // Weights and rows of 24 projections in a row, and what six attentions multiply, each rounded by 2^-9: an angle
      // of 0.14 if all errors add up.
      EXPECT_GT(cosine, 1 - 0.14 * 0.14 / 2) << isa;
      EXPECT_LT(cosine, 1 - 1e-9) << isa;
    }
  }
  set_isa("");
}

TEST(BertEncoder, HiddenStatesOfAnUnpaddedBatchAreNotWrittenAgain) {
  const BertEncoder encoder = tiny();
  const TokenBatch input = random_input(2, {6, 6});
  std::vector<Tensor> hidden;
  const Tensor last = encoder.run(input, {.hidden_states = &hidden});
  ASSERT_EQ(hidden.size(), 3U);
  EXPECT_GT(largest_difference(hidden[0], hidden[1]), 0.01);
  EXPECT_GT(largest_difference(hidden[1], hidden[2]), 0.01);
  EXPECT_EQ(largest_difference(hidden[2], last), 0);
}

TEST(BertEncoder, HeadScaleZeroTakesAHeadOut) {
  const fs::path folder = golden() / "tiny_gelu";
  const BertConfig config = load_bert_config(folder);
  StateDict tensors = load_checkpoint(folder).tensors;
  const BertEncoder encoder(config, tensors);
  const TokenBatch input = random_input(3, {9, 4});
  Tensor scale(DType::kF32, {2, 4});
  std::fill_n(scale.as<float>(), 8, 1.0f);
  const Tensor plain = encoder.run(input);
  EXPECT_EQ(largest_difference(plain, encoder.run(input, {.head_scale = scale.cview()})), 0);
  scale.as<float>()[4 + 2] = 0;
  const Tensor without = encoder.run(input, {.head_scale = scale.cview()});
  EXPECT_GT(largest_difference(plain, without), 0.01);

  // The columns of W_o that head 2 of layer 1 feeds, set to 0.
  Tensor& stored = tensors.at("encoder.layer.1.attention.output.dense.weight");
  Tensor w = layer::converted(stored.cview(), DType::kF32);
  for (std::int64_t row = 0; row < 32; ++row) std::fill_n(w.as<float>() + row * 32 + 16, 8, 0.0f);
  stored = w;
  EXPECT_EQ(largest_difference(without, BertEncoder(config, tensors).run(input)), 0);
}

using test::error_of;

TEST(BertEncoder, LoadNamesTheTensorThatDoesNotFit) {
  const fs::path folder = golden() / "tiny_gelu";
  const BertConfig config = load_bert_config(folder);
  const StateDict good = load_checkpoint(folder).tensors;
  const auto error = [&](const std::function<void(StateDict&)>& change) {
    StateDict tensors = good;
    change(tensors);
    return error_of([&] { BertEncoder encoder(config, tensors); }, std::nullopt);
  };
  EXPECT_EQ(
      error([](StateDict& t) { t.erase("encoder.layer.1.output.dense.bias"); }),
      "BertEncoder: tensor \"encoder.layer.1.output.dense.bias\" [32] is missing (looked for with and without the "
      "prefix bert.)");
  EXPECT_EQ(error([](StateDict& t) { t["embeddings.word_embeddings.weight"] = Tensor(DType::kF32, {50, 31}); }),
            "BertEncoder: tensor \"embeddings.word_embeddings.weight\" is [50,31], expected [50,32]");
  EXPECT_EQ(error([](StateDict& t) { t["encoder.layer.0.attention.self.key.bias"] = Tensor(DType::kI64, {32}); }),
            "BertEncoder: tensor \"encoder.layer.0.attention.self.key.bias\" is I64, expected F32, BF16 or F16");
  EXPECT_EQ(error([](StateDict& t) { t["pooler.dense.weight"] = Tensor(DType::kI64, {1}); }), "no error");
  EXPECT_NE(error_of([&] { BertEncoder::load(golden() / "no_such_folder"); }, ErrorCode::kIo), "no error");
  EXPECT_EQ(error_of([&] { BertEncoder::load(folder, DType::kF16); }),
            "linear: weights are to be kept as F16, expected F32 or BF16");
}

// Each tensor that its encoder needs: missing, of another shape, of another type.
TEST(BertEncoder, EveryTensorOfRobertaAndDistilBertIsAskedForByItsName) {
  for (const char* name : {"tiny_roberta", "tiny_distilbert"}) {
    const fs::path folder = golden() / name;
    const BertConfig config = load_bert_config(folder);
    const StateDict good = load_checkpoint(folder).tensors;
    int refused = 0;
    for (const auto& [tensor, value] : good) {
      if (tensor.find("pooler") != std::string::npos) continue;
      const auto error = [&](const std::function<void(StateDict&)>& change) {
        StateDict tensors = good;
        change(tensors);
        const std::string what = error_of([&] { BertEncoder encoder(config, tensors); }, ErrorCode::kMalformedFile);
        EXPECT_NE(what.find("BertEncoder: tensor \"" + tensor + "\""), std::string::npos) << what;
        ++refused;
        return what;
      };
      const std::string missing = error([&](StateDict& t) { t.erase(tensor); });
      EXPECT_NE(missing.find(std::string("without the prefix ") + config.names->prefix), std::string::npos) << missing;
      error([&](StateDict& t) { t[tensor] = Tensor(DType::kF32, {3, 5}); });
      error([&](StateDict& t) { t[tensor] = Tensor(DType::kI64, value.shape()); });
    }
    EXPECT_EQ(refused, 3 * (config.names->type_vocab_size != nullptr ? 37 : 36)) << name;
  }
}

TEST(BertEncoder, AModelWithoutSegmentsReadsNoTypeIds) {
  const BertEncoder encoder = BertEncoder::load(golden() / "tiny_distilbert");
  EXPECT_EQ(encoder.config().type_vocab_size, 0);
  const Tensor plain = encoder.run(TokenBatch::from_rows({{3, 4, 5}}));
  const Tensor typed = encoder.run(TokenBatch::from_rows({{3, 4, 5}}, {{0, 1, 99}}));
  EXPECT_TRUE(same_bits(plain.as<float>(), typed.as<float>(), plain.elements()));
}

TEST(BertEncoder, RobertaTakesAsManyTokensAsItHasPositionsBehindThePadding) {
  const BertEncoder encoder = BertEncoder::load(golden() / "tiny_roberta");
  EXPECT_EQ(encoder.config().max_position_embeddings, 38);
  const auto run = [&](std::int64_t tokens) {
    return error_of([&] {
      encoder.run(
          {.batch = 1, .tokens = tokens, .ids = std::vector<std::int64_t>(static_cast<std::size_t>(tokens), 5)});
    });
  };
  EXPECT_EQ(run(38), "no error");
  EXPECT_EQ(run(39), "Encoder::run: 39 tokens, more than the 38 that the model takes");
}

}  // namespace
}  // namespace manyheads::model
