#pragma once

#include <bit>
#include <cstdint>

namespace manyheads {

// The bits of the two half types, with conversions that round to nearest, ties to even.
struct bfloat16 {
  std::uint16_t bits = 0;
  bfloat16() = default;
  explicit bfloat16(float value) noexcept;
  explicit operator float() const noexcept;
};
struct float16 {
  std::uint16_t bits = 0;
  float16() = default;
  explicit float16(float value) noexcept;
  explicit operator float() const noexcept;
};

inline bfloat16::bfloat16(float value) noexcept {
  const std::uint32_t u = std::bit_cast<std::uint32_t>(value);
  if ((u & 0x7fffffffu) > 0x7f800000u) {
    bits = static_cast<std::uint16_t>((u >> 16) | 0x40u);  // a NaN stays a NaN
  } else {
    bits = static_cast<std::uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
  }
}

inline bfloat16::operator float() const noexcept { return std::bit_cast<float>(std::uint32_t{bits} << 16); }

inline float16::float16(float value) noexcept {
  const std::uint32_t u = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = (u >> 16) & 0x8000u;
  const std::uint32_t a = u & 0x7fffffffu;
  std::uint32_t h;
  if (a > 0x7f800000u) {
    h = 0x7e00u | ((a >> 13) & 0x3ffu);
  } else if (a >= 0x477ff000u) {  // rounds past the largest finite, 65504
    h = 0x7c00u;
  } else if (a < 0x38800000u) {  // subnormal or zero: adding 0.5 lets the adder round at 2^-24
    h = std::bit_cast<std::uint32_t>(std::bit_cast<float>(a) + 0.5f) - 0x3f000000u;
  } else {
    h = (a - 0x38000000u + 0xfffu + ((a >> 13) & 1u)) >> 13;
  }
  bits = static_cast<std::uint16_t>(sign | h);
}

inline float16::operator float() const noexcept {
  const std::uint32_t sign = (std::uint32_t{bits} & 0x8000u) << 16;
  const std::uint32_t a = bits & 0x7fffu;
  if (a >= 0x7c00u) return std::bit_cast<float>(sign | 0x7f800000u | ((a & 0x3ffu) << 13));
  if (a >= 0x0400u) return std::bit_cast<float>(sign | ((a << 13) + 0x38000000u));
  const float subnormal = static_cast<float>(a) * 0x1p-24f;
  return sign ? -subnormal : subnormal;
}

}  // namespace manyheads
