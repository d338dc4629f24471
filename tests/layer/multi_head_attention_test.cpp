#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <limits>
#include <manyheads/cpu.hpp>
#include <manyheads/error.hpp>
#include <manyheads/multi_head_attention.hpp>
#include <manyheads/safetensors.hpp>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "allocations.hpp"
#include "layer/convert.hpp"
#include "layer/layer_reference.hpp"
#include "support.hpp"

namespace manyheads {
namespace {

namespace fs = std::filesystem;
using layer_test::LayerCase;
using layer_test::LayerResult;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

double rounding_of(DType type) { return type == DType::kBF16 ? 0x1p-8 : type == DType::kF16 ? 0x1p-11 : 0x1p-24; }

Tensor random_tensor(std::mt19937_64& random, Dims shape, double scale = 1, DType type = DType::kF32) {
  Tensor tensor(DType::kF32, shape);
  std::normal_distribution<double> normal;
  for (std::int64_t i = 0; i < tensor.elements(); ++i)
    tensor.as<float>()[i] = static_cast<float>(scale * normal(random));
  return layer::converted(tensor.cview(), type);
}

std::vector<unsigned char> bits(const Tensor& tensor) {
  const auto* begin = static_cast<const unsigned char*>(tensor.bytes());
  return {begin, begin + static_cast<std::size_t>(tensor.elements()) * size_of(tensor.dtype())};
}

using test::error_of;
using test::from_environment;

// Adds a mask to `added` [B,H,T,S] as torch.nn.MultiheadAttention means it: key_padding_mask [B,S], attn_mask [T,S] or
// [B*H,T,S]; true = ignore.
void add_mask(LayerCase& c, const Tensor& mask) {
  const std::int64_t batch = c.query.size(0), heads = c.config.num_heads, queries = c.query.size(1);
  const std::int64_t keys = c.key.size(1);
  const bool padding = mask.rank() == 2 && mask.size(0) == batch && (batch != queries || mask.size(1) != keys);
  std::size_t at = 0;
  for (std::int64_t n = 0; n < batch; ++n) {
    for (std::int64_t h = 0; h < heads; ++h) {
      for (std::int64_t i = 0; i < queries; ++i) {
        for (std::int64_t j = 0; j < keys; ++j, ++at) {
          const std::int64_t from = padding            ? n * keys + j
                                    : mask.rank() == 2 ? i * keys + j
                                                       : ((n * heads + h) * queries + i) * keys + j;
          c.added[at] +=
              mask.dtype() == DType::kBool ? (mask.as<bool>()[from] ? -kInfinity : 0) : mask.as<float>()[from];
        }
      }
    }
  }
}

void add_causal(LayerCase& c) {
  const std::int64_t queries = c.query.size(1), keys = c.key.size(1);
  for (std::size_t at = 0; at < c.added.size(); ++at) {
    const auto place = static_cast<std::int64_t>(at) % (queries * keys);
    if (place % keys > place / keys) c.added[at] = -kInfinity;
  }
}

void start_masks(LayerCase& c) {
  c.added.assign(static_cast<std::size_t>(c.query.size(0) * c.config.num_heads * c.query.size(1) * c.key.size(1)), 0.0);
}

// How far the worst element is, as a share of its bound.
double worst(const std::vector<double>& got, const std::vector<double>& expected, const std::vector<double>& bound) {
  EXPECT_EQ(got.size(), expected.size());
  double share = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (std::isnan(got[i])) return kInfinity;
    const double error = std::abs(got[i] - expected[i]);
    if (error > 0) share = std::max(share, error / bound[i]);
  }
  return share;
}

struct Golden {
  LayerCase c;
  MultiHeadAttentionOptions options;
  Tensor key_padding_mask, attn_mask, output, weights;
  bool self_attention;
};

Golden read_golden(const fs::path& path) {
  const SafetensorsFile file = load_safetensors(path);
  const auto json = nlohmann::json::parse(file.metadata.at("options"));
  Golden g;
  g.c.config = {.d_model = json["d_model"],
                .num_heads = json["num_heads"],
                .num_kv_heads = json["num_kv_heads"],
                .kdim = json["kdim"],
                .vdim = json["vdim"],
                .bias = json["bias"],
                .add_bias_kv = json["add_bias_kv"],
                .add_zero_attn = json["add_zero_attn"]};
  g.self_attention = json["self_attention"];
  for (const auto& [name, tensor] : file.tensors) {
    if (name.rfind("state.", 0) == 0) g.c.state[name.substr(6)] = tensor;
  }
  g.c.query = file.at("query");
  g.c.key = g.self_attention ? g.c.query : file.at("key");
  g.c.value = g.self_attention ? g.c.query : file.at("value");
  g.output = file.at("output");
  g.weights = file.at("weights");
  start_masks(g.c);
  if (json["causal"]) {
    g.options.mask = causal(Alignment::kTopLeft);
    add_causal(g.c);
  }
  if (file.tensors.contains("key_padding_mask")) {
    g.key_padding_mask = file.at("key_padding_mask");
    g.options.key_padding_mask = g.key_padding_mask.cview();
    add_mask(g.c, g.key_padding_mask);
  }
  if (file.tensors.contains("attn_mask")) {
    g.attn_mask = file.at("attn_mask");
    g.options.attn_mask = g.attn_mask.cview();
    add_mask(g.c, g.attn_mask);
  }
  return g;
}

struct Outcome {
  Tensor output, weights;
};

Outcome run(const MultiHeadAttention& layer, const LayerCase& c, MultiHeadAttentionOptions options, bool self,
            DType out_type) {
  const std::int64_t added = (c.config.add_bias_kv ? 1 : 0) + (c.config.add_zero_attn ? 1 : 0);
  Outcome o{Tensor(out_type, c.query.shape()),
            Tensor(DType::kF32, {c.query.size(0), c.config.num_heads, c.query.size(1), c.key.size(1) + added})};
  const TensorView weights = o.weights.view();
  options.weights = &weights;
  if (self) {
    layer.forward(c.query.cview(), o.output.view(), options);
  } else {
    layer.forward(c.query.cview(), c.key.cview(), c.value.cview(), o.output.view(), options);
  }
  return o;
}

std::vector<fs::path> golden_files() {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(fs::path(MANYHEADS_SOURCE_DIR) / "tests/golden/mha")) {
    if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

class GoldenLayer : public testing::TestWithParam<fs::path> {};

TEST_P(GoldenLayer, IsPyTorchs) {
  const Golden g = read_golden(GetParam());
  MultiHeadAttention layer(g.c.config);
  layer.load_state_dict(g.c.state);
  const Outcome o = run(layer, g.c, g.options, g.self_attention, DType::kF32);
  const LayerResult reference = layer_test::reference_layer(g.c, rounding_of(DType::kF32));
  const std::vector<double> output = layer_test::values(g.output), weights = layer_test::values(g.weights);
  // The reference of the other tests is held to the same files.
  for (std::size_t i = 0; i < output.size(); ++i) ASSERT_NEAR(reference.output[i], output[i], 1e-12);
  for (std::size_t i = 0; i < weights.size(); ++i) ASSERT_NEAR(reference.weights[i], weights[i], 1e-12);
  EXPECT_LE(worst(layer_test::values(o.output), output, reference.output_bound), 1);
  EXPECT_LE(worst(layer_test::values(o.weights), weights, reference.weights_bound), 1);
}

// The weights and inputs are rounded to the type before both evaluations; inside all is F32, the output is rounded
// once.
TEST_P(GoldenLayer, HalfTypesStayWithinTheirBound) {
  for (const DType type : {DType::kBF16, DType::kF16}) {
    Golden g = read_golden(GetParam());
    g.c.config.dtype = type;
    MultiHeadAttention layer(g.c.config);
    layer.load_state_dict(g.c.state);
    g.c.state = layer.state_dict();
    g.c.query = layer::converted(g.c.query.cview(), type);
    g.c.key = layer::converted(g.c.key.cview(), type);
    g.c.value = layer::converted(g.c.value.cview(), type);
    const Outcome o = run(layer, g.c, g.options, false, type);
    const LayerResult reference = layer_test::reference_layer(g.c, rounding_of(type));
    EXPECT_LE(worst(layer_test::values(o.output), reference.output, reference.output_bound), 1) << name_of(type);
    EXPECT_LE(worst(layer_test::values(o.weights), reference.weights, reference.weights_bound), 1) << name_of(type);
  }
}

INSTANTIATE_TEST_SUITE_P(Files, GoldenLayer, testing::ValuesIn(golden_files()),
                         [](const auto& file) { return file.param.stem().string(); });

TEST(GoldenLayerFiles, AreThere) { EXPECT_GE(golden_files().size(), 40U); }

// All masks at once, with and without added keys, against the definition. MANYHEADS_LAYER_SWEEP_CASES sets how many
// random layers, MANYHEADS_SWEEP_SEED where the seeds begin.
TEST(MultiHeadAttention, MasksComposeLikeTheDefinition) {
  const std::int64_t cases = from_environment("MANYHEADS_LAYER_SWEEP_CASES", 300);
  const std::int64_t first = from_environment("MANYHEADS_SWEEP_SEED", 1);
  double largest = 0;
  for (std::int64_t seed = first; seed < first + cases; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random(static_cast<std::uint64_t>(seed));
    const auto pick = [&](std::int64_t low, std::int64_t high) {
      return low + static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(high - low + 1));
    };
    LayerCase c;
    const std::int64_t kv_heads = pick(1, 3);
    c.config.num_heads = kv_heads * pick(1, 3);
    c.config.num_kv_heads = kv_heads;
    c.config.d_model = c.config.num_heads * pick(1, 20);
    c.config.kdim = pick(0, 1) == 0 ? 0 : pick(1, 30);
    c.config.vdim = pick(0, 1) == 0 ? 0 : pick(1, 30);
    c.config.bias = pick(0, 3) != 0;
    c.config.add_bias_kv = pick(0, 2) == 0;
    c.config.add_zero_attn = pick(0, 2) == 0;
    MultiHeadAttention layer(c.config);
    StateDict state = layer.state_dict();
    for (auto& [name, tensor] : state) tensor = random_tensor(random, tensor.shape(), 0.3);
    layer.load_state_dict(state);
    c.state = state;
    // A batch as long as the queries would make [B,S] and [T,S] one shape: the reference's helper could not tell.
    const std::int64_t batch = pick(1, 3), queries = pick(4, 20), keys = pick(1, 90);
    const std::int64_t heads = c.config.num_heads;
    c.query = random_tensor(random, {batch, queries, c.config.d_model});
    c.key = random_tensor(random, {batch, keys, layer.config().kdim});
    c.value = random_tensor(random, {batch, keys, layer.config().vdim});
    start_masks(c);

    const auto make_mask = [&](Dims shape, bool boolean) {
      if (!boolean) return random_tensor(random, shape);
      Tensor mask(DType::kBool, shape);
      for (std::int64_t i = 0; i < mask.elements(); ++i) mask.as<bool>()[i] = pick(0, 3) == 0;
      return mask;
    };
    MultiHeadAttentionOptions options;
    Tensor padding, mask, allowed_mask, bias_mask, lengths, scale;
    std::vector<Tensor> kept;
    if (pick(0, 1) == 0) {
      padding = make_mask({batch, keys}, pick(0, 1) == 0);
      options.key_padding_mask = padding.cview();
      add_mask(c, padding);
    }
    if (pick(0, 1) == 0) {
      mask = make_mask(pick(0, 1) == 0 ? Dims{queries, keys} : Dims{batch * heads, queries, keys}, pick(0, 1) == 0);
      options.attn_mask = mask.cview();
      add_mask(c, mask);
    }
    const auto each = [&](const std::function<double(std::int64_t, std::int64_t, std::int64_t, std::int64_t)>& f) {
      std::size_t at = 0;
      for (std::int64_t b = 0; b < batch; ++b) {
        for (std::int64_t h = 0; h < heads; ++h) {
          for (std::int64_t i = 0; i < queries; ++i) {
            for (std::int64_t j = 0; j < keys; ++j, ++at) c.added[at] += f(b, h, i, j);
          }
        }
      }
    };
    const std::int64_t one_or_heads = pick(0, 1) == 0 ? 1 : heads;
    if (pick(0, 2) == 0) {
      allowed_mask = make_mask({one_or_heads, queries, keys}, true);
      options.mask = options.mask | allowed(allowed_mask.cview());
      each([&](auto, auto h, auto i, auto j) {
        const std::int64_t head = one_or_heads == 1 ? 0 : h;
        return allowed_mask.as<bool>()[(head * queries + i) * keys + j] ? 0 : -kInfinity;
      });
    }
    if (pick(0, 2) == 0) {
      bias_mask = make_mask({one_or_heads, queries, 1}, false);
      options.mask = options.mask | bias(bias_mask.cview());
      each(
          [&](auto, auto h, auto i, auto) { return bias_mask.as<float>()[(one_or_heads == 1 ? 0 : h) * queries + i]; });
    }
    std::vector<std::int64_t> length(static_cast<std::size_t>(batch), keys);
    if (pick(0, 2) == 0) {
      for (std::int64_t& n : length) n = pick(0, keys);
      options.mask = options.mask | key_lengths(ConstTensorView(length.data(), {batch}));
      each([&](auto b, auto, auto, auto j) { return j < length[static_cast<std::size_t>(b)] ? 0 : -kInfinity; });
    }
    const bool bottom = pick(0, 1) == 0;
    options.mask = options.mask | align(bottom ? Alignment::kBottomRight : Alignment::kTopLeft);
    const auto place = [&](std::int64_t b, std::int64_t i, std::int64_t j) {
      return j - i - (bottom ? length[static_cast<std::size_t>(b)] - queries : 0);
    };
    if (pick(0, 2) == 0) {
      options.mask = options.mask | causal();
      each([&](auto b, auto, auto i, auto j) { return place(b, i, j) <= 0 ? 0 : -kInfinity; });
    }
    if (pick(0, 2) == 0) {
      const std::int64_t left = pick(-1, 30), right = pick(-1, 30);
      options.mask = options.mask | window(left, right);
      each([&](auto b, auto, auto i, auto j) {
        const std::int64_t p = place(b, i, j);
        return (left >= 0 && p < -left) || (right >= 0 && p > right) ? -kInfinity : 0;
      });
    }
    std::vector<std::int32_t> q_ids, k_ids;
    if (pick(0, 3) == 0) {
      for (std::int64_t i = 0; i < batch * queries; ++i) q_ids.push_back(static_cast<std::int32_t>(pick(0, 1)));
      for (std::int64_t i = 0; i < batch * keys; ++i) k_ids.push_back(static_cast<std::int32_t>(pick(0, 1)));
      options.mask = options.mask | documents(ConstTensorView(q_ids.data(), {batch, queries}),
                                              ConstTensorView(k_ids.data(), {batch, keys}));
      each([&](auto b, auto, auto i, auto j) {
        return q_ids[static_cast<std::size_t>(b * queries + i)] == k_ids[static_cast<std::size_t>(b * keys + j)]
                   ? 0
                   : -kInfinity;
      });
    }
    std::vector<float> slopes;
    if (pick(0, 3) == 0) {
      for (std::int64_t h = 0; h < heads; ++h) slopes.push_back(0.125f * static_cast<float>(h + 1));
      options.mask = options.mask | alibi(ConstTensorView(slopes.data(), {heads}));
      each([&](auto b, auto h, auto i, auto j) {
        return -static_cast<double>(slopes[static_cast<std::size_t>(h)] * static_cast<float>(std::abs(place(b, i, j))));
      });
    }
    if (pick(0, 2) == 0) {
      scale = random_tensor(random, {heads});
      options.head_scale = scale.cview();
      c.head_scale = layer_test::values(scale);
    }
    const LayerResult reference = layer_test::reference_layer(c, rounding_of(DType::kF32));
    const Outcome o = run(layer, c, options, false, DType::kF32);
    const double share = std::max(worst(layer_test::values(o.output), reference.output, reference.output_bound),
                                  worst(layer_test::values(o.weights), reference.weights, reference.weights_bound));
    ASSERT_LE(share, 1);
    largest = std::max(largest, share);
  }
  EXPECT_GT(largest, 1e-3);  // a bound that nothing comes near would test nothing
}

struct Fixture {
  MultiHeadAttention layer;
  Tensor x;

