#include "lens/head_distances.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "lens/constructed_text.hpp"

namespace manyheads::lens {
namespace {

using test::add_layer;
using test::constructed_text;

double weight(const Trace& trace, std::size_t layer, std::int64_t head, std::int64_t q, std::int64_t k) {
  Tensor row(DType::kF32, Dims{1, trace.key_length});
  trace_rows(trace, layer, head, q, row.view());
  return static_cast<double>(row.as<float>()[k]);
}

// Kullback-Leibler, as the divergence is defined: JS = (KL(a | m) + KL(b | m)) / 2, m = (a + b) / 2.
double divergence(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t k = 0; k < a.size(); ++k) {
    const double m = (a[k] + b[k]) / 2;
    if (a[k] > 0) sum += a[k] * std::log(a[k] / m) / 2;
    if (b[k] > 0) sum += b[k] * std::log(b[k] / m) / 2;
  }
  return sum;
}

TEST(HeadDistancesTest, IsTheMeanDivergenceOfTheRows) {
  std::mt19937 random(7);
  std::normal_distribution<double> normal(0, 2);
  HeadDistances distances(5);
  std::vector<double> expected(25);
  double rows = 0;
  for (const bool causal : {false, true}) {
    BatchText text = constructed_text(0, causal ? 9 : 6, causal);
    const auto any = [&](std::int64_t, std::int64_t, std::int64_t) { return normal(random); };
    add_layer(text.trace, 2, any);
    add_layer(text.trace, 3, any);
    distances.add(text.trace, {.num_threads = 2});
    const std::int64_t n = text.trace.key_length;
    const auto row = [&](std::size_t head, std::int64_t q) {
      std::vector<double> weights;
      for (std::int64_t k = 0; k < n; ++k) {
        weights.push_back(
            weight(text.trace, head < 2 ? 0 : 1, static_cast<std::int64_t>(head < 2 ? head : head - 2), q, k));
      }
      return weights;
    };
    for (std::int64_t q = 0; q < n; ++q, ++rows) {
      for (std::size_t a = 0; a < 5; ++a) {
        for (std::size_t b = 0; b < 5; ++b) expected[a * 5 + b] += divergence(row(a, q), row(b, q));
      }
    }
  }
  EXPECT_EQ(distances.rows(), static_cast<std::int64_t>(rows));
  const std::vector<double> found = distances.mean();
  // Rows of F32 add up to 1 but for some 2^-24.
  for (std::size_t i = 0; i < 25; ++i) EXPECT_NEAR(found[i], expected[i] / rows, 1e-6) << i;
}

TEST(HeadDistancesTest, EqualHeadsAre0AndHeadsWithoutACommonKeyLog2Apart) {
  BatchText text = constructed_text(0, 6);
  add_layer(text.trace, 3,
            [](std::int64_t h, std::int64_t, std::int64_t k) { return k == (h == 2 ? 3 : 1) ? 60.0 : 0.0; });
  HeadDistances distances(3);
  distances.add(text.trace, {});
  EXPECT_EQ(distances.mean()[1], 0);
  EXPECT_NEAR(distances.mean()[2], std::log(2.0), 1e-6);
}

// Heads that give nearly all to [CLS] look alike until it is left out.
TEST(HeadDistancesTest, WithoutSpecialTokensTheRestIsRenormalised) {
  std::mt19937 random(43);
  for (const bool causal : {false, true}) {
    BatchText text = constructed_text(0, 6, causal);
    add_layer(text.trace, 2, [&](std::int64_t, std::int64_t, std::int64_t k) {
      return (k == 0 ? 8.0 : 0.0) + static_cast<double>(random() % 1000) / 300;
    });
    HeadDistances with(2), without(2, true);
    with.add(text.trace, {});
    without.add(text.trace, {});
    const std::int64_t n = text.trace.key_length, end = causal ? n : n - 1;
    EXPECT_EQ(without.rows(), end - 1);
    double expected = 0;
    for (std::int64_t q = 1; q < end; ++q) {
      std::vector<double> rows[2];
      for (const std::int64_t head : {0, 1}) {
        double sum = 0;
        for (std::int64_t k = 1; k < end; ++k) sum += weight(text.trace, 0, head, q, k);
        for (std::int64_t k = 1; k < end; ++k) rows[head].push_back(weight(text.trace, 0, head, q, k) / sum);
      }
      expected += divergence(rows[0], rows[1]) / static_cast<double>(end - 1);
    }
    EXPECT_NEAR(without.mean()[1], expected, 1e-6);
    EXPECT_LT(with.mean()[1], without.mean()[1] / 5);
  }
}

TEST(HeadDistancesTest, OfALongTextItReadsRowsAtEvenSteps) {
  BatchText text = constructed_text(0, 130, true);
  // Rows 0, 3, 6, ... differ, the others do not.
  add_layer(text.trace, 2,
            [](std::int64_t h, std::int64_t q, std::int64_t k) { return h == 1 && q % 3 == 0 && k == q ? 60.0 : 0.0; });
  HeadDistances distances(2);
  distances.add(text.trace, {});
  EXPECT_EQ(distances.rows(), 44);
  // Row q gives an even share to q + 1 keys, or all to one.
  double expected = 0;
  for (int q = 0; q < 130; q += 3) {
    const double even = 1.0 / (q + 1), own = (1 + even) / 2;
    expected += -own * std::log(own) - q * (even / 2) * std::log(even / 2) - std::log(q + 1.0) / 2;
  }
  EXPECT_NEAR(distances.mean()[1], expected / 44, 1e-5);
}

TEST(ClusterHeadsTest, JoinsTheNearestByAverageLinkage) {
  // Five points on a line at 0, 1, 4, 6, 20.
  const double at[] = {0, 1, 4, 6, 20};
  std::vector<double> distances(25);
  for (std::size_t a = 0; a < 5; ++a) {
    for (std::size_t b = 0; b < 5; ++b) distances[a * 5 + b] = std::abs(at[a] - at[b]);
  }
  const auto of = [&](std::size_t clusters) {
    std::vector<std::vector<std::size_t>> result;
    for (const HeadCluster& cluster : cluster_heads(distances, 5, clusters)) result.push_back(cluster.heads);
    return result;
  };
  using Heads = std::vector<std::vector<std::size_t>>;
  EXPECT_EQ(of(5), (Heads{{0}, {1}, {2}, {3}, {4}}));
  EXPECT_EQ(of(4), (Heads{{0, 1}, {2}, {3}, {4}}));
  EXPECT_EQ(of(3), (Heads{{0, 1}, {2, 3}, {4}}));
  EXPECT_EQ(of(2), (Heads{{0, 1, 2, 3}, {4}}));
  EXPECT_EQ(of(1), (Heads{{0, 1, 2, 3, 4}}));
  const std::vector<HeadCluster> three = cluster_heads(distances, 5, 3);
  EXPECT_EQ(three[1].mean_distance, 2);
  EXPECT_EQ(three[2].mean_distance, 0);
  EXPECT_DOUBLE_EQ(cluster_heads(distances, 5, 2)[0].mean_distance, (1 + 4 + 6 + 3 + 5 + 2) / 6.0);
}

// Average, not nearest (which would chain 0, 1, 2) nor farthest: from {0, 1} to 2 it is 1.75, from 2 to 3 1.8.
TEST(ClusterHeadsTest, TheDistanceOfClustersIsTheMeanOverTheirPairs) {
  const std::vector<double> distances = {0,   1,   1.5, 9,    //
                                         1,   0,   2.0, 9,    //
                                         1.5, 2.0, 0,   1.8,  //
                                         9,   9,   1.8, 0};
  EXPECT_EQ(cluster_heads(distances, 4, 2)[0].heads, (std::vector<std::size_t>{0, 1, 2}));
  std::vector<double> farther = distances;
  farther[1 * 4 + 2] = farther[2 * 4 + 1] = 2.2;  // 1.85
  EXPECT_EQ(cluster_heads(farther, 4, 2)[0].heads, (std::vector<std::size_t>{0, 1}));
}

// The mean over pairs of heads, not over the two clusters that were joined: of three heads and one.
TEST(ClusterHeadsTest, LargerClustersWeighMore) {
  std::vector<double> distances(36, 100);
  const auto set = [&](std::size_t a, std::size_t b, double d) { distances[a * 6 + b] = distances[b * 6 + a] = d; };
  for (std::size_t i = 0; i < 6; ++i) distances[i * 6 + i] = 0;
  set(0, 1, 1);
  set(0, 2, 2);
  set(1, 2, 2);
  // From {0, 1, 2} to 3: (12 + 12 + 6) / 3 = 10. Over the two that were joined, {0, 1} and {2}, 9.
  set(0, 3, 12);
  set(1, 3, 12);
  set(2, 3, 6);
  set(4, 5, 9.5);
  const std::vector<HeadCluster> found = cluster_heads(distances, 6, 3);
  ASSERT_EQ(found.size(), 3u);
  EXPECT_EQ(found[0].heads, (std::vector<std::size_t>{0, 1, 2}));
  EXPECT_EQ(found[2].heads, (std::vector<std::size_t>{4, 5}));
}

TEST(ClusterHeadsTest, OfEquallyNearOnesTheFirstAreJoined) {
  std::vector<double> distances(16, 1);
  for (std::size_t i = 0; i < 4; ++i) distances[i * 5] = 0;
  EXPECT_EQ(cluster_heads(distances, 4, 3)[0].heads, (std::vector<std::size_t>{0, 1}));
}

// Heads made in three kinds are found as these.
TEST(ClusterHeadsTest, HeadsOfAKindStandTogether) {
  std::mt19937 random(13);
  BatchText text = constructed_text(0, 12);
  add_layer(text.trace, 9, [&](std::int64_t h, std::int64_t q, std::int64_t k) {
    const double noise = static_cast<double>(random() % 1000) / 2000;
    const std::int64_t to = h % 3 == 0 ? 0 : h % 3 == 1 ? q - 1 : q + 1;
    return (k == to ? 5.0 : 0.0) + noise;
  });
  HeadDistances distances(9);
  distances.add(text.trace, {});
  const std::vector<HeadCluster> found = cluster_heads(distances.mean(), 9, 3);
  ASSERT_EQ(found.size(), 3u);
  for (std::size_t kind = 0; kind < 3; ++kind) {
    EXPECT_EQ(found[kind].heads, (std::vector<std::size_t>{kind, kind + 3, kind + 6}));
  }
}

}  // namespace
}  // namespace manyheads::lens
