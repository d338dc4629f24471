#pragma once

#include <cstdint>
#include <vector>

namespace manyheads::lens {

// Sums of vectors and of their products, from which principal components follow: kernels::ScorePassKernels::add_products
// adds them.
struct Moments {
  explicit Moments(std::int64_t size = 0)
      : sum(static_cast<std::size_t>(size)), products(static_cast<std::size_t>(size * size)) {}

  std::int64_t size() const { return static_cast<std::int64_t>(sum.size()); }

  std::int64_t count = 0;
  std::vector<double> sum;       // [D]
  std::vector<double> products;  // [D,D]: the lower triangle
};

struct Components {
  std::vector<double> mean;      // [D]
  double total_variance = 0;     // over all D
  std::vector<double> variance;  // [components], descending: along each
  std::vector<double> vectors;   // [components,D]: of length 1; the entry of largest magnitude is positive
};

// The first components, at most D, of the covariance (sum of products / count). All 0 where nothing was added.
Components principal_components(const Moments& moments, std::int64_t components);

}  // namespace manyheads::lens