  explicit Fixture(std::int64_t tokens = 70, std::int64_t batch = 3,
                   MultiHeadAttentionConfig config = {.d_model = 48, .num_heads = 4})
      : layer(config) {
    std::mt19937_64 random(7);
    StateDict state = layer.state_dict();
    for (auto& [name, tensor] : state) tensor = random_tensor(random, tensor.shape(), 0.3, config.dtype);
    layer.load_state_dict(state);
    x = random_tensor(random, {batch, tokens, config.d_model});
  }
  Tensor forward(const MultiHeadAttentionOptions& options = {}) const {
    Tensor y(DType::kF32, x.shape());
    layer.forward(x.cview(), y.view(), options);
    return y;
  }
};

TEST(MultiHeadAttention, AnyNumberOfThreadsGivesTheSameBits) {
  const Fixture f(200, 2, {.d_model = 128, .num_heads = 8, .num_kv_heads = 2});
  const std::vector<unsigned char> expected = bits(f.forward({.num_threads = 1}));
  for (const int threads : {2, 3, 8, 64}) EXPECT_EQ(bits(f.forward({.num_threads = threads})), expected) << threads;
}

TEST(MultiHeadAttention, AnyPlaceInTheBatchGivesTheSameBits) {
  const Fixture f(33, 5);
  const std::vector<unsigned char> all = bits(f.forward());
  const std::size_t bytes = all.size() / 5;
  for (std::int64_t b = 0; b < 5; ++b) {
    Tensor y(DType::kF32, {1, 33, 48});
    f.layer.forward(ConstTensorView(f.x.as<float>() + b * 33 * 48, {1, 33, 48}), y.view());
    const std::vector<unsigned char> one = bits(y);
    EXPECT_TRUE(std::equal(one.begin(), one.end(),
                           all.begin() + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(b) * bytes)));
  }
}

