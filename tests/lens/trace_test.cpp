#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <manyheads/attention.hpp>
#include <manyheads/lens/patch.hpp>
#include <manyheads/lens/read_heads.hpp>
#include <manyheads/lens/trace.hpp>
#include <manyheads/model/encoder.hpp>
#include <random>
#include <string>
#include <vector>

#include "io/malformed.hpp"
#include "model/tokenizer.hpp"
#include "support.hpp"

namespace manyheads::lens {
namespace {

class CountingExecutor : public Executor {
 public:
  int concurrency() const noexcept override { return 64; }
  void run(std::int64_t count, Task task, void* context) override {
    ++calls;
    for (std::int64_t i = 0; i < count; ++i) task(context, i);
  }
  int calls = 0;
};

// No number of threads means all of them, in every step: the sums in double are one step of each layer.
TEST(MakeTrace, NoNumberOfThreadsMeansAll) {
  const auto model = test::source_dir() / "tests/golden/embed/tiny";
  const auto encoder = model::load_encoder(model);
  const model::Encoding encoding = model::Tokenizer(model / "tokenizer.json").encode("the cat sat");
  ASSERT_EQ(::setenv("MANYHEADS_NUM_THREADS", "3", 1), 0);
  const auto calls = [&](bool in_double) {
    CountingExecutor executor;
    TraceOptions options;
    options.lse_in_double = in_double;
    options.threads.executor = &executor;
    make_trace(*encoder, encoding, "tiny", "the cat sat", options);
    return executor.calls;
  };
  EXPECT_EQ(calls(true), calls(false) + 2);
  ::unsetenv("MANYHEADS_NUM_THREADS");
}

// An encoder of another kind than BERT: causal, groups of two query heads, heads that are no part of the hidden size.
class GroupedEncoder : public model::Encoder {
 public:
  const model::EncoderConfig& config() const noexcept override { return config_; }

 private:
  Tensor forward(const model::TokenBatch& batch, const model::EncoderOptions& options) const override {
    const std::int64_t rows = batch.length(0);
    options.layers->clear();
    std::mt19937 random(7);
    std::normal_distribution<float> normal(0, 2);
    const auto filled = [&](std::int64_t heads) {
      Tensor tensor(DType::kF32, {rows, heads, config_.head_dim});
      for (std::int64_t i = 0; i < tensor.elements(); ++i) tensor.as<float>()[i] = normal(random);
      return tensor;
    };
    for (std::int64_t layer = 0; layer < config_.num_layers; ++layer) {
      const Tensor q = filled(config_.num_heads), k = filled(config_.num_kv_heads), v = filled(config_.num_kv_heads);
      Tensor out(DType::kF32, q.shape()), lse(DType::kF32, {config_.num_heads, rows});
      const TensorView lse_view = lse.view();
      const std::int64_t starts[] = {0, rows};
      AttentionOptions how;
      how.mask.causal = true;
      how.scale = config_.scale;
      how.lse = lse_view;
      how.cu_seqlens_q = how.cu_seqlens_k = ConstTensorView(starts, {2});
      attention(q.cview(), k.cview(), v.cview(), out.view(), how);
      options.layers->push_back({q.cview(), k.cview(), v.cview(), lse.cview(), {0, rows}, {q, k, v, lse}});
    }
    return Tensor(DType::kF32, {1, rows, config_.hidden_size});
  }

