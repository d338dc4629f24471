#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <manyheads/multi_head_attention.hpp>

#include "layer/random_tensor.hpp"
#include "layer/training.hpp"

// What the bits of the layer's gradients do not depend on.
namespace manyheads::layer_test {
namespace {

bool same(const std::map<std::string, Tensor>& a, const std::map<std::string, Tensor>& b) {
  for (const auto& [name, tensor] : a) {
    if (std::memcmp(tensor.bytes(), b.at(name).bytes(), static_cast<std::size_t>(tensor.elements()) * sizeof(float)) !=
        0) {
      return false;
    }
  }
  return true;
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
