#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <manyheads/cpu.hpp>
#include <manyheads/error.hpp>
#include <manyheads/lens/head_map.hpp>
#include <manyheads/lens/patch.hpp>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "lens/full_matrix.hpp"
#include "support.hpp"

namespace manyheads::lens {
namespace {

double cell(const Tensor& tensor, std::int64_t r, std::int64_t c) {
  return static_cast<double>(tensor.as<float>()[r * tensor.size(1) + c]);
}

// Every level against the full matrix, of rows 0, step, 2 step and so on.
void expect_pyramid(const std::string& kind, const HeadMap& map, const FullMatrix& full, std::int64_t queries) {
  std::int64_t side = 64;
  for (const PyramidLevel& level : map.levels) {
    ASSERT_EQ(level.side, side);
    ASSERT_EQ(level.rows(), (queries + side - 1) / side);
    ASSERT_EQ(level.keys(), (full.keys + side - 1) / side);
    for (std::int64_t r = 0; r < level.rows(); ++r) {
      for (std::int64_t c = 0; c < level.keys(); ++c) {
        double sum = 0, largest = 0, bound = 0;
        std::int64_t count = 0;
        for (std::int64_t i = r * side; i < std::min(queries, (r + 1) * side); i += map.row_step) {
          bound = std::max(bound, full.bound(i));
          for (std::int64_t j = c * side; j < std::min(full.keys, (c + 1) * side); ++j, ++count) {
            sum += full.at(i, j);
            largest = std::max(largest, full.at(i, j));
          }
        }
        ASSERT_NEAR(cell(level.max, r, c), largest, bound) << kind << " side " << side << " at " << r << "," << c;
        if (map.row_step != 1 && side > 64) continue;  // its edges weigh by the places of all rows
        ASSERT_NEAR(cell(level.mean, r, c), sum / static_cast<double>(count), bound) << kind << " side " << side;
      }
    }
    side *= 2;
  }
  EXPECT_EQ(map.levels.back().rows() * map.levels.back().keys(), 1);
}

void expect_tracks(const std::string& kind, const Tracks& tracks, const FullMatrix& full, const Trace& trace) {
  const std::int64_t queries = trace.num_queries(), diagonal = tracks.first_distance + full.keys - 1;
  EXPECT_EQ(diagonal, trace.alignment == Alignment::kBottomRight ? trace.key_length - queries : 0);
  const double bound = *std::max_element(full.bounds.begin(), full.bounds.end());
  double mass = 0, sum = 0, squares = 0;
  std::vector<double> distances(static_cast<std::size_t>(queries + full.keys - 1));
  for (std::int64_t j = 0; j < full.keys; ++j) {
    double column = 0;
    for (std::int64_t i = 0; i < queries; ++i) {
      const double p = full.at(i, j), distance = static_cast<double>(i + diagonal - j);
      column += p;
      distances[static_cast<std::size_t>(i - j + full.keys - 1)] += p;
      mass += p, sum += p * distance, squares += p * distance * distance;
    }
    ASSERT_NEAR(tracks.column_mass[static_cast<std::size_t>(j)], column, bound * static_cast<double>(queries) / 8)
        << kind << " key " << j;
  }
  ASSERT_EQ(tracks.distance_mass.size(), distances.size());
  for (std::size_t a = 0; a < distances.size(); ++a) {
    ASSERT_NEAR(tracks.distance_mass[a], distances[a], bound * static_cast<double>(queries) / 8) << kind << " " << a;
  }
  const double mean = mass > 0 ? sum / mass : 0;
  EXPECT_NEAR(tracks.distance_mean, mean, 1e-3) << kind;
  EXPECT_NEAR(tracks.distance_variance, mass > 0 ? squares / mass - mean * mean : 0, 0.1) << kind;
  for (std::int64_t i = 0; i < queries; ++i) {
    double entropy = 0;
    std::vector<double> row;
    for (std::int64_t j = 0; j < full.keys; ++j) {
      const double p = full.at(i, j);
      if (p > 0) entropy -= p * std::log(p);
      row.push_back(p);
    }
    ASSERT_NEAR(tracks.entropy[static_cast<std::size_t>(i)], entropy, 20 * full.bound(i)) << kind << " row " << i;
    std::sort(row.begin(), row.end(), std::greater<>());
    const std::int64_t top = tracks.top_keys.size(1);
    for (std::int64_t n = 0; n < top; ++n) {
      const std::int64_t key = tracks.top_keys.as<std::int64_t>()[i * top + n];
      const double weight = static_cast<double>(tracks.top_weights.as<float>()[i * top + n]);
      const double expected = n < full.keys ? row[static_cast<std::size_t>(n)] : 0;
      ASSERT_NEAR(weight, expected, full.bound(i)) << kind << " row " << i << " place " << n;
      ASSERT_NEAR(key < 0 ? 0 : full.at(i, key), expected, 2 * full.bound(i)) << kind << " row " << i;
    }
  }
}

TEST(HeadMapTest, PoolsTheFullMatrixOfEveryKind) {
  for (const Shape& shape : {Shape{4, 2, 200, 200, 16}, Shape{2, 1, 70, 290, 33}, Shape{1, 1, 300, 65, 8}}) {
    for (auto& [kind, trace] : every_kind(shape)) {
      const FullMatrix full(trace, 1, shape.heads - 1);
      const std::optional<HeadMap> map = map_head(trace, 1, shape.heads - 1, {.threads = {.num_threads = 2}});
      ASSERT_TRUE(map) << kind;
      EXPECT_EQ(map->row_step, 1);
      expect_pyramid(kind, *map, full, shape.queries);
      expect_tracks(kind, *map->tracks, full, trace);
      const std::vector<float> sums = row_sums(trace, 1, shape.heads - 1, {0, shape.queries});
      for (std::size_t i = 0; i < sums.size(); ++i) EXPECT_EQ(map->row_sum[i], sums[i]) << kind << ", row " << i;
    }
  }
}

// mean x count keeps the mass of each row of cells, at every level.
TEST(HeadMapTest, KeepsEachRowsMass) {
  for (auto& [kind, trace] : every_kind({2, 1, 333, 333, 16})) {
    const FullMatrix full(trace, 0, 0);
    const HeadMap map = *map_head(trace, 0, 0);
    for (const PyramidLevel& level : map.levels) {
      for (std::int64_t r = 0; r < level.rows(); ++r) {
        const std::int64_t rows = std::min<std::int64_t>(level.side, 333 - r * level.side);
        double mass = 0, expected = 0;
        for (std::int64_t c = 0; c < level.keys(); ++c) {
          mass += cell(level.mean, r, c) *
                  static_cast<double>(rows * std::min<std::int64_t>(level.side, 333 - c * level.side));
        }
        for (std::int64_t i = r * level.side; i < r * level.side + rows; ++i) {
          for (std::int64_t j = 0; j < 333; ++j) expected += full.at(i, j);
        }
        EXPECT_NEAR(mass / static_cast<double>(rows), expected / static_cast<double>(rows), 1e-4) << kind;
      }
    }
  }
}

TEST(HeadMapTest, ACoarseOneReadsEveryEighthRowAndSaysSo) {
  for (auto& [kind, trace] : every_kind({2, 1, 700, 700, 8})) {
    const FullMatrix full(trace, 0, 1);
    const HeadMap map = *map_head(trace, 0, 1, {.coarse = true});
    EXPECT_EQ(map.row_step, 8);
    EXPECT_FALSE(map.tracks);
    EXPECT_TRUE(map.row_sum.empty());
    expect_pyramid(kind, map, full, 700);
  }
}

TEST(HeadMapTest, TheSameBitsForAnyNumberOfThreads) {
  for (auto& [kind, trace] : every_kind({2, 1, 500, 500, 16})) {
    const HeadMap one = *map_head(trace, 0, 1, {.threads = {.num_threads = 1}});
    for (const int threads : {2, 5}) {
      const HeadMap other = *map_head(trace, 0, 1, {.threads = {.num_threads = threads}});
      const auto same = [](const Tensor& a, const Tensor& b) {
        return std::memcmp(a.cview().data(), b.cview().data(),
                           static_cast<std::size_t>(a.elements()) * size_of(a.dtype())) == 0;
      };
      for (std::size_t l = 0; l < one.levels.size(); ++l) {
        EXPECT_TRUE(same(one.levels[l].mean, other.levels[l].mean)) << kind;
        EXPECT_TRUE(same(one.levels[l].max, other.levels[l].max)) << kind;
      }
      EXPECT_EQ(one.tracks->column_mass, other.tracks->column_mass) << kind;
      EXPECT_EQ(one.tracks->entropy, other.tracks->entropy) << kind;
      EXPECT_EQ(one.tracks->distance_mass, other.tracks->distance_mass) << kind;
      EXPECT_TRUE(same(one.tracks->top_weights, other.tracks->top_weights)) << kind;
      EXPECT_TRUE(same(one.tracks->top_keys, other.tracks->top_keys)) << kind;
      EXPECT_EQ(one.row_sum, other.row_sum) << kind;
    }
  }
}

// The instruction sets of one family give the bits of the best; the others hold the bounds.
TEST(HeadMapTest, EachInstructionSetGivesItsFamilysBits) {
  const auto numbers = [](const Tensor& tensor) {
    return std::vector<float>(tensor.as<float>(), tensor.as<float>() + tensor.elements());
  };
  for (auto& [kind, trace] : every_kind({2, 1, 130, 171, 33})) {
    const FullMatrix full(trace, 0, 1);
    std::map<std::string, std::vector<std::vector<float>>> of_family;
    for (const std::string& isa : available_isas()) {
      set_isa(isa);
      const HeadMap map = *map_head(trace, 0, 1);
      expect_pyramid(kind + " at " + isa, map, full, 130);
      expect_tracks(kind + " at " + isa, *map.tracks, full, trace);
      Tensor weights(DType::kF32, {130, 171});
      patch(trace, 0, 1, {0, 130}, {0, 171}, weights.view(),
            {.row_sum = ConstTensorView(map.row_sum.data(), Dims{130})});
      for (std::int64_t i = 0; i < 130 * 171; ++i) {
        ASSERT_NEAR(weights.as<float>()[i], full.at(i / 171, i % 171), full.bound(i / 171)) << kind << " at " << isa;
      }
      std::vector<std::vector<float>> found = {numbers(weights), map.row_sum, numbers(map.tracks->top_weights)};
      for (const PyramidLevel& level : map.levels)
        found.push_back(numbers(level.mean)), found.push_back(numbers(level.max));
      for (const std::vector<double>& track :
           {map.tracks->column_mass, map.tracks->distance_mass, map.tracks->entropy}) {
        found.emplace_back(track.begin(), track.end());
      }
      const auto [first, added] = of_family.try_emplace(active_bits(DType::kF32), found);
      EXPECT_EQ(first->second, found) << kind << " at " << isa;
    }
    set_isa("");
  }
}

TEST(HeadMapTest, TellsProgressAndCanBeCancelled) {
  const Trace trace = random_trace({1, 1, 1000, 200, 8});
  std::vector<double> told;
  const auto all = map_head(trace, 0, 0,
                            {.progress =
                                 [&](double done) {
                                   told.push_back(done);
                                   return true;
                                 },
                             .threads = {.num_threads = 3}});
  ASSERT_TRUE(all);
  EXPECT_EQ(told.size(), 16u);
  EXPECT_TRUE(std::is_sorted(told.begin(), told.end()));
  EXPECT_EQ(told.back(), 1.0);
  int calls = 0;
  EXPECT_FALSE(map_head(trace, 0, 0, {.progress = [&](double) { return ++calls < 3; }, .threads = {.num_threads = 3}}));
  EXPECT_EQ(calls, 3);
}

// Scores around 5,000, whose lse no shift in F32 bears: such rows are computed whole, and enter every track.
TEST(HeadMapTest, RowsThatAreComputedWholeEnterEveryTrack) {
  const std::int64_t queries = 90, keys = 130, top = 5;
  const Trace trace = random_trace({1, 1, queries, keys, 8}, [&](Trace& t) {
    for (std::int64_t i = 0; i < queries; ++i) t.layers[0].storage[0].as<float>()[i * 8] = 2;
    for (std::int64_t j = 0; j < keys; ++j) t.layers[0].storage[1].as<float>()[j * 8] = 5000;
  });
  Tensor whole(DType::kF32, {queries, keys});
  trace_weights(trace, 0, 0, whole.view());
  const auto at = [&](std::int64_t i, std::int64_t j) { return static_cast<double>(whole.as<float>()[i * keys + j]); };
  const HeadMap map = *map_head(trace, 0, 0, {.top = top});
  const Tracks& tracks = *map.tracks;
  std::vector<double> columns(keys), distances(queries + keys - 1);
  for (std::int64_t i = 0; i < queries; ++i) {
    double entropy = 0;
    std::vector<std::int64_t> order(keys);
    for (std::int64_t j = 0; j < keys; ++j) {
      columns[static_cast<std::size_t>(j)] += at(i, j);
      distances[static_cast<std::size_t>(i - j + keys - 1)] += at(i, j);
      entropy -= at(i, j) > 0 ? at(i, j) * std::log(at(i, j)) : 0;
      order[static_cast<std::size_t>(j)] = j;
    }
    EXPECT_GT(entropy, 0.5);
    EXPECT_NEAR(tracks.entropy[static_cast<std::size_t>(i)], entropy, 1e-6) << i;
    std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) { return at(i, a) > at(i, b); });
    for (std::int64_t n = 0; n < top; ++n) {
      const std::int64_t key = order[static_cast<std::size_t>(n)];
      EXPECT_EQ(tracks.top_keys.as<std::int64_t>()[i * top + n], key) << i << " " << n;
      EXPECT_EQ(tracks.top_weights.as<float>()[i * top + n], static_cast<float>(at(i, key))) << i << " " << n;
    }
  }
  for (std::size_t j = 0; j < columns.size(); ++j) EXPECT_NEAR(tracks.column_mass[j], columns[j], 1e-5) << j;
  for (std::size_t d = 0; d < distances.size(); ++d) EXPECT_NEAR(tracks.distance_mass[d], distances[d], 1e-5) << d;
  // Of equal weights the first keys.
  const Trace even = random_trace({1, 1, 3, 20, 4}, [](Trace& t) {
    std::fill_n(t.layers[0].storage[0].as<float>(), 3 * 4, 100.0f);
    std::fill_n(t.layers[0].storage[1].as<float>(), 20 * 4, 100.0f);
  });
  const HeadMap first = *map_head(even, 0, 0, {.top = 4});
  for (std::int64_t n = 0; n < 12; ++n) EXPECT_EQ(first.tracks->top_keys.as<std::int64_t>()[n], n % 4) << n;
}

