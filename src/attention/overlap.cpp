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

bool empty(const ConstTensorView& view) {
  return std::any_of(view.shape().begin(), view.shape().end(), [](std::int64_t size) { return size == 0; });
}

// The bytes from the first to the last element of a view.
struct Extent {
  explicit Extent(const ConstTensorView& view) {
    begin = end = reinterpret_cast<std::intptr_t>(view.data());
    const auto element = static_cast<std::int64_t>(size_of(view.dtype()));
    for (int i = 0; i < view.rank(); ++i) {
      if (view.size(i) == 1) continue;
      const std::int64_t bytes = view.stride(i) * element;
      (bytes < 0 ? begin : end) += bytes * (view.size(i) - 1);
    }
    end += element;
  }
  std::intptr_t begin, end;
};

// The axes of a view, by ascending stride, without those of one element; axes that continue each other are one. So a
// view is a block of bytes that repeats at the remaining strides.
struct Places {
  explicit Places(const ConstTensorView& view) : block(static_cast<std::int64_t>(size_of(view.dtype()))) {
    const std::int64_t element = block;
    int found = 0;
    for (int i = 0; i < view.rank(); ++i) {
      if (view.size(i) == 1) continue;
      const std::int64_t bytes = view.stride(i) * element;
      const std::pair one{bytes < 0 ? -bytes : bytes, view.size(i)};
      int at = found++;
      for (; at > 0 && one < axis[static_cast<std::size_t>(at - 1)]; --at) {
        axis[static_cast<std::size_t>(at)] = axis[static_cast<std::size_t>(at - 1)];
      }
      axis[static_cast<std::size_t>(at)] = one;
    }
    for (int i = 0; i < found; ++i) {
      const auto one = axis[static_cast<std::size_t>(i)];
      if (count == 0 && one.first == block) {
        block *= one.second;
      } else {
        axis[static_cast<std::size_t>(count++)] = one;
      }
    }
  }
  std::span<const std::pair<std::int64_t, std::int64_t>> axes() const {
    return {axis.data(), static_cast<std::size_t>(count)};
  }

  std::int64_t block;
  std::array<std::pair<std::int64_t, std::int64_t>, kMaxRank> axis;  // stride in bytes, size
  int count = 0;
};

bool overlaps_itself(const ConstTensorView& view) {
  if (view.contiguous()) return false;
  const Places layout(view);
  std::int64_t extent = layout.block;
  for (const auto& [stride, size] : layout.axes()) {
    if (stride < extent) return true;
    extent = stride * (size - 1) + extent;
  }
  return false;
}

bool may_share(const ConstTensorView& a, const ConstTensorView& b) {
  if (!a.defined() || !b.defined() || empty(a) || empty(b)) return false;
  const Extent extent_a(a), extent_b(b);
  if (extent_a.end <= extent_b.begin || extent_b.end <= extent_a.begin) return false;
  // Interleaved views: every block begins at its view's begin plus a multiple of the strides' common divisor.
  const Places x(a), y(b);
  std::int64_t step = 0;
  for (const auto& axis : x.axes()) step = std::gcd(step, axis.first);
  for (const auto& axis : y.axes()) step = std::gcd(step, axis.first);
  if (step == 0) return true;
  const std::int64_t apart = ((extent_b.begin - extent_a.begin) % step + step) % step;
  return !(apart >= x.block && step - apart >= y.block);
}

}  // namespace

void check_itself(const char* function, const char* name, const ConstTensorView& output) {
  if (!empty(output) && overlaps_itself(output)) {
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
