#include "layer/linear.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <manyheads/cpu.hpp>
#include <manyheads/error.hpp>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "allocations.hpp"
#include "attention/call.hpp"
#include "base/aligned_buffer.hpp"
#include "kernels/dispatch.hpp"

namespace manyheads::test {
namespace {

using layer::Activation;
using layer::Linear;

constexpr const char* kByTiles = "f32-tiles-1";

// At each instruction set, and where it has tiles once more with F32 through them.
class LinearLayer : public testing::TestWithParam<std::pair<std::string, bool>> {
 protected:
  void SetUp() override {
    set_isa(GetParam().first);
    if (GetParam().second) by_tiles_.emplace(kernels::table_with("LinearLayer", kByTiles, kernels::Products::kF32));
  }
  void TearDown() override {
    by_tiles_.reset();
    set_isa("");
  }

 private:
  std::optional<kernels::TableScope> by_tiles_;
};

std::vector<std::pair<std::string, bool>> isas_and_tiles() {
  std::vector<std::pair<std::string, bool>> list;
  for (const std::string& isa : available_isas()) list.emplace_back(isa, false);
  for (const std::string& isa : isas_with_tiles()) list.emplace_back(isa, true);
  return list;
}
INSTANTIATE_TEST_SUITE_P(Isa, LinearLayer, testing::ValuesIn(isas_and_tiles()),
                         [](const auto& test) { return test.param.first + (test.param.second ? "_f32_tiles" : ""); });

std::vector<float> normals(std::int64_t count, std::uint64_t seed, float size = 1.0f) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<float> normal(0.0f, size);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = normal(engine);
  return values;
}

double activated(Activation activation, double x) {
  switch (activation) {
    case Activation::kNone:
      return x;
    case Activation::kRelu:
      return std::max(x, 0.0);
    case Activation::kGelu:
      return x / 2 * std::erfc(-x / std::sqrt(2.0));
    case Activation::kGeluTanh:
      return x / 2 * (1 + std::tanh(std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x)));
  }
  return 0;
}

// Where y leaves the bound of a chain of K multiply-adds and one addition; "" where it does not.
std::string wrong(const std::vector<float>& x, const std::vector<float>& w, const std::vector<float>& b,
                  const std::vector<float>& y, std::int64_t rows, std::int64_t in, std::int64_t out,
                  Activation activation) {
  const auto at = [](const std::vector<float>& v, std::int64_t i) {
    return static_cast<double>(v[static_cast<std::size_t>(i)]);
  };
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t n = 0; n < out; ++n) {
      double sum = b.empty() ? 0 : at(b, n);
      double size = std::fabs(sum);
      for (std::int64_t k = 0; k < in; ++k) {
        sum += at(x, r * in + k) * at(w, n * in + k);
        size += std::fabs(at(x, r * in + k) * at(w, n * in + k));
      }
      // Each step rounds once, or twice where the machine has no fused multiply-add; slopes stay below 1.2, and the
      // activations err by up to 1.5e-7 of their input.
      const double bound = 1.2 * (static_cast<double>(in) + 2) * 0x1p-24 * size +
                           (activation == Activation::kNone ? 0 : 5e-7 * std::fabs(sum));
      const double want = activated(activation, sum);
      const double got = at(y, r * out + n);
      if (!(std::fabs(got - want) <= bound + 1e-40)) {
        return "y[" + std::to_string(r) + "," + std::to_string(n) + "] is " + std::to_string(got) + ", expected " +
               std::to_string(want);
      }
    }
  }
  return "";
}

ConstTensorView matrix(const std::vector<float>& values, std::int64_t rows, std::int64_t columns) {
  return ConstTensorView(values.data(), Dims{rows, columns});
}
ConstTensorView row(const std::vector<float>& values) {
  return ConstTensorView(values.data(), Dims{static_cast<std::int64_t>(values.size())});
}

