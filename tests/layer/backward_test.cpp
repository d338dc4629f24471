#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <manyheads/cpu.hpp>
#include <manyheads/multi_head_attention.hpp>

#include "attention/oracle.hpp"
#include "layer/layer_reference.hpp"
#include "layer/merged_mask.hpp"
#include "layer/random_tensor.hpp"
#include "support.hpp"

// The layer's gradients against central differences of its definition in float64, and their bits.
namespace manyheads::layer_test {
namespace {

Tensor in_double(const Tensor& from) {
  Tensor to(DType::kF64, from.shape());
  const std::vector<double> all = values(from);
  std::copy(all.begin(), all.end(), to.as<double>());
  return to;
}

// A layer, its inputs, and the gradients of the loss sum(y dy).
struct Training {
  explicit Training(const MultiHeadAttentionConfig& of) : config(of) {}
  MultiHeadAttentionConfig config;
  std::int64_t batch = 2, queries = 5, keys = 5;
  bool self = true;
  std::function<void(MultiHeadAttentionOptions&, LayerCase&)> mask{};
  DType type = DType::kF32;  // of inputs and dy

  void run(int threads = 1, Workspace* workspace = nullptr) {
    std::mt19937_64 random(11);
    layer = std::make_unique<MultiHeadAttention>(config);
    StateDict state = layer->state_dict();
    for (auto& [name, tensor] : state) tensor = random_tensor(random, tensor.shape(), 0.4);
    layer->load_state_dict(state);
    const std::int64_t kdim = config.kdim > 0 ? config.kdim : config.d_model;
    const std::int64_t vdim = config.vdim > 0 ? config.vdim : config.d_model;
    query = random_tensor(random, {batch, queries, config.d_model}, 1, type);
    key = self ? query : random_tensor(random, {batch, keys, kdim}, 1, type);
    value = self ? query : random_tensor(random, {batch, keys, vdim}, 1, type);
    dy = random_tensor(random, {batch, queries, config.d_model}, 1, type);
    if (self) keys = queries;
    reference = {layer->config(), layer->state_dict(), query, key, value, {}, {}, {}};
    reference.added.assign(static_cast<std::size_t>(batch * config.num_heads * queries * keys), 0.0);
    options = {};
    if (mask) mask(options, reference);
    options.threads.num_threads = threads;
    options.activations = &activations;
    options.workspace = workspace;
    Tensor y(DType::kF32, query.shape());
    if (self) {
      layer->forward(query.view(), y.view(), options);
    } else {
      layer->forward(query.view(), key.view(), value.view(), y.view(), options);
    }
    gradients.clear();
    MultiHeadAttentionGradients to;
    const auto make = [&](const std::string& name, const Dims& shape) {
      gradients[name] = Tensor(DType::kF32, shape);
      return gradients[name].view();
    };
    to.dquery = make("query", query.shape());
    if (!self) {
      to.dkey = make("key", key.shape());
      to.dvalue = make("value", value.shape());
    }
    for (const auto& [name, tensor] : layer->state_dict()) to.parameters[name] = make(name, tensor.shape());
    if (options.head_scale.defined()) to.dhead_scale = make("head_scale", options.head_scale.shape());
    if (self) {
      layer->backward(query.view(), activations, dy.view(), to, options);
    } else {
      layer->backward(query.view(), key.view(), value.view(), activations, dy.view(), to, options);
    }
  }

