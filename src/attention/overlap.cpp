#include "attention/overlap.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <numeric>
#include <span>
#include <utility>

#include <manyheads/error.hpp>

#include "base/fail.hpp"

namespace manyheads::attention_detail {
namespace {

using base::describe;
using base::fail;

// The axes of a view, by ascending stride, without those of one element; axes that continue each other are one. So a
// view is a block of bytes that repeats at the remaining strides.
struct Layout {
  std::intptr_t begin = 0, end = 0;  // bytes
  std::int64_t block = 0;
  std::array<std::pair<std::int64_t, std::int64_t>, kMaxRank> axis{};  // stride in bytes, size
  int count = 0;

  std::span<const std::pair<std::int64_t, std::int64_t>> axes() const {
    return {axis.data(), static_cast<std::size_t>(count)};
  }
};

Layout layout_of(const ConstTensorView& view) {
  Layout layout;
  const std::int64_t element = static_cast<std::int64_t>(size_of(view.dtype()));
  layout.begin = layout.end = reinterpret_cast<std::intptr_t>(view.data());
  layout.block = element;
  auto& axes = layout.axis;
  int found = 0;
  for (int i = 0; i < view.rank(); ++i) {
    if (view.size(i) == 1) continue;
    const std::int64_t bytes = view.stride(i) * element;
    (bytes < 0 ? layout.begin : layout.end) += bytes * (view.size(i) - 1);
    axes[static_cast<std::size_t>(found++)] = {bytes < 0 ? -bytes : bytes, view.size(i)};
  }
  layout.end += element;
  std::sort(axes.begin(), axes.begin() + found);
  for (int i = 0; i < found; ++i) {
    const auto one = axes[static_cast<std::size_t>(i)];
    if (layout.count == 0 && one.first == layout.block) {
      layout.block *= one.second;
    } else {
      axes[static_cast<std::size_t>(layout.count++)] = one;
    }
  }
  return layout;
}

bool overlaps_itself(const ConstTensorView& view) {
  const Layout layout = layout_of(view);
  std::int64_t extent = layout.block;
  for (const auto& [stride, size] : layout.axes()) {
    if (stride < extent) return true;
    extent = stride * (size - 1) + extent;
  }
  return false;
}

bool may_share(const ConstTensorView& a, const ConstTensorView& b) {
  if (!a.defined() || !b.defined() || element_count(a.shape()) == 0 || element_count(b.shape()) == 0) return false;
  const Layout x = layout_of(a);
  const Layout y = layout_of(b);
  if (x.end <= y.begin || y.end <= x.begin) return false;
  // Interleaved views: every block begins at its view's begin plus a multiple of the strides' common divisor.
  std::int64_t step = 0;
  for (const auto& axis : x.axes()) step = std::gcd(step, axis.first);
  for (const auto& axis : y.axes()) step = std::gcd(step, axis.first);
  if (step == 0) return true;
  const std::int64_t apart = ((y.begin - x.begin) % step + step) % step;
  return !(apart >= x.block && step - apart >= y.block);
}

}  // namespace

void check_itself(const char* function, const char* name, const ConstTensorView& output) {
  if (element_count(output.shape()) > 0 && overlaps_itself(output)) {
    fail(function,
         base::format("{} {} with strides {} overlaps itself", name, describe(output), output.strides().to_string()));
  }
}

void check_overlap(const char* function, const char* name, const ConstTensorView& output, const char* other_name,
                   const ConstTensorView& other) {
  if (may_share(output, other)) {
    fail(function, base::format("{} {} overlaps {} {}", name, describe(output), other_name, describe(other)));
  }
}

}  // namespace manyheads::attention_detail
