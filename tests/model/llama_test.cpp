#include "model/llama.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <manyheads/attention.hpp>
#include <manyheads/error.hpp>
#include <manyheads/safetensors.hpp>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "model/checkpoint.hpp"
#include "support.hpp"

namespace manyheads::model {
namespace {

namespace fs = std::filesystem;

fs::path golden() { return test::source_dir() / "tests/golden/decoder"; }
fs::path smollm2() { return test::source_dir() / "models/SmolLM2-135M-Instruct"; }

std::vector<std::int64_t> integers(const Tensor& tensor) {
  return {tensor.as<std::int64_t>(), tensor.as<std::int64_t>() + tensor.elements()};
}

double largest_difference(const float* got, const float* expected, std::int64_t count) {
  double largest = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const double difference = std::abs(static_cast<double>(got[i]) - static_cast<double>(expected[i]));
    largest = difference <= largest ? largest : difference;  // a NaN counts
  }
  return largest;
}

// The largest magnitude, by which errors of F32 sums over a residual stream scale.
double largest(const float* values, std::int64_t count) {
  const std::vector<float> none(static_cast<std::size_t>(count));
  return largest_difference(values, none.data(), count);
}

bool same_bits(const float* a, const float* b, std::int64_t count) {
  return std::memcmp(a, b, static_cast<std::size_t>(count) * sizeof(float)) == 0;
}

// The weights [Hq,T,T] of an entry's heads, from its q, k and lse.
Tensor weights_of(const EntryHeads& heads) {
  const auto one = [](const ConstTensorView& view) {
    std::vector<std::int64_t> shape{1}, strides{0};
    shape.insert(shape.end(), view.shape().begin(), view.shape().end());
    strides.insert(strides.end(), view.strides().begin(), view.strides().end());
    return ConstTensorView(view.data(), view.dtype(), Dims(shape), Dims(strides));
  };
  Tensor weights(DType::kF32, {1, heads.q.size(0), heads.q.size(1), heads.q.size(1)});
  attention_weights(one(heads.q), one(heads.k), one(heads.lse), weights.view(), {.mask = mask::causal()});
  return weights;
}

class TinyLlama : public testing::TestWithParam<const char*> {};

TEST_P(TinyLlama, MatchesTransformers) {
  const fs::path folder = golden() / ("tiny_" + std::string(GetParam()));
  const LlamaDecoder decoder = LlamaDecoder::load(folder);
  const EncoderConfig& config = decoder.config();
  EXPECT_TRUE(config.causal);
  const SafetensorsFile file = load_safetensors(folder / "expected.safetensors");
  const Tensor& ids = file.at("input_ids");
  const std::int64_t tokens = ids.size(1), e = config.hidden_size;
  const TokenBatch batch{
      .batch = ids.size(0), .tokens = tokens, .ids = integers(ids), .lengths = integers(file.at("lengths"))};
  std::vector<LayerHeads> layers;
  std::vector<Tensor> hidden;
  const Tensor last = decoder.run(batch, {.layers = &layers, .hidden_states = &hidden});
  ASSERT_EQ(std::ssize(hidden), config.num_layers + 1);
  EXPECT_TRUE(same_bits(std::as_const(last).as<float>(), std::as_const(hidden.back()).as<float>(), last.elements()));
  for (std::size_t i = 0; i < hidden.size(); ++i) {
    const Tensor& expected = file.at("hidden_states." + std::to_string(i));
    ASSERT_EQ(hidden[i].shape(), expected.shape());
    EXPECT_LE(largest_difference(std::as_const(hidden[i]).as<float>(), expected.as<float>(), expected.elements()),
              2e-5 * largest(expected.as<float>(), expected.elements()))
        << "hidden state " << i;
  }
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const Tensor& expected = file.at("weights." + std::to_string(i));
    for (std::int64_t b = 0; b < batch.batch; ++b) {
      const EntryHeads heads = layers[i].entry(b);
      ASSERT_EQ(heads.q.shape(), (Dims{config.num_heads, batch.length(b), config.head_dim}));
      ASSERT_EQ(heads.k.shape(), (Dims{config.num_kv_heads, batch.length(b), config.head_dim}));
      const Tensor weights = weights_of(heads);
      for (std::int64_t row = 0; row < config.num_heads * batch.length(b); ++row) {
        const std::int64_t h = row / batch.length(b), t = row % batch.length(b);
        EXPECT_LE(largest_difference(std::as_const(weights).as<float>() + row * batch.length(b),
                                     expected.as<float>() + ((b * config.num_heads + h) * tokens + t) * tokens,
                                     batch.length(b)),
                  1e-5)
            << "layer " << i << " entry " << b << " head " << h;
      }
    }
  }
  const Tensor& expected = file.at("logits");
  const Tensor logits = decoder.logits(ConstTensorView(std::as_const(last).as<float>(), {batch.batch * tokens, e}));
  for (std::int64_t row = 0; row < batch.batch * tokens; ++row) {
    if (row % tokens >= batch.length(row / tokens)) continue;
    EXPECT_LE(largest_difference(std::as_const(logits).as<float>() + row * config.vocab_size,
                                 expected.as<float>() + row * config.vocab_size, config.vocab_size),
              2e-5 * largest(expected.as<float>() + row * config.vocab_size, config.vocab_size))
        << "logits of row " << row;
  }
}
INSTANTIATE_TEST_SUITE_P(Models, TinyLlama,
                         testing::Values("grouped", "untied", "shards", "head_dim", "f16", "bf16", "biases", "linear",
                                         "llama3"),
                         [](const auto& model) { return std::string(model.param); });

