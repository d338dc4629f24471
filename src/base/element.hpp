#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include <manyheads/half.hpp>
#include <manyheads/tensor.hpp>

// One element of F32, BF16, F16 or I8 as a double, and back. For code where speed does not count.
namespace manyheads::base {

inline double load_element(const void* data, DType type, std::int64_t at) {
  switch (type) {
    case DType::kBF16:
      return static_cast<double>(static_cast<float>(static_cast<const bfloat16*>(data)[at]));
    case DType::kF16:
      return static_cast<double>(static_cast<float>(static_cast<const float16*>(data)[at]));
    case DType::kI8:
      return static_cast<double>(static_cast<const std::int8_t*>(data)[at]);
    default:
      return static_cast<double>(static_cast<const float*>(data)[at]);
  }
}

// Rounds to odd. The half types could round twice through F32; the sticky bit of a round to odd prevents that.
inline float round_to_odd(double value) {
  const float nearest = static_cast<float>(value);
  if (static_cast<double>(nearest) == value || !std::isfinite(value) || !std::isfinite(nearest)) return nearest;
  const bool away = std::fabs(static_cast<double>(nearest)) > std::fabs(value);
  const float truncated = away ? std::nextafter(nearest, 0.0f) : nearest;
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(truncated) | 1u);
}

inline void store_element(void* data, DType type, std::int64_t at, double value) {
  switch (type) {
    case DType::kBF16:
      static_cast<bfloat16*>(data)[at] = bfloat16(round_to_odd(value));
      break;
    case DType::kF16:
      static_cast<float16*>(data)[at] = float16(round_to_odd(value));
      break;
    default:
      static_cast<float*>(data)[at] = static_cast<float>(value);
  }
}

}  // namespace manyheads::base