  double loss(const LayerCase& of) const {
    const LayerResult result = reference_layer(of, 0);
    const std::vector<double> factor = values(dy);
    double sum = 0;
    for (std::size_t i = 0; i < factor.size(); ++i) sum += result.output[i] * factor[i];
    return sum;
  }
  // Where a gradient differs from the central difference by more than 2^-18 of the largest of its tensor: some 60
  // roundings of F32, of sums of some tens of terms each.
  std::string wrong() const {
    constexpr double kStep = 1e-5;
    LayerCase at = reference;
    for (Tensor* tensor : {&at.query, &at.key, &at.value}) *tensor = in_double(*tensor);
    for (auto& [name, tensor] : at.state) tensor = in_double(tensor);
    if (self) at.key = at.value = at.query;  // share the memory
    const auto check = [&](const std::string& name, double* input, std::int64_t count) -> std::string {
      const Tensor& gradient = gradients.at(name);
      std::vector<double> expected(static_cast<std::size_t>(count));
      double largest = 0;
      for (std::int64_t i = 0; i < count; ++i) {
        const double before = input[i];
        input[i] = before + kStep;
        const double more = loss(at);
        input[i] = before - kStep;
        const double less = loss(at);
        input[i] = before;
        expected[static_cast<std::size_t>(i)] = (more - less) / (2 * kStep);
        largest = std::max(largest, std::fabs(expected[static_cast<std::size_t>(i)]));
      }
      for (std::int64_t i = 0; i < count; ++i) {
        const double got = static_cast<double>(gradient.as<float>()[i]), want = expected[static_cast<std::size_t>(i)];
        if (std::fabs(got - want) > 0x1p-18 * largest + 1e-8) {
          return name + "[" + std::to_string(i) + "] is " + std::to_string(got) + ", expected " + std::to_string(want);
        }
      }
      return "";
    };
    std::string text = check("query", at.query.as<double>(), at.query.elements());
    if (text.empty() && !self) text = check("key", at.key.as<double>(), at.key.elements());
    if (text.empty() && !self) text = check("value", at.value.as<double>(), at.value.elements());
    for (auto& [name, tensor] : at.state) {
      if (text.empty()) text = check(name, tensor.as<double>(), tensor.elements());
    }
    if (text.empty() && !at.head_scale.empty()) {
      text = check("head_scale", at.head_scale.data(), static_cast<std::int64_t>(at.head_scale.size()));
    }
    return text;
  }

