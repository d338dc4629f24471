#include "lens/eigenvalues.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <complex>
#include <limits>
#include <random>
#include <vector>

#include "support.hpp"

namespace manyheads::lens {
namespace {

using Complex = std::complex<double>;

// The largest distance of a value to the nearest that is not yet taken.
double apart(std::vector<Complex> found, const std::vector<Complex>& expected) {
  EXPECT_EQ(found.size(), expected.size());
  double largest = 0;
  for (const Complex& value : expected) {
    const auto nearest = std::min_element(found.begin(), found.end(), [&](const Complex& a, const Complex& b) {
      return std::abs(a - value) < std::abs(b - value);
    });
    largest = std::max(largest, std::abs(*nearest - value));
    found.erase(nearest);
  }
  return largest;
}

// Q B Q^T with a random orthogonal Q: the eigenvalues of B, none of which a rounding of eps moves by more than about
// n eps |B| where B is normal.
std::vector<double> turned(std::vector<double> b, std::size_t n, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  for (int times = 0; times < 3; ++times) {
    std::vector<double> v(n);
    double square = 0;
    for (double& value : v) {
      value = normal(random);
      square += value * value;
    }
    std::vector<double> left(n), right(n);
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t j = 0; j < n; ++j) left[j] += v[i] * b[i * n + j];
    }
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t j = 0; j < n; ++j) b[i * n + j] -= 2 * v[i] * left[j] / square;
    }
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t j = 0; j < n; ++j) right[i] += b[i * n + j] * v[j];
    }
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t j = 0; j < n; ++j) b[i * n + j] -= 2 * right[i] * v[j] / square;
    }
  }
  return b;
}

TEST(EigenvaluesTest, OfNormalMatricesWithKnownOnes) {
  std::mt19937 random(19);
  std::normal_distribution<double> normal;
  for (const std::size_t n : {1u, 2u, 3u, 5u, 8u, 17u, 64u}) {
    // Real numbers, and blocks [a b; -b a] of the pair a + bi, a - bi.
    std::vector<double> matrix(n * n);
    std::vector<Complex> expected;
    for (std::size_t i = 0; i < n;) {
      const double a = normal(random), b = normal(random);
      matrix[i * n + i] = a;
      if (i + 1 < n && i % 3 != 0) {
        matrix[(i + 1) * n + i + 1] = a;
        matrix[i * n + i + 1] = b;
        matrix[(i + 1) * n + i] = -b;
        expected.push_back({a, b});
        expected.push_back({a, -b});
        i += 2;
      } else {
        expected.push_back(a);
        ++i;
      }
    }
    EXPECT_LT(apart(eigenvalues(matrix, n), expected), 1e-13) << n;
    EXPECT_LT(apart(eigenvalues(turned(matrix, n, 23), n), expected), 1e-12) << n;
  }
}

// Sums of powers of eigenvalues are traces of powers of the matrix.
TEST(EigenvaluesTest, TheirPowersAddUpToTheTracesOfPowers) {
  std::mt19937 random(29);
  std::normal_distribution<double> normal;
  for (const std::size_t n : {4u, 12u, 64u}) {
    std::vector<double> matrix(n * n);
    for (double& value : matrix) value = normal(random) / std::sqrt(static_cast<double>(n));
    const std::vector<Complex> found = eigenvalues(matrix, n);
    std::vector<double> power = matrix;
    for (int p = 1; p <= 6; ++p) {
      double trace = 0;
      for (std::size_t i = 0; i < n; ++i) trace += power[i * n + i];
      Complex sum = 0;
      for (const Complex& value : found) sum += std::pow(value, p);
      EXPECT_NEAR(sum.real(), trace, 1e-11 * static_cast<double>(n)) << n << " " << p;
      EXPECT_NEAR(sum.imag(), 0, 1e-11 * static_cast<double>(n));
      std::vector<double> next(n * n);
      for (std::size_t i = 0; i < n; ++i) {
        for (std::size_t j = 0; j < n; ++j) {
          for (std::size_t k = 0; k < n; ++k) next[i * n + k] += power[i * n + j] * matrix[j * n + k];
        }
      }
      power = next;
    }
  }
}

TEST(EigenvaluesTest, OfMatricesThatTurnInCirclesAndOfZeros) {
  // A shift by one of n places, either way: the n-th roots of 1. Where the ones stand below the diagonal, a step with
  // the usual shift changes nothing.
  for (const std::size_t n : {2u, 3u, 4u, 7u, 16u}) {
    std::vector<double> shift(n * n), back(n * n);
    std::vector<Complex> expected;
    for (std::size_t i = 0; i < n; ++i) {
      shift[i * n + (i + 1) % n] = back[(i + 1) % n * n + i] = 1;
      expected.push_back(std::polar(1.0, 2 * 3.14159265358979323846 * static_cast<double>(i) / static_cast<double>(n)));
    }
    EXPECT_LT(apart(eigenvalues(shift, n), expected), 1e-13) << n;
    EXPECT_LT(apart(eigenvalues(back, n), expected), 1e-13) << n;
  }
  EXPECT_EQ(eigenvalues(std::vector<double>(9), 3), std::vector<Complex>(3));
  EXPECT_TRUE(eigenvalues({}, 0).empty());
  // Of any size.
  EXPECT_LT(apart(eigenvalues({3e-300, 0, 0, 5e-300}, 2), {3e-300, 5e-300}), 1e-312);
  EXPECT_LT(apart(eigenvalues({0, 3e300, 3e300, 0}, 2), {3e300, -3e300}), 1e288);
}

TEST(EigenvaluesTest, NumbersThatAreNotFiniteAreAnError) {
  EXPECT_NE(
      test::error_of([] { eigenvalues({1, std::numeric_limits<double>::quiet_NaN(), 0, 1}, 2); }).find("not finite"),
      std::string::npos);
}

}  // namespace
}  // namespace manyheads::lens
