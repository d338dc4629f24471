#include "lens/rollout.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <vector>

#include "lens/constructed_text.hpp"

namespace manyheads::lens {
namespace {

// The product of the whole matrices.
TEST(AttentionRolloutTest, IsARowOfTheProductOfMatrices) {
  for (const bool causal : {false, true}) {
    std::mt19937 random(17);
    BatchText text = test::constructed_text(0, 7, causal);
    for (const std::int64_t heads : {2, 3, 1}) {
      test::add_layer(text.trace, heads, [&](std::int64_t, std::int64_t, std::int64_t) {
        return static_cast<double>(random() % 1000) / 250;
      });
    }
    const auto n = static_cast<std::size_t>(text.trace.key_length);
    std::vector<double> product(n * n);
    for (std::size_t i = 0; i < n; ++i) product[i * n + i] = 1;
    for (std::size_t layer = 0; layer < 3; ++layer) {
      const std::int64_t heads = text.trace.num_heads(layer);
      std::vector<double> own(n * n), next(n * n);
      for (std::int64_t head = 0; head < heads; ++head) {
        Tensor weights(DType::kF32, Dims{text.trace.key_length, text.trace.key_length});
        trace_weights(text.trace, layer, head, weights.view());
        for (std::size_t i = 0; i < n * n; ++i) {
          own[i] += static_cast<double>(weights.as<float>()[i]) / static_cast<double>(heads) / 2;
        }
      }
      for (std::size_t i = 0; i < n; ++i) own[i * n + i] += 0.5;
      for (std::size_t i = 0; i < n; ++i) {
        for (std::size_t j = 0; j < n; ++j) {
          for (std::size_t k = 0; k < n; ++k) next[i * n + k] += own[i * n + j] * product[j * n + k];
        }
      }
      product = next;
    }
    const std::vector<double> found = attention_rollout(text.trace, {.num_threads = 2});
    ASSERT_EQ(found.size(), n);
    for (std::size_t k = 0; k < n; ++k) {
      double expected = product[(n - 1) * n + k];
      for (std::size_t q = 0; q < n && !causal; ++q) {
        expected = (q == 0 ? 0 : expected) + product[q * n + k] / static_cast<double>(n);
      }
      EXPECT_NEAR(found[k], expected, 1e-12) << k;
    }
  }
}

}  // namespace
}  // namespace manyheads::lens
