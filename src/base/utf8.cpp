#include "base/utf8.hpp"

#include <cstdio>

namespace manyheads::base {
namespace {

// Moves past one character and appends it, or its escape.
void append_escaped(std::string& out, std::string_view text, std::size_t* position) {
  char32_t c = 0;
  if (!next_code_point(text, position, &c)) {
    ++*position;
    append_utf8(out, 0xfffd);
  } else if (is_control(c)) {
    char escape[8];
    std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(c));
    out += escape;
  } else {
    append_utf8(out, c);
  }
}

}  // namespace

bool next_code_point(std::string_view text, std::size_t* position, char32_t* code_point) noexcept {
  const auto at = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const std::size_t p = *position;
  const unsigned char lead = at(p);
  if (lead < 0x80) {
    *code_point = lead;
    *position = p + 1;
    return true;
  }
  const std::size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || p + length > text.size()) return false;
  char32_t c = lead & (0x7fu >> length);
  for (std::size_t i = 1; i < length; ++i) {
    if ((at(p + i) & 0xc0) != 0x80) return false;
    c = (c << 6) | (at(p + i) & 0x3f);
  }
  const char32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
  if (c < smallest[length] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff)) return false;
  *code_point = c;
  *position = p + length;
  return true;
}

bool is_utf8(std::string_view text) noexcept {
  char32_t c;
  for (std::size_t p = 0; p < text.size();) {
    if (!next_code_point(text, &p, &c)) return false;
  }
  return true;
}

void append_utf8(std::string& out, char32_t c) {
  const auto byte = [&out](char32_t b) { out.push_back(static_cast<char>(b)); };
  if (c < 0x80) {
    byte(c);
  } else if (c < 0x800) {
    byte(0xc0 | (c >> 6));
    byte(0x80 | (c & 0x3f));
  } else if (c < 0x10000) {
    byte(0xe0 | (c >> 12));
    byte(0x80 | ((c >> 6) & 0x3f));
    byte(0x80 | (c & 0x3f));
  } else {
    byte(0xf0 | (c >> 18));
    byte(0x80 | ((c >> 12) & 0x3f));
    byte(0x80 | ((c >> 6) & 0x3f));
    byte(0x80 | (c & 0x3f));
  }
}

std::string_view without_byte_order_mark(std::string_view text) noexcept {
  constexpr std::string_view kMark = "\xef\xbb\xbf";
  return text.substr(text.starts_with(kMark) ? kMark.size() : 0);
}

bool is_control(char32_t c) noexcept {
  return c < 0x20 || (c >= 0x7f && c < 0xa0) || (c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069);
}

std::string escaped(std::string_view text) {
  std::string out;
  for (std::size_t p = 0; p < text.size();) append_escaped(out, text, &p);
  return out;
}

std::string in_quotes(std::string_view text, std::size_t longest) {
  std::string out = "\"";
  for (std::size_t p = 0; p < text.size();) {
    if (p >= longest) return out + "...\"";
    if (text[p] == '"' || text[p] == '\\') out += '\\';
    append_escaped(out, text, &p);
  }
  return out + "\"";
}

}  // namespace manyheads::base
