#include "layer/merged_mask.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <manyheads/cpu.hpp>
#include <manyheads/multi_head_attention.hpp>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "layer/layer_reference.hpp"
#include "layer/random_tensor.hpp"
#include "support.hpp"

namespace manyheads {
namespace {

using layer_test::LayerCase;
using layer_test::LayerResult;
using layer_test::random_tensor;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kLowest = std::numeric_limits<float>::lowest();
constexpr float kLargest = std::numeric_limits<float>::max();

// A layer, masks of some numbers, and what they come to in float64.
struct Case {
  static constexpr std::int64_t kBatch = 2, kHeads = 2;

  Case(std::int64_t t, std::int64_t s, MultiHeadAttentionConfig config = {}) : queries(t), keys(s) {
    config.d_model = 16;
    config.num_heads = kHeads;
    c.config = config;
    std::mt19937_64 random(11);
    const MultiHeadAttention fresh(config);
    c.state = fresh.state_dict();
    for (auto& [name, tensor] : c.state) tensor = random_tensor(random, tensor.shape(), 0.5);
    c.query = random_tensor(random, {kBatch, t, 16});
    c.key = random_tensor(random, {kBatch, s, 16});
    c.value = random_tensor(random, {kBatch, s, 16});
    c.added.assign(static_cast<std::size_t>(kBatch * kHeads * t * s), 0.0);
  }

  // Adds value(b, h, i, j), as float64 does; -inf forbids.
  template <class F>
  void add(F&& value) {
    std::size_t at = 0;
    for (std::int64_t b = 0; b < kBatch; ++b) {
      for (std::int64_t h = 0; h < kHeads; ++h) {
        for (std::int64_t i = 0; i < queries; ++i) {
          for (std::int64_t j = 0; j < keys; ++j, ++at) {
            const double more = value(b, h, i, j);
            const bool forbidden = c.added[at] == -kInfinity || more == -kInfinity;
            c.added[at] = forbidden ? -kInfinity : c.added[at] + more;
          }
        }
      }
    }
  }

  // The largest distance of a weight, and of an output, from float64.
  double error(MultiHeadAttentionOptions options) const {
    MultiHeadAttention layer(c.config);
    layer.load_state_dict(c.state);
    const std::int64_t all = keys + (c.config.add_bias_kv ? 1 : 0) + (c.config.add_zero_attn ? 1 : 0);
    Tensor y(DType::kF32, c.query.shape()), weights(DType::kF32, {kBatch, kHeads, queries, all});
    const TensorView view = weights.view();
    options.weights = view;
    layer.forward(c.query.cview(), c.key.cview(), c.value.cview(), y.view(), options);
    const LayerResult right = layer_test::reference_layer(c, 0x1p-24);
    double largest = 0;
    const auto compare = [&](const Tensor& got, const std::vector<double>& expected) {
      const std::vector<double> values = layer_test::values(got);
      for (std::size_t i = 0; i < values.size(); ++i) {
        const double apart = std::fabs(values[i] - expected[i]);
        largest = apart <= largest ? largest : apart;  // a NaN stays
      }
    };
    compare(weights, right.weights);
    compare(y, right.output);
    return largest;
  }

