#include "base/file.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iterator>
#include <manyheads/error.hpp>

#include "support.hpp"

namespace manyheads::base {
namespace {

namespace fs = std::filesystem;

std::string error_of(const std::function<void()>& work) { return test::error_of(work, ErrorCode::kIo); }

std::string read_bytes(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void write_file(const fs::path& path, std::string_view text) {
  FileWriter writer(path);
  writer.write(text);
  writer.commit();
}

class File : public testing::Test {
 protected:
  File() {
    static std::atomic<int> count{0};
    folder_ = fs::temp_directory_path() /
              ("manyheads-file-test-" + std::to_string(::getpid()) + "-" + std::to_string(count++));
    fs::create_directories(folder_);
  }
  ~File() override { fs::remove_all(folder_); }

  std::size_t files() const {
    return static_cast<std::size_t>(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()));
  }
  fs::path folder_;
};

TEST_F(File, MapsWhatWasWritten) {
  write_file(folder_ / "a", "hello");
  const MappedFile file = map_file(folder_ / "a");
  EXPECT_EQ(file.text(), "hello");
  write_file(folder_ / "a", "other");  // the map keeps the old file
  EXPECT_EQ(file.text(), "hello");
  EXPECT_EQ(map_file(folder_ / "a").text(), "other");
  write_file(folder_ / "empty", "");
  EXPECT_EQ(map_file(folder_ / "empty").size, 0u);
}

TEST_F(File, SaysWhyItCannotRead) {
  EXPECT_NE(error_of([&] { map_file(folder_ / "none"); }).find("none\": No such file or directory"), std::string::npos);
  EXPECT_NE(error_of([&] { map_file(folder_); }).find("Is a directory"), std::string::npos);
  EXPECT_NE(error_of([&] { map_file(""); }).find("No such file"), std::string::npos);
  EXPECT_NE(error_of([&] { map_file("/dev/null"); }).find("not a regular file"), std::string::npos);
  ASSERT_EQ(::mkfifo((folder_ / "pipe").c_str(), 0600), 0);
  EXPECT_NE(error_of([&] { map_file(folder_ / "pipe"); }).find("not a regular file"), std::string::npos);
  EXPECT_NE(error_of([&] { map_file(std::string(5000, 'x')); }).find("File name too long"), std::string::npos);
}

TEST_F(File, NothingIsLeftWithoutCommit) {
  write_file(folder_ / "a", "old");
  {
    FileWriter writer(folder_ / "a");
    writer.write("new");
  }
  EXPECT_EQ(read_bytes(folder_ / "a"), "old");
  EXPECT_EQ(files(), 1u);
}

TEST_F(File, NothingIsLeftWhenTheProcessIsKilled) {
  const int nameless = ::open(folder_.c_str(), O_TMPFILE | O_WRONLY, 0600);
  if (nameless < 0) GTEST_SKIP() << "the temporary folder's file system has no nameless files";
  ::close(nameless);
  const pid_t child = ::fork();
  if (child == 0) {
    FileWriter writer(folder_ / "a");
    writer.write(std::string(100'000, 'x'));
    ::raise(SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(files(), 0u);
}

TEST_F(File, NothingIsLeftWhenASignalEndsTheProcess) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGINT, [](int) {
      remove_temporaries();
      ::_exit(130);
    });
    FileWriter writer(folder_ / "a");
    writer.write("x");
    ::raise(SIGINT);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 130);
  EXPECT_EQ(files(), 0u);
}

TEST_F(File, SaysWhyItCannotWrite) {
  EXPECT_NE(error_of([&] { write_file(folder_ / "none" / "a", "x"); }).find("none/a\": No such file"),
            std::string::npos);
  EXPECT_NE(error_of([&] { write_file(folder_, "x"); }).find("Is a directory"), std::string::npos);
  EXPECT_NE(error_of([&] { write_file((folder_ / "").string(), "x"); }).find("Is a directory"), std::string::npos);
  EXPECT_NE(error_of([&] { write_file("", "x"); }).find("No such file"), std::string::npos);
  EXPECT_NE(error_of([&] { write_file("/dev/full", "x"); }).find("No space left on device"), std::string::npos);
  EXPECT_NE(error_of([&] { write_file(folder_ / std::string(300, 'x'), "x"); }).find("File name too long"),
            std::string::npos);
  write_file(folder_ / "a", "x");
  EXPECT_NE(error_of([&] { write_file(folder_ / "a" / "b", "x"); }).find("Not a directory"), std::string::npos);
  EXPECT_EQ(files(), 1u);
}

TEST_F(File, AFullDiskLeavesTheOldFile) {
  write_file(folder_ / "a", "old");
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{1000, 1000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    try {
      write_file(folder_ / "a", std::string(5000, 'x'));
    } catch (const Error& error) {
      std::_Exit(std::string(error.what()).find("File too large") != std::string::npos ? 0 : 1);
    }
    std::_Exit(2);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_EQ(read_bytes(folder_ / "a"), "old");
  EXPECT_EQ(files(), 1u);
}

TEST_F(File, KeepsLinksModesAndDevices) {
  write_file(folder_ / "a", "old");
  ASSERT_EQ(::chmod((folder_ / "a").c_str(), 0640), 0);
  fs::create_symlink("a", folder_ / "link");
  write_file(folder_ / "link", "new");
  EXPECT_TRUE(fs::is_symlink(folder_ / "link"));
  EXPECT_EQ(read_bytes(folder_ / "a"), "new");
  EXPECT_EQ(static_cast<int>(fs::status(folder_ / "a").permissions()), 0640);
  write_file("/dev/null", "gone");
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
  EXPECT_EQ(files(), 2u);
}

TEST_F(File, WritesALongName) {
  const std::string name(255, 'n');
  write_file(folder_ / name, "x");
  EXPECT_EQ(read_bytes(folder_ / name), "x");
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

}  // namespace
}  // namespace manyheads::base
