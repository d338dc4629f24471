#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <manyheads/error.hpp>
#include <manyheads/lens/patch.hpp>
#include <random>
#include <string>
#include <vector>

#include "lens/full_matrix.hpp"
#include "support.hpp"

namespace manyheads::lens {
namespace {

constexpr Shape kShapes[] = {{4, 2, 150, 150, 16}, {2, 1, 70, 199, 33}, {1, 1, 130, 64, 64}};

std::vector<std::pair<Range, Range>> rectangles(const Trace& trace, int count) {
  std::mt19937 random(5);
  const auto range = [&](std::int64_t n) {
    const std::int64_t a = static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(n + 1));
    const std::int64_t b = static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(n + 1));
    return Range{std::min(a, b), std::max(a, b)};
  };
  std::vector<std::pair<Range, Range>> list = {{{0, trace.num_queries()}, {0, trace.num_keys()}}};
  while (static_cast<int>(list.size()) < count) list.push_back({range(trace.num_queries()), range(trace.num_keys())});
  return list;
}

TEST(PatchTest, IsThatPartOfTheFullMatrix) {
  for (const Shape& shape : kShapes) {
    for (auto& [kind, trace] : every_kind(shape)) {
      const FullMatrix full(trace, 1, shape.heads - 1);
      const std::vector<float> sums = row_sums(trace, 1, shape.heads - 1, {0, shape.queries});
      const ConstTensorView row_sum(sums.data(), Dims{shape.queries});
      Tensor whole(DType::kF32, {shape.queries, shape.keys});
      for (const auto& [rows, keys] : rectangles(trace, 9)) {
        for (const bool exact : {true, false}) {
          Tensor weights(DType::kF32, {rows.size(), keys.size()});
          const PatchInfo info = patch(trace, 1, shape.heads - 1, rows, keys, weights.view(),
                                       {.row_sum = exact ? row_sum : ConstTensorView(), .threads = {.num_threads = 1}});
          EXPECT_EQ(info.exact, exact);
          for (std::int64_t i = 0; i < rows.size(); ++i) {
            for (std::int64_t j = 0; j < keys.size(); ++j) {
              const double found = static_cast<double>(weights.as<float>()[i * keys.size() + j]);
              ASSERT_NEAR(found, full.at(rows.begin + i, keys.begin + j), full.bound(rows.begin + i) + info.bound)
                  << kind << " " << rows.begin + i << "," << keys.begin + j << (exact ? "" : " by lse alone");
            }
          }
          if (!exact) continue;
          if (rows.size() == shape.queries && keys.size() == shape.keys) {
            std::copy_n(weights.as<float>(), weights.elements(), whole.as<float>());
          }
          for (std::int64_t i = 0; i < rows.size(); ++i) {  // the same bits in every patch
            ASSERT_EQ(std::memcmp(weights.as<float>() + i * keys.size(),
                                  whole.as<float>() + (rows.begin + i) * shape.keys + keys.begin,
                                  static_cast<std::size_t>(keys.size()) * sizeof(float)),
                      0)
                << kind << " row " << rows.begin + i;
          }
        }
      }
    }
  }
}

