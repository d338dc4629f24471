#include "base/base64.hpp"

#include <gtest/gtest.h>

namespace manyheads::test {
namespace {

TEST(Base64, TheVectorsOfRfc4648) {
  EXPECT_EQ(base::base64(""), "");
  EXPECT_EQ(base::base64("f"), "Zg==");
  EXPECT_EQ(base::base64("fo"), "Zm8=");
  EXPECT_EQ(base::base64("foo"), "Zm9v");
  EXPECT_EQ(base::base64("foob"), "Zm9vYg==");
  EXPECT_EQ(base::base64("foobar"), "Zm9vYmFy");
  EXPECT_EQ(base::base64(std::string_view("\xff\xfe\x00", 3)), "//4A");
}

}  // namespace
}  // namespace manyheads::test