TEST(HeadMapTest, AForeignLseIsAnError) {
  const float inf = std::numeric_limits<float>::infinity();
  for (const float lse : {0.0f, -20.0f, 100.0f, -5000.0f, inf, -inf, std::nanf("")}) {
    Trace trace = random_trace({2, 1, 200, 200, 4});
    trace.layers[0].storage[2].as<float>()[200 + 130] = lse;
    EXPECT_NE(test::error_of([&] { map_head(trace, 0, 1); }).find("layers.0.lse of head 1, row 130"), std::string::npos)
        << lse;
    EXPECT_EQ(test::error_of([&] { map_head(trace, 0, 0); }), "no error");
  }
  // Off by little too: every weight would be a third too small, or a tenth too large.
  for (const float off : {0.4f, -0.1f}) {
    Trace trace = random_trace({2, 1, 200, 200, 4});
    trace.layers[0].storage[2].as<float>()[200 + 130] += off;
    EXPECT_NE(test::error_of([&] { map_head(trace, 0, 1); }).find("layers.0.lse of head 1, row 130"), std::string::npos)
        << off;
  }
}

// A row_sum that another program made up is not believed.
TEST(HeadMapTest, AWrongRowSumChangesNothing) {
  Trace trace = random_trace({2, 1, 200, 200, 4});
  const HeadMap right = *map_head(trace, 0, 1);
  Tensor sums(DType::kF32, {2, 200});
  std::fill_n(sums.as<float>(), 400, 1.7f);
  sums.as<float>()[200 + 9] = 0;
  add(trace.layers[0], &TraceLayer::row_sum, sums);
  const HeadMap map = *map_head(trace, 0, 1);
  for (std::int64_t i = 0; i < 16; ++i) {
    EXPECT_NEAR(map.levels[0].mean.as<float>()[i], right.levels[0].mean.as<float>()[i], 1e-8);
  }
  for (std::size_t i = 0; i < 200; ++i) {
    EXPECT_NEAR(map.tracks->column_mass[i], right.tracks->column_mass[i], 1e-6);
    EXPECT_EQ(map.row_sum[i], right.row_sum[i]) << i;
  }
}

