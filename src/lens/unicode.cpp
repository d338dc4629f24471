#include "lens/unicode.hpp"

#include <utf8proc.h>

#include <cstdlib>
#include <memory>
#include <new>

namespace manyheads::lens {

namespace {

// Text that is not UTF-8 stays as it is.
std::string mapped(std::string_view text, int options) {
  utf8proc_uint8_t* bytes = nullptr;
  const utf8proc_ssize_t size =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()),
                   &bytes, static_cast<utf8proc_option_t>(options));
  const std::unique_ptr<utf8proc_uint8_t, void (*)(void*)> owner(bytes, std::free);
  if (size == UTF8PROC_ERROR_NOMEM) throw std::bad_alloc();
  if (size < 0) return std::string(text);
  return {reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(size)};
}

}  // namespace

bool is_punctuation(char32_t c) noexcept {
  if (c < 0x80) return c > 0x20 && c < 0x7f && !(c >= '0' && c <= '9') && !((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
  const utf8proc_category_t category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO;
}

bool is_mark(char32_t c) noexcept {
  const utf8proc_category_t category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return category >= UTF8PROC_CATEGORY_MN && category <= UTF8PROC_CATEGORY_ME;
}

int display_width(char32_t c) noexcept { return utf8proc_charwidth(static_cast<utf8proc_int32_t>(c)); }

int display_width(std::string_view text) noexcept {
  int width = 0;
  char32_t c;
  for (std::size_t p = 0; p < text.size() && next_code_point(text, &p, &c);) width += display_width(c);
  return width;
}

std::string printable(std::string_view text) {
  std::string out;
  char32_t c;
  for (std::size_t p = 0; p < text.size();) {
    if (!next_code_point(text, &p, &c)) {
      c = 0xfffd;
      ++p;
    }
    base::append_utf8(out, base::is_control(c) ? U'\u00b7' : c);
  }
  return out;
}

std::string normal_form(std::string_view text) { return mapped(text, UTF8PROC_STABLE | UTF8PROC_DECOMPOSE); }

std::string fold_case(std::string_view text) {
  return mapped(normal_form(text), UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_CASEFOLD);
}

bool has_capitals(std::string_view text) {
  const std::string plain = normal_form(text);
  char32_t c;
  for (std::size_t p = 0; p < plain.size() && next_code_point(plain, &p, &c);) {
    const auto letter = static_cast<utf8proc_int32_t>(c);
    if (utf8proc_tolower(letter) != letter) return true;
  }
  return false;
}

}  // namespace manyheads::lens