TEST(PatchTest, PooledCellsAreThoseOfTheFullMatrix) {
  for (auto& [kind, trace] : every_kind({2, 1, 300, 310, 8})) {
    const FullMatrix full(trace, 0, 1);
    const std::vector<float> sums = row_sums(trace, 0, 1, {0, 300});
    const PatchOptions exact{.row_sum = ConstTensorView(sums.data(), Dims{300})};
    for (const std::int64_t side : {1, 7, 64, 1000}) {
      const Range rows{3, 298}, keys{1, 300};
      const Tensor mean = pooled_patch(trace, 0, 1, rows, keys, side, Pool::kMean, exact);
      const Tensor max = pooled_patch(trace, 0, 1, rows, keys, side, Pool::kMax, exact);
      ASSERT_EQ(mean.shape(), Dims({(295 + side - 1) / side, (299 + side - 1) / side}));
      ASSERT_EQ(max.shape(), mean.shape());
      for (std::int64_t r = 0; r < mean.size(0); ++r) {
        for (std::int64_t c = 0; c < mean.size(1); ++c) {
          double sum = 0, largest = 0, bound = 0;
          std::int64_t count = 0;
          for (std::int64_t i = rows.begin + r * side; i < std::min(rows.end, rows.begin + (r + 1) * side); ++i) {
            bound = std::max(bound, full.bound(i));
            for (std::int64_t j = keys.begin + c * side; j < std::min(keys.end, keys.begin + (c + 1) * side); ++j) {
              sum += full.at(i, j);
              largest = std::max(largest, full.at(i, j));
              ++count;
            }
          }
          ASSERT_NEAR(mean.as<float>()[r * mean.size(1) + c], sum / static_cast<double>(count), bound) << kind << side;
          ASSERT_NEAR(max.as<float>()[r * mean.size(1) + c], largest, bound) << kind << side;
        }
      }
    }
  }
  const Trace trace = random_trace({});
  EXPECT_EQ(test::error_of([&] { pooled_patch(trace, 0, 0, {0, 5}, {0, 5}, 0, Pool::kMean); }),
            "pooled_patch: cells of 0 x 0 of queries 0 to 5 and keys 0 to 5");
  EXPECT_EQ(test::error_of([&] { pooled_patch(trace, 0, 0, {3, 3}, {0, 5}, 2, Pool::kMax); }),
            "pooled_patch: cells of 2 x 2 of queries 3 to 3 and keys 0 to 5");
  EXPECT_EQ(test::error_of([&] { pooled_patch(trace, 0, 0, {0, 5}, {0, 6}, 2, Pool::kMax); }),
            "pooled_patch: queries 0 to 5 and keys 0 to 6 of a trace of 5 queries and 5 keys");
}

// lse near 10,000 has a step of 1e-3: without the row's own sum a weight would be off by that much.
TEST(PatchTest, RowSumsMakeUpForACoarseLse) {
  const Trace trace = random_trace({2, 1, 90, 90, 32}, [](Trace& t) { t.scale = 60; });
  const FullMatrix full(trace, 0, 1);
  const std::vector<float> sums = row_sums(trace, 0, 1, {0, 90});
  double exact = 0, coarse = 0, bound = 0;
  Tensor weights(DType::kF32, {90, 90});
  const auto farthest = [&] {
    double error = 0;
    for (std::int64_t i = 0; i < 90 * 90; ++i) {
      error = std::max(
          error, std::fabs(static_cast<double>(weights.as<float>()[i]) - full.weights[static_cast<std::size_t>(i)]));
    }
    return error;
  };
  patch(trace, 0, 1, {0, 90}, {0, 90}, weights.view(), {.row_sum = ConstTensorView(sums.data(), Dims{90})});
  exact = farthest();
  bound = patch(trace, 0, 1, {0, 90}, {0, 90}, weights.view()).bound;
  coarse = farthest();
  EXPECT_LT(exact, *std::max_element(full.bounds.begin(), full.bounds.end()));
  EXPECT_GT(coarse, 0x1p-18);
  EXPECT_LT(coarse, bound + exact);
}

TEST(PatchTest, TheTracesOwnSumsMakeItExact) {
  Trace trace = random_trace({2, 1, 40, 40, 8});
  Tensor weights(DType::kF32, {7, 9});
  EXPECT_FALSE(patch(trace, 0, 1, {3, 10}, {5, 14}, weights.view()).exact);
  add_row_sums(trace, 0);
  EXPECT_TRUE(patch(trace, 0, 1, {3, 10}, {5, 14}, weights.view()).exact);
  EXPECT_EQ(patch(trace, 0, 1, {3, 10}, {5, 14}, weights.view()).bound, 0);
  const std::vector<float> sums = row_sums(trace, 0, 1, {3, 10});
  for (std::size_t r = 0; r < 7; ++r) EXPECT_EQ(sums[r], trace.layers[0].storage.back().as<float>()[40 + 3 + r]);
  for (const float sum : sums) EXPECT_NEAR(sum, 1, 1e-6);
}

