#include "study/statistics.hpp"

#include <array>
#include <cmath>

namespace manyheads::study {
namespace {

// The .975 quantile of Student's t by degrees of freedom.
double quantile(std::size_t freedom) {
  constexpr std::array kTable = {12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281,
                                 2.2010,  2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860,
                                 2.0796,  2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423};
  return kTable[freedom < kTable.size() ? freedom - 1 : kTable.size() - 1];  // beyond 30 a wider interval
}

}  // namespace

Interval interval_of(std::span<const double> values) {
  const auto n = static_cast<double>(values.size());
  if (values.empty()) return {};
  double sum = 0, squares = 0;
  for (const double value : values) sum += value;
  const double mean = sum / n;
  if (values.size() == 1) return {mean, mean, mean};
  for (const double value : values) squares += (value - mean) * (value - mean);
  const double half = quantile(values.size() - 1) * std::sqrt(squares / (n - 1) / n);
  return {mean, mean - half, mean + half};
}

}  // namespace manyheads::study
