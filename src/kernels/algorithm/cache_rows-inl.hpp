// Rows of keys and values on their way into a cache: rounded once to its type, or scaled to I8.

// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_ALGORITHM_CACHE_ROWS_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_ALGORITHM_CACHE_ROWS_INL_HPP
#undef MANYHEADS_ALGORITHM_CACHE_ROWS_INL_HPP
#else
#define MANYHEADS_ALGORITHM_CACHE_ROWS_INL_HPP
#endif

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "hwy/highway.h"
#include "kernels/isa/load_store-inl.hpp"
#include "kernels/params.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Calls body(values, at, count) for the row as F32, 256 values at a time.
template <class Body>
HWY_INLINE void EachPiece(const CacheRowParams& params, Body&& body) {
  constexpr std::int64_t kPiece = 256;
  HWY_ALIGN float values[kPiece];
  for (std::int64_t at = 0; at < params.width; at += kPiece) {
    const std::int64_t count = std::min(kPiece, params.width - at);
    CopyRow(params.type, params.from, params.from_at + at * params.from_stride, params.from_stride, count, values);
    body(values, at, count);
  }
}

// Writes bytes of 127 steps of the row's largest magnitude, rounded in double. Returns the step. I8 has no NaN and no
// infinity: a step of NaN stands for them in the whole row.
HWY_INLINE float StoreInt8Row(const CacheRowParams& params) {
  float largest = 0;
  bool finite = true;
  EachPiece(params, [&](const float* values, std::int64_t, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) {
      finite = finite && std::isfinite(values[i]);
      largest = std::max(largest, std::fabs(values[i]));
    }
  });
  const float step =
      finite ? static_cast<float>(static_cast<double>(largest) / 127) : std::numeric_limits<float>::quiet_NaN();
  const double inverse = finite && step > 0 ? 1.0 / static_cast<double>(step) : 0.0;
  std::int8_t* const to = static_cast<std::int8_t*>(params.to);
  EachPiece(params, [&](const float* values, std::int64_t at, std::int64_t count) HWY_ATTR {
    std::int64_t i = 0;
#if HWY_HAVE_FLOAT64
    const hn::ScalableTag<double> d;
    const hn::Rebind<float, decltype(d)> df;
    const hn::Rebind<std::int32_t, decltype(d)> di;
    const std::int64_t n = static_cast<std::int64_t>(hn::Lanes(d));
    for (; finite && i + n <= count; i += n) {
      HWY_ALIGN std::int32_t bytes[kMaxLanes];
      const auto scaled = hn::Round(hn::Mul(hn::PromoteTo(d, hn::LoadU(df, values + i)), hn::Set(d, inverse)));
      hn::StoreU(hn::DemoteTo(di, hn::Min(hn::Max(scaled, hn::Set(d, -127.0)), hn::Set(d, 127.0))), di, bytes);
      for (std::int64_t e = 0; e < n; ++e) to[at + i + e] = static_cast<std::int8_t>(bytes[e]);
    }
#endif
    for (; i < count; ++i) {
      const double scaled = std::nearbyint(static_cast<double>(values[i]) * inverse);
      to[at + i] = finite ? static_cast<std::int8_t>(std::clamp(scaled, -127.0, 127.0)) : std::int8_t{0};
    }
  });
  return step;
}

void StoreCacheRow(const CacheRowParams& params) {
  if (params.to_type == DType::kI8) {
    *params.scale = StoreInt8Row(params);
    return;
  }
  EachPiece(params, [&](const float* values, std::int64_t at, std::int64_t count)
                        HWY_ATTR { StoreRow(params.to_type, params.to, at, 1, count, values); });
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
