#include "lens/score_sketch.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <manyheads/error.hpp>
#include <numeric>
#include <random>
#include <vector>

namespace manyheads::lens {
namespace {

ScoreSketch sketch_of(const std::vector<double>& values) {
  ScoreSketch sketch;
  for (const double value : values) sketch.add(value);
  return sketch;
}

std::vector<double> random_values(double scale, std::size_t count) {
  std::mt19937 random(3);
  std::normal_distribution<double> normal(0, scale);
  std::vector<double> values(count);
  for (double& value : values) value = normal(random);
  return values;
}

TEST(ScoreSketch, QuantilesAreOffByLessThanTheWidthOfABin) {
  for (const double scale : {1e-3, 0.2, 5.0, 1e6}) {
    std::vector<double> values = random_values(scale, 1237);
    const ScoreSketch sketch = sketch_of(values);
    std::sort(values.begin(), values.end());
    EXPECT_LE(sketch.bin_width(), std::max(0x1p-12, 2 * std::max(-values.front(), values.back()) / 4096)) << scale;
    for (std::int64_t d = 1; d < 10; ++d) {
      const double exact = values[(values.size() * static_cast<std::size_t>(d) + 9) / 10 - 1];
      EXPECT_LT(std::fabs(sketch.quantile(d, 10) - exact), sketch.bin_width()) << scale << " " << d;
    }
    EXPECT_EQ(sketch.min(), values.front());
    EXPECT_EQ(sketch.max(), values.back());
    EXPECT_EQ(sketch.quantile(10, 10), values.back());
  }
}

TEST(ScoreSketch, IsExactWhereAllValuesAreOne) {
  for (const double value : {0.0, 1.0, -0.3, 7.5}) {
    const ScoreSketch sketch = sketch_of({value, value, value});
    EXPECT_EQ(sketch.quantile(1, 10), value);
    EXPECT_EQ(sketch.quantile(9, 10), value);
    EXPECT_EQ(sketch.mean(), value);
  }
}

TEST(ScoreSketch, HasTheSameBinsInAnyOrder) {
  std::vector<double> values = random_values(3, 999);
  for (int i = 0; i <= 64; ++i) values.push_back(i / 8.0);  // ends of bins at every width
  const ScoreSketch sketch = sketch_of(values);
  std::shuffle(values.begin(), values.end(), std::mt19937(5));
  const ScoreSketch other = sketch_of(values);
  EXPECT_EQ(sketch.bin_width(), other.bin_width());
  EXPECT_EQ(sketch.histogram().counts, other.histogram().counts);
  for (std::int64_t d = 0; d <= 20; ++d) EXPECT_EQ(sketch.quantile(d, 20), other.quantile(d, 20));
}

TEST(ScoreSketch, ItsHistogramCountsEachValueInItsPart) {
  const ScoreSketch above = sketch_of({0, 1.0 / 64, 1.0 / 64 + 1e-9, 1.0});
  EXPECT_EQ(above.histogram().first, 0);
  EXPECT_EQ(above.histogram().last, 1);
  EXPECT_EQ(above.histogram().counts[0], 2);
  EXPECT_EQ(above.histogram().counts[1], 1);
  EXPECT_EQ(above.histogram().counts[63], 1);
  const ScoreSketch both = sketch_of({-1.0, -0.01, 0.5});
  EXPECT_EQ(both.histogram().first, -1);
  EXPECT_EQ(both.histogram().counts[0], 1);
  EXPECT_EQ(both.histogram().counts[31], 1);
  EXPECT_EQ(both.histogram().counts[47], 1);
}

TEST(ScoreSketch, RefusesWhatIsNoScore) {
  ScoreSketch sketch;
  for (const double value : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(), -0x1p64}) {
    EXPECT_THROW(sketch.add(value), Error) << value;
  }
  EXPECT_EQ(sketch.count(), 0);
}

TEST(ScoreSketch, GoesOnFromItsState) {
  const std::vector<double> values = random_values(2, 500);
  ScoreSketch first = sketch_of({values.begin(), values.begin() + 200});
  double numbers[ScoreSketch::kStateValues];
  std::int64_t count = 0;
  std::vector<std::int32_t> above(ScoreSketch::kBins), below(ScoreSketch::kBins);
  first.save(numbers, &count, above.data(), below.data());
  ScoreSketch second;
  ASSERT_TRUE(second.restore(numbers, count, above.data(), below.data()));
  for (std::size_t i = 200; i < values.size(); ++i) second.add(values[i]);
  const ScoreSketch whole = sketch_of(values);
  EXPECT_EQ(second.mean(), whole.mean());
  EXPECT_EQ(second.histogram().counts, whole.histogram().counts);
  EXPECT_EQ(second.quantile(3, 10), whole.quantile(3, 10));

  EXPECT_FALSE(ScoreSketch().restore(numbers, count + 1, above.data(), below.data()));
  EXPECT_FALSE(ScoreSketch().restore(numbers, count, above.data(), nullptr));
  above[7] = -1;
  EXPECT_FALSE(ScoreSketch().restore(numbers, count, above.data(), below.data()));
  numbers[0] = 4000;
  EXPECT_FALSE(ScoreSketch().restore(numbers, count, above.data(), below.data()));
}

}  // namespace
}  // namespace manyheads::lens