TEST(PatchTest, TheSameBitsForAnyNumberOfThreadsAndAnyStrides) {
  const Trace trace = random_trace({2, 1, 200, 5000, 8}, [](Trace& t) {
    t.causal = true;
    t.alignment = Alignment::kBottomRight;
  });
  const Range rows{10, 190}, keys{33, 4999};
  Tensor one(DType::kF32, {180, 4966}), turned(DType::kF32, {4966, 180});
  patch(trace, 0, 1, rows, keys, one.view(), {.threads = {.num_threads = 1}});
  patch(trace, 0, 1, rows, keys, TensorView(turned.as<float>(), DType::kF32, Dims{180, 4966}, Dims{1, 180}),
        {.threads = {.num_threads = 8}});
  for (std::int64_t i = 0; i < 180; ++i) {
    for (std::int64_t j = 0; j < 4966; ++j) ASSERT_EQ(one.as<float>()[i * 4966 + j], turned.as<float>()[j * 180 + i]);
  }
}

// Scores beyond what a shift in F32 bears, or beyond F32 itself: such rows are computed whole.
TEST(PatchTest, RowsWithExtremeScoresAreThoseOfTheWholeMatrix) {
  for (const double scale : {300.0, 1e6, 1e12, 1e30}) {
    const Trace trace = random_trace({2, 1, 40, 70, 8}, [&](Trace& t) { t.scale = scale; });
    Tensor whole(DType::kF32, {40, 70}), weights(DType::kF32, {20, 30});
    trace_weights(trace, 0, 1, whole.view());
    const std::vector<float> sums = row_sums(trace, 0, 1, {0, 40});
    for (const bool exact : {true, false}) {
      patch(trace, 0, 1, {15, 35}, {11, 41}, weights.view(),
            {.row_sum = exact ? ConstTensorView(sums.data(), Dims{40}) : ConstTensorView()});
      for (std::int64_t i = 0; i < 20; ++i) {
        for (std::int64_t j = 0; j < 30; ++j) {
          ASSERT_NEAR(weights.as<float>()[i * 30 + j], whole.as<float>()[(15 + i) * 70 + 11 + j], exact ? 1e-6 : 1e-2)
              << scale << " " << i << "," << j;
        }
      }
    }
  }
}

TEST(PatchTest, AForeignLseIsAnErrorWhereItShows) {
  const auto with = [](float lse) {
    Trace trace = random_trace({2, 1, 20, 20, 4});
    trace.layers[0].storage[2].as<float>()[20 + 3] = lse;
    return trace;
  };
  Tensor weights(DType::kF32, {20, 20});
  const float inf = std::numeric_limits<float>::infinity();
  for (const float lse : {-20.0f, -5000.0f, -3e38f, 5000.0f, inf, -inf, std::nanf("")}) {
    const Trace trace = with(lse);
    const auto error = [&](auto&& work) { return test::error_of(work); };
    EXPECT_NE(
        error([&] { patch(trace, 0, 1, {0, 20}, {0, 20}, weights.view()); }).find("layers.0.lse of head 1, row 3"),
        std::string::npos)
        << lse;
    EXPECT_NE(error([&] { row_sums(trace, 0, 1, {0, 20}); }).find("layers.0.lse of head 1, row 3"), std::string::npos)
        << lse;
    EXPECT_EQ(error([&] { row_sums(trace, 0, 1, {4, 20}); }), "no error");
  }
  // Off by little: sums tell.
  for (const float off : {0.4f, -0.1f}) {
    Trace trace = random_trace({2, 1, 20, 20, 4});
    trace.layers[0].storage[2].as<float>()[20 + 3] += off;
    EXPECT_NE(test::error_of([&] { row_sums(trace, 0, 1, {0, 20}); }).find("layers.0.lse of head 1, row 3"),
              std::string::npos)
        << off;
  }
  // A patch alone tells where a weight leaves 1: here all of row 3 goes to a key, and would be 1.01.
  Trace trace = random_trace({1, 1, 20, 20, 4}, [](Trace& t) { t.scale = 200; });
  float& lse = trace.layers[0].storage[2].as<float>()[3];
  EXPECT_EQ(test::error_of([&] { patch(trace, 0, 0, {0, 20}, {0, 20}, weights.view()); }), "no error");
  lse -= 0.01f;
  EXPECT_NE(test::error_of([&] {
              patch(trace, 0, 0, {0, 20}, {0, 20}, weights.view());
            }).find("layers.0.lse of head 0, row 3"),
            std::string::npos);
}

