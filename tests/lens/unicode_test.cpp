#include "lens/unicode.hpp"

#include <gtest/gtest.h>

#include <string>
#include <utility>

namespace manyheads::lens {
namespace {

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

TEST(UnicodeTest, WidthOfWhatTablesOfOurOwnWouldMiss) {
  EXPECT_EQ(display_width("\xe2\x80\x8b"), 0);      // a space of no width
  EXPECT_EQ(display_width("\xef\xbc\xa1"), 2);      // a full width letter
  EXPECT_EQ(display_width("\xf0\x9f\xab\xa0"), 2);  // an emoji of Unicode 14
}

TEST(UnicodeTest, Marks) {
  for (const char32_t c : {U'\u0301', U'\u0323', U'\u093f', U'\u20dd', U'\ufe0f'}) EXPECT_TRUE(is_mark(c));
  for (const char32_t c : {U'a', U'\u00e9', U'\u02b0', U' ', U'\u200b'}) EXPECT_FALSE(is_mark(c));
}

TEST(UnicodeTest, CaseAndNormalFormAreFolded) {
  const std::pair<const char*, const char*> same[] = {
      {"The CAT", "the cat"},
      {"ÉTÉ", "été"},
      {"ЖЁ", "жё"},
      {"ΣΊΣΥΦΟΣ", "σίσυφος"},           // tonos, and the sigma at the end of a word
      {"ΆΈΉΊΌΎΏΪΫ", "άέήίόύώϊϋ"},
      {"ᾼ", "αι"},                      // as Unicode folds it
      {"ỆẠ", "ệạ"},                     // Vietnamese
      {"ԵՐԵՎԱՆ", "երեվան"},             // Armenian
      {"ԵՒ", "և"},
      {"ＣＡＴ", "ｃａｔ"},              // full width
      {"STRASSE", "straße"},
      {"STRAẞE", "straße"},
      {"İSTANBUL", "i\u0307stanbul"},   // Turkish dotted I
      {"ǅ", "ǆ"},
      {"Ა", "ა"},                        // Georgian
      {"𐐀", "𐐨"},                        // Deseret, beyond the basic plane
      {"CAFE\u0301", "caf\u00e9"},      // decomposed and composed
      {"a\u0323\u0302", "\u1ead"},
      {"\u212b", "\u00e5"},             // the sign for Angstrom
      {"\u1112\u1161\u11ab", "\ud55c"},  // Hangul
  };
  for (const auto& [a, b] : same) EXPECT_EQ(fold_case(a), fold_case(b)) << a;
  const std::pair<const char*, const char*> other[] = {
      {"cat", "car"}, {"é", "e"}, {"Ｃ", "C"}, {"İ", "i"}, {"ı", "i"}, {"ﬁ", "f"}};
  for (const auto& [a, b] : other) EXPECT_NE(fold_case(a), fold_case(b)) << a;
  EXPECT_EQ(fold_case("caf\xc3"), "caf\xc3");  // not UTF-8
}

TEST(UnicodeTest, NormalFormKeepsCase) {
  EXPECT_EQ(normal_form("Cafe\u0301"), normal_form("Caf\u00e9"));
  EXPECT_EQ(normal_form("\uac01"), normal_form("\u1100\u1161\u11a8"));
  EXPECT_NE(normal_form("Cat"), normal_form("cat"));
}

TEST(UnicodeTest, Capitals) {
  for (const char* text : {"Cat", "ÉTÉ", "Σίσυφος", "E\u0301", "Ｃ", "ǅ", "İ"}) {
    EXPECT_TRUE(has_capitals(text)) << text;
  }
  for (const char* text : {"cat", "", "1", "été", "σίσυφος", "straße", "ｃ", "漢"}) {
    EXPECT_FALSE(has_capitals(text)) << text;
  }
}

}  // namespace
}  // namespace manyheads::lens
