#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace manyheads::base {

// Reads the code point at *position (below text.size()) and moves past it. False where the bytes are not UTF-8.
bool next_code_point(std::string_view text, std::size_t* position, char32_t* code_point) noexcept;
bool is_utf8(std::string_view text) noexcept;
void append_utf8(std::string& out, char32_t c);

// A file of some systems begins with a U+FEFF that is no part of its text.
std::string_view without_byte_order_mark(std::string_view text) noexcept;

// What must not reach a terminal as it is: the C0 and C1 controls, DEL, the ends of lines and paragraphs, and what
// turns the direction of writing.
bool is_control(char32_t c) noexcept;

// Text fit for a line of its own: control characters as \u001b, what is not UTF-8 as the replacement character.
std::string escaped(std::string_view text);

// Text fit for a place in a line: the same in quotes, which it escapes too, cut at about `longest` bytes.
std::string in_quotes(std::string_view text, std::size_t longest = 200);

}  // namespace manyheads::base