TEST(MultiHeadAttention, StridesAndPathsGiveTheSameBits) {
  const Fixture f(9, 3);
  const Tensor expected = f.forward();
  // [T,B,E] in memory, as nn.MultiheadAttention has it without batch_first; the output every second float.
  Tensor turned(DType::kF32, {9, 3, 48}), wide(DType::kF32, {3, 9, 96});
  for (std::int64_t b = 0; b < 3; ++b) {
    for (std::int64_t t = 0; t < 9; ++t) {
      std::copy_n(f.x.as<float>() + (b * 9 + t) * 48, 48, turned.as<float>() + (t * 3 + b) * 48);
    }
  }
  const ConstTensorView x(turned.as<float>(), {3, 9, 48}, {48, 3 * 48, 1});
  f.layer.forward(x, TensorView(wide.as<float>(), {3, 9, 48}, {9 * 96, 96, 2}));
  for (std::int64_t i = 0; i < expected.elements(); ++i) EXPECT_EQ(wide.as<float>()[2 * i], expected.as<float>()[i]);

  // Three products instead of one: another view of the same numbers as key and value.
  Tensor y(DType::kF32, f.x.shape());
  f.layer.forward(f.x.cview(), x, x, y.view());
  EXPECT_EQ(bits(y), bits(expected));

  // In place, and within a caller's workspace, which stops growing.
  Workspace workspace;
  for (int round = 0; round < 3; ++round) {
    Tensor in_place = layer::converted(f.x.cview(), DType::kF32);
    const std::size_t before = workspace.capacity();
    f.layer.forward(in_place.cview(), in_place.view(), {.workspace = &workspace});
    EXPECT_EQ(bits(in_place), bits(expected));
    if (round > 0) {
      EXPECT_EQ(workspace.capacity(), before);
    }
  }
}