  std::int64_t queries, keys;
  LayerCase c;
};

Tensor tensor_of(DType type, Dims shape, const std::vector<float>& values) {
  Tensor tensor(type, shape);
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (type == DType::kBool) {
      tensor.as<bool>()[i] = values[i] != 0;
    } else {
      tensor.as<float>()[i] = values[i];
    }
  }
  return tensor;
}

// transformers and others pad and look ahead by finfo.min, both at once.
TEST(MergedMask, AKeyOfOneLowestMaskBeatsAKeyOfTwo) {
  constexpr std::int64_t kT = 5;
  Tensor ahead(DType::kF32, {kT, kT}), padding(DType::kF32, {Case::kBatch, kT});
  for (std::int64_t i = 0; i < kT; ++i) {
    for (std::int64_t j = 0; j < kT; ++j) ahead.as<float>()[i * kT + j] = j > i ? kLowest : 0.0f;
    padding.as<float>()[i] = kLowest;                      // entry 0: padding alone
    padding.as<float>()[kT + i] = i < 2 ? kLowest : 0.0f;  // entry 1: padded on the left
  }
  Case one(kT, kT);
  one.add([&](std::int64_t b, std::int64_t, std::int64_t i, std::int64_t j) {
    return static_cast<double>(ahead.as<float>()[i * kT + j]) + static_cast<double>(padding.as<float>()[b * kT + j]);
  });
  EXPECT_LT(one.error({.key_padding_mask = padding.cview(), .attn_mask = ahead.cview()}), 1e-5);
}

// Every way in which two and three masks come together, of numbers whose sums leave F32 and of others.
TEST(MergedMask, SumsBeyondF32AreThoseOfFloat64) {
  std::mt19937_64 random(5);
  const auto draw = [&](std::int64_t count, const std::vector<float>& from) {
    std::vector<float> values(static_cast<std::size_t>(count));
    for (float& value : values) value = from[random() % from.size()];
    return values;
  };
  const std::vector<float> low{0, kLowest, kLowest, kLowest, -5, -kInfinity};
  int beyond = 0;
  for (int round = 0; round < 300; ++round) {
    const std::int64_t t = 1 + round % 5, s = 1 + round % 7;
    Case one(t, s, {.add_bias_kv = round % 4 == 1, .add_zero_attn = round % 8 == 1});
    MultiHeadAttentionOptions options;
    const bool heads = round % 3 == 0, by_bool = round % 5 < 2;
    Tensor padding = tensor_of(DType::kF32, {Case::kBatch, s}, draw(Case::kBatch * s, low));
    Tensor attn =
        tensor_of(by_bool ? DType::kBool : DType::kF32, heads ? Dims{Case::kBatch * Case::kHeads, t, s} : Dims{t, s},
                  draw((heads ? Case::kBatch * Case::kHeads : 1) * t * s, by_bool ? std::vector<float>{0, 0, 1} : low));
    Tensor bias = tensor_of(DType::kF32, {Case::kHeads, 1, s}, draw(Case::kHeads * s, low));
    Tensor length(DType::kI64, {Case::kBatch});
    options.key_padding_mask = padding.cview();
    options.attn_mask = attn.cview();
    one.add([&](std::int64_t b, std::int64_t, std::int64_t, std::int64_t j) {
      return static_cast<double>(std::as_const(padding).as<float>()[b * s + j]);
    });
    one.add([&](std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t j) {
      const std::int64_t at = heads ? ((b * Case::kHeads + h) * t + i) * s + j : i * s + j;
      if (by_bool) return std::as_const(attn).as<bool>()[at] ? -std::numeric_limits<double>::infinity() : 0.0;
      return static_cast<double>(std::as_const(attn).as<float>()[at]);
    });
    if (round % 2 == 0 || by_bool) {
      options.mask.bias = bias.cview();
      one.add([&](std::int64_t, std::int64_t h, std::int64_t, std::int64_t j) {
        return static_cast<double>(std::as_const(bias).as<float>()[h * s + j]);
      });
    }
    if (round % 7 == 0) {
      options.mask = options.mask | mask::causal(Alignment::kTopLeft);
      one.add([&](std::int64_t, std::int64_t, std::int64_t i, std::int64_t j) {
        return j > i ? -std::numeric_limits<double>::infinity() : 0.0;
      });
    }
    if (round % 11 == 0) {
      for (std::int64_t b = 0; b < Case::kBatch; ++b) length.as<std::int64_t>()[b] = (s + b) / 2;
      options.mask = options.mask | mask::key_lengths(length.cview());
      one.add([&](std::int64_t b, std::int64_t, std::int64_t, std::int64_t j) {
        return j >= (s + b) / 2 ? -std::numeric_limits<double>::infinity() : 0.0;
      });
    }
    for (const double sum : one.c.added) beyond += std::isfinite(sum) && sum < 1.5 * static_cast<double>(kLowest);
    EXPECT_LT(one.error(options), 2e-5) << "round " << round;
  }
  EXPECT_GT(beyond, 300);
}

TEST(MergedMask, TwoOfTheLargestAndTheirNeighbours) {
  const double max = static_cast<double>(kLargest);
  struct Row {
    std::vector<float> padding, bias;
    std::vector<double> weights;
  };
  const std::vector<Row> rows{
      {{kLargest, 0, 0}, {kLargest, 0, 0}, {1, 0, 0}},
      {{kLargest, kLargest, 0}, {kLargest, kLargest, 0}, {.5, .5, 0}},
      {{kLargest, kLargest, 0}, {kLargest, 0, 0}, {1, 0, 0}},
      {{kLargest, kLowest, 0}, {kLowest, kLargest, 0}, {-1, -1, -1}},  // sums of 0: the layer's own weights
      {{kLowest, kLowest, kLowest}, {kLowest, kLowest, -kInfinity}, {.5, .5, 0}},
      {{kLowest, kLowest, -kInfinity}, {kLowest, 0, 0}, {0, 1, 0}},
      {{kLowest, kLowest, kLowest}, {0, -1e25f, kLowest}, {1, 0, 0}},    // float64 tells these apart
      {{kLowest, kLowest, kLowest}, {0, -1e20f, kLowest}, {.5, .5, 0}},  // but not these
      {{-1e30f, kLowest, kLowest}, {-1e30f, kLowest, 0}, {1, 0, 0}},
      {{-kInfinity, -kInfinity, -kInfinity}, {kLowest, kLowest, kLowest}, {0, 0, 0}},
  };
  for (std::size_t r = 0; r < rows.size(); ++r) {
    Case one(1, 3);
    std::vector<float> both(rows[r].padding);
    both.insert(both.end(), rows[r].padding.begin(), rows[r].padding.end());
    const Tensor padding = tensor_of(DType::kF32, {2, 3}, both), bias = tensor_of(DType::kF32, {1, 3}, rows[r].bias);
    one.add([&](std::int64_t, std::int64_t, std::int64_t, std::int64_t j) {
      const auto at = static_cast<std::size_t>(j);
      return static_cast<double>(rows[r].padding[at]) + static_cast<double>(rows[r].bias[at]);
    });
    EXPECT_LT(one.error({.key_padding_mask = padding.cview(), .attn_mask = bias.cview()}), 1e-5) << "row " << r;
    const std::vector<double> right = layer_test::reference_layer(one.c, 0x1p-24).weights;
    for (std::size_t j = 0; j < 3 && rows[r].weights[0] >= 0; ++j) EXPECT_NEAR(right[j], rows[r].weights[j], 1e-9);
  }
  EXPECT_GT(max, 0);
}

// Rows whose sums F32 holds keep their bits, whatever is in other rows.
TEST(MergedMask, OnlyRowsThatLeaveTheRangeAreShifted) {
  std::mt19937_64 random(8);
  const MultiHeadAttention layer({.d_model = 16, .num_heads = 2});
  const Tensor x = random_tensor(random, {1, 6, 16});
  Tensor padding = random_tensor(random, {1, 6}), mask = random_tensor(random, {6, 6});
  const auto forward = [&] {
    Tensor y(DType::kF32, x.shape());
    layer.forward(x.cview(), y.view(), {.key_padding_mask = padding.cview(), .attn_mask = mask.cview()});
    return y;
  };
  padding.as<float>()[5] = kLowest;
  const Tensor plain = forward();
  mask.as<float>()[2 * 6 + 5] = kLowest;
  const Tensor shifted = forward();
  for (std::int64_t i = 0; i < 6; ++i) {
    const bool same = std::memcmp(plain.as<float>() + i * 16, shifted.as<float>() + i * 16, 16 * sizeof(float)) == 0;
    EXPECT_TRUE(same || i == 2) << i;
  }
}

// The added keys lie behind all others, and no mask speaks of them: positions are written out, some queries at a time.
TEST(MergedMask, PositionsBesideAddedKeysTakeMemoryForSomeQueries) {
  constexpr std::int64_t kT = 5000;
  std::mt19937_64 random(6);
  MultiHeadAttention layer({.d_model = 8, .num_heads = 2, .add_bias_kv = true, .add_zero_attn = true});
  StateDict state = layer.state_dict();
  for (auto& [name, tensor] : state) tensor = random_tensor(random, tensor.shape(), 0.5);
  layer.load_state_dict(state);
  const Tensor x = random_tensor(random, {1, kT, 8});
  const Tensor slopes = tensor_of(DType::kF32, {2}, {0.1f, 0.01f});
  for (const bool biased : {false, true}) {
    Mask mask = mask::causal(Alignment::kTopLeft) | mask::window(3000, 0);
    if (biased) mask = mask | mask::alibi(slopes.cview());
    Workspace workspace;
    Tensor y(DType::kF32, x.shape());
    layer.forward(x.cview(), y.view(), {.mask = mask, .workspace = &workspace});
    EXPECT_LT(workspace.capacity(), std::size_t{12} << 20);  // T x S are 25 million
    // Each query has the bits that it has in a call of few, whose mask is written out at once.
    for (const std::int64_t first : {std::int64_t{0}, std::int64_t{700}, kT - 40}) {
      Tensor some(DType::kF32, {1, 40, 8});
      Tensor offset(DType::kI64, {1});
      offset.as<std::int64_t>()[0] = first;
      Mask shifted = mask;
      shifted.alignment = Alignment::kUnspecified;
      shifted.offsets = offset.cview();
      const ConstTensorView queries(x.as<float>() + first * 8, Dims{1, 40, 8});
      layer.forward(queries, x.cview(), x.cview(), some.view(), {.mask = shifted});
      EXPECT_EQ(std::memcmp(some.as<float>(), std::as_const(y).as<float>() + first * 8, 40 * 8 * sizeof(float)), 0)
          << first;
    }
  }
}

// The same with weights, padding and masks of other kinds, against the definition.
TEST(MergedMask, BlocksOfQueriesBesideAddedKeysAreTheDefinitions) {
  constexpr std::int64_t kT = 130, kS = 40000;  // 40 kB of mask a query: 104 at once
  std::mt19937_64 random(7);
  MultiHeadAttention layer({.d_model = 4, .num_heads = 1, .add_bias_kv = true});
  const Tensor q = random_tensor(random, {1, kT, 4}), k = random_tensor(random, {1, kS, 4});
  Tensor y(DType::kF32, q.shape()), weights(DType::kF32, {1, 1, kT, kS + 1});
  const TensorView view = weights.view();
  Tensor ignored(DType::kBool, {1, kS});
  for (std::int64_t j = 0; j < kS; ++j) ignored.as<bool>()[j] = j % 3 == 0;
  layer.forward(q.cview(), k.cview(), k.cview(), y.view(),
                {.key_padding_mask = ignored.cview(),
                 .mask = mask::causal(Alignment::kTopLeft) | mask::window(50, 0),
                 .weights = view});
  for (std::int64_t i = 0; i < kT; ++i) {
    double sum = 0;
    for (std::int64_t j = 0; j <= kS; ++j) {
      const double weight = static_cast<double>(std::as_const(weights).as<float>()[i * (kS + 1) + j]);
      const bool seen = j == kS || (j <= i && j >= i - 50 && j % 3 != 0);
      ASSERT_EQ(weight > 0, seen) << i << ", " << j;
      sum += weight;
    }
    EXPECT_NEAR(sum, 1, 1e-5);
  }
}

TEST(MergedMask, WeightsOverlapNothingThatIsReadBesideThem) {
  const MultiHeadAttention layer({.d_model = 8, .num_heads = 1, .add_zero_attn = true});
  const Tensor x(DType::kF32, {1, 4, 8});
  Tensor y(DType::kF32, x.shape()), memory(DType::kF32, {64});
  const TensorView weights(memory.as<float>(), Dims{1, 1, 4, 5});
  const ConstTensorView slopes(std::as_const(memory).as<float>() + 3, Dims{1});
  const ConstTensorView lengths(std::as_const(memory).as<float>() + 4, DType::kI64, Dims{1});
  for (const auto& [name, mask] : {std::pair{"mask.alibi_slopes", mask::alibi(slopes)},
                                   {"mask.key_lengths", mask::key_lengths(lengths)},
                                   {"mask.offsets", mask::offsets(lengths)}}) {
    const std::string error =
        test::error_of([&, mask = mask] { layer.forward(x.cview(), y.view(), {.mask = mask, .weights = weights}); });
    EXPECT_NE(error.find(std::string("weights F32 [1,1,4,5] overlaps ") + name), std::string::npos) << error;
  }
}

}  // namespace
}  // namespace manyheads