class GoldenSmolLM2 : public testing::TestWithParam<const char*> {};

TEST_P(GoldenSmolLM2, MatchesTransformers) {
  if (!fs::exists(smollm2())) {
    GTEST_SKIP() << "models/SmolLM2-135M-Instruct is not here: scripts/fetch-model smollm2 fetches it";
  }
  static const LlamaDecoder decoder = LlamaDecoder::load(smollm2());
  const EncoderConfig& config = decoder.config();
  const SafetensorsFile file = load_safetensors(golden() / ("smollm2_" + std::string(GetParam()) + ".safetensors"));
  const std::vector<std::int64_t> ids = integers(file.at("input_ids")), places = integers(file.at("places"));
  const auto tokens = static_cast<std::int64_t>(ids.size());
  const std::int64_t e = config.hidden_size;
  std::vector<LayerHeads> layers;
  std::vector<Tensor> hidden;
  const Tensor last = decoder.run(TokenBatch::from_rows({ids}), {.layers = &layers, .hidden_states = &hidden});
  // Relative to the largest element: the residual stream grows to thousands at the first token.
  int compared = 0;
  for (std::size_t i = 0; i < hidden.size(); ++i) {
    const auto found = file.tensors.find("hidden_states." + std::to_string(i));
    if (found == file.tensors.end()) continue;
    ++compared;
    for (std::size_t p = 0; p < places.size(); ++p) {
      const float* expected = found->second.as<float>() + static_cast<std::int64_t>(p) * e;
      EXPECT_LE(largest_difference(std::as_const(hidden[i]).as<float>() + places[p] * e, expected, e),
                2e-5 * largest(expected, e))
          << "hidden state " << i << " of token " << places[p];
    }
  }
  EXPECT_GT(compared, 2);
  const auto stored = nlohmann::json::parse(file.metadata.at("heads"));
  compared = 0;
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const auto found = file.tensors.find("weights." + std::to_string(i));
    if (found == file.tensors.end()) continue;
    ++compared;
    const Tensor weights = weights_of(layers[i].entry());
    const auto& heads = stored.is_object() ? stored.at(std::to_string(i)) : stored;
    for (std::size_t n = 0; n < heads.size(); ++n) {
      const std::int64_t head = heads[n];
      EXPECT_LE(largest_difference(std::as_const(weights).as<float>() + head * tokens * tokens,
                                   found->second.as<float>() + static_cast<std::int64_t>(n) * tokens * tokens,
                                   tokens * tokens),
                1e-4)
          << "layer " << i << " head " << head;
    }
  }
  EXPECT_GT(compared, 0);
  const Tensor logits = decoder.logits(ConstTensorView(std::as_const(last).as<float>(), {tokens, e}));
  const std::vector<std::int64_t> top = integers(file.at("logits.ids"));
  const float* values = file.at("logits.values").as<float>();
  for (std::size_t p = 0; p < places.size(); ++p) {
    const float* row = std::as_const(logits).as<float>() + places[p] * config.vocab_size;
    for (std::size_t i = 0; i < 20; ++i) EXPECT_NEAR(row[top[p * 20 + i]], values[p * 20 + i], 1e-3);
    EXPECT_EQ(std::max_element(row, row + config.vocab_size) - row, top[p * 20]);
  }
}
INSTANTIATE_TEST_SUITE_P(Texts, GoldenSmolLM2, testing::Values("capital", "unicode"),
                         [](const auto& text) { return std::string(text.param); });

