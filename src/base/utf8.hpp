#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace manyheads::base {

// Reads the code point at *position (below text.size()) and moves past it. False where the bytes are not UTF-8.
bool next_code_point(std::string_view text, std::size_t* position, char32_t* code_point) noexcept;
bool is_utf8(std::string_view text) noexcept;
void append_utf8(std::string& out, char32_t c);

// Some systems begin a file with a U+FEFF that is no part of its text.
std::string_view without_byte_order_mark(std::string_view text) noexcept;

// Characters that must not reach a terminal: the C0 and C1 controls, DEL, line and paragraph separators, and those that
// turn the direction of writing.
bool is_control(char32_t c) noexcept;

// Text safe on a line of its own: control characters become \u001b, bytes that are not UTF-8 U+FFFD.
std::string escaped(std::string_view text);

// Text safe within a line: the same in quotes, quotes in it escaped, cut at about `longest` bytes.
std::string in_quotes(std::string_view text, std::size_t longest = 200);

}  // namespace manyheads::base
