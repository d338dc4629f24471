#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "attention/call.hpp"
#include "kernels/dispatch.hpp"

namespace manyheads::test {
namespace {

struct Rows {
  Rows(std::int64_t rows, std::int64_t size, double mean, double spread)
      : call{},
        x(static_cast<std::size_t>(rows * size)),
        residual(x.size()),
        gamma(static_cast<std::size_t>(size)),
        beta(gamma.size()),
        y(x.size(), 777.0f) {
    std::mt19937_64 engine(static_cast<std::uint64_t>(size));
    std::normal_distribution<double> normal;
    for (float& value : x) value = static_cast<float>(mean + spread * normal(engine));
    for (float& value : residual) value = static_cast<float>(spread * normal(engine));
    for (float& value : gamma) value = static_cast<float>(1 + 0.1 * normal(engine));
    for (float& value : beta) value = static_cast<float>(normal(engine));
    call.x = x.data();
    call.x_stride = call.residual_stride = call.y_stride = call.size = size;
    call.gamma = gamma.data();
    call.beta = beta.data();
    call.y = y.data();
    call.epsilon = 1e-12f;
  }

  // The largest error of row r, in units of 2^-24 of the row's scale.
  double error(std::int64_t r) const {
    const std::size_t size = static_cast<std::size_t>(call.size), from = static_cast<std::size_t>(r) * size;
    std::vector<double> sum(size);
    double mean = 0, variance = 0, largest = 0;
    for (std::size_t i = 0; i < size; ++i) {
      // The sum with the residual is rounded to F32, as the layers around it see it.
      sum[i] = static_cast<double>(call.residual != nullptr ? x[from + i] + residual[from + i] : x[from + i]);
      mean += sum[i] / static_cast<double>(size);
      largest = std::max(largest, std::fabs(sum[i]));
    }
    for (const double value : sum) variance += (value - mean) * (value - mean) / static_cast<double>(size);
    const double inverse = 1 / std::sqrt(variance + static_cast<double>(call.epsilon));
    double worst = 0;
    for (std::size_t i = 0; i < size; ++i) {
      const double want = (sum[i] - mean) * inverse * static_cast<double>(gamma[i]) + static_cast<double>(beta[i]);
      const double scale = largest * inverse + std::fabs(want) + std::fabs(static_cast<double>(beta[i]));
      worst = std::max(worst, std::fabs(static_cast<double>(y[from + i]) - want) / scale / 0x1p-24);
    }
    return worst;
  }

  kernels::NormParams call;
  std::vector<float> x, residual, gamma, beta, y;
};

class LayerNorm : public AtEachIsa {};
MANYHEADS_AT_EACH_ISA(LayerNorm);

TEST_P(LayerNorm, AgreesWithDouble) {
  for (const std::int64_t size : {2, 3, 7, 16, 31, 33, 384, 385, 1024}) {
    for (const double mean : {0.0, 5.0, -100.0}) {
      for (const bool residual : {false, true}) {
        Rows rows(5, size, mean, 2.0);
        if (residual) rows.call.residual = rows.residual.data();
        kernels::active_table().layer_norm(rows.call, 0, 5);
        // Lanes of up to `size` additions, and a few operations on each element.
        const double bound = 12 + static_cast<double>(size) / 8;
        for (std::int64_t r = 0; r < 5; ++r) EXPECT_LE(rows.error(r), bound) << size << " " << mean;
      }
    }
  }
}

TEST_P(LayerNorm, RowsOutsideTheRangeAreLeftAloneAndEachStandsAlone) {
  Rows all(9, 50, 1.0, 1.0), part(9, 50, 1.0, 1.0);
  kernels::active_table().layer_norm(all.call, 0, 9);
  kernels::active_table().layer_norm(part.call, 3, 5);
  for (std::size_t i = 0; i < part.y.size(); ++i) EXPECT_EQ(part.y[i], i / 50 == 3 || i / 50 == 4 ? all.y[i] : 777.0f);
}

TEST_P(LayerNorm, InPlace) {
  Rows apart(4, 37, 1.0, 1.0), in_place(4, 37, 1.0, 1.0);
  kernels::active_table().layer_norm(apart.call, 0, 4);
  in_place.call.y = in_place.x.data();
  kernels::active_table().layer_norm(in_place.call, 0, 4);
  EXPECT_EQ(std::memcmp(in_place.x.data(), apart.y.data(), apart.y.size() * sizeof(float)), 0);
}

TEST_P(LayerNorm, EqualValuesGiveBeta) {
  Rows rows(1, 40, 3.0, 0.0);
  kernels::active_table().layer_norm(rows.call, 0, 1);
  for (std::size_t i = 0; i < 40; ++i) EXPECT_EQ(rows.y[i], rows.beta[i]);
}

TEST(LayerNormBits, AreThoseOfTheFamilyAtEachInstructionSet) {
  for (std::int64_t size = 1; size <= 70; ++size) {
    std::map<std::string, std::vector<float>> first;  // by family
    for (const kernels::KernelTable& table : kernels::available_tables()) {
      Rows rows(3, size, 1.0, 2.0);
      if (size % 2 == 0) rows.call.residual = rows.residual.data();
      table.layer_norm(rows.call, 0, 3);
      const auto [at, is_new] = first.try_emplace(table.bits_of(kernels::Products::kF32), rows.y);
      EXPECT_EQ(std::memcmp(at->second.data(), rows.y.data(), rows.y.size() * sizeof(float)), 0)
          << table.name << ", " << size;
    }
  }
}

}  // namespace
}  // namespace manyheads::test