class CountingExecutor : public Executor {
 public:
  void run(std::int64_t count, Task task, void* context) override {
    ++calls;
    for (std::int64_t i = count - 1; i >= 0; --i) task(context, i);
  }
  int calls = 0;
};

TEST(MultiHeadAttention, RunsOnTheCallersThreads) {
  const Fixture f(200, 2, {.d_model = 128, .num_heads = 8});
  CountingExecutor executor;
  EXPECT_EQ(bits(f.forward({.num_threads = 4, .executor = &executor})), bits(f.forward()));
  EXPECT_GT(executor.calls, 0);
}

TEST(MultiHeadAttention, ServesManyThreadsAtOnce) {
  const Fixture f(20, 2);
  const std::vector<unsigned char> expected = bits(f.forward());
  std::vector<Tensor> results(8);
  std::vector<std::thread> callers;
  for (std::size_t i = 0; i < results.size(); ++i) {
    callers.emplace_back([&, i] {
      results[i] = Tensor(DType::kF32, f.x.shape());
      const Tensor own = layer::converted(f.x.cview(), DType::kF32);
      // Key and value of other memory: the first of these calls packs the three matrices apart.
      f.layer.forward(f.x.cview(), own.cview(), own.cview(), results[i].view());
    });
  }
  for (std::thread& caller : callers) caller.join();
  for (const Tensor& result : results) EXPECT_EQ(bits(result), expected);
}