TEST_P(LinearLayer, EveryNumberOfRows) {
  for (const auto& [in, out] : {std::pair<std::int64_t, std::int64_t>{64, 96}, {33, 17}, {300, 70}}) {
    const std::vector<float> w = normals(in * out, 1), b = normals(out, 2);
    const Linear linear(matrix(w, out, in), row(b));
    EXPECT_EQ(linear.in_features(), in);
    EXPECT_EQ(linear.out_features(), out);
    for (std::int64_t rows = 1; rows <= 40; ++rows) {
      const std::vector<float> x = normals(rows * in, static_cast<std::uint64_t>(rows));
      std::vector<float> y(static_cast<std::size_t>(rows * out), 777.0f);
      linear.run(x.data(), rows, in, y.data(), out);
      EXPECT_EQ(wrong(x, w, b, y, rows, in, out, Activation::kNone), "") << rows << " rows, " << in << " to " << out;
    }
  }
}

TEST_P(LinearLayer, EverySize) {
  const std::int64_t sizes[] = {1, 2, 3, 7, 15, 16, 17, 31, 32, 33, 63, 65, 100, 255, 256, 257, 513};
  for (const std::int64_t in : sizes) {
    for (const std::int64_t out : sizes) {
      const std::vector<float> w = normals(in * out, 3), b = normals(out, 4), x = normals(5 * in, 5);
      std::vector<float> y(static_cast<std::size_t>(5 * out), 777.0f);
      Linear(matrix(w, out, in), row(b)).run(x.data(), 5, in, y.data(), out);
      EXPECT_EQ(wrong(x, w, b, y, 5, in, out, Activation::kNone), "") << in << " to " << out;
    }
  }
}

// Many inputs are summed in pieces that go on from y; few rows take them in one go, to the same bits.
TEST_P(LinearLayer, EveryDepth) {
  constexpr std::int64_t kOut = 40, kRows = 14;
  for (const std::int64_t in : {2047, 2048, 2049, 2050, 4097}) {
    const std::vector<float> w = normals(in * kOut, 40), b = normals(kOut, 41), x = normals(kRows * in, 42);
    std::vector<float> y(static_cast<std::size_t>(kRows * kOut), 777.0f), alone(y);
    const Linear linear(matrix(w, kOut, in), row(b));
    linear.run(x.data(), kRows, in, y.data(), kOut);
    EXPECT_EQ(wrong(x, w, b, y, kRows, in, kOut, Activation::kNone), "") << in;
    for (std::int64_t r = 0; r < kRows; ++r) linear.run(x.data() + r * in, 1, in, alone.data() + r * kOut, kOut);
    EXPECT_EQ(y, alone) << in;
  }
}

TEST_P(LinearLayer, Epilogues) {
  for (const Activation activation : {Activation::kNone, Activation::kRelu, Activation::kGelu, Activation::kGeluTanh}) {
    for (const bool with_bias : {false, true}) {
      for (const std::int64_t in : {20, 400}) {
        const std::vector<float> w = normals(in * 45, 6, 0.2f), x = normals(13 * in, 7);
        const std::vector<float> b = with_bias ? normals(45, 8) : std::vector<float>();
        std::vector<float> y(13 * 45, 777.0f);
        Linear(matrix(w, 45, in), with_bias ? row(b) : ConstTensorView{})
            .run(x.data(), 13, in, y.data(), 45, activation);
        EXPECT_EQ(wrong(x, w, b, y, 13, in, 45, activation), "") << static_cast<int>(activation);
      }
    }
  }
}

