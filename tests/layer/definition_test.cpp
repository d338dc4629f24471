#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <limits>
#include <manyheads/cpu.hpp>
#include <manyheads/multi_head_attention.hpp>
#include <random>
#include <string>
#include <vector>

#include "attention/call.hpp"
#include "layer/convert.hpp"
#include "layer/golden_case.hpp"
#include "layer/layer_reference.hpp"
#include "layer/random_tensor.hpp"
#include "support.hpp"

// The layer against PyTorch's own results and against its definition.
namespace manyheads {
namespace {

namespace fs = std::filesystem;
using layer_test::add_causal;
using layer_test::add_mask;
using layer_test::Golden;
using layer_test::golden_files;
using layer_test::LayerCase;
using layer_test::LayerResult;
using layer_test::random_tensor;
using layer_test::read_golden;
using layer_test::start_masks;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

double rounding_of(DType type) { return type == DType::kBF16 ? 0x1p-8 : type == DType::kF16 ? 0x1p-11 : 0x1p-24; }

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

struct Outcome {
  Tensor output, weights;
};

Outcome run(const MultiHeadAttention& layer, const LayerCase& c, MultiHeadAttentionOptions options, bool self,
            DType out_type) {
  const std::int64_t added = (c.config.add_bias_kv ? 1 : 0) + (c.config.add_zero_attn ? 1 : 0);
  Outcome o{Tensor(out_type, c.query.shape()),
            Tensor(DType::kF32, {c.query.size(0), c.config.num_heads, c.query.size(1), c.key.size(1) + added})};
  const TensorView weights = o.weights.view();
  options.weights = weights;
  if (self) {
    layer.forward(c.query.cview(), o.output.view(), options);
  } else {
    layer.forward(c.query.cview(), c.key.cview(), c.value.cview(), o.output.view(), options);
  }
  return o;
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

INSTANTIATE_TEST_SUITE_P(Files, GoldenLayer, testing::ValuesIn(golden_files("mha")),
                         [](const auto& file) { return file.param.stem().string(); });

TEST(GoldenLayerFiles, AreThere) { EXPECT_GE(golden_files("mha").size(), 40U); }

// All masks at once, with and without added keys, against the definition. MANYHEADS_LAYER_SWEEP_CASES sets how many
// random layers, MANYHEADS_SWEEP_SEED where the seeds begin.
void sweep_masks(std::string_view bits) {
  const std::int64_t cases = test::from_environment("MANYHEADS_LAYER_SWEEP_CASES", 300);
  const std::int64_t first = test::from_environment("MANYHEADS_SWEEP_SEED", 1);
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
    MultiHeadAttentionOptions options{.bits = bits};
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
      options.mask = options.mask | mask::allowed(allowed_mask.cview());
      each([&](auto, auto h, auto i, auto j) {
        const std::int64_t head = one_or_heads == 1 ? 0 : h;
        return allowed_mask.as<bool>()[(head * queries + i) * keys + j] ? 0 : -kInfinity;
      });
    }
    if (pick(0, 2) == 0) {
      bias_mask = make_mask({one_or_heads, queries, 1}, false);
      options.mask = options.mask | mask::bias(bias_mask.cview());
      each(
          [&](auto, auto h, auto i, auto) { return bias_mask.as<float>()[(one_or_heads == 1 ? 0 : h) * queries + i]; });
    }
    std::vector<std::int64_t> length(static_cast<std::size_t>(batch), keys);
    if (pick(0, 2) == 0) {
      for (std::int64_t& n : length) n = pick(0, keys);
      options.mask = options.mask | mask::key_lengths(ConstTensorView(length.data(), {batch}));
      each([&](auto b, auto, auto, auto j) { return j < length[static_cast<std::size_t>(b)] ? 0 : -kInfinity; });
    }
    const bool bottom = pick(0, 1) == 0;
    options.mask = options.mask | mask::align(bottom ? Alignment::kBottomRight : Alignment::kTopLeft);
    const auto place = [&](std::int64_t b, std::int64_t i, std::int64_t j) {
      return j - i - (bottom ? length[static_cast<std::size_t>(b)] - queries : 0);
    };
    if (pick(0, 2) == 0) {
      options.mask = options.mask | mask::causal();
      each([&](auto b, auto, auto i, auto j) { return place(b, i, j) <= 0 ? 0 : -kInfinity; });
    }
    if (pick(0, 2) == 0) {
      const std::int64_t left = pick(-1, 30), right = pick(-1, 30);
      options.mask = options.mask | mask::window(left, right);
      each([&](auto b, auto, auto i, auto j) {
        const std::int64_t p = place(b, i, j);
        return (left >= 0 && p < -left) || (right >= 0 && p > right) ? -kInfinity : 0;
      });
    }
    std::vector<std::int32_t> q_ids, k_ids;
    if (pick(0, 3) == 0) {
      for (std::int64_t i = 0; i < batch * queries; ++i) q_ids.push_back(static_cast<std::int32_t>(pick(0, 1)));
      for (std::int64_t i = 0; i < batch * keys; ++i) k_ids.push_back(static_cast<std::int32_t>(pick(0, 1)));
      options.mask = options.mask | mask::documents(ConstTensorView(q_ids.data(), {batch, queries}),
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
      options.mask = options.mask | mask::alibi(ConstTensorView(slopes.data(), {heads}));
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

TEST(MultiHeadAttentionSweep, MasksComposeLikeTheDefinition) { sweep_masks({}); }

TEST(MultiHeadAttentionSweep, MasksComposeLikeTheDefinitionByTilesOfF32) {
  const std::vector<std::string> isas = test::isas_with_tiles();
  if (isas.empty()) GTEST_SKIP() << "no tiles here, nor their emulation";
  set_isa(isas.front());
  sweep_masks("f32-tiles-1");
  set_isa("");
}

}  // namespace
}  // namespace manyheads
