#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace manyheads::lens {

// Reads the code point at *position (below text.size()) and moves past it. False where the bytes are not UTF-8.
bool next_code_point(std::string_view text, std::size_t* position, char32_t* code_point) noexcept;
bool is_utf8(std::string_view text) noexcept;

// As BERT's tokenizer sees it: the Unicode categories P* and the ASCII symbols.
bool is_punctuation(char32_t c) noexcept;

// Columns in a terminal: 2 for East Asian wide characters and emoji, 0 for combining marks.
int display_width(char32_t c) noexcept;
int display_width(std::string_view text) noexcept;

// Safe to show in a terminal: control characters become a middle dot.
std::string printable(std::string_view text);

// ASCII, Latin, Greek and Cyrillic capitals become small letters.
std::string lower_case(std::string_view text);

}  // namespace manyheads::lens
