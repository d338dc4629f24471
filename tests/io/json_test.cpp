#include "io/json.hpp"

#include <gtest/gtest.h>

#include <functional>

#include "io/malformed.hpp"
#include "support.hpp"

namespace manyheads::io {
namespace {

namespace fs = std::filesystem;
using test::Malformed;

std::string error_of(const std::function<void()>& work) { return test::error_of(work, ErrorCode::kMalformedFile); }

TEST(Json, MalformedFilesAreRefusedEachInItsOwnWords) {
  std::vector<Malformed> cases = test::not_json("{\"hidden_size\":", "}");
  cases.push_back({"", "empty; JSON is needed"});
  cases.push_back({" \n", "not JSON"});
  cases.push_back({"hidden_size: 384", "not JSON"});
  cases.push_back({std::string(64, '\0'), "not JSON"});
  cases.push_back({"\xff\xfe{\0}\0", "not JSON"});
  const std::string whole = R"({"hidden_size":384,"list":[1,2.5,null],"name":"x","deep":{"a":true}})";
  for (std::size_t size = 1; size < whole.size(); ++size) cases.push_back({whole.substr(0, size), "not JSON"});
  test::expect_refused(cases, "config.json", 100, [](const fs::path& path) { read_json(path); });
}

TEST(Json, ErrorsNameTheByte) {
  EXPECT_EQ(error_of([] { parse_json("{\"a\":1,\"a\":2}", "f"); }), "f: the key \"a\" is there twice (byte 10)");
  EXPECT_NE(error_of([] { parse_json("[1,x]", "f"); }).find("(byte 4)"), std::string::npos);
}

TEST(Json, DepthLimitIsExact) {
  EXPECT_NO_THROW(parse_json("[[[]]]", "f", 3));
  EXPECT_NE(error_of([] { parse_json("[[[]]]", "f", 2); }).find("nested deeper than 2"), std::string::npos);
  const std::string deep = std::string(kMaxJsonDepth, '[') + std::string(kMaxJsonDepth, ']');
  EXPECT_NO_THROW(parse_json(deep, "f"));
  EXPECT_NE(error_of([&] { parse_json("[" + deep + "]", "f"); }).find("nested deeper than 64"), std::string::npos);
}

TEST(Json, ReadsWhatItShould) {
  const JsonDocument json =
      parse_json(R"( {"i":-3,"u":18446744073709551615,"n":2.5,"e":1e3,"b":true,"s":"\u00e9\ud83d\ude00",
    "o":{"x":{"y":1}},"a":[1,{"k":2},[]],"none":null} )",
                 "f");
  EXPECT_EQ(require_int(json, "i", -5, 5), -3);
  EXPECT_EQ(require_number(json, "i"), -3);
  EXPECT_EQ(require_number(json, "n"), 2.5);
  EXPECT_EQ(require_number(json, "e", 0, 1000), 1000);
  EXPECT_TRUE(require_bool(json, "b"));
  EXPECT_EQ(require_string(json, "s"), "\xc3\xa9\xf0\x9f\x98\x80");
  EXPECT_EQ(require_int(require_object(require_object(json, "o"), "x"), "y"), 1);
  const std::vector<JsonDocument> items = require_array(json, "a");
  ASSERT_EQ(items.size(), 3u);
  EXPECT_EQ(require_int(items[1], "k"), 2);
  EXPECT_TRUE(has(json, "i"));
  EXPECT_FALSE(has(json, "none"));
  EXPECT_FALSE(has(json, "other"));
}

// Every getter against every kind of value it does not take.
TEST(Json, GettersNameTheKeyTheValueAndTheNeed) {
  struct Getter {
    std::string needed;
    std::vector<std::string> wrong;
    std::function<void(const JsonDocument&)> get;
  };
  const std::vector<Getter> getters = {
      {"an integer from 1 to 100 is needed",
       {"0", "101", "-1", "1.5", "1.0", "1e1", "18446744073709551615", "9223372036854775808", "\"1\"", "true", "null",
        "[1]", "{}"},
       [](const JsonDocument& json) { require_int(json, "k", 1, 100); }},
      {"an integer of at least 0 is needed",
       {"-1", "0.5", "9223372036854775808", "\"\"", "false"},
       [](const JsonDocument& json) { require_int(json, "k"); }},
      {"a number from 0.0 to 1.0 is needed",
       {"-0.5", "1.5", "2", "\"0.5\"", "true", "null", "[0.5]", "{}"},
       [](const JsonDocument& json) { require_number(json, "k", 0, 1); }},
      {"true or false is needed",
       {"0", "1", "\"true\"", "null", "[]", "{}"},
       [](const JsonDocument& json) { require_bool(json, "k"); }},
      {"a string is needed",
       {"0", "1.5", "true", "null", "[\"a\"]", "{}"},
       [](const JsonDocument& json) { require_string(json, "k"); }},
      {"an object is needed",
       {"0", "1.5", "true", "null", "[]", "\"{}\""},
       [](const JsonDocument& json) { require_object(json, "k"); }},
      {"an array is needed",
       {"0", "1.5", "true", "null", "{}", "\"[]\""},
       [](const JsonDocument& json) { require_array(json, "k"); }},
  };
  for (const Getter& getter : getters) {
    for (const std::string& value : getter.wrong) {
      const std::string message = error_of([&] { getter.get(parse_json("{\"k\":" + value + "}", "config.json")); });
      EXPECT_EQ(message.find("config.json: \"k\" is "), 0u) << value << ": " << message;
      EXPECT_NE(message.find("; " + getter.needed), std::string::npos) << value << ": " << message;
    }
    EXPECT_EQ(error_of([&] { getter.get(parse_json("{}", "config.json")); }),
              "config.json: \"k\" is missing; " + getter.needed);
    EXPECT_NE(
        error_of([&] { getter.get(parse_json("[1]", "config.json")); }).find("a JSON object is needed, not array"),
        std::string::npos);
  }
  const JsonDocument inner = require_object(parse_json("{\"a\":{\"b\":\"x\"}}", "f"), "a");
  EXPECT_EQ(error_of([&] { require_int(inner, "b"); }), "f: \"a\": \"b\" is \"x\"; an integer of at least 0 is needed");
}

}  // namespace
}  // namespace manyheads::io