std::vector<std::int64_t> random_ids(std::uint64_t seed, std::int64_t count) {
  std::mt19937_64 random(seed);
  std::vector<std::int64_t> ids;
  for (std::int64_t t = 0; t < count; ++t) ids.push_back(static_cast<std::int64_t>(random() % 96));
  return ids;
}

// The tiny decoder with room for more tokens than a chunk of the canonical order.
LlamaDecoder longer(DType weights) {
  const fs::path folder = golden() / "tiny_grouped";
  LlamaConfig config = load_llama_config(folder);
  config.max_position_embeddings = 1024;
  return LlamaDecoder(config, load_checkpoint(folder).tensors, weights);
}

class LlamaBits : public testing::TestWithParam<DType> {
 protected:
  const LlamaDecoder decoder = LlamaDecoder::load(golden() / "tiny_grouped", GetParam());
  std::int64_t e() const { return decoder.config().hidden_size; }
};
INSTANTIATE_TEST_SUITE_P(Weights, LlamaBits, testing::Values(DType::kF32, DType::kBF16),
                         [](const auto& weights) { return std::string(name_of(weights.param)); });

TEST_P(LlamaBits, RowsDoNotDependOnBatchPaddingOrThreads) {
  const std::vector<std::int64_t> lengths{7, 7, 40, 0, 1, 7, 23};
  std::vector<std::vector<std::int64_t>> rows;
  for (std::size_t b = 0; b < lengths.size(); ++b) rows.push_back(random_ids(b, lengths[b]));
  const TokenBatch input = TokenBatch::from_rows(rows);
  const Tensor all = decoder.run(input, {.threads = {.num_threads = 1}});
  for (const int threads : {2, 3, 8}) {
    const Tensor again = decoder.run(input, {.threads = {.num_threads = threads}});
    EXPECT_TRUE(same_bits(std::as_const(all).as<float>(), std::as_const(again).as<float>(), all.elements()));
  }
  for (std::size_t b = 0; b < lengths.size(); ++b) {
    const float* row = std::as_const(all).as<float>() + static_cast<std::int64_t>(b) * 40 * e();
    for (std::int64_t i = lengths[b] * e(); i < 40 * e(); ++i) ASSERT_EQ(row[i], 0);
    if (lengths[b] == 0) continue;
    const Tensor one = decoder.run(TokenBatch::from_rows({rows[b]}));
    EXPECT_TRUE(same_bits(std::as_const(one).as<float>(), row, lengths[b] * e())) << b;
  }
}

// A cache's type and page size.
struct Cached {
  DType weights, cache;
  std::int64_t page;
};
class LlamaCache : public testing::TestWithParam<Cached> {
 protected:
  const LlamaDecoder decoder = longer(GetParam().weights);
  std::int64_t e() const { return decoder.config().hidden_size; }
  DecoderCache cache() const {
    return DecoderCache(decoder.config(), {.dtype = GetParam().cache, .page_size = GetParam().page});
  }
  // The hidden states of `ids` in chunks of these sizes, the last one taken as often as needed.
  std::vector<float> in_chunks(const std::vector<std::int64_t>& ids, const std::vector<std::int64_t>& sizes,
                               int threads) const {
    DecoderCache own = cache();
    const auto sequence = own.add();
    std::vector<float> all;
    for (std::size_t at = 0, n = 0; at < ids.size(); ++n) {
      const std::size_t size =
          std::min(static_cast<std::size_t>(sizes[std::min(n, sizes.size() - 1)]), ids.size() - at);
      const DecoderChunk chunk{sequence, std::span(ids).subspan(at, size)};
      const Tensor hidden = decoder.extend(own, {&chunk, 1}, {.threads = {.num_threads = threads}});
      all.insert(all.end(), hidden.as<float>(), hidden.as<float>() + hidden.elements());
      at += size;
    }
    EXPECT_EQ(own.length(sequence), std::ssize(ids));
    return all;
  }
};

