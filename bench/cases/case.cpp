#include "bench/cases/case.hpp"

#include <algorithm>
#include <cmath>

#include "base/element.hpp"

namespace manyheads::bench {

std::vector<int> thread_counts(const Size& size) {
  return size.threads == 1 ? std::vector<int>{1} : std::vector<int>{1, size.threads};
}

std::vector<std::int64_t> probe_rows(std::int64_t count) {
  std::vector<std::int64_t> rows{0, count / 3, count / 2, count - 1};
  rows.erase(std::unique(rows.begin(), rows.end()), rows.end());
  return rows;
}

std::string dtype_name(DType type) {
  switch (type) {
    case DType::kBF16:
      return "bf16";
    case DType::kF16:
      return "f16";
    case DType::kI8:
      return "i8";
    default:
      return "f32";
  }
}

double element(const ConstTensorView& view, std::int64_t at) {
  return base::load_element(view.data(), view.dtype(), at);
}

double largest_difference(const ConstTensorView& a, const ConstTensorView& b) {
  double worst = 0;
  for (std::int64_t i = 0; i < element_count(a.shape()); ++i) {
    worst = std::max(worst, std::abs(element(a, i) - element(b, i)));
  }
  return worst;
}

}  // namespace manyheads::bench
