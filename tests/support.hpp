#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <manyheads/error.hpp>
#include <optional>
#include <string>

// What tests of every part share.
namespace manyheads::test {

// The text of the Error that `work` throws, with the code given where one is; "no error" where it throws none.
inline std::string error_of(const std::function<void()>& work,
                            std::optional<ErrorCode> code = ErrorCode::kInvalidArgument) {
  try {
    work();
  } catch (const Error& error) {
    if (code) {
      EXPECT_EQ(error.code(), *code) << error.what();
    }
    return error.what();
  }
  return "no error";
}

// The tree whose files tests read: where it was built, or where MANYHEADS_SOURCE_DIR says that it was carried.
inline std::filesystem::path source_dir() {
  const char* carried = std::getenv("MANYHEADS_SOURCE_DIR");
  return carried != nullptr && *carried != '\0' ? carried : MANYHEADS_SOURCE_DIR;
}

inline std::int64_t from_environment(const char* name, std::int64_t otherwise) {
  const char* text = std::getenv(name);
  return text != nullptr && *text != '\0' ? std::stoll(text) : otherwise;
}

}  // namespace manyheads::test
