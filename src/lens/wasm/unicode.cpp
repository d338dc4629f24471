// The page knows the characters: its RegExp has Unicode's categories.
#include "lens/unicode.hpp"

#include <cstdint>

extern "C" {
__attribute__((import_module("env"), import_name("is_punctuation"))) int host_is_punctuation(std::uint32_t c);
__attribute__((import_module("env"), import_name("is_mark"))) int host_is_mark(std::uint32_t c);
}

namespace manyheads::lens {

bool is_punctuation(char32_t c) noexcept { return host_is_punctuation(c) != 0; }
bool is_mark(char32_t c) noexcept { return host_is_mark(c) != 0; }

}  // namespace manyheads::lens