TEST_P(LinearLayer, TheBitsOfARowDoNotDependOnTheCall) {
  constexpr std::int64_t kIn = 1333, kOut = 150, kRows = 200;  // several depths of any kernel
  const std::vector<float> w = normals(kIn * kOut, 9), b = normals(kOut, 10), x = normals(kRows * kIn, 11);
  for (const DType kept : {DType::kF32, DType::kBF16}) {
    const Linear linear(matrix(w, kOut, kIn), row(b), kept);
    std::vector<float> all(kRows * kOut);
    linear.run(x.data(), kRows, kIn, all.data(), kOut, Activation::kGelu, {.num_threads = 1});
    for (const int threads : {2, 3, 8, 64}) {
      std::vector<float> y(kRows * kOut);
      linear.run(x.data(), kRows, kIn, y.data(), kOut, Activation::kGelu, {.num_threads = threads});
      EXPECT_EQ(std::memcmp(y.data(), all.data(), y.size() * sizeof(float)), 0) << threads << " threads";
    }
    for (std::int64_t rows = 1; rows <= 60; ++rows) {
      for (const std::int64_t first : {std::int64_t{0}, rows, kRows - rows}) {
        std::vector<float> y(static_cast<std::size_t>(rows * kOut));
        linear.run(x.data() + first * kIn, rows, kIn, y.data(), kOut, Activation::kGelu, {.num_threads = 2});
        EXPECT_EQ(std::memcmp(y.data(), all.data() + first * kOut, y.size() * sizeof(float)), 0)
            << rows << " rows from " << first << ", " << name_of(kept);
      }
    }
  }
}

TEST_P(LinearLayer, RowsMayLieApartAndWhatLiesBetweenIsLeftAlone) {
  constexpr std::int64_t kIn = 30, kOut = 21, kRows = 9, kXStride = 37, kYStride = 40;
  const std::vector<float> w = normals(kIn * kOut, 12), b = normals(kOut, 13), x = normals(kRows * kIn, 14);
  std::vector<float> apart(kRows * kXStride + 1, std::numeric_limits<float>::quiet_NaN());
  std::vector<float> y(kRows * kYStride + 1, 777.0f), dense_y(kRows * kOut);
  for (std::int64_t r = 0; r < kRows; ++r) {
    std::copy_n(x.data() + r * kIn, kIn, apart.data() + 1 + r * kXStride);
  }
  const Linear linear(matrix(w, kOut, kIn), row(b));
  linear.run(x.data(), kRows, kIn, dense_y.data(), kOut);
  linear.run(apart.data() + 1, kRows, kXStride, y.data() + 1, kYStride);
  EXPECT_EQ(y[0], 777.0f);
  for (std::int64_t r = 0; r < kRows; ++r) {
    for (std::int64_t n = 0; n < kYStride; ++n) {
      const float got = y[static_cast<std::size_t>(1 + r * kYStride + n)];
      EXPECT_EQ(got, n < kOut ? dense_y[static_cast<std::size_t>(r * kOut + n)] : 777.0f) << r << " " << n;
    }
  }
}

TEST_P(LinearLayer, WeightsOfAnyTypeAndLayout) {
  constexpr std::int64_t kIn = 40, kOut = 19;
  const std::vector<float> x = normals(3 * kIn, 15);
  for (const DType type : {DType::kF32, DType::kBF16, DType::kF16}) {
    const std::vector<float> values = normals(kIn * kOut, 16), shifts = normals(kOut, 17);
    Strided w(type, {kOut, kIn}, {1, 0}, 3, 1, 1, 1);  // columns fastest, backwards
    w.fill([&](const Index& at) { return static_cast<double>(values[static_cast<std::size_t>(at[0] * kIn + at[1])]); });
    Strided b(type, {kOut}, {0}, 0, 2, 0, 1);
    b.fill([&](const Index& at) { return static_cast<double>(shifts[static_cast<std::size_t>(at[0])]); });
    std::vector<float> rounded(kIn * kOut), rounded_b(kOut), y(3 * kOut);
    for (std::int64_t n = 0; n < kOut; ++n) {
      rounded_b[static_cast<std::size_t>(n)] = static_cast<float>(element(b.view(), {n}));
      for (std::int64_t k = 0; k < kIn; ++k) {
        rounded[static_cast<std::size_t>(n * kIn + k)] = static_cast<float>(element(w.view(), {n, k}));
      }
    }
    Linear(w.view(), b.view()).run(x.data(), 3, kIn, y.data(), kOut);
    EXPECT_EQ(wrong(x, rounded, rounded_b, y, 3, kIn, kOut, Activation::kNone), "") << name_of(type);
  }
}

