// The activation of a projection.
//
// Contract: each y by itself; the bits of the functions are math-inl.hpp's.
// Cost: y is read and written once, in cache.

// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_ALGORITHM_ACTIVATE_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_ALGORITHM_ACTIVATE_INL_HPP
#undef MANYHEADS_ALGORITHM_ACTIVATE_INL_HPP
#else
#define MANYHEADS_ALGORITHM_ACTIVATE_INL_HPP
#endif

#include <cstdint>

#include "hwy/highway.h"
#include "kernels/algorithm/math-inl.hpp"
#include "kernels/isa/edge-inl.hpp"
#include "kernels/params.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Applies the activation to rows [begin, end) of `columns` columns from `column` on, register tile by register tile
// while they are in cache. In a loop of its own: unrolled with the register tile, its steps neither overlap nor fit
// where the processor keeps decoded instructions.
inline HWY_NOINLINE void Activate(const LinearParams& params, std::int64_t column, std::int64_t columns,
                                  std::int64_t begin, std::int64_t end) {
  const DF d;
  const std::int64_t n = static_cast<std::int64_t>(hn::Lanes(d));
  const auto each = [&](const auto& function) HWY_ATTR {
    for (std::int64_t r = begin; r < end; ++r) {
      float* y = params.y + r * params.y_stride + column;
      std::int64_t i = 0;
      for (; i + n <= columns; i += n) hn::StoreU(function(hn::LoadU(d, y + i)), d, y + i);
      if (i < columns) StoreFirst(function(LoadFirst(y + i, columns - i)), y + i, columns - i);
    }
  };
  if (params.activation == Activation::kRelu) each([&](VF x) HWY_ATTR { return MaxKeepsNaN(hn::Zero(d), x); });
  if (params.activation == Activation::kGelu) each([&](VF x) HWY_ATTR { return Gelu(d, x); });
  if (params.activation == Activation::kGeluTanh) each([&](VF x) HWY_ATTR { return GeluTanh(d, x); });
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
