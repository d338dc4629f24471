#pragma once

#include <cstdint>

namespace manyheads::base {

// Signed 64-bit arithmetic that reports overflow instead of wrapping.
inline bool multiply(std::int64_t a, std::int64_t b, std::int64_t* out) noexcept {
  return !__builtin_mul_overflow(a, b, out);
}
inline bool add(std::int64_t a, std::int64_t b, std::int64_t* out) noexcept {
  return !__builtin_add_overflow(a, b, out);
}

}  // namespace manyheads::base
