#include "lens/components.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <manyheads/cpu.hpp>
#include <random>
#include <vector>

#include "kernels/dispatch.hpp"
#include "kernels/score_pass.hpp"

namespace manyheads::lens {
namespace {

void add(Moments& moments, const std::vector<float>& rows, std::int64_t stride) {
  const std::int64_t d = moments.size(), count = static_cast<std::int64_t>(rows.size()) / stride;
  std::vector<double> wide(static_cast<std::size_t>(kernels::kProductRows * d));
  kernels::score_pass_kernels(kernels::active_table())
      .add_products(rows.data(), stride, count, d, moments.sum.data(), moments.products.data(), wide.data());
  moments.count += count;
}

TEST(Components, OfAKnownEllipse) {
  // 5 + 3 a along (3, 4) / 5 and b along (-4, 3) / 5, for a and b of variance 1.
  Moments moments(2);
  std::vector<float> rows;
  for (const double a : {-1.0, 1.0}) {
    for (const double b : {-1.0, 1.0}) {
      rows.push_back(static_cast<float>(5 + 3 * a * 0.6 - b * 0.8));
      rows.push_back(static_cast<float>(5 + 3 * a * 0.8 + b * 0.6));
    }
  }
  add(moments, rows, 2);
  const Components found = principal_components(moments, 8);
  ASSERT_EQ(found.variance.size(), 2u);
  EXPECT_NEAR(found.mean[0], 5, 1e-6);
  EXPECT_NEAR(found.variance[0], 9, 1e-5);
  EXPECT_NEAR(found.variance[1], 1, 1e-5);
  EXPECT_NEAR(found.total_variance, 10, 1e-5);
  EXPECT_NEAR(found.vectors[0], 0.6, 1e-6);
  EXPECT_NEAR(found.vectors[1], 0.8, 1e-6);
  EXPECT_NEAR(found.vectors[2], 0.8, 1e-6);  // the entry of largest magnitude is positive
  EXPECT_NEAR(found.vectors[3], -0.6, 1e-6);
}

TEST(Components, AreEigenvectorsOnEachInstructionSet) {
  const std::string before = active_isa();
  for (const std::string& isa : available_isas()) {
    set_isa(isa);
    for (const std::int64_t d : {1, 3, 8, 13, 32, 64}) {
      std::mt19937 random(11);
      std::normal_distribution<float> normal(0.3f, 1.0f);
      const std::int64_t rows = 77, stride = d + 5;
      std::vector<float> x(static_cast<std::size_t>(rows * stride));
      for (float& value : x) value = normal(random);
      Moments moments(d);
      add(moments, x, stride);
      std::vector<double> mean(static_cast<std::size_t>(d)), covariance(static_cast<std::size_t>(d * d));
      const auto at = [&](std::int64_t r, std::int64_t i) { return static_cast<double>(x[static_cast<std::size_t>(r * stride + i)]); };
      for (std::int64_t i = 0; i < d; ++i) {
        for (std::int64_t r = 0; r < rows; ++r) mean[static_cast<std::size_t>(i)] += at(r, i) / rows;
      }
      for (std::int64_t i = 0; i < d; ++i) {
        for (std::int64_t j = 0; j < d; ++j) {
          for (std::int64_t r = 0; r < rows; ++r) {
            covariance[static_cast<std::size_t>(i * d + j)] +=
                (at(r, i) - mean[static_cast<std::size_t>(i)]) * (at(r, j) - mean[static_cast<std::size_t>(j)]) / rows;
          }
        }
      }
      const Components found = principal_components(moments, 8);
      for (std::size_t c = 0; c < found.variance.size(); ++c) {
        if (c > 0) {
          EXPECT_LE(found.variance[c], found.variance[c - 1]);
        }
        const double* const vector = found.vectors.data() + c * static_cast<std::size_t>(d);
        EXPECT_GT(*std::max_element(vector, vector + d, [](double a, double b) { return std::fabs(a) < std::fabs(b); }), 0);
        double length = 0;
        for (std::int64_t i = 0; i < d; ++i) {
          double product = 0;
          for (std::int64_t j = 0; j < d; ++j) product += covariance[static_cast<std::size_t>(i * d + j)] * vector[j];
          EXPECT_NEAR(product, found.variance[c] * vector[i], 1e-10) << isa << " " << d << " " << c;
          length += vector[i] * vector[i];
        }
        EXPECT_NEAR(length, 1, 1e-12);
      }
    }
  }
  set_isa(before);
}

TEST(Components, OfNothingAreZero) {
  const Components found = principal_components(Moments(4), 8);
  EXPECT_EQ(found.variance, std::vector<double>(4));
  EXPECT_EQ(found.total_variance, 0);
}

}  // namespace
}  // namespace manyheads::lens
