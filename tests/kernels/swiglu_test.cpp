#include <gtest/gtest.h>

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

struct Rows {
  Rows(std::int64_t rows, std::int64_t size, double spread, std::int64_t gap = 0)
      : call{},
        stride(static_cast<std::size_t>(size + gap)),
        gate(static_cast<std::size_t>(rows) * stride),
        up(gate.size()),
        y(gate.size(), 777.0f) {
    std::mt19937_64 engine(static_cast<std::uint64_t>(size));
    std::normal_distribution<double> normal;
    for (float& value : gate) value = static_cast<float>(spread * normal(engine));
    for (float& value : up) value = static_cast<float>(normal(engine));
    call.gate = gate.data();
    call.up = up.data();
    call.y = y.data();
    call.x_stride = call.y_stride = size + gap;
    call.size = size;
  }

  kernels::SwiGluParams call;
  std::size_t stride;
  std::vector<float> gate, up, y;
};

class SwiGlu : public AtEachIsa {};
MANYHEADS_AT_EACH_ISA(SwiGlu);

// That of SiLU (math_test.cpp), and a product.
TEST_P(SwiGlu, AgreesWithDouble) {
  for (const std::int64_t size : {1, 2, 3, 7, 16, 31, 33, 64, 1536, 1537}) {
    for (const double spread : {0.01, 1.0, 30.0}) {
      Rows rows(4, size, spread, size % 4);
      kernels::active_table().swiglu(rows.call, 0, 4);
      for (std::size_t i = 0; i < rows.y.size(); ++i) {
        if (i % rows.stride >= static_cast<std::size_t>(size)) {
          EXPECT_EQ(rows.y[i], 777.0f);
          continue;
        }
        const double z = static_cast<double>(rows.gate[i]), up = static_cast<double>(rows.up[i]);
        const double want = z / (1 + std::exp(-z)) * up;
        const bool fused = std::string(kernels::active_table().bits_of(kernels::Products::kF32)) == "f32-fma-1";
        const double bound = (7 + (fused ? 0 : 1 + std::fabs(z))) * 0x1p-24 * std::fabs(want);
        EXPECT_LE(std::fabs(static_cast<double>(rows.y[i]) - want), bound + 0x1p-149 * (1 + std::fabs(up))) << z;
      }
    }
  }
}

TEST_P(SwiGlu, RowsOutsideTheRangeAreLeftAloneAndEachStandsAlone) {
  Rows all(9, 50, 2.0), part(9, 50, 2.0);
  kernels::active_table().swiglu(all.call, 0, 9);
  kernels::active_table().swiglu(part.call, 3, 5);
  for (std::size_t i = 0; i < part.y.size(); ++i) EXPECT_EQ(part.y[i], i / 50 == 3 || i / 50 == 4 ? all.y[i] : 777.0f);
}

TEST_P(SwiGlu, InPlace) {
  for (const bool to_gate : {true, false}) {
    Rows apart(4, 37, 1.0), in_place(4, 37, 1.0);
    kernels::active_table().swiglu(apart.call, 0, 4);
    std::vector<float>& y = to_gate ? in_place.gate : in_place.up;
    in_place.call.y = y.data();
    kernels::active_table().swiglu(in_place.call, 0, 4);
    EXPECT_EQ(std::memcmp(y.data(), apart.y.data(), y.size() * sizeof(float)), 0) << to_gate;
  }
}

TEST_P(SwiGlu, HalvesOfOneRow) {  // gate and up of one projection
  Rows rows(3, 21, 1.0), joined(3, 42, 1.0);
  for (std::size_t i = 0; i < rows.gate.size(); ++i) {
    joined.gate[i / 21 * 42 + i % 21] = rows.gate[i];
    joined.gate[i / 21 * 42 + 21 + i % 21] = rows.up[i];
  }
  joined.call.up = joined.gate.data() + 21;
  joined.call.size = joined.call.y_stride = 21;
  kernels::active_table().swiglu(rows.call, 0, 3);
  kernels::active_table().swiglu(joined.call, 0, 3);
  EXPECT_EQ(std::memcmp(joined.y.data(), rows.y.data(), rows.y.size() * sizeof(float)), 0);
}

TEST_P(SwiGlu, NotFinite) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  Rows rows(1, 5, 1.0);
  rows.gate = {kInfinity, -kInfinity, std::numeric_limits<float>::quiet_NaN(), -200.0f, 1.0f};
  rows.up = {-2.0f, 1.0f, 1.0f, 3.0f, kInfinity};
  kernels::active_table().swiglu(rows.call, 0, 1);
  EXPECT_EQ(rows.y[0], -kInfinity);
  EXPECT_TRUE(std::isnan(rows.y[1]));
  EXPECT_TRUE(std::isnan(rows.y[2]));
  EXPECT_EQ(rows.y[3], 0.0f);
  EXPECT_TRUE(std::signbit(rows.y[3]));
  EXPECT_EQ(rows.y[4], kInfinity);
}

TEST(SwiGluBits, AreThoseOfTheFamilyAtEachInstructionSet) {
  for (std::int64_t size = 1; size <= 70; ++size) {
    std::map<std::string, std::vector<float>> first;  // by family
    for (const kernels::KernelTable& table : kernels::available_tables()) {
      Rows rows(3, size, 20.0);
      table.swiglu(rows.call, 0, 3);
      const auto [at, is_new] = first.try_emplace(table.bits_of(kernels::Products::kF32), rows.y);
      EXPECT_EQ(std::memcmp(at->second.data(), rows.y.data(), rows.y.size() * sizeof(float)), 0)
          << table.name << ", " << size;
    }
  }
}

}  // namespace
}  // namespace manyheads::test
