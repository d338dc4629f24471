#include "model/generation_config.hpp"

#include <gtest/gtest.h>

#include <vector>

#include "io/malformed.hpp"
#include "support.hpp"

namespace manyheads::model {
namespace {

using Ids = std::vector<std::int64_t>;

TEST(EndTokens, GenerationConfigGoesFirst) {
  const test::TemporaryFolder folder;
  EXPECT_EQ(end_tokens(folder.path(), 10), Ids{});
  folder.write("config.json", R"({"eos_token_id": 2})");
  EXPECT_EQ(end_tokens(folder.path(), 10), Ids{2});
  folder.write("generation_config.json", R"({"eos_token_id": null})");
  EXPECT_EQ(end_tokens(folder.path(), 10), Ids{2});
  folder.write("generation_config.json", R"({"eos_token_id": [3, 9]})");
  EXPECT_EQ(end_tokens(folder.path(), 10), (Ids{3, 9}));
  folder.write("config.json", "{}");
  folder.write("generation_config.json", R"({"temperature": 0.6})");
  EXPECT_EQ(end_tokens(folder.path(), 10), Ids{});
}

TEST(EndTokens, RefusesWhatIsNoToken) {
  const test::TemporaryFolder folder;
  for (const char* value : {"10", "-1", "\"2\"", "[2, 10]", "[2, \"3\"]", "[[2]]", "{}", "1.5"}) {
    folder.write("generation_config.json", std::string(R"({"eos_token_id": )") + value + "}");
    const std::string error = test::error_of([&] { end_tokens(folder.path(), 10); }, ErrorCode::kMalformedFile);
    EXPECT_NE(error.find("generation_config.json\": \"eos_token_id\" is "), std::string::npos) << error;
  }
  for (const char* text : {"", "[]", "{", "2"}) {
    folder.write("generation_config.json", text);
    const std::string error = test::error_of([&] { end_tokens(folder.path(), 10); }, ErrorCode::kMalformedFile);
    EXPECT_NE(error.find("generation_config.json"), std::string::npos) << error;
  }
}

}  // namespace
}  // namespace manyheads::model
