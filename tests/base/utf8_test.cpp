#include "base/utf8.hpp"

#include <gtest/gtest.h>

#include <string>

namespace manyheads::base {
namespace {

TEST(Utf8, WellFormed) {
  for (const char* good : {"", "cat", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\xf4\x8f\xbf\xbf"}) {
    EXPECT_TRUE(is_utf8(good)) << good;
  }
  const char* bad[] = {"\x80",         "\xc3",         "\xc0\xaf",         "\xe2\x82",
                       "\xe0\x80\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xf8\x88\x80\x80\x80",
                       "a\xff",        "\xc3(",        "\xf0\x9f\x98"};
  for (const char* text : bad) EXPECT_FALSE(is_utf8(text));
}

TEST(InQuotes, MakesOneCleanLine) {
  EXPECT_EQ(in_quotes("a\"b\\c"), "\"a\\\"b\\\\c\"");
  EXPECT_EQ(in_quotes("\n\x1b\x7f"), "\"\\u000a\\u001b\\u007f\"");
  EXPECT_EQ(in_quotes("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"), "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"");
  const std::string bad = "\xef\xbf\xbd";
  for (const char* text : {"\xff", "\xc3", "\x80", "\xc0", "\xf5"}) EXPECT_EQ(in_quotes(text), "\"" + bad + "\"");
  EXPECT_EQ(in_quotes("\xed\xa0\x80"), "\"" + bad + bad + bad + "\"");
  EXPECT_EQ(in_quotes("\xc0\xaf"), "\"" + bad + bad + "\"");
  EXPECT_EQ(in_quotes(std::string(300, 'x')), "\"" + std::string(200, 'x') + "...\"");
}

// What a terminal would obey: the C0 and C1 controls, and what turns the direction of writing.
TEST(Escaped, LeavesNothingThatATerminalObeys) {
  EXPECT_EQ(escaped("caf\xc3\xa9 \"\\"), "caf\xc3\xa9 \"\\");
  EXPECT_EQ(escaped(std::string("a\0b", 3)), "a\\u0000b");
  for (char32_t c = 0; c < 0x2100; ++c) {
    std::string one;
    append_utf8(one, c);
    const bool obeyed =
        c < 0x20 || (c >= 0x7f && c <= 0x9f) || (c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069);
    EXPECT_EQ(escaped(one) == one, !obeyed) << static_cast<unsigned>(c);
  }
  EXPECT_EQ(escaped("\xc2\x9b" "31m\xe2\x80\xae\xe2\x81\xa9"), "\\u009b31m\\u202e\\u2069");
  EXPECT_EQ(in_quotes(std::string("\0\xc2\x9b", 3)), "\"\\u0000\\u009b\"");
}

TEST(Utf8, AppendedIsReadAgain) {
  for (const char32_t c : {0x1u, 0x7fu, 0x80u, 0x7ffu, 0x800u, 0xfffdu, 0x10000u, 0x10ffffu}) {
    std::string text;
    append_utf8(text, c);
    std::size_t position = 0;
    char32_t read = 0;
    ASSERT_TRUE(next_code_point(text, &position, &read));
    EXPECT_EQ(read, c);
    EXPECT_EQ(position, text.size());
  }
}

TEST(Utf8, AByteOrderMarkIsDroppedOnce) {
  EXPECT_EQ(without_byte_order_mark("\xef\xbb\xbfthe"), "the");
  EXPECT_EQ(without_byte_order_mark("the\xef\xbb\xbf"), "the\xef\xbb\xbf");
  EXPECT_EQ(without_byte_order_mark("\xef\xbb\xbf\xef\xbb\xbf"), "\xef\xbb\xbf");
  EXPECT_EQ(without_byte_order_mark("\xef\xbb"), "\xef\xbb");
}

}  // namespace
}  // namespace manyheads::base
