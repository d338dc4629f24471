// The C programs of this folder, compiled as C11, as C++11 and by the first header (tests/CMakeLists.txt), run on
// today's library.
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "c/layout.h"

extern "C" {
const char* as_c11();
const char* as_cpp();
const char* by_first_header();
}

namespace manyheads::test {
namespace {

TEST(CDoorProgram, AsC11) { EXPECT_STREQ(as_c11(), ""); }
TEST(CDoorProgram, AsCpp) { EXPECT_STREQ(as_cpp(), ""); }
TEST(CDoorProgram, ByTheFirstHeader) { EXPECT_STREQ(by_first_header(), ""); }

bool is_enum(const layout_row& row) { return std::string(row.type) == "enum"; }

std::string difference(const layout_row* a, const layout_row* b) {
  for (; a->type != nullptr && b->type != nullptr; ++a, ++b) {
    const std::string name = std::string(a->type) + "." + a->field;
    if (name != std::string(b->type) + "." + b->field) return name + " has gone";
    // A struct may grow at its end.
    if (a->field[0] == '\0' ? a->size > b->size : a->offset != b->offset || a->size != b->size)
      return name + " has moved";
  }
  return a->type == b->type ? "" : "one has more rows";
}

TEST(CDoorLayout, NoFieldMoves) {
  EXPECT_EQ(difference(layout_by_first_header(), layout_as_c11()), "");
  EXPECT_EQ(difference(layout_by_first_header(), layout_as_cpp()), "");
}

// A gap could not be told from the garbage of an older caller once a field fills it. Nor may a field be missing in the
// list above.
TEST(CDoorLayout, FieldsFillTheirStruct) {
  std::size_t end = 0;
  int structs = 0;
  for (const layout_row* row = layout_by_first_header(); row->type != nullptr && !is_enum(*row); ++row) {
    if (row->field[0] != '\0') {
      EXPECT_EQ(row->offset, end) << row->type << "." << row->field;
      end = row->offset + row->size;
      continue;
    }
    EXPECT_EQ(row->size, end) << row->type;
    end = 0;
    ++structs;
  }
  EXPECT_EQ(structs, 8);
}

TEST(CDoorLayout, EachStructButATensorBeginsWithItsSize) {
  for (const layout_row* row = layout_as_c11(); row->type != nullptr && !is_enum(*row); ++row) {
    if (row->offset == 0 && row->field[0] != '\0') {
      EXPECT_STREQ(row->field, std::string(row->type) == "mh_tensor" ? "data" : "size") << row->type;
    }
  }
}

}  // namespace
}  // namespace manyheads::test
