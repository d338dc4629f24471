#pragma once

#include <string>
#include <string_view>

#include "base/utf8.hpp"

namespace manyheads::lens {

using base::is_utf8;
using base::next_code_point;

// As BERT's tokenizer sees it: the Unicode categories P* and the ASCII symbols.
bool is_punctuation(char32_t c) noexcept;

// An accent or a sign that belongs to the letter before it: the Unicode categories M*.
bool is_mark(char32_t c) noexcept;

// Columns in a terminal: 2 for East Asian wide characters and emoji, 0 for combining marks.
int display_width(char32_t c) noexcept;
int display_width(std::string_view text) noexcept;

// Safe to show in a terminal: control characters become a middle dot.
std::string printable(std::string_view text);

// Equal for texts of the same characters, however accents and syllables are composed (NFC, NFD).
std::string normal_form(std::string_view text);

// Equal for texts that differ only in case and normal form: Unicode's caseless match.
std::string fold_case(std::string_view text);

// Whether any letter is not its own lower case.
bool has_capitals(std::string_view text);

}  // namespace manyheads::lens