TEST(MultiHeadAttention, HeadScaleZeroTakesAHeadOut) {
  const Fixture f(12);
  const std::vector<float> scale{1, 0, 1, 1};
  const Tensor y = f.forward({.head_scale = ConstTensorView(scale.data(), {4})});
  // The same layer with the columns of W_o that head 1 feeds set to 0.
  StateDict state = f.layer.state_dict();
  Tensor w = layer::converted(state["out_proj.weight"].cview(), DType::kF32);
  for (std::int64_t row = 0; row < 48; ++row) std::fill_n(w.as<float>() + row * 48 + 12, 12, 0.0f);
  state["out_proj.weight"] = w;
  MultiHeadAttention without(f.layer.config());
  without.load_state_dict(state);
  Tensor expected(DType::kF32, y.shape());
  without.forward(f.x.cview(), expected.view());
  for (std::int64_t i = 0; i < y.elements(); ++i) ASSERT_EQ(y.as<float>()[i], expected.as<float>()[i]);
  EXPECT_NE(bits(y), bits(f.forward()));
}

TEST(MultiHeadAttention, ForbiddenRowsGiveTheOutputBias) {
  const Fixture f(5, 2);
  Tensor padding(DType::kBool, {2, 5});
  std::fill_n(padding.as<bool>() + 5, 5, true);
  Tensor weights(DType::kF32, {2, 4, 5, 5});
  const TensorView view = weights.view();
  const Tensor y = f.forward({.key_padding_mask = padding.cview(), .weights = &view});
  const StateDict state = f.layer.state_dict();
  const float* bias = state.at("out_proj.bias").as<float>();
  for (std::int64_t i = 0; i < 5 * 48; ++i) ASSERT_EQ(y.as<float>()[5 * 48 + i], bias[i % 48]);
  for (std::int64_t i = 0; i < 4 * 25; ++i) ASSERT_EQ(weights.as<float>()[4 * 25 + i], 0);
  EXPECT_EQ(std::vector<float>(y.as<float>(), y.as<float>() + 48), [&] {
    const Tensor plain = f.forward();
    return std::vector<float>(plain.as<float>(), plain.as<float>() + 48);
  }());

  // No keys at all.
  Tensor none(DType::kF32, {2, 0, 48}), out(DType::kF32, {2, 5, 48});
  f.layer.forward(f.x.cview(), none.cview(), none.cview(), out.view());
  for (std::int64_t i = 0; i < out.elements(); ++i) ASSERT_EQ(out.as<float>()[i], bias[i % 48]);
}

TEST(MultiHeadAttention, PaddingIsNeverRead) {
  const Fixture f(6, 1);
  Tensor padding(DType::kBool, {1, 6});
  padding.as<bool>()[4] = padding.as<bool>()[5] = true;
  const MultiHeadAttentionOptions options{.key_padding_mask = padding.cview()};
  const Tensor expected = f.forward(options);
  Fixture spoilt(6, 1);
  std::fill_n(spoilt.x.as<float>() + 4 * 48, 2 * 48, std::numeric_limits<float>::quiet_NaN());
  const Tensor y = spoilt.forward(options);
  EXPECT_EQ(std::memcmp(y.as<float>(), expected.as<float>(), 4 * 48 * sizeof(float)), 0);
  EXPECT_TRUE(std::isnan(y.as<float>()[5 * 48]));  // a query of NaN stays one
}

TEST(MultiHeadAttention, LargeFiniteMasksStayNumbers) {
  const Fixture f(6, 1);
  Tensor lowest(DType::kF32, {6, 6}), padding(DType::kF32, {1, 6}), weights(DType::kF32, {1, 4, 6, 6});
  std::fill_n(lowest.as<float>(), 36, std::numeric_limits<float>::lowest());
  std::fill_n(padding.as<float>(), 6, std::numeric_limits<float>::lowest());
  const TensorView view = weights.view();
  f.forward({.key_padding_mask = padding.cview(), .attn_mask = lowest.cview(), .weights = &view});
  // The sum would be -inf, which forbids. What stays is a uniform mean.
  for (int i = 0; i < 4 * 36; ++i) EXPECT_FLOAT_EQ(weights.as<float>()[i], 1.0f / 6);
  // -inf forbids whatever the other mask says.
  lowest.as<float>()[0] = -kInfinity;
  padding.as<float>()[0] = kInfinity;
  f.forward({.key_padding_mask = padding.cview(), .attn_mask = lowest.cview(), .weights = &view});
  EXPECT_EQ(weights.as<float>()[0], 0);
  EXPECT_FLOAT_EQ(weights.as<float>()[1], 1.0f / 5);
}

