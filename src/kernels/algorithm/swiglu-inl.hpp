// SwiGLU over rows: SwiGluParams has the formula.

// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_ALGORITHM_SWIGLU_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_ALGORITHM_SWIGLU_INL_HPP
#undef MANYHEADS_ALGORITHM_SWIGLU_INL_HPP
#else
#define MANYHEADS_ALGORITHM_SWIGLU_INL_HPP
#endif

#include <cstdint>

#include "hwy/highway.h"
#include "kernels/algorithm/silu-inl.hpp"
#include "kernels/isa/edge-inl.hpp"
#include "kernels/params.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// y may be gate or up: each vector is read before it is written.
void SwiGlu(const SwiGluParams& params, std::int64_t row_begin, std::int64_t row_end) {
  const DF d;
  const std::int64_t n = static_cast<std::int64_t>(hn::Lanes(d));
  for (std::int64_t row = row_begin; row < row_end; ++row) {
    const float* gate = params.gate + row * params.x_stride;
    const float* up = params.up + row * params.x_stride;
    float* y = params.y + row * params.y_stride;
    std::int64_t i = 0;
    for (; i + n <= params.size; i += n) {
      hn::StoreU(hn::Mul(Silu(hn::LoadU(d, gate + i)), hn::LoadU(d, up + i)), d, y + i);
    }
    if (i == params.size) continue;
    const std::int64_t rest = params.size - i;
    StoreFirst(hn::Mul(Silu(LoadFirst(gate + i, rest)), LoadFirst(up + i, rest)), y + i, rest);
  }
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