// More keys and queries than are held at a time, and a query that is not a number.
TEST(PatchTest, PoolsManyKeysAndKeepsWhatIsNoNumber) {
  const std::int64_t queries = 300, keys = 5000, side = 190;
  Trace trace = random_trace({1, 1, queries, keys, 4});
  Tensor all(DType::kF32, {queries, keys});
  patch(trace, 0, 0, {0, queries}, {0, keys}, all.view());
  const Tensor mean = pooled_patch(trace, 0, 0, {5, queries}, {7, keys}, side, Pool::kMean);
  const Tensor max = pooled_patch(trace, 0, 0, {5, queries}, {7, keys}, side, Pool::kMax);
  for (std::int64_t r = 0; r < mean.size(0); ++r) {
    for (std::int64_t c = 0; c < mean.size(1); ++c) {
      double sum = 0, count = 0;
      float largest = 0;
      for (std::int64_t i = 5 + r * side; i < std::min(queries, 5 + (r + 1) * side); ++i) {
        for (std::int64_t j = 7 + c * side; j < std::min(keys, 7 + (c + 1) * side); ++j, ++count) {
          sum += static_cast<double>(all.as<float>()[i * keys + j]);
          largest = std::max(largest, all.as<float>()[i * keys + j]);
        }
      }
      ASSERT_NEAR(mean.as<float>()[r * mean.size(1) + c], sum / count, 1e-9) << r << "," << c;
      ASSERT_EQ(max.as<float>()[r * mean.size(1) + c], largest) << r << "," << c;
    }
  }
  std::fill_n(trace.layers[0].storage[0].as<float>() + 4 * 200, 4, std::nanf(""));
  for (const Pool pool : {Pool::kMean, Pool::kMax}) {
    const Tensor cells = pooled_patch(trace, 0, 0, {0, queries}, {0, 64}, 64, pool);
    for (std::int64_t r = 0; r < cells.size(0); ++r) EXPECT_EQ(std::isnan(cells.as<float>()[r]), r == 3) << r;
  }
}

TEST(PatchTest, RefusesRectanglesThatDoNotFit) {
  const Trace trace = random_trace({2, 1, 20, 30, 4});
  Tensor weights(DType::kF32, {4, 5});
  const auto error = [&](Range rows, Range keys) {
    return test::error_of([&] { patch(trace, 0, 1, rows, keys, weights.view()); });
  };
  EXPECT_EQ(error({2, 6}, {10, 15}), "no error");
  EXPECT_EQ(error({-1, 3}, {0, 5}), "patch: queries -1 to 3 and keys 0 to 5 of a trace of 20 queries and 30 keys");
  EXPECT_EQ(error({17, 21}, {0, 5}), "patch: queries 17 to 21 and keys 0 to 5 of a trace of 20 queries and 30 keys");
  EXPECT_EQ(error({6, 2}, {0, 5}), "patch: queries 6 to 2 and keys 0 to 5 of a trace of 20 queries and 30 keys");
  EXPECT_EQ(error({0, 4}, {26, 31}), "patch: queries 0 to 4 and keys 26 to 31 of a trace of 20 queries and 30 keys");
  EXPECT_EQ(error({0, 4}, {INT64_MIN, INT64_MAX}),
            "patch: queries 0 to 4 and keys -9223372036854775808 to 9223372036854775807 of a trace of 20 queries and "
            "30 keys");
  EXPECT_EQ(error({0, 3}, {0, 5}), "patch: weights is [4,5], F32 [rows,keys] is [3,5]");
  EXPECT_EQ(test::error_of([&] { patch(trace, 2, 0, {0, 4}, {0, 5}, weights.view()); }),
            "patch: there is no head 0 in layer 2 (the trace has 2 layers)");
  EXPECT_EQ(test::error_of([&] { patch(trace, 1, 2, {0, 4}, {0, 5}, weights.view()); }),
            "patch: there is no head 2 in layer 1 (the trace has 2 layers and 2 heads there)");
  EXPECT_EQ(test::error_of([&] { row_sums(trace, 0, 0, {5, 21}); }),
            "row_sums: queries 5 to 21 and keys 0 to 30 of a trace of 20 queries and 30 keys");
  std::vector<float> sums(19);
  EXPECT_EQ(test::error_of([&] {
              patch(trace, 0, 0, {0, 4}, {0, 5}, weights.view(), {.row_sum = ConstTensorView(sums.data(), Dims{19})});
            }),
            "patch: row_sum is [19], F32 [queries] is [20]");
}

}  // namespace
}  // namespace manyheads::lens