TEST_P(LlamaCache, WholeInChunksTokenByTokenAndInABatchGiveTheSameBits) {
  const std::vector<std::int64_t> ids = random_ids(5, 530);
  const std::vector<float> whole = in_chunks(ids, {530}, 1);
  // What run() attends in.
  const LlamaDecoder& d = decoder;
  const bool as_run = GetParam().cache == DType::kF32 && GetParam().weights == DType::kF32;
  if (as_run) {
    const Tensor run = d.run(TokenBatch::from_rows({ids}));
    EXPECT_TRUE(same_bits(std::as_const(run).as<float>(), whole.data(), std::ssize(whole)));
  }
  for (const auto& sizes : std::vector<std::vector<std::int64_t>>{{1}, {16}, {17}, {512, 1}, {3, 400, 7}}) {
    for (const int threads : {1, 2, 5}) {
      const std::vector<float> got = in_chunks(ids, sizes, threads);
      ASSERT_EQ(got.size(), whole.size());
      EXPECT_TRUE(same_bits(got.data(), whole.data(), std::ssize(whole))) << sizes[0] << " on " << threads;
    }
  }
  // In a batch of eight, some of which share a prefix with it; prompts and single tokens mixed.
  DecoderCache own = cache();
  const auto first = own.add();
  const DecoderChunk prefix{first, std::span(ids).first(40)};
  decoder.extend(own, {&prefix, 1});
  std::vector<std::vector<std::int64_t>> others;
  std::vector<DecoderChunk> chunks;
  for (int i = 0; i < 3; ++i) {
    others.push_back(random_ids(static_cast<std::uint64_t>(20 + i), 1 + 13 * i));
    chunks.push_back({own.fork(first), {}});
  }
  for (int i = 0; i < 4; ++i) {
    others.push_back(random_ids(static_cast<std::uint64_t>(30 + i), 30));
    chunks.push_back({own.add(), {}});
  }
  for (std::size_t i = 0; i < chunks.size(); ++i) chunks[i].ids = others[i];
  chunks.insert(chunks.begin() + 2, DecoderChunk{first, std::span(ids).subspan(40, 490)});
  const Tensor hidden = decoder.extend(own, chunks);
  std::int64_t before = 0;
  for (std::size_t i = 0; i < 2; ++i) before += std::ssize(chunks[i].ids);
  EXPECT_TRUE(same_bits(std::as_const(hidden).as<float>() + before * e(), whole.data() + 40 * e(), 490 * e()));
  // One token of each.
  const std::vector<std::int64_t> more = random_ids(50, static_cast<std::int64_t>(chunks.size()));
  std::vector<std::int64_t> more_ids = ids;
  more_ids.push_back(more[2]);
  for (std::size_t i = 0; i < chunks.size(); ++i) chunks[i].ids = std::span(more).subspan(i, 1);
  const Tensor next = decoder.extend(own, chunks);
  const std::vector<float> alone = in_chunks(more_ids, {531}, 2);
  EXPECT_TRUE(same_bits(std::as_const(next).as<float>() + 2 * e(), alone.data() + 530 * e(), e()));
}

INSTANTIATE_TEST_SUITE_P(Types, LlamaCache,
                         testing::Values(Cached{DType::kF32, DType::kF32, 64}, Cached{DType::kF32, DType::kF32, 0},
                                         Cached{DType::kF32, DType::kBF16, 16}, Cached{DType::kF32, DType::kF16, 64},
                                         Cached{DType::kF32, DType::kI8, 32}, Cached{DType::kBF16, DType::kBF16, 64},
                                         Cached{DType::kBF16, DType::kF32, 64}, Cached{DType::kBF16, DType::kI8, 64}),
                         [](const auto& c) {
                           return std::string(name_of(c.param.weights)) + "_" + name_of(c.param.cache) + "_" +
                                  std::to_string(c.param.page);
                         });

TEST_P(LlamaBits, RunIsTheCacheOfItsOwnType) {
  // BF16 weights round rows where the instruction set multiplies BF16 pairs; run() then attends in BF16.
  const std::vector<std::int64_t> ids = random_ids(8, 33);
  const Tensor run = decoder.run(TokenBatch::from_rows({ids}));
  bool found = false;
  for (const DType type : {DType::kF32, DType::kBF16}) {
    DecoderCache cache(decoder.config(), {.dtype = type});
    const DecoderChunk chunk{cache.add(), ids};
    const Tensor hidden = decoder.extend(cache, {&chunk, 1});
    found = found || same_bits(std::as_const(run).as<float>(), std::as_const(hidden).as<float>(), run.elements());
  }
  EXPECT_TRUE(found);
}