TEST(HeadMapTest, ExtremeAndEmptyHeads) {
  for (const double scale : {300.0, 1e6, 1e12, 1e30}) {
    const Trace trace = random_trace({2, 1, 90, 90, 8}, [&](Trace& t) { t.scale = scale; });
    const HeadMap map = *map_head(trace, 0, 1);
    double mass = 0;
    for (const double column : map.tracks->column_mass) mass += column;
    EXPECT_NEAR(mass, 90, 1e-3) << scale;
    EXPECT_LT(map.tracks->entropy[7], 1) << scale;
  }
  const auto error = [](const Trace& trace) { return test::error_of([&] { map_head(trace, 0, 0); }); };
  EXPECT_EQ(error(random_trace({1, 1, 0, 5, 4})), "map_head: a trace of 0 queries and 5 keys has no map");
  EXPECT_EQ(error(random_trace({1, 1, 5, 0, 4})), "map_head: a trace of 5 queries and 0 keys has no map");
  EXPECT_EQ(error(Trace{}), "map_head: there is no head 0 in layer 0 (the trace has 0 layers)");
  const Trace nan = random_trace(
      {1, 1, 5, 5, 4}, [](Trace& t) { std::fill_n(t.layers[0].storage[0].as<float>() + 8, 4, std::nanf("")); });
  EXPECT_EQ(error(nan), "map_head: the weights of layer 0, head 0, row 2 are not numbers");
  EXPECT_EQ(test::error_of([] { map_head(random_trace({}), 0, 0, {.top = -1}); }),
            "map_head: top is -1, expected 0 or more");
}

}  // namespace
}  // namespace manyheads::lens
