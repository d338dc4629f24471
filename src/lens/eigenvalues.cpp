#include "lens/eigenvalues.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <manyheads/error.hpp>

namespace manyheads::lens {
namespace {

using Complex = std::complex<double>;

// The upper Hessenberg form of a matrix, as complex numbers.
std::vector<Complex> hessenberg(std::vector<double> a, std::size_t n) {
  for (std::size_t column = 0; column + 2 < n; ++column) {
    // The reflection I - 2 v v^T that leaves only the first of the column's numbers below the diagonal.
    std::vector<double> v(n);
    double square = 0;
    for (std::size_t i = column + 1; i < n; ++i) {
      v[i] = a[i * n + column];
      square += v[i] * v[i];
    }
    if (square == 0) continue;
    v[column + 1] += std::copysign(std::sqrt(square), v[column + 1]);
    double length = 0;
    for (std::size_t i = column + 1; i < n; ++i) length += v[i] * v[i];
    length = std::sqrt(length);
    for (std::size_t i = column + 1; i < n; ++i) v[i] /= length;
    for (std::size_t j = 0; j < n; ++j) {
      double dot = 0;
      for (std::size_t i = column + 1; i < n; ++i) dot += v[i] * a[i * n + j];
      for (std::size_t i = column + 1; i < n; ++i) a[i * n + j] -= 2 * v[i] * dot;
    }
    for (std::size_t i = 0; i < n; ++i) {
      double dot = 0;
      for (std::size_t j = column + 1; j < n; ++j) dot += a[i * n + j] * v[j];
      for (std::size_t j = column + 1; j < n; ++j) a[i * n + j] -= 2 * dot * v[j];
    }
    for (std::size_t i = column + 2; i < n; ++i) a[i * n + column] = 0;
  }
  return {a.begin(), a.end()};
}

// Wilkinson's shift: the eigenvalue of the last 2 x 2 of a block that is nearer to its last number.
Complex shift_of(Complex a, Complex b, Complex c, Complex d) {
  const Complex half = (a - d) / 2.0, root = std::sqrt(half * half + b * c);
  const Complex one = d + half + root, other = d + half - root;
  return std::abs(one - d) < std::abs(other - d) ? one : other;
}

// One step H - s = QR, H := RQ + s on rows and columns begin to last.
void qr_step(std::vector<Complex>& h, std::size_t n, std::size_t begin, std::size_t last, Complex shift) {
  for (std::size_t i = begin; i <= last; ++i) h[i * n + i] -= shift;
  std::vector<double> cosines(n);
  std::vector<Complex> sines(n);
  for (std::size_t i = begin; i < last; ++i) {
    const Complex x = h[i * n + i], y = h[(i + 1) * n + i];
    const double length = std::sqrt(std::norm(x) + std::norm(y));
    if (length == 0) {
      cosines[i] = 1;
      continue;
    }
    // The rotation [c s; -s* c] with c real that takes (x, y) to (r, 0).
    const double size = std::abs(x);
    const Complex direction = size == 0 ? Complex(1) : x / size;
    cosines[i] = size / length;
    sines[i] = direction * std::conj(y) / length;
    for (std::size_t j = i; j <= last; ++j) {
      const Complex above = h[i * n + j], below = h[(i + 1) * n + j];
      h[i * n + j] = cosines[i] * above + sines[i] * below;
      h[(i + 1) * n + j] = cosines[i] * below - std::conj(sines[i]) * above;
    }
  }
  for (std::size_t i = begin; i < last; ++i) {
    for (std::size_t j = begin; j <= std::min(i + 1, last); ++j) {
      const Complex left = h[j * n + i], right = h[j * n + i + 1];
      h[j * n + i] = cosines[i] * left + std::conj(sines[i]) * right;
      h[j * n + i + 1] = cosines[i] * right - sines[i] * left;
    }
  }
  for (std::size_t i = begin; i <= last; ++i) h[i * n + i] += shift;
}

}  // namespace

std::vector<Complex> eigenvalues(std::vector<double> matrix, std::size_t n) {
  double largest = 0;
  for (const double value : matrix) {
    if (!std::isfinite(value)) {
      throw Error(ErrorCode::kInvalidArgument, "eigenvalues: the matrix holds a number that is not finite");
    }
    largest = std::max(largest, std::abs(value));
  }
  if (n == 0 || largest == 0) return std::vector<Complex>(n);
  for (double& value : matrix) value /= largest;
  std::vector<Complex> h = hessenberg(std::move(matrix), n);
  constexpr double kEpsilon = std::numeric_limits<double>::epsilon();
  constexpr int kMostSteps = 300;
  int steps = 0;
  for (std::size_t last = n - 1; last > 0;) {
    // The block that ends at `last` begins behind the last number below the diagonal that is as good as 0.
    std::size_t begin = last;
    for (; begin > 0; --begin) {
      const double beside = std::abs(h[(begin - 1) * n + begin - 1]) + std::abs(h[begin * n + begin]);
      if (std::abs(h[begin * n + begin - 1]) <= kEpsilon * (beside == 0 ? 1 : beside)) break;
    }
    if (begin == last) {
      --last;
      steps = 0;
      continue;
    }
    if (++steps > kMostSteps)
      throw Error(ErrorCode::kInvalidArgument, "eigenvalues: an eigenvalue of the matrix does not settle");
    // Now and then another shift, for blocks that the usual one turns in circles.
    const Complex shift = steps % 10 == 0 ? Complex(std::abs(h[last * n + last - 1]))
                                          : shift_of(h[(last - 1) * n + last - 1], h[(last - 1) * n + last],
                                                     h[last * n + last - 1], h[last * n + last]);
    qr_step(h, n, begin, last, shift);
  }
  std::vector<Complex> values;
  for (std::size_t i = 0; i < n; ++i) values.push_back(h[i * n + i] * largest);
  return values;
}

}  // namespace manyheads::lens