TEST(MultiHeadAttention, AForwardWithAWorkspaceAllocatesNothing) {
  for (const DType type : {DType::kF32, DType::kBF16}) {
    const MultiHeadAttention layer({.d_model = 96, .num_heads = 4, .dtype = type});
    std::mt19937_64 random(9);
    const Tensor x = random_tensor(random, {2, 30, 96});
    Tensor y(DType::kF32, x.shape());
    Workspace workspace;
    for (const int threads : {1, 2}) {
      const MultiHeadAttentionOptions options{.mask = causal(), .num_threads = threads, .workspace = &workspace};
      layer.forward(x.cview(), y.view(), options);
      const std::size_t capacity = workspace.capacity();
      const std::int64_t before = test::allocations();
      layer.forward(x.cview(), y.view(), options);
      EXPECT_EQ(test::allocations(), before) << name_of(type) << ", " << threads;
      EXPECT_EQ(workspace.capacity(), capacity);
    }
  }
}

// The bits of one sequence alone, whatever shares the call with it, at each instruction set.
TEST(MultiHeadAttention, Bf16WeightsKeepTheBitsOfASequenceInAnyBatch) {
  for (const std::string& isa : available_isas()) {
    set_isa(isa);
    const MultiHeadAttention layer({.d_model = 80, .num_heads = 5, .dtype = DType::kBF16});
    std::mt19937_64 random(10);
    const Tensor x = random_tensor(random, {40, 9, 80});  // more rows than a task of a projection
    Tensor all(DType::kF32, x.shape()), one(DType::kF32, {1, 9, 80});
    for (const int threads : {1, 3}) {
      layer.forward(x.cview(), all.view(), {.num_threads = threads});
      for (std::int64_t b = 0; b < 40; ++b) {
        const ConstTensorView alone(x.as<float>() + b * 9 * 80, Dims{1, 9, 80});
        layer.forward(alone, one.view());
        EXPECT_EQ(std::memcmp(one.bytes(), std::as_const(all).as<float>() + b * 9 * 80, 9 * 80 * sizeof(float)), 0)
            << isa << ", entry " << b << ", " << threads << " threads";
      }
    }
  }
  set_isa("");
}

TEST(MultiHeadAttention, StateDictSurvivesAFile) {
  const fs::path path = fs::path(testing::TempDir()) / "layer_state.safetensors";
  for (const DType type : {DType::kF32, DType::kBF16, DType::kF16}) {
    for (const bool stacked : {true, false}) {
      MultiHeadAttentionConfig config{.d_model = 24, .num_heads = 4, .add_bias_kv = true, .dtype = type};
      if (!stacked) config.num_kv_heads = 2, config.vdim = 10;
      const MultiHeadAttention layer(config);
      const StateDict state = layer.state_dict();
      EXPECT_EQ(state.contains("in_proj_weight"), stacked);
      EXPECT_EQ(state.contains("k_proj_weight"), !stacked);
      save_safetensors(path, state);
      MultiHeadAttention other(config);
      other.load_state_dict(load_safetensors(path).tensors);
      const StateDict again = other.state_dict();
      ASSERT_EQ(again.size(), state.size());
      for (const auto& [name, tensor] : state) {
        EXPECT_EQ(again.at(name).dtype(), type);
        EXPECT_EQ(bits(again.at(name)), bits(tensor)) << name;
      }
    }
  }
  fs::remove(path);
}

TEST(MultiHeadAttention, LoadsTheThreeMatricesApart) {
  const Fixture f(7);
  StateDict state = f.layer.state_dict();
  const float* all = std::as_const(state.at("in_proj_weight")).as<float>();
  for (const char* name : {"q_proj_weight", "k_proj_weight", "v_proj_weight"}) {
    Tensor part(DType::kF32, {48, 48});
    std::copy_n(all, 48 * 48, part.as<float>());
    all += 48 * 48;
    state[name] = part;
  }
  state.erase("in_proj_weight");
  MultiHeadAttention layer(f.layer.config());
  layer.load_state_dict(state);
  Tensor y(DType::kF32, f.x.shape());
  layer.forward(f.x.cview(), y.view());
  EXPECT_EQ(bits(y), bits(f.forward()));
  EXPECT_TRUE(layer.state_dict().contains("in_proj_weight"));
}

TEST(MultiHeadAttention, LoadNamesWhatDoesNotFit) {
  Fixture f(7);
  const std::vector<unsigned char> before = bits(f.forward());
  const StateDict good = f.layer.state_dict();
  const auto error = [&](const std::function<void(StateDict&)>& change) {
    StateDict state = good;
    change(state);
    return error_of([&] { f.layer.load_state_dict(state); });
  };
  EXPECT_EQ(error([](StateDict& s) {
              s.erase("out_proj.bias");
              s.erase("in_proj_bias");
              s["gate"] = Tensor(DType::kF32, {1});
            }),
            "MultiHeadAttention::load_state_dict: missing in_proj_bias [144], out_proj.bias [48]; not a tensor of this "
            "layer: \"gate\"");
  EXPECT_EQ(error([](StateDict& s) {
              s["out_proj.weight"] = Tensor(DType::kF32, {48, 47});
            }),
            "MultiHeadAttention::load_state_dict: out_proj.weight is [48,47], expected [48,48]");
  EXPECT_EQ(error([](StateDict& s) { s["out_proj.bias"] = Tensor(DType::kF64, {48}); }),
            "MultiHeadAttention::load_state_dict: out_proj.bias is F64, expected F32, BF16 or F16");
  EXPECT_EQ(error([](StateDict& s) { s["q_proj_weight"] = s["out_proj.weight"]; }),
            "MultiHeadAttention::load_state_dict: not a tensor of this layer: \"q_proj_weight\"");
  EXPECT_EQ(bits(f.forward()), before);
}