// F32, since the cache then has run's type everywhere.
TEST(LlamaTaps, OfACachedForwardAreThoseOfTheWhole) {
  const LlamaDecoder decoder = LlamaDecoder::load(golden() / "tiny_grouped");
  const std::vector<std::int64_t> ids = random_ids(9, 21);
  std::vector<LayerHeads> whole, part;
  std::vector<Tensor> hidden;
  decoder.run(TokenBatch::from_rows({ids}), {.layers = &whole});
  DecoderCache cache(decoder.config());
  DecoderChunk chunk{cache.add(), std::span(ids).first(15)};
  decoder.extend(cache, {&chunk, 1});
  chunk.ids = std::span(ids).subspan(15);
  const Tensor last = decoder.extend(cache, {&chunk, 1}, {.layers = &part, .hidden_states = &hidden});
  ASSERT_EQ(hidden.back().shape(), last.shape());
  for (std::size_t i = 0; i < whole.size(); ++i) {
    const EntryHeads a = whole[i].entry(), b = part[i].entry();
    ASSERT_EQ(b.q.size(1), 6);
    for (std::int64_t h = 0; h < a.q.size(0); ++h) {
      for (std::int64_t t = 0; t < 6; ++t) {
        const auto* qa = static_cast<const float*>(a.q.data()) + h * a.q.stride(0) + (15 + t) * a.q.stride(1);
        const auto* qb = static_cast<const float*>(b.q.data()) + h * b.q.stride(0) + t * b.q.stride(1);
        EXPECT_TRUE(same_bits(qa, qb, a.q.size(2)));
        EXPECT_EQ(static_cast<const float*>(a.lse.data())[h * a.lse.stride(0) + 15 + t],
                  static_cast<const float*>(b.lse.data())[h * b.lse.stride(0) + t]);
      }
    }
  }
}

TEST(LlamaRefused, ChunksThatDoNotFitLeaveTheCacheAsItWas) {
  const LlamaDecoder decoder = LlamaDecoder::load(golden() / "tiny_grouped");
  const std::int64_t most = decoder.config().max_position_embeddings;
  DecoderCache cache(decoder.config(), {.page_size = 16, .max_tokens = 64});
  const auto a = cache.add(), b = cache.add();
  const std::vector<std::int64_t> ids = random_ids(1, 20);
  const DecoderChunk fine{a, ids};
  decoder.extend(cache, {&fine, 1});
  const auto refused = [&](std::vector<DecoderChunk> chunks, const std::string& what,
                           const EncoderOptions& options = {}) {
    try {
      decoder.extend(cache, chunks, options);
      ADD_FAILURE() << what;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(what), std::string::npos) << error.what();
    }
    EXPECT_EQ(cache.length(a), 20);
    EXPECT_EQ(cache.length(b), 0);
    for (std::int64_t i = 0; i < cache.num_layers(); ++i) {
      EXPECT_EQ(cache.layer(i).length(a), 20);
      EXPECT_EQ(cache.layer(i).length(b), 0);
    }
  };
  const std::vector<std::int64_t> negative{-1}, large{96}, many(static_cast<std::size_t>(most) - 19, 0), some(40, 1);
  refused({{a, {}}}, "chunk 0 has no tokens");
  refused({{b, ids}, {a, negative}}, "token id -1 of chunk 1, the vocabulary has 96");
  refused({{a, large}}, "token id 96 of chunk 0");
  refused({{a, many}}, "more than the " + std::to_string(most) + " that the model takes");
  refused({{a, ids}, {b, ids}, {a, ids}}, "sequence " + std::to_string(a) + " is in two chunks");
  refused({{77, ids}}, "77");
  refused({{b, ids}, {a, some}}, "KVCache::append");  // max_tokens, in the middle of the first layer
  refused({{a, ids}}, "num_threads is -1", {.threads = {.num_threads = -1}});
  refused({{a, ids}}, "Decoder::extend", {.bits = "none"});
  const LlamaDecoder other = LlamaDecoder::load(golden() / "tiny_head_dim");
  DecoderCache of_other(other.config());
  const DecoderChunk chunk{of_other.add(), ids};
  EXPECT_THROW(decoder.extend(of_other, {&chunk, 1}), Error);
  EXPECT_THROW(decoder.logits(ConstTensorView{}), Error);
  const std::vector<float> row(7);
  EXPECT_THROW(decoder.logits(ConstTensorView(row.data(), {1, 7})), Error);
  // The cache still works.
  decoder.extend(cache, {&fine, 1});
  EXPECT_EQ(cache.length(a), 40);
}

TEST(LlamaRefused, AnEncoderIsNoDecoder) {
  try {
    load_decoder(test::source_dir() / "tests/golden/model/tiny_gelu");
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("\"llama\""), std::string::npos) << error.what();
  }
  EXPECT_TRUE(load_encoder(golden() / "tiny_grouped")->config().causal);
}

}  // namespace
}  // namespace manyheads::model