std::vector<float> rounded_to_bf16(std::vector<float> values) {
  for (float& value : values) value = static_cast<float>(bfloat16(value));
  return values;
}

// With products of BF16 pairs x is rounded as the weights are; each step of the chain then rounds no more than one of
// F32 does.
TEST_P(LinearLayer, Bf16WeightsAreThoseOfTheRoundedValues) {
  const bool pairs = kernels::active_table().linear.rounds_rows_to_bf16;
  for (const auto& [in, out] : {std::pair<std::int64_t, std::int64_t>{64, 96}, {33, 17}, {1, 70}, {3080, 40}}) {
    const std::vector<float> w = normals(in * out, 30), b = normals(out, 31), rounded = rounded_to_bf16(w);
    const Linear linear(matrix(w, out, in), row(b), DType::kBF16), same(matrix(rounded, out, in), row(b));
    for (std::int64_t rows = 1; rows <= 60; ++rows) {
      const std::vector<float> x = normals(rows * in, static_cast<std::uint64_t>(rows));
      std::vector<float> y(static_cast<std::size_t>(rows * out), 777.0f), f32(y);
      linear.run(x.data(), rows, in, y.data(), out);
      same.run(x.data(), rows, in, f32.data(), out);
      EXPECT_EQ(linear.rounds_rows(), pairs);
      EXPECT_FALSE(same.rounds_rows());
      if (pairs) {
        EXPECT_EQ(wrong(rounded_to_bf16(x), rounded, b, y, rows, in, out, Activation::kNone), "")
            << rows << " rows, " << in << " to " << out;
        // Rows of BF16 lie apart, and nothing is written between them.
        std::vector<float> sums(y.size());
        std::vector<bfloat16> narrow(static_cast<std::size_t>(rows * (out + 3)), bfloat16(777.0f));
        linear.run_rounded(x.data(), rows, in, sums.data(), out, narrow.data(), out + 3);
        for (std::int64_t r = 0; r < rows; ++r) {
          for (std::int64_t n = 0; n < out + 3; ++n) {
            const float expected = n < out ? y[static_cast<std::size_t>(r * out + n)] : 777.0f;
            ASSERT_EQ(narrow[static_cast<std::size_t>(r * (out + 3) + n)].bits, bfloat16(expected).bits)
                << r << " " << n << ", " << in << " to " << out;
          }
        }
      } else if (kernels::active_table().splits_f32()) {  // weights of BF16 are multiplied as they are
        EXPECT_EQ(wrong(x, rounded, b, y, rows, in, out, Activation::kNone), "") << rows << " rows, " << in;
      } else {
        EXPECT_EQ(y, f32) << rows << " rows, " << in << " to " << out;
      }
    }
  }
}

