#pragma once

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "draw.hpp"

namespace bits {

class Hash {
 public:
  void add(std::uint64_t word) {
    hash_ = (hash_ ^ word) * 0xff51afd7ed558ccdu;
    hash_ ^= hash_ >> 32;
    any_ = true;
  }
  void add(const std::string& text) {
    for (const char c : text) add(static_cast<std::uint64_t>(c));
  }
  // The elements in the order of their indices, wherever they lie.
  void add(const Array& array) {
    for (const std::int64_t size : array.shape) add(static_cast<std::uint64_t>(size));
    const auto bytes = static_cast<std::size_t>(size_of(array.type));
    each(array, [&](const unsigned char* at, const Shape&) {
      std::uint64_t word = 0;
      std::memcpy(&word, at, bytes);
      add(one_nan(array.type, word));
    });
  }
  void add(const std::vector<Array>& arrays) {
    for (const Array& array : arrays) add(array);
  }

  std::string to_string() const {  // "-" of nothing
    char text[17] = "-";
    if (any_) std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(hash_));
    return text;
  }

 private:
  // Each NaN counts as one: which operand's payload it takes is the compiler's choice.
  static std::uint64_t one_nan(Type type, std::uint64_t word) {
    const auto canonical = [word](std::uint64_t sign, std::uint64_t infinity) {
      return (word & ~sign) > infinity ? infinity + 1 : word;
    };
    if (type == Type::kF32) return canonical(0x80000000u, 0x7f800000u);
    if (type == Type::kBF16) return canonical(0x8000u, 0x7f80u);
    if (type == Type::kF16) return canonical(0x8000u, 0x7c00u);
    return word;
  }

  std::uint64_t hash_ = 0xcbf29ce484222325u;
  bool any_ = false;
};

}  // namespace bits