TEST(MultiHeadAttention, SaysWhichHeadCountsDivide) {
  EXPECT_EQ(head_count_problem(512, 8), "");
  EXPECT_EQ(head_count_problem(512, 7),
            "d_model 512 is not divisible by 7 heads (512 = 7 * 73 + 1); 1, 2, 4, 8, 16, 32, 64, 128, 256, 512 would "
            "divide");
  EXPECT_EQ(head_count_problem(4, 8), "d_model 4 is not divisible by 8 heads (4 = 8 * 0 + 4); 1, 2, 4 would divide");
  EXPECT_EQ(head_count_problem(512, 0), "num_heads is 0, expected at least 1");
  EXPECT_EQ(head_count_problem(-1, 2), "d_model is -1, expected at least 1");
  EXPECT_NE(head_count_problem(720720, 17).find(", ... would divide"), std::string::npos);
  EXPECT_EQ(error_of([] {
              MultiHeadAttention({.d_model = 512, .num_heads = 7});
            }).rfind("MultiHeadAttention: d_model 512", 0),
            0U);
}

TEST(MultiHeadAttention, ConstructorRefusesWhatMakesNoLayer) {
  const auto error = [](const MultiHeadAttentionConfig& config, ErrorCode code = ErrorCode::kInvalidArgument) {
    return error_of([&] { MultiHeadAttention layer(config); }, code);
  };
  EXPECT_EQ(error({.d_model = 8, .num_heads = 4, .num_kv_heads = 3}),
            "MultiHeadAttention: num_heads 4 is not a multiple of num_kv_heads 3");
  EXPECT_EQ(error({.d_model = 8, .num_heads = 4, .num_kv_heads = -1}),
            "MultiHeadAttention: num_heads 4 is not a multiple of num_kv_heads -1");
  EXPECT_EQ(error({.d_model = 8, .num_heads = 4, .kdim = -2}), "MultiHeadAttention: kdim is -2, expected a width");
  EXPECT_EQ(error({.d_model = 8, .num_heads = 4, .vdim = -2}), "MultiHeadAttention: vdim is -2, expected a width");
  EXPECT_EQ(error({.d_model = 8, .num_heads = 4, .dtype = DType::kI64}),
            "MultiHeadAttention: dtype is I64, expected F32, BF16 or F16");
  EXPECT_NE(error({.d_model = std::int64_t{1} << 62, .num_heads = 1}, ErrorCode::kOutOfMemory), "no error");
  EXPECT_NE(error({.d_model = std::int64_t{1} << 31, .num_heads = 1}), "no error");
}