// The scratch of the caller's: all that a run takes, and not a float more.
TEST_P(LinearLayer, WorksInTheScratchItIsGiven) {
  constexpr std::int64_t kIn = 700, kOut = 300, kRows = 150;
  const std::vector<float> w = normals(kIn * kOut, 50), x = normals(kRows * kIn, 51);
  for (const DType kept : {DType::kF32, DType::kBF16}) {
    const Linear linear(matrix(w, kOut, kIn), {}, kept);
    std::vector<float> first(kRows * kOut);
    // The first run splits weights, and a pool starts its threads.
    linear.run(x.data(), kRows, kIn, first.data(), kOut, Activation::kNone, {.num_threads = 3});
    for (const int threads : {1, 3}) {
      for (const std::int64_t rows : {std::int64_t{1}, std::int64_t{50}, kRows}) {
        const std::size_t floats = linear.workspace_floats(rows, {.num_threads = threads});
        const bool splits = kept == DType::kF32 && kernels::active_table().splits_f32();
        EXPECT_EQ(floats > 0, linear.rounds_rows() || splits);
        EXPECT_LE(linear.workspace_floats(rows - 1, {.num_threads = threads}), floats);
        base::AlignedBuffer<float> scratch(floats + 64);
        std::fill_n(scratch.data(), floats + 64, 777.0f);
        std::vector<float> y(static_cast<std::size_t>(rows * kOut)), own(y);
        const std::int64_t before = allocations();
        linear.run(x.data(), rows, kIn, y.data(), kOut, Activation::kNone, {.num_threads = threads}, scratch.data());
        EXPECT_EQ(allocations(), before);
        linear.run(x.data(), rows, kIn, own.data(), kOut, Activation::kNone, {.num_threads = threads});
        EXPECT_EQ(y, own);
        for (std::size_t i = 0; i < 64; ++i) EXPECT_EQ(scratch[floats + i], 777.0f) << i;
      }
    }
  }
}

TEST_P(LinearLayer, ProjectionsThatShareABlockKeepIt) {
  const std::vector<float> w1 = normals(20 * 35, 32), w2 = normals(50 * 20, 33), x = normals(3 * 20, 34), b;
  std::vector<float> y1(3 * 35), y2(3 * 50);
  Linear one, two;
  {
    layer::PackedMemory memory(Linear::words(35, 20, DType::kF32) + Linear::words(50, 20, DType::kBF16));
    one = Linear(matrix(w1, 35, 20), {}, DType::kF32, &memory);
    two = Linear(matrix(w2, 50, 20), {}, DType::kBF16, &memory);
  }
  one.run(x.data(), 3, 20, y1.data(), 35);
  EXPECT_EQ(wrong(x, w1, b, y1, 3, 20, 35, Activation::kNone), "");
  std::vector<float> alone(3 * 50);
  two.run(x.data(), 3, 20, y2.data(), 50);
  Linear(matrix(w2, 50, 20), {}, DType::kBF16).run(x.data(), 3, 20, alone.data(), 50);
  EXPECT_EQ(y2, alone);
}

TEST_P(LinearLayer, NaNStaysInItsRowAndColumn) {
  constexpr std::int64_t kIn = 21, kOut = 50, kRows = 14;
  std::vector<float> w = normals(kIn * kOut, 18), x = normals(kRows * kIn, 19), y(kRows * kOut);
  x[5 * kIn + 3] = std::numeric_limits<float>::quiet_NaN();
  w[44 * kIn] = std::numeric_limits<float>::quiet_NaN();
  for (const Activation activation : {Activation::kNone, Activation::kRelu, Activation::kGelu, Activation::kGeluTanh}) {
    for (const DType kept : {DType::kF32, DType::kBF16}) {
      Linear(matrix(w, kOut, kIn), {}, kept).run(x.data(), kRows, kIn, y.data(), kOut, activation);
      for (std::int64_t r = 0; r < kRows; ++r) {
        for (std::int64_t n = 0; n < kOut; ++n) {
          EXPECT_EQ(std::isnan(y[static_cast<std::size_t>(r * kOut + n)]), r == 5 || n == 44) << r << " " << n;
        }
      }
    }
  }
}