  const model::EncoderConfig config_{.hidden_size = 6,
                                     .num_layers = 2,
                                     .num_heads = 4,
                                     .num_kv_heads = 2,
                                     .head_dim = 5,
                                     .scale = 0.3,
                                     .causal = true,
                                     .vocab_size = 10,
                                     .max_position_embeddings = 32};
};

TEST(MakeTrace, CausalGroupedHeadsOfAnyEncoder) {
  const GroupedEncoder encoder;
  constexpr std::int64_t kTokens = 9;
  model::Encoding encoding;
  for (std::int64_t t = 0; t < kTokens; ++t) {
    encoding.ids.push_back(t);
    encoding.type_ids.push_back(0);
    encoding.tokens.push_back(std::string(1, static_cast<char>('a' + t)));
    encoding.offsets.push_back({t, t + 1});
    encoding.words.push_back(t);
    encoding.sequences.push_back(0);
    encoding.special.push_back(false);
  }
  for (const bool in_double : {false, true}) {
    TraceOptions options;
    options.lse_in_double = in_double;
    const test::TemporaryFolder folder;
    save_trace(folder.path() / "t", make_trace(encoder, encoding, "grouped", "abcdefghi", options));
    const Trace trace = load_trace(folder.path() / "t");
    EXPECT_TRUE(trace.causal);
    ASSERT_EQ(trace.layers.size(), 2u);
    EXPECT_EQ(trace.num_heads(1), 4);
    EXPECT_EQ(trace.layers[1].k.shape(), Dims({2, kTokens, 5}));
    for (std::int64_t head = 0; head < 4; ++head) {
      Tensor weights(DType::kF32, {kTokens, kTokens});
      trace_weights(trace, 1, head, weights.view());
      const auto number = [](const ConstTensorView& of, std::int64_t h, std::int64_t i, std::int64_t d) {
        return static_cast<double>(static_cast<const float*>(of.data())[h * of.stride(0) + i * of.stride(1) + d]);
      };
      for (std::int64_t i = 0; i < kTokens; ++i) {
        std::vector<double> expected(kTokens, 0.0);
        double sum = 0;
        for (std::int64_t j = 0; j <= i; ++j) {
          double score = 0;
          for (std::int64_t d = 0; d < 5; ++d) {
            score += number(trace.layers[1].q, head, i, d) * number(trace.layers[1].k, head / 2, j, d);
          }
          sum += expected[static_cast<std::size_t>(j)] = std::exp(0.3 * score);
        }
        for (std::int64_t j = 0; j < kTokens; ++j) {
          EXPECT_NEAR(weights.as<float>()[i * kTokens + j], expected[static_cast<std::size_t>(j)] / sum, 1e-6)
              << "head " << head << ", query " << i << ", key " << j;
        }
        const double lse = static_cast<const float*>(trace.layers[1].lse.data())[head * kTokens + i];
        EXPECT_NEAR(lse, std::log(sum), 1e-5);
      }
    }
    EXPECT_EQ(read_heads(trace, words_of(trace), {}, 1).size(), 8u);
  }
}

// softmax weights x v, from the file alone, is what attention() gives.
TEST(MakeTrace, HeadOutputsFollowFromAFileWithValues) {
  const GroupedEncoder encoder;
  constexpr std::int64_t kTokens = 20;
  model::Encoding encoding;
  for (std::int64_t t = 0; t < kTokens; ++t) {
    encoding.ids.push_back(t % 10);
    encoding.type_ids.push_back(0);
    encoding.tokens.push_back(std::string(1, static_cast<char>('a' + t)));
    encoding.offsets.push_back({t, t + 1});
    encoding.words.push_back(t);
    encoding.sequences.push_back(0);
    encoding.special.push_back(false);
  }
  const test::TemporaryFolder folder;
  const auto file = [&](bool values) {
    TraceOptions options;
    options.values = options.row_sums = values;
    save_trace(folder.path() / "t", make_trace(encoder, encoding, "grouped", "abcdefghijklmnopqrst", options));
    return load_trace(folder.path() / "t");
  };
  const Trace without = file(false);
  EXPECT_FALSE(without.layers[0].v.defined());
  EXPECT_FALSE(without.layers[0].row_sum.defined());
  const Trace trace = file(true);
  ASSERT_TRUE(trace.layers[1].v.defined());
  ASSERT_TRUE(trace.layers[1].row_sum.defined());
  const auto batched = [](const ConstTensorView& view) {
    return ConstTensorView(static_cast<const float*>(view.data()), Dims{1, view.size(0), view.size(1), view.size(2)});
  };
  Tensor out(DType::kF32, {1, 4, kTokens, 5});
  attention(batched(trace.layers[1].q), batched(trace.layers[1].k), batched(trace.layers[1].v), out.view(),
            attention_options(trace));
  for (std::int64_t head = 0; head < 4; ++head) {
    Tensor weights(DType::kF32, {kTokens, kTokens});
    EXPECT_TRUE(patch(trace, 1, head, {0, kTokens}, {0, kTokens}, weights.view()).exact);
    const float* values = static_cast<const float*>(trace.layers[1].v.data()) + head / 2 * kTokens * 5;
    for (std::int64_t i = 0; i < kTokens; ++i) {
      for (std::int64_t d = 0; d < 5; ++d) {
        double sum = 0;
        for (std::int64_t j = 0; j < kTokens; ++j) {
          sum += static_cast<double>(weights.as<float>()[i * kTokens + j]) * static_cast<double>(values[j * 5 + d]);
        }
        EXPECT_NEAR(sum, out.as<float>()[(head * kTokens + i) * 5 + d], 1e-5) << head << " " << i << " " << d;
      }
    }
  }
}

}  // namespace
}  // namespace manyheads::lens
