#include "lens/components.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/index.hpp"

namespace manyheads::lens {
namespace {

using base::at;

// Turns a symmetric matrix [n,n] into a diagonal one by Jacobi's rotations; the rows of `vectors` become the eigenvectors.
void diagonalize(std::vector<double>& a, std::vector<double>& vectors, std::int64_t n) {
  constexpr int kSweeps = 60;
  for (std::int64_t i = 0; i < n; ++i) vectors[at(i * n + i)] = 1;
  double norm = 0;
  for (const double value : a) norm += value * value;
  for (int sweep = 0; sweep < kSweeps; ++sweep) {
    double off = 0;
    for (std::int64_t p = 0; p < n; ++p) {
      for (std::int64_t q = 0; q < p; ++q) off += a[at(p * n + q)] * a[at(p * n + q)];
    }
    if (off <= norm * 1e-30) return;
    for (std::int64_t p = 1; p < n; ++p) {
      for (std::int64_t q = 0; q < p; ++q) {
        const double apq = a[at(p * n + q)];
        if (apq == 0) continue;
        // The rotation by which a[p,q] becomes 0.
        const double theta = (a[at(q * n + q)] - a[at(p * n + p)]) / (2 * apq);
        const double t = std::copysign(1.0, theta) / (std::fabs(theta) + std::sqrt(theta * theta + 1));
        const double c = 1 / std::sqrt(t * t + 1), s = t * c;
        const auto rotate = [c, s](double& x, double& y) {
          const double before = x;
          x = c * before - s * y;
          y = s * before + c * y;
        };
        for (std::int64_t i = 0; i < n; ++i) rotate(a[at(p * n + i)], a[at(q * n + i)]);
        for (std::int64_t i = 0; i < n; ++i) rotate(a[at(i * n + p)], a[at(i * n + q)]);
        for (std::int64_t i = 0; i < n; ++i) rotate(vectors[at(p * n + i)], vectors[at(q * n + i)]);
      }
    }
  }
}

}  // namespace

Components principal_components(const Moments& moments, std::int64_t components) {
  const std::int64_t d = moments.size();
  Components out;
  out.mean.resize(at(d));
  components = std::min(components, d);
  out.variance.resize(at(components));
  out.vectors.resize(at(components * d));
  if (moments.count == 0) return out;
  const auto n = static_cast<double>(moments.count);
  std::vector<double> covariance(at(d * d)), vectors(at(d * d));
  for (std::int64_t i = 0; i < d; ++i) {
    out.mean[at(i)] = moments.sum[at(i)] / n;
    for (std::int64_t j = 0; j <= i; ++j) {
      const double value = moments.products[at(i * d + j)] / n - out.mean[at(i)] * out.mean[at(j)];
      covariance[at(i * d + j)] = covariance[at(j * d + i)] = value;
    }
    out.total_variance += covariance[at(i * d + i)];
  }
  diagonalize(covariance, vectors, d);
  std::vector<std::int64_t> order(at(d));
  std::iota(order.begin(), order.end(), std::int64_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
    return covariance[at(a * d + a)] > covariance[at(b * d + b)];
  });
  for (std::int64_t c = 0; c < components; ++c) {
    const double* const from = vectors.data() + order[at(c)] * d;
    // Rounding may leave a tiny negative variance where there is none.
    out.variance[at(c)] = std::max(0.0, covariance[at(order[at(c)] * d + order[at(c)])]);
    const double* const largest =
        std::max_element(from, from + d, [](double a, double b) { return std::fabs(a) < std::fabs(b); });
    const double sign = *largest < 0 ? -1 : 1;
    for (std::int64_t i = 0; i < d; ++i) out.vectors[at(c * d + i)] = sign * from[i];
  }
  return out;
}

}  // namespace manyheads::lens
