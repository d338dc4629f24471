#include "lens/unicode.hpp"

#include <gtest/gtest.h>

#include <string>

namespace manyheads::lens {
namespace {

TEST(UnicodeTest, Utf8) {
  for (const char* good : {"", "cat", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\xf4\x8f\xbf\xbf"}) {
    EXPECT_TRUE(is_utf8(good)) << good;
  }
  const char* bad[] = {"\x80",         "\xc3",         "\xc0\xaf",         "\xe2\x82",
                       "\xe0\x80\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xf8\x88\x80\x80\x80",
                       "a\xff",        "\xc3(",        "\xf0\x9f\x98"};
  for (const char* text : bad) EXPECT_FALSE(is_utf8(text));
}

TEST(UnicodeTest, Punctuation) {
  for (const char32_t c : {U'.', U',', U'$', U'~', U'\u2026', U'\u3002', U'\u00bf'}) EXPECT_TRUE(is_punctuation(c));
  for (const char32_t c : {U'a', U'0', U' ', U'\u00e9', U'\u20ac', U'\u4e2d', U'\U0001f600'}) {
    EXPECT_FALSE(is_punctuation(c));
  }
}

TEST(UnicodeTest, DisplayWidth) {
  EXPECT_EQ(display_width("cat"), 3);
  EXPECT_EQ(display_width("caf\xc3\xa9"), 4);
  EXPECT_EQ(display_width("e\xcc\x81"), 1);         // a combining accent
  EXPECT_EQ(display_width("\xe4\xb8\xad"), 2);      // a Chinese character
  EXPECT_EQ(display_width("\xf0\x9f\x98\x80"), 2);  // an emoji
}

TEST(UnicodeTest, PrintableHasNoControlCharacters) {
  EXPECT_EQ(printable("a\x1b[31mb\n\x7f"), "a\xc2\xb7[31mb\xc2\xb7\xc2\xb7");
  EXPECT_EQ(printable("\xc2\x9b"), "\xc2\xb7");      // the one-byte form of ESC [
  EXPECT_EQ(printable("\xe2\x80\xae"), "\xc2\xb7");  // right-to-left override
  EXPECT_EQ(printable("caf\xc3\xa9\xff"), "caf\xc3\xa9\xef\xbf\xbd");
}

TEST(UnicodeTest, LowerCase) {
  EXPECT_EQ(lower_case("The CAT"), "the cat");
  EXPECT_EQ(lower_case("\xc3\x89T\xc3\x89"), "\xc3\xa9t\xc3\xa9");
  EXPECT_EQ(lower_case("\xd0\x96\xd0\x81"), "\xd0\xb6\xd1\x91");  // Cyrillic
  EXPECT_EQ(lower_case("\xce\xa9"), "\xcf\x89");                  // Greek
  EXPECT_EQ(lower_case("\xc5\xb9\xc4\x80"), "\xc5\xba\xc4\x81");  // Latin Extended-A
}

}  // namespace
}  // namespace manyheads::lens
