#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "attention/call.hpp"
#include "kernels/dispatch.hpp"

namespace manyheads::test {
namespace {

// Rows `gap` elements apart, whose gaps hold 777.
struct Rows {
  Rows(std::int64_t rows, std::int64_t size, double spread, std::int64_t gap = 0)
      : call{},
        stride(static_cast<std::size_t>(size + gap)),
        x(static_cast<std::size_t>(rows) * stride),
        residual(x.size()),
        sum(x.size(), 777.0f),
        gamma(static_cast<std::size_t>(size)),
        y(x.size(), 777.0f) {
    std::mt19937_64 engine(static_cast<std::uint64_t>(size));
    std::normal_distribution<double> normal;
    for (float& value : x) value = static_cast<float>(spread * normal(engine));
    for (float& value : residual) value = static_cast<float>(spread * normal(engine));
    for (float& value : gamma) value = static_cast<float>(normal(engine));
    call.x = x.data();
    call.gamma = gamma.data();
    call.y = y.data();
    call.x_stride = call.residual_stride = call.sum_stride = call.y_stride = size + gap;
    call.size = size;
    call.epsilon = 1e-5f;
  }
  Rows& add_residual() {
    call.residual = residual.data();
    call.sum = sum.data();
    return *this;
  }

  // The largest relative error of row r, in units of 2^-24.
  double error(std::int64_t r) const {
    const std::size_t size = static_cast<std::size_t>(call.size), from = static_cast<std::size_t>(r) * stride;
    std::vector<double> z(size);
    double squares = 0;
    for (std::size_t i = 0; i < size; ++i) {
      // The sum with the residual is rounded to F32.
      z[i] = static_cast<double>(call.residual != nullptr ? x[from + i] + residual[from + i] : x[from + i]);
      if (call.residual != nullptr) {
        EXPECT_EQ(static_cast<double>(sum[from + i]), z[i]);
      }
      squares += z[i] * z[i];
    }
    const double root = std::sqrt(squares / static_cast<double>(size) + static_cast<double>(call.epsilon));
    double worst = 0;
    for (std::size_t i = 0; i < size; ++i) {
      const double want = z[i] / root * static_cast<double>(gamma[i]);
      worst = std::max(worst, std::fabs(static_cast<double>(y[from + i]) - want) / std::fabs(want) / 0x1p-24);
    }
    return worst;
  }

  kernels::RmsNormParams call;
  std::size_t stride;
  std::vector<float> x, residual, sum, gamma, y;
};

// Roundings on the way of a square to the sum: a lane's chain, four halvings and the rest; or the rest's own chain.
// Then the mean and epsilon; the root halves all of them. Root, inverse and two products follow.
double bound(std::int64_t size) {
  const std::int64_t chain = std::max(size / 16 + 4, size % 16 + 1) + 1;
  return static_cast<double>(chain + 2) / 2 + 4;
}

class RmsNorm : public AtEachIsa {};
MANYHEADS_AT_EACH_ISA(RmsNorm);

TEST_P(RmsNorm, AgreesWithDouble) {
  for (const std::int64_t size : {1, 2, 3, 7, 16, 31, 33, 64, 385, 576, 4099}) {
    for (const double spread : {1e-4, 1.0, 3e4}) {
      for (const bool residual : {false, true}) {
        Rows rows(5, size, spread, size % 3);
        if (residual) rows.add_residual();
        kernels::active_table().rms_norm(rows.call, 0, 5);
        for (std::int64_t r = 0; r < 5; ++r) EXPECT_LE(rows.error(r), bound(size)) << size << " " << spread;
        for (std::size_t i = 0; i < rows.y.size(); ++i) {
          if (i % rows.stride < rows.gamma.size()) continue;
          EXPECT_EQ(rows.y[i], 777.0f);
          EXPECT_EQ(rows.sum[i], 777.0f);
        }
      }
    }
  }
}

TEST_P(RmsNorm, RowsOutsideTheRangeAreLeftAloneAndEachStandsAlone) {
  Rows all(9, 50, 1.0), part(9, 50, 1.0);
  kernels::active_table().rms_norm(all.add_residual().call, 0, 9);
  kernels::active_table().rms_norm(part.add_residual().call, 3, 5);
  for (std::size_t i = 0; i < part.y.size(); ++i) {
    const bool inside = i / 50 == 3 || i / 50 == 4;
    EXPECT_EQ(part.y[i], inside ? all.y[i] : 777.0f);
    EXPECT_EQ(part.sum[i], inside ? all.sum[i] : 777.0f);
  }
}

TEST_P(RmsNorm, TheSumMayBeX) {
  Rows apart(4, 37, 1.0), in_place(4, 37, 1.0);
  kernels::active_table().rms_norm(apart.add_residual().call, 0, 4);
  in_place.add_residual().call.sum = in_place.x.data();
  kernels::active_table().rms_norm(in_place.call, 0, 4);
  EXPECT_EQ(std::memcmp(in_place.x.data(), apart.sum.data(), apart.sum.size() * sizeof(float)), 0);
  EXPECT_EQ(std::memcmp(in_place.y.data(), apart.y.data(), apart.y.size() * sizeof(float)), 0);
}

TEST_P(RmsNorm, ZerosStayZerosAndNaNFillsItsRowAlone) {
  Rows rows(3, 35, 1.0);
  std::fill_n(rows.x.begin(), 35, 0.0f);
  rows.x[35 + 34] = std::numeric_limits<float>::quiet_NaN();
  kernels::active_table().rms_norm(rows.call, 0, 3);
  for (std::size_t i = 0; i < 35; ++i) {
    EXPECT_EQ(rows.y[i], 0.0f);
    EXPECT_TRUE(std::isnan(rows.y[35 + i]));
    EXPECT_TRUE(std::isfinite(rows.y[70 + i]));
  }
}

TEST(RmsNormBits, AreThoseOfTheFamilyAtEachInstructionSet) {
  for (std::int64_t size = 1; size <= 70; ++size) {
    std::map<std::string, std::vector<float>> first;  // by family
    for (const kernels::KernelTable& table : kernels::available_tables()) {
      Rows rows(3, size, 2.0);
      if (size % 2 == 0) rows.add_residual();
      table.rms_norm(rows.call, 0, 3);
      const auto [at, is_new] = first.try_emplace(table.bits_of(kernels::Products::kF32), rows.y);
      EXPECT_EQ(std::memcmp(at->second.data(), rows.y.data(), rows.y.size() * sizeof(float)), 0)
          << table.name << ", " << size;
    }
  }
}

}  // namespace
}  // namespace manyheads::test
