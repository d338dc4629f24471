#pragma once

#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>
#include <string>
#include <vector>

namespace manyheads::cli_test {

// How a run of the program ended and what it said.
struct Result {
  int code = -1;  // exit code, or -1 when a signal ended it
  int signal = 0;
  std::string out;
  std::string err;
  double cpu_seconds = 0;
};

// Where standard output goes.
enum class Stdout {
  kKept,
  kClosedPipe,  // a pipe that nobody reads
  kFull,        // /dev/full
  kClosed,      // no descriptor at all
  kPipe,        // a pipe that is read to its end
  kSlowPipe,    // the same, not blocking its writer, and read after a second and a half
};

struct How {
  Stdout out = Stdout::kKept;
  std::string in{};                                                // standard input
  std::vector<std::pair<std::string, std::string>> environment{};  // set on top of the tests' own
  double interrupt_after = -1;                                     // seconds until `interrupt`
  int interrupt = SIGINT;
  bool ignored = false;  // whether `interrupt` is ignored at the start, as under nohup
};

// Runs the program named by the environment variable MANYHEADS_PROGRAM, or the one that was built with the tests.
Result run(const std::vector<std::string>& arguments, const How& how = {});

// One line on standard error that starts with "manyheads", and nothing else.
testing::AssertionResult is_one_line(const Result& result, const std::string& contains);

// A folder of its own for each test, removed at the end.
class Folder : public testing::Test {
 protected:
  void SetUp() override;
  void TearDown() override;
  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  std::vector<std::string> names() const;  // of the files in it, sorted

 private:
  std::filesystem::path folder_;
};

}  // namespace manyheads::cli_test