  std::unique_ptr<MultiHeadAttention> layer;
  Tensor query, key, value, dy;
  LayerCase reference;
  MultiHeadAttentionOptions options;
  MultiHeadAttentionActivations activations;
  std::map<std::string, Tensor> gradients;
};

bool same(const std::map<std::string, Tensor>& a, const std::map<std::string, Tensor>& b) {
  for (const auto& [name, tensor] : a) {
    if (std::memcmp(tensor.bytes(), b.at(name).bytes(), static_cast<std::size_t>(tensor.elements()) * sizeof(float)) !=
        0) {
      return false;
    }
  }
  return true;
}

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

TEST(LayerBackward, SameBitsForAnyThreads) {
  Training one(MultiHeadAttentionConfig{.d_model = 96, .num_heads = 4});
  one.batch = 3;
  one.queries = 600;
  one.run(1);
  for (const int threads : {2, 3, 8, 64}) {
    Training many(one.config);
    many.batch = 3;
    many.queries = 600;
    Workspace workspace;
    many.run(threads, &workspace);
    EXPECT_TRUE(same(one.gradients, many.gradients)) << threads;
  }
}

// dx of a sequence, alone and at any place of a batch, whose other sequence holds NaN; sums over the batch then do too.
TEST(LayerBackward, SameBitsInAnyBatch) {
  const MultiHeadAttention layer(MultiHeadAttentionConfig{.d_model = 24, .num_heads = 3, .num_kv_heads = 1});
  std::mt19937_64 random(5);
  const Tensor x = random_tensor(random, {1, 70, 24}), memory = random_tensor(random, {1, 90, 24}),
               dy = random_tensor(random, {1, 70, 24});
  for (const bool self : {true, false}) {
    const auto run = [&](std::int64_t batch, std::int64_t place) {
      const auto repeated = [&](const Tensor& one) {
        Tensor all(DType::kF32, {batch, one.size(1), one.size(2)});
        for (std::int64_t b = 0; b < batch; ++b) {
          float* const to = all.as<float>() + b * one.elements();
          std::copy_n(one.as<float>(), one.elements(), to);
          if (b == batch / 3 && b != place) to[7] = std::numeric_limits<float>::quiet_NaN();
        }
        return all;
      };
      const Tensor query = repeated(x), key = self ? query : repeated(memory), of_y = repeated(dy);
      Tensor y(DType::kF32, query.shape()), dx(DType::kF32, query.shape()), dkey(DType::kF32, key.shape()),
          dvalue(DType::kF32, key.shape()), dw(DType::kF32, {24, 24});
      MultiHeadAttentionActivations kept;
      MultiHeadAttentionOptions options;
      options.activations = &kept;
      options.mask.causal = self;
      options.threads.num_threads = 2;
      MultiHeadAttentionGradients to;
      to.dquery = dx.view();
      to.parameters["out_proj.weight"] = dw.view();
      if (self) {
        layer.forward(query.cview(), y.view(), options);
        layer.backward(query.cview(), kept, of_y.cview(), to, options);
      } else {
        to.dkey = dkey.view();
        to.dvalue = dvalue.view();
        layer.forward(query.cview(), key.cview(), key.cview(), y.view(), options);
        layer.backward(query.cview(), key.cview(), key.cview(), kept, of_y.cview(), to, options);
      }
      EXPECT_EQ(std::isnan(dw.as<float>()[0]), batch > 1 && place != batch / 3);
      std::vector<float> found;
      for (const Tensor* gradient : {&dx, &dkey, &dvalue}) {
        if (self && gradient != &dx) continue;
        const std::int64_t count = gradient->size(1) * 24;
        found.insert(found.end(), gradient->as<float>() + place * count, gradient->as<float>() + (place + 1) * count);
      }
      return found;
    };
    const std::vector<float> alone = run(1, 0);
    for (const auto& [batch, place] : {std::pair{2, 1}, {5, 0}, {64, 0}, {64, 40}, {64, 63}}) {
      const std::vector<float> found = run(batch, place);
      EXPECT_EQ(std::memcmp(alone.data(), found.data(), alone.size() * sizeof(float)), 0) << place << " of " << batch;
    }
  }
}

// Inputs and gradients [T,B,E], of which elements lie two apart, and a weight's gradient that lies by columns.
TEST(LayerBackward, SameBitsInAnyLayout) {
  Training t(MultiHeadAttentionConfig{.d_model = 24, .num_heads = 3});
  t.batch = 3;
  t.queries = 70;
  t.run();
  const auto other = [](Tensor& memory, const Tensor* from) {
    memory = Tensor(DType::kF32, {70, 3, 24, 2});
    const TensorView view(memory.as<float>(), DType::kF32, {3, 70, 24}, {48, 144, 2});
    for (std::int64_t i = 0; from != nullptr && i < from->elements(); ++i) {
      memory.as<float>()[i / 24 % 70 * 144 + i / (24 * 70) * 48 + i % 24 * 2] = from->as<float>()[i];
    }
    return view;
  };
  Tensor query, dy, dx, dw(DType::kF32, {24, 72});
  const TensorView of_query = other(query, &t.query), of_y = other(dy, &t.dy), of_x = other(dx, nullptr);
  Tensor y(DType::kF32, t.query.shape());
  MultiHeadAttentionActivations kept;
  MultiHeadAttentionOptions options;
  options.activations = &kept;
  t.layer->forward(of_query, y.view(), options);
  MultiHeadAttentionGradients to;
  to.dquery = of_x;
  to.parameters["in_proj_weight"] = TensorView(dw.as<float>(), DType::kF32, {72, 24}, {1, 72});
  t.layer->backward(of_query, kept, of_y, to, options);
  for (std::int64_t i = 0; i < t.query.elements(); ++i) {
    ASSERT_EQ(dx.as<float>()[i / 24 % 70 * 144 + i / (24 * 70) * 48 + i % 24 * 2],
              t.gradients.at("query").as<float>()[i]);
  }
  for (std::int64_t i = 0; i < 72 * 24; ++i) {
    ASSERT_EQ(dw.as<float>()[i % 24 * 72 + i / 24], t.gradients.at("in_proj_weight").as<float>()[i]);
  }
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

// The forward that keeps gives the bits of the one that does not.
TEST(LayerBackward, KeepingChangesNothing) {
  Training t(MultiHeadAttentionConfig{.d_model = 12, .num_heads = 3});
  Tensor scale(DType::kF32, {3});
  for (std::int64_t h = 0; h < 3; ++h) scale.as<float>()[h] = 0.5f * static_cast<float>(h + 1);
  t.mask = [&](MultiHeadAttentionOptions& options, LayerCase&) { options.head_scale = scale.cview(); };
  t.run();
  Tensor kept(DType::kF32, t.query.shape()), plain(DType::kF32, t.query.shape());
  t.layer->forward(t.query.view(), kept.view(), t.options);
  t.options.activations = nullptr;
  t.layer->forward(t.query.view(), plain.view(), t.options);
  EXPECT_EQ(std::memcmp(kept.bytes(), plain.bytes(), static_cast<std::size_t>(plain.elements()) * sizeof(float)), 0);
}

}  // namespace
}  // namespace manyheads::layer_test
