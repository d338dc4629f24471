#include "base/file.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iterator>
#include <manyheads/error.hpp>
#include <thread>

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

// Names that another process of the same number left behind, which in a container is every run's.
TEST_F(File, StaleTemporariesBlockNothing) {
  for (int i = 0; i < 50; ++i) {
    write_file(folder_ / (".manyheads-" + std::to_string(::getpid()) + "-" + std::to_string(i) + ".tmp"), "old");
  }
  for (int i = 0; i < 3; ++i) write_file(folder_ / "a", "new");
  EXPECT_EQ(read_bytes(folder_ / "a"), "new");
  EXPECT_EQ(files(), 51u);
}

// Runs `work` in a child and returns its exit code; an exception is 99.
int in_child(const std::function<int()>& work) {
  const pid_t child = ::fork();
  if (child == 0) {
    try {
      std::_Exit(work());
    } catch (...) {
      std::_Exit(99);
    }
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// As in a chroot or a sandbox: the nameless file could not take its name.
TEST_F(File, WritesWithoutProc) {
  write_file(folder_ / "old", "old");
  constexpr int kCannot = 77;
  const int code = in_child([&] {
    if (::unshare(CLONE_NEWNS) != 0 || ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("none", "/proc", "tmpfs", 0, nullptr) != 0) {
      return kCannot;
    }
    write_file(folder_ / "a", "new");
    write_file(folder_ / "old", "newer");
    FileWriter dropped(folder_ / "b");
    dropped.write("x");
    if (files() != 3) return 1;  // a, old and the temporary of b
    remove_temporaries();        // as a signal's handler does
    return files() == 2 ? 0 : 2;
  });
  if (code == kCannot) GTEST_SKIP() << "the tests may not mount a file system over /proc";
  EXPECT_EQ(code, 0);
  EXPECT_EQ(read_bytes(folder_ / "a"), "new");
  EXPECT_EQ(read_bytes(folder_ / "old"), "newer");
}

TEST_F(File, ALinkToNowhereIsFollowed) {
  fs::create_directory(folder_ / "folder");
  fs::create_symlink("folder/second", folder_ / "first");
  fs::create_symlink("target", folder_ / "folder" / "second");
  write_file(folder_ / "first", "new");
  EXPECT_TRUE(fs::is_symlink(folder_ / "first"));
  EXPECT_TRUE(fs::is_symlink(folder_ / "folder" / "second"));
  EXPECT_EQ(read_bytes(folder_ / "folder" / "target"), "new");
  fs::create_symlink(folder_ / "none" / "a", folder_ / "far");
  EXPECT_NE(error_of([&] { write_file(folder_ / "far", "x"); }).find("No such file"), std::string::npos);
  fs::create_symlink("circle", folder_ / "circle");
  EXPECT_NE(error_of([&] { write_file(folder_ / "circle", "x"); }).find("symbolic links"), std::string::npos);
  EXPECT_TRUE(fs::is_symlink(folder_ / "circle"));
}

// What a shell has opened is written from where it stands, and neither replaced nor cut.
TEST_F(File, ADescriptorIsWrittenAsItIs) {
  const int fd = ::open((folder_ / "a").c_str(), O_CREAT | O_RDWR, 0600);
  ASSERT_EQ(::write(fd, "before ", 7), 7);
  for (const char* form : {"/dev/fd/", "/proc/self/fd/"}) {
    write_file(form + std::to_string(fd), "this ");
    ASSERT_EQ(::write(fd, "after ", 6), 6);
  }
  ::close(fd);
  EXPECT_EQ(read_bytes(folder_ / "a"), "before this after this after ");
  EXPECT_EQ(files(), 1u);
  EXPECT_NE(error_of([&] { write_file("/dev/fd/999", "x"); }).find("Bad file descriptor"), std::string::npos);
  EXPECT_EQ(descriptor_of("/dev/stdout"), 1);
  EXPECT_EQ(descriptor_of("/dev/stderr"), 2);
  EXPECT_EQ(descriptor_of("/dev/fd/12"), 12);
  for (const char* path : {"/dev/fd/", "/dev/fd/-1", "/dev/fd/1x", "/dev/fd/99999999999", "/dev/null", "stdout", ""}) {
    EXPECT_EQ(descriptor_of(path), -1) << path;
  }
}

TEST_F(File, APipeThatDoesNotBlockIsWaitedFor) {
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  ::fcntl(ends[1], F_SETFL, O_NONBLOCK);
  const std::string text(1'000'000, 'x');  // more than a pipe holds
  std::string got;
  std::thread reader([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    char buffer[65536];
    for (ssize_t n = 0; (n = ::read(ends[0], buffer, sizeof buffer)) > 0;) {
      got.append(buffer, static_cast<std::size_t>(n));
    }
  });
  timespec before{}, after{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &before);
  write_file("/dev/fd/" + std::to_string(ends[1]), text);
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &after);
  ::close(ends[1]);
  reader.join();
  ::close(ends[0]);
  EXPECT_EQ(got, text);
  const auto seconds = [](const timespec& t) {
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
  };
  EXPECT_LT(seconds(after) - seconds(before), 0.1);
}

TEST_F(File, SaysThatAFolderTakesNoNewFile) {
  write_file(folder_ / "a", "old");
  fs::permissions(folder_ / "a", fs::perms::all);
  ASSERT_EQ(::chmod(folder_.c_str(), 0555), 0);
  const int code = in_child([&] {
    if (::geteuid() == 0 && ::setresuid(65534, 65534, 65534) != 0) return 2;
    const std::string error = error_of([&] { write_file(folder_ / "a", "new"); });
    return error.find("a\": a new file beside it: Permission denied") != std::string::npos ? 0 : 1;
  });
  fs::permissions(folder_, fs::perms::owner_all);
  EXPECT_EQ(code, 0);
  EXPECT_EQ(read_bytes(folder_ / "a"), "old");
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

}  // namespace
}  // namespace manyheads::base
