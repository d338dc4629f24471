#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <random>
#include <string>
#include <vector>

#include <manyheads/cpu.hpp>
#include <manyheads/multi_head_attention.hpp>

#include "attention/oracle.hpp"
#include "layer/merged_mask.hpp"
#include "layer/training.hpp"
#include "support.hpp"

// The layer's gradients against central differences of its definition in float64.
namespace manyheads::layer_test {
namespace {

TEST(LayerBackward, SelfAttention) {
  for (const std::string& isa : available_isas()) {
    set_isa(isa);
    Training t(MultiHeadAttentionConfig{.d_model = 12, .num_heads = 3});
    t.run();
    EXPECT_EQ(t.wrong(), "") << isa;
  }
  set_isa("");
}

TEST(LayerBackward, GroupedHeadsWithoutBias) {
  Training t(MultiHeadAttentionConfig{.d_model = 16, .num_heads = 4, .num_kv_heads = 2, .bias = false});
  t.run();
  EXPECT_EQ(t.wrong(), "");
}

TEST(LayerBackward, CrossAttention) {
  Training t(MultiHeadAttentionConfig{.d_model = 8, .num_heads = 2, .kdim = 6, .vdim = 10});
  t.self = false;
  t.keys = 7;
  t.run();
  EXPECT_EQ(t.wrong(), "");
}

TEST(LayerBackward, AddedKeysAndCausal) {
  for (const bool zero : {false, true}) {
    Training t(MultiHeadAttentionConfig{.d_model = 8, .num_heads = 2, .add_bias_kv = true, .add_zero_attn = zero});
    t.mask = [](MultiHeadAttentionOptions& options, LayerCase& of) {
      options.mask.causal = true;
      const std::int64_t n = of.query.size(1);
      for (std::size_t at = 0; at < of.added.size(); ++at) {
        const auto place = static_cast<std::int64_t>(at) % (n * n);
        if (place % n > place / n) of.added[at] = -std::numeric_limits<double>::infinity();
      }
    };
    t.run();
    EXPECT_EQ(t.wrong(), "") << zero;
  }
}

// The weights that dropout leaves, of the layer's own call.
std::vector<double> kept_of(const Training& t, const Dropout& dropout) {
  const std::int64_t added = (t.config.add_bias_kv ? 1 : 0) + (t.config.add_zero_attn ? 1 : 0);
  const std::int64_t heads = t.config.num_heads, keys = t.keys + added;
  std::vector<double> kept;
  for (std::int64_t b = 0; b < t.batch; ++b) {
    for (std::int64_t h = 0; h < heads; ++h) {
      for (std::int64_t i = 0; i < t.queries; ++i) {
        for (std::int64_t j = 0; j < keys; ++j) kept.push_back(test::kept_weight(dropout, b, h, i, j));
      }
    }
  }
  return kept;
}

// Beside added keys a causal mask is written out, and many queries are taken part by part, and dropout goes on counting
// them. The whole gradient against a central difference along one random direction of all inputs and weights. Its error
// against float64: that of F32 sums.
TEST(LayerBackward, ManyQueriesInParts) {
  Training t(MultiHeadAttentionConfig{.d_model = 8, .num_heads = 2, .add_bias_kv = true});
  t.batch = 1;
  t.queries = 2100;
  const Dropout dropout{.p = 0.1, .seed = 5};
  t.keys = t.queries;
  t.mask = [&](MultiHeadAttentionOptions& options, LayerCase& of) {
    options.mask.causal = true;
    options.dropout = dropout;
    of.kept = kept_of(t, dropout);
    const std::int64_t n = of.query.size(1);
    for (std::size_t at = 0; at < of.added.size(); ++at) {
      const auto place = static_cast<std::int64_t>(at) % (n * n);
      if (place % n > place / n) of.added[at] = -std::numeric_limits<double>::infinity();
    }
  };
  t.run(2);
  const layer::MergedMask merged(t.options, {1, 2, 2100, 2100, 1});
  ASSERT_LT(merged.queries_at_once(), 2100);
  constexpr double kStep = 1e-6;
  std::mt19937_64 random(3);
  std::normal_distribution<double> normal;
  LayerCase more = t.reference, less = t.reference;
  double expected = 0, magnitude = 0;
  const auto move = [&](const std::string& name, Tensor& a, Tensor& b) {
    a = in_double(a);
    b = in_double(b);
    for (std::int64_t i = 0; i < a.elements(); ++i) {
      const double step = normal(random);
      a.as<double>()[i] += kStep * step;
      b.as<double>()[i] -= kStep * step;
      expected += step * static_cast<double>(t.gradients.at(name).as<float>()[i]);
      magnitude += std::fabs(step * static_cast<double>(t.gradients.at(name).as<float>()[i]));
    }
  };
  move("query", more.query, less.query);
  more.key = more.value = more.query;
  less.key = less.value = less.query;
  for (auto& [name, tensor] : more.state) move(name, tensor, less.state.at(name));
  const double got = (t.loss(more) - t.loss(less)) / (2 * kStep);
  EXPECT_NEAR(got, expected, 0x1p-18 * magnitude);
}

TEST(LayerBackward, MasksAndHeadScale) {
  Training t(MultiHeadAttentionConfig{.d_model = 12, .num_heads = 3});
  Tensor padding(DType::kBool, {2, 5}), bias(DType::kF32, {5, 5}), scale(DType::kF32, {3});
  padding.as<bool>()[3] = padding.as<bool>()[9] = true;
  for (std::int64_t i = 0; i < 25; ++i) bias.as<float>()[i] = static_cast<float>(i % 7) * 0.25f;
  for (std::int64_t h = 0; h < 3; ++h) scale.as<float>()[h] = 0.5f * static_cast<float>(h + 1);
  t.mask = [&](MultiHeadAttentionOptions& options, LayerCase& of) {
    options.key_padding_mask = padding.cview();
    options.attn_mask = bias.cview();
    options.head_scale = scale.cview();
    of.head_scale = values(scale);
    for (std::size_t at = 0; at < of.added.size(); ++at) {
      const auto j = static_cast<std::int64_t>(at) % 5, i = static_cast<std::int64_t>(at) / 5 % 5;
      const auto b = static_cast<std::int64_t>(at) / (3 * 25);
      of.added[at] = padding.as<bool>()[b * 5 + j] ? -std::numeric_limits<double>::infinity()
                                                   : static_cast<double>(bias.as<float>()[i * 5 + j]);
    }
  };
  t.run();
  EXPECT_EQ(t.wrong(), "");
}

// Half types are read exactly; all else is as in F32.
TEST(LayerBackward, Dropout) {
  const Dropout dropout{.p = 0.3, .seed = 0x123456789abcdef, .first_query = 3};
  for (const bool self : {true, false}) {
    Training t(MultiHeadAttentionConfig{.d_model = 12, .num_heads = 3, .add_bias_kv = self});
    t.self = self;
    t.keys = self ? 5 : 9;
    t.mask = [&](MultiHeadAttentionOptions& options, LayerCase& of) {
      options.dropout = dropout;
      of.kept = kept_of(t, dropout);
    };
    t.run();
    EXPECT_EQ(t.wrong(), "") << self;
    // What was left, and the output.
    const LayerResult expected = reference_layer(t.reference, 0);
    const std::int64_t keys = t.keys + (self ? 1 : 0);
    Tensor weights(DType::kF32, {2, 3, 5, keys}), y(DType::kF32, t.query.shape());
    MultiHeadAttentionOptions options;
    options.dropout = dropout;
    options.weights = weights.view();
    t.layer->forward(t.query.cview(), t.key.cview(), t.value.cview(), y.view(), options);
    std::int64_t gone = 0;
    for (std::size_t n = 0; n < expected.weights.size(); ++n) {
      const double got = static_cast<double>(weights.as<float>()[n]);
      gone += got == 0 ? 1 : 0;
      EXPECT_NEAR(got, expected.weights[n], expected.weights_bound[n]);
    }
    EXPECT_GT(gone, 10);
    for (std::size_t n = 0; n < expected.output.size(); ++n) {
      EXPECT_NEAR(static_cast<double>(y.as<float>()[n]), expected.output[n], expected.output_bound[n]);
    }
  }
}

TEST(LayerBackward, HalfInputs) {
  Training t(MultiHeadAttentionConfig{.d_model = 8, .num_heads = 2});
  t.type = DType::kBF16;
  t.run();
  EXPECT_EQ(t.wrong(), "");
}

TEST(LayerBackward, Accumulates) {
  Training t(MultiHeadAttentionConfig{.d_model = 12, .num_heads = 3});
  t.run();
  MultiHeadAttentionGradients to;
  std::map<std::string, Tensor> sums;
  for (const auto& [name, tensor] : t.gradients) {
    sums[name] = Tensor(DType::kF32, tensor.shape());
    std::fill_n(sums[name].as<float>(), tensor.elements(), 2.0f);
    (name == "query" ? to.dquery : to.parameters[name]) = sums[name].view();
  }
  to.accumulate = true;
  t.layer->backward(t.query.view(), t.activations, t.dy.view(), to, t.options);
  for (const auto& [name, tensor] : t.gradients) {
    for (std::int64_t i = 0; i < tensor.elements(); ++i) {
      ASSERT_NEAR(sums[name].as<float>()[i], tensor.as<float>()[i] + 2.0f, 4e-6) << name << " " << i;
    }
  }
}

TEST(LayerBackward, ErrorsNameTheArgument) {
  Training t(MultiHeadAttentionConfig{.d_model = 12, .num_heads = 3});
  t.run();
  const auto error =
      [&](const std::function<void(MultiHeadAttentionGradients&, MultiHeadAttentionActivations&)>& spoil) {
        MultiHeadAttentionGradients to;
        MultiHeadAttentionActivations kept = t.activations;
        spoil(to, kept);
        return test::error_of([&] { t.layer->backward(t.query.view(), kept, t.dy.view(), to, t.options); });
      };
  Tensor other(DType::kF32, {3, 12});
  EXPECT_EQ(error([&](auto& to, auto&) { to.dquery = other.view(); }),
            "MultiHeadAttention::backward: dquery is F32 [3,12], expected F32 [2,5,12]");
  EXPECT_EQ(error([&](auto& to, auto&) { to.dkey = other.view(); }),
            "MultiHeadAttention::backward: dkey and dvalue: of self-attention dquery holds all of dx");
  EXPECT_EQ(error([&](auto& to, auto&) { to.parameters["w"] = other.view(); }),
            "MultiHeadAttention::backward: parameters: not a tensor of this layer: w");
  EXPECT_EQ(error([&](auto&, auto& kept) { kept.heads = other; }),
            "MultiHeadAttention::backward: activations.heads is F32 [3,12], expected F32 [2,5,12]: they are those of a "
            "forward() of these inputs");
  EXPECT_EQ(error([&](auto& to, auto&) { to.dhead_scale = other.view(); }),
            "MultiHeadAttention::backward: dhead_scale without head_scale");
  Tensor marked(DType::kF32, {12, 12});
  std::fill_n(marked.as<float>(), marked.elements(), 3.0f);
  t.options.threads.num_threads = -1;
  EXPECT_EQ(error([&](auto& to, auto&) { to.parameters["out_proj.weight"] = marked.view(); }),
            "MultiHeadAttention::backward: num_threads is -1, expected 0 or more");
  for (std::int64_t i = 0; i < marked.elements(); ++i) ASSERT_EQ(marked.as<float>()[i], 3);
}

// Counts what it runs, in the calling thread.
class Counting final : public Executor {
 public:
  int runs = 0;
  int concurrency() const noexcept override { return 2; }
  void run(std::int64_t count, Task task, void* context) override {
    ++runs;
    for (std::int64_t i = 0; i < count; ++i) task(context, i);
  }
};

TEST(LayerBackward, TheCallersThreadsPackTheWeights) {
  const MultiHeadAttentionConfig config{.d_model = 256, .num_heads = 4};
  const StateDict tensors = MultiHeadAttention(config).state_dict();
  Counting threads;
  const MultiHeadAttention layer(config, tensors, {.executor = &threads});
  EXPECT_EQ(threads.runs, 2);  // W_q, W_k and W_v together, and W_o
}

TEST(LayerBackward, NoTokensGiveZeros) {
  for (const bool self : {true, false}) {
    for (const auto& [batch, queries] : {std::pair{2, 0}, std::pair{0, 5}}) {
      Training t(MultiHeadAttentionConfig{.d_model = 12, .num_heads = 3, .add_bias_kv = true});
      t.self = self;
      t.batch = batch;
      t.queries = queries;
      t.run();
      for (const auto& [name, tensor] : t.gradients) {
        for (std::int64_t i = 0; i < tensor.elements(); ++i) ASSERT_EQ(tensor.as<float>()[i], 0) << name;
      }
    }
  }
}

}  // namespace
}  // namespace manyheads::layer_test
