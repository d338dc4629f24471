#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <manyheads/error.hpp>
#include <string>
#include <utility>
#include <vector>

namespace manyheads::test {

// A folder that is gone when the test ends.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    static std::atomic<int> count{0};
    path_ = std::filesystem::temp_directory_path() /
            ("manyheads-test-" + std::to_string(::getpid()) + "-" + std::to_string(count++));
    std::filesystem::create_directories(path_);
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path write(const std::string& name, const std::string& bytes) const {
    std::ofstream(path_ / name, std::ios::binary) << bytes;
    return path_ / name;
  }

 private:
  std::filesystem::path path_;
};

// A file that must be refused, and words that its error must hold.
struct Malformed {
  std::string bytes;
  std::string expected;
};

// Each file must give one clear line: the file's name and what is wrong with it. Prints and checks how many there were.
template <class Load>
void expect_refused(const std::vector<Malformed>& cases, const std::string& name, std::size_t at_least, Load load) {
  const TemporaryFolder folder;
  for (std::size_t i = 0; i < cases.size(); ++i) {
    SCOPED_TRACE("case " + std::to_string(i) + ": " + cases[i].bytes.substr(0, 300));
    const std::filesystem::path path = folder.write(name, cases[i].bytes);
    try {
      load(path);
      ADD_FAILURE() << "accepted; expected: " << cases[i].expected;
    } catch (const Error& error) {
      const std::string message = error.what();
      EXPECT_EQ(error.code(), ErrorCode::kMalformedFile) << message;
      EXPECT_NE(message.find(cases[i].expected), std::string::npos) << message << "\nexpected: " << cases[i].expected;
      EXPECT_NE(message.find(name), std::string::npos) << message;
      EXPECT_EQ(message.find_first_of("\n\r\t\x1b"), std::string::npos) << message;
      EXPECT_LT(message.size(), 1000u) << message;
    }
  }
  std::printf("%zu malformed files\n", cases.size());
  EXPECT_GE(cases.size(), at_least);
}

// Texts that are not JSON, whatever they are meant to say; each is `before` + something wrong + `after`, put where a
// value belongs.
inline std::vector<Malformed> not_json(const std::string& before, const std::string& after) {
  std::vector<Malformed> cases;
  const std::vector<std::pair<std::string, std::string>> values = {
      {"", "not JSON"},
      {"nul", "invalid literal"},
      {"NaN", "invalid literal"},
      {"-Infinity", "invalid number"},
      {"True", "invalid literal"},
      {"'x'", "invalid literal"},
      {"01", "not JSON"},
      {"+1", "invalid literal"},
      {"1.", "invalid number"},
      {".5", "invalid literal"},
      {"0x10", "not JSON"},
      {"1e400", "a number is too large"},
      {"-1e99999", "a number is too large"},
      {"\"open", "missing closing quote"},
      {"\"a\nb\"", "control character"},
      {std::string("\"a\0b\"", 5), "control character"},
      {"\"\\x41\"", "forbidden character after backslash"},
      {"\"\\u12\"", "4 hex digits"},
      {"\"\\ud800\"", "surrogate"},
      {"\"\\udc00\"", "surrogate"},
      {"\"\xff\"", "ill-formed UTF-8"},
      {"\"\xc0\xaf\"", "ill-formed UTF-8"},
      {"\"\xe2\x82\"", "ill-formed UTF-8"},
      {"\"\xed\xa0\x80\"", "ill-formed UTF-8"},
      {"\"\xf5\x80\x80\x80\"", "ill-formed UTF-8"},
      {"\"\x80\"", "ill-formed UTF-8"},
      {"[1,]", "not JSON"},
      {"[1 2]", "not JSON"},
      {"[1", "not JSON"},
      {"{\"a\":1,}", "not JSON"},
      {"{\"a\" 1}", "not JSON"},
      {"{a:1}", "not JSON"},
      {"{\"a\":1", "not JSON"},
      {"{1:1}", "not JSON"},
      {"// no\n1", "not JSON"},
      {"{\"a\":1,\"a\":1}", "\"a\" is there twice"},
      {"{\"a\":1,\"b\":2,\"\\u0061\":1}", "\"a\" is there twice"},
      {"{\"\":1,\"\":1}", "\"\" is there twice"},
      {std::string(100'000, '['), "nested deeper than"},
  };
  for (const auto& [value, expected] : values) cases.push_back({before + value + after, expected});
  std::string deep;
  for (int i = 0; i < 100'000; ++i) deep += "{\"a\":";
  cases.push_back({before + deep + after, "nested deeper than"});
  cases.push_back({before + "1" + after + "x", "not JSON"});
  cases.push_back({before + "1" + after + "{}", "not JSON"});
  cases.push_back({before + "1" + after + std::string(1, '\0'), "not JSON"});
  cases.push_back({before + "1" + after.substr(1), "not JSON"});
  return cases;
}

}  // namespace manyheads::test