// The pieces of tiles hold neither infinities nor anything beyond 2^-96 to 2^63.
TEST_P(LinearLayer, ValuesOfAnySize) {
  constexpr std::int64_t kIn = 300, kOut = 70, kRows = 37;
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const float large : {1e-44f, 1e-37f, 2e-30f, 1e-28f, 9e18f, 1e19f, 1e31f, 3e38f, kInfinity}) {
    for (const float factor : {1.0f, -1.0f}) {
      std::vector<float> w = normals(kIn * kOut, 60), x = normals(kRows * kIn, 61), b = normals(kOut, 62);
      std::vector<float> y(kRows * kOut);
      const float value = factor * large, other = large < 1 ? 1 / std::max(large, 1e-37f) : 1 / large;
      x[5 * kIn + 299] = value;  // meets a usual weight
      w[7 * kIn + 255] = value;  // meets usual x
      x[9 * kIn + 3] = w[11 * kIn + 256] = value;
      w[13 * kIn + 3] = x[9 * kIn + 256] = other;  // meet values that make their products usual ones
      x[20 * kIn + 8] = w[20 * kIn + 8] = value;   // meet each other: 0 or beyond F32
      Linear(matrix(w, kOut, kIn), row(b)).run(x.data(), kRows, kIn, y.data(), kOut);
      for (std::int64_t r = 0; r < kRows; ++r) {
        for (std::int64_t n = 0; n < kOut; ++n) {
          double sum = static_cast<double>(b[static_cast<std::size_t>(n)]), size = std::fabs(sum);
          for (std::int64_t k = 0; k < kIn; ++k) {
            const double term = static_cast<double>(x[static_cast<std::size_t>(r * kIn + k)]) *
                                static_cast<double>(w[static_cast<std::size_t>(n * kIn + k)]);
            sum += term;
            size += std::fabs(term);
          }
          const double got = static_cast<double>(y[static_cast<std::size_t>(r * kOut + n)]);
          if (std::isnan(sum)) {
            ASSERT_TRUE(std::isnan(got)) << value << " at " << r << " " << n;
          } else if (size > 3e38) {  // some sum on the way may leave F32
            ASSERT_TRUE(got == (sum > 0 ? HUGE_VAL : -HUGE_VAL) || std::fabs(sum) < 3.5e38)
                << value << " at " << r << " " << n;
          } else {
            ASSERT_LE(std::fabs(got - sum), 1.2 * (kIn + 2) * 0x1p-24 * size) << value << " at " << r << " " << n;
          }
        }
      }
    }
  }
}

// Tiles keep a row's bits apart from what other rows and columns hold.
TEST_P(LinearLayer, WhatOtherRowsAndColumnsHoldChangesNoBit) {
  constexpr std::int64_t kIn = 70, kOut = 40, kRows = 20;
  std::vector<float> w = normals(kIn * kOut, 63), x = normals(kRows * kIn, 64), before(kRows * kOut), y(before);
  Linear(matrix(w, kOut, kIn), {}).run(x.data(), kRows, kIn, before.data(), kOut);
  for (const float value :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), 1e37f, 1e-40f}) {
    for (std::int64_t k = 0; k < kIn; ++k) x[static_cast<std::size_t>(4 * kIn + k)] = value;
    for (std::int64_t k = 0; k < kIn; ++k) w[static_cast<std::size_t>(9 * kIn + k)] = value;
    Linear(matrix(w, kOut, kIn), {}).run(x.data(), kRows, kIn, y.data(), kOut);
    for (std::int64_t r = 0; r < kRows; ++r) {
      for (std::int64_t n = 0; n < kOut; ++n) {
        const std::size_t at = static_cast<std::size_t>(r * kOut + n);
        if (r != 4 && n != 9) {
          EXPECT_EQ(y[at], before[at]) << value << " at " << r << " " << n;
        }
      }
    }
  }
}

TEST_P(LinearLayer, EmptySizes) {
  const std::vector<float> none, b = {1.0f, -2.0f, 3.0f};
  std::vector<float> y(6, 777.0f);
  for (const DType kept : {DType::kF32, DType::kBF16}) {
    std::fill(y.begin(), y.end(), 777.0f);
    const Linear no_input(ConstTensorView(nullptr, DType::kF32, Dims{3, 0}), row(b), kept);
    no_input.run(nullptr, 2, 0, y.data(), 3, Activation::kRelu);
    EXPECT_EQ(y, (std::vector<float>{1, 0, 3, 1, 0, 3}));
  }
  const Linear no_output(ConstTensorView(nullptr, DType::kF32, Dims{0, 4}), {});
  EXPECT_NO_THROW(no_output.run(y.data(), 1, 4, nullptr, 0));
  const Linear some(matrix(b, 3, 1), {});
  EXPECT_NO_THROW(some.run(nullptr, 0, 1, nullptr, 3));
}