TEST(MultiHeadAttention, ForwardNamesTheArgumentAndTheShapes) {
  const MultiHeadAttention layer({.d_model = 8, .num_heads = 2});
  const MultiHeadAttention cross({.d_model = 8, .num_heads = 2, .kdim = 5});
  Tensor x(DType::kF32, {2, 3, 8}), y(DType::kF32, {2, 3, 8}), other(DType::kF32, {2, 4, 8});
  Tensor half(DType::kBF16, {2, 3, 8}), ints(DType::kI32, {2, 3, 8}), flat(DType::kF32, {3, 8}),
      narrow(DType::kF32, {2, 3, 7});
  const auto error = [&](const MultiHeadAttentionOptions& options) {
    const std::string what = error_of([&] { layer.forward(x.cview(), y.view(), options); });
    EXPECT_EQ(what.rfind("MultiHeadAttention::forward: ", 0), 0U) << what;
    return what.substr(std::min(what.size(), std::strlen("MultiHeadAttention::forward: ")));
  };
  const auto call = [&](const ConstTensorView& q, const ConstTensorView& k, const ConstTensorView& v,
                        const TensorView& to) {
    const std::string what = error_of([&] { layer.forward(q, k, v, to); });
    EXPECT_EQ(what.rfind("MultiHeadAttention::forward: ", 0), 0U) << what;
    return what.substr(std::min(what.size(), std::strlen("MultiHeadAttention::forward: ")));
  };
  EXPECT_EQ(call(flat.cview(), x.cview(), x.cview(), y.view()), "query is [3,8], expected [batch, tokens, 8]");
  EXPECT_EQ(call(narrow.cview(), x.cview(), x.cview(), y.view()), "query is [2,3,7], expected a last dimension of 8");
  EXPECT_EQ(call(ints.cview(), x.cview(), x.cview(), y.view()), "query is I32, expected F32, BF16 or F16");
  EXPECT_EQ(call({}, x.cview(), x.cview(), y.view()), "query is missing");
  EXPECT_EQ(call(x.cview(), half.cview(), x.cview(), y.view()), "key is BF16, query is F32: they must be of one type");
  EXPECT_EQ(call(x.cview(), x.cview(), other.cview(), y.view()),
            "query, key and value do not fit together (query [2,3,8], key [2,3,8], value [2,4,8])");
  EXPECT_EQ(call(x.cview(), x.cview(), x.cview(), other.view()), "y is [2,4,8], expected [2,3,8] as query");
  EXPECT_EQ(call(x.cview(), x.cview(), x.cview(), ints.view()), "y is I32, expected F32, BF16 or F16");
  EXPECT_EQ(call(x.cview(), x.cview(), x.cview(), TensorView(y.as<float>(), {2, 3, 8}, {8, 8, 1})),
            "y overlaps itself (strides [8,8,1])");
  EXPECT_EQ(error_of([&] { cross.forward(x.cview(), y.view()); }),
            "MultiHeadAttention::forward: self-attention needs kdim and vdim equal to d_model; here kdim is 5, vdim 8, "
            "d_model 8");

  Tensor bad_padding(DType::kBool, {2, 4}), bad_mask(DType::kF32, {3, 4}), int_mask(DType::kI32, {3, 3});
  EXPECT_EQ(error({.key_padding_mask = bad_padding.cview()}), "key_padding_mask is [2,4], expected [B,S] = [2,3]");
  EXPECT_EQ(error({.attn_mask = bad_mask.cview()}),
            "attn_mask is [3,4], expected [T,S] = [3,3] or [B*H,T,S] = [4,3,3]");
  EXPECT_EQ(error({.attn_mask = int_mask.cview()}), "attn_mask is I32, expected BOOL, F32, BF16 or F16");
  EXPECT_EQ(error({.mask = allowed(bad_padding.cview())}),
            "mask.allowed is [2,4], which does not broadcast to [B,H,T,S] = [2,2,3,3]");
  EXPECT_EQ(error({.mask = allowed(int_mask.cview())}), "mask.allowed is I32, expected BOOL");
  EXPECT_EQ(error({.mask = bias(int_mask.cview())}), "mask.bias is I32, expected F32, BF16 or F16");
  const std::vector<std::int32_t> lengths{1, 9};
  EXPECT_EQ(error({.mask = key_lengths(ConstTensorView(lengths.data(), {2}))}),
            "key_lengths[1] is 9, expected 0 to Tk = 3");
  Tensor weights(DType::kF32, {2, 2, 3, 4}), scale(DType::kF32, {3});
  const TensorView bad_weights = weights.view(), over_y = TensorView(y.as<float>(), {2, 2, 3, 3});
  EXPECT_EQ(error({.weights = &bad_weights}), "weights is F32 [2,2,3,4], expected F32 [2,2,3,3]");
  EXPECT_NE(error({.weights = &over_y}).find("overlaps y"), std::string::npos);
  EXPECT_EQ(error({.head_scale = scale.cview()}), "head_scale is F32 [3], expected F32 [2]");

  // Causal with other lengths than equal: the reading must be said, with added keys too.
  for (const bool added : {false, true}) {
    const MultiHeadAttention any({.d_model = 8, .num_heads = 2, .add_zero_attn = added});
    const std::string what =
        error_of([&] { any.forward(x.cview(), other.cview(), other.cview(), y.view(), {.mask = causal()}); });
    EXPECT_NE(what.find("say top_left or bottom_right"), std::string::npos) << what;
  }
}

TEST(MultiHeadAttention, NothingToDoIsFine) {
  const MultiHeadAttention layer({.d_model = 8, .num_heads = 2});
  Tensor no_batch(DType::kF32, {0, 3, 8}), no_tokens(DType::kF32, {2, 0, 8});
  layer.forward(no_batch.cview(), no_batch.view());
  layer.forward(no_tokens.cview(), no_tokens.view());
}

TEST(MultiHeadAttention, StartsFromXavier) {
  const MultiHeadAttention a({.d_model = 64, .num_heads = 8}), b({.d_model = 64, .num_heads = 8});
  const StateDict state = a.state_dict();
  EXPECT_EQ(bits(state.at("in_proj_weight")), bits(b.state_dict().at("in_proj_weight")));
  const double bound = std::sqrt(6.0 / 128);
  double largest = 0, sum = 0;
  for (const double w : layer_test::values(state.at("in_proj_weight"))) {
    largest = std::max(largest, std::abs(w));
    sum += w;
  }
  EXPECT_LE(largest, bound);
  EXPECT_GT(largest, 0.99 * bound);
  EXPECT_NEAR(sum / (3 * 64 * 64), 0, 0.01);
  for (const double value : layer_test::values(state.at("in_proj_bias"))) EXPECT_EQ(value, 0);
}

// The chapter's claim: h heads of d_model / h hold as much as one head of d_model.
TEST(MultiHeadAttention, AnyNumberOfHeadsHasTheParametersOfOne) {
  const MultiHeadAttention one({.d_model = 512, .num_heads = 1});
  EXPECT_EQ(one.parameter_count(), 4 * 512 * 512 + 4 * 512);
  for (const std::int64_t heads : {2, 4, 8, 16}) {
    const MultiHeadAttention many({.d_model = 512, .num_heads = heads});
    EXPECT_EQ(many.parameter_count(), one.parameter_count());
    EXPECT_EQ(many.d_k(), 512 / heads);
  }
}

}  // namespace
}  // namespace manyheads