TEST(LinearErrors, NameTheArgumentAndTheShapes) {
  const std::vector<float> values(12);
  EXPECT_EQ(error_of([&] { Linear(row(values), {}); }),
            "linear: weight is F32 [12], expected F32, BF16 or F16 [out, in]");
  const std::vector<double> doubles(12);
  EXPECT_EQ(error_of([&] { Linear(ConstTensorView(doubles.data(), Dims{3, 4}), {}); }),
            "linear: weight is F64 [3,4], expected F32, BF16 or F16 [out, in]");
  EXPECT_NE(error_of([&] { Linear({}, {}); }), "no error");
  EXPECT_EQ(error_of([&] { Linear(matrix(values, 3, 4), {}, DType::kF16); }),
            "linear: weights are to be kept as F16, expected F32 or BF16");
  EXPECT_EQ(error_of([&] { Linear(matrix(values, 3, 4), row(values)); }), "linear: bias is F32 [12], weight [3,4]");
  EXPECT_EQ(error_of([&] { Linear(matrix(values, 3, 4), matrix(values, 3, 1)); }),
            "linear: bias is F32 [3,1], weight [3,4]");
}

TEST(LinearBits, AreThoseOfTheFamilyAtEachInstructionSet) {
  for (const DType kept : {DType::kF32, DType::kBF16}) {
    for (const Activation activation :
         {Activation::kNone, Activation::kRelu, Activation::kGelu, Activation::kGeluTanh}) {
      for (const std::int64_t out : {1, 37, 100}) {
        const std::vector<float> x = normals(19 * 53, 30, 2.0f), w = normals(out * 53, 31), b = normals(out, 32);
        std::map<std::string, std::vector<float>> first;  // by family
        for (const auto& [isa, by_tiles] : isas_and_tiles()) {
          if (by_tiles && kept != DType::kF32) continue;
          set_isa(isa);
          std::optional<kernels::TableScope> scope;
          if (by_tiles) scope.emplace(kernels::table_with("linear", kByTiles, kernels::Products::kF32));
          // Tiles serve attention alone where weights are BF16: there the projections are F32.
          const Linear linear(matrix(w, out, 53), row(b), kept);
          const std::string family = linear.rounds_rows() ? active_bits(kept) : active_bits();
          std::vector<float> y(static_cast<std::size_t>(19 * out));
          linear.run(x.data(), 19, 53, y.data(), out, activation);
          const auto [at, is_new] = first.try_emplace(family, y);
          EXPECT_EQ(std::memcmp(at->second.data(), y.data(), y.size() * sizeof(float)), 0)
              << isa << " " << family << ", " << out << ", " << static_cast<int>(activation);
        }
      }
    }
  }
  set_isa("");
}

TEST(LinearErrors, WeightsPackedForOneInstructionSetAreNotReadAsAnothers) {
  const std::vector<float> w = normals(64 * 64, 20), x = normals(64, 21), b;
  std::vector<float> y(64);
  for (const std::string& packed : available_isas()) {
    set_isa(packed);
    const Linear linear(matrix(w, 64, 64), {});
    for (const std::string& runs : available_isas()) {
      set_isa(runs);
      std::fill(y.begin(), y.end(), 777.0f);
      const std::string error = error_of([&] { linear.run(x.data(), 1, 64, y.data(), 64); });
      // Sets of one vector width share a layout; the others say so.
      EXPECT_TRUE(error == "no error"
                      ? wrong(x, w, b, y, 1, 64, 64, Activation::kNone).empty()
                      : contains(error, "linear: weights were packed for another instruction set than " + runs))
          << packed << " " << runs << ": " << error;
    }
  }
  set_isa("");
}

}  // namespace
}  // namespace manyheads::test
