#include "program.hpp"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <thread>

namespace manyheads::cli_test {

namespace {

using File = std::unique_ptr<std::FILE, int (*)(std::FILE*)>;

File scratch() { return File(std::tmpfile(), &std::fclose); }

std::string contents(std::FILE* file) {
  std::string text;
  std::rewind(file);
  char buffer[4096];
  for (std::size_t n = 0; (n = std::fread(buffer, 1, sizeof buffer, file)) > 0;) text.append(buffer, n);
  return text;
}

}  // namespace

Result run(const std::vector<std::string>& arguments, const How& how) {
  const char* named = std::getenv("MANYHEADS_PROGRAM");
  std::vector<std::string> words{named != nullptr ? named : MANYHEADS_PROGRAM};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);

  const File in = scratch(), out = scratch(), err = scratch();
  std::fwrite(how.in.data(), 1, how.in.size(), in.get());
  std::fflush(in.get());
  std::rewind(in.get());
  int out_fd = ::fileno(out.get());
  if (how.out == Stdout::kFull) out_fd = ::open("/dev/full", O_WRONLY);
  if (how.out == Stdout::kClosedPipe) {
    int ends[2];
    if (::pipe(ends) != 0) return {};
    ::close(ends[0]);
    out_fd = ends[1];
  }
  int reading = -1;
  if (how.out == Stdout::kPipe || how.out == Stdout::kSlowPipe) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return {};
    if (how.out == Stdout::kSlowPipe) ::fcntl(ends[1], F_SETFL, O_NONBLOCK);
    reading = ends[0];
    out_fd = ends[1];
  }

  const pid_t child = ::fork();
  if (child == 0) {
    std::signal(how.interrupt, how.ignored ? SIG_IGN : SIG_DFL);
    ::dup2(::fileno(in.get()), STDIN_FILENO);
    ::dup2(out_fd, STDOUT_FILENO);
    if (how.out == Stdout::kClosed) ::close(STDOUT_FILENO);
    ::dup2(::fileno(err.get()), STDERR_FILENO);
    for (const auto& [name, value] : how.environment) ::setenv(name.c_str(), value.c_str(), 1);
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
  if (out_fd != ::fileno(out.get())) ::close(out_fd);
  if (how.interrupt_after >= 0) {
    std::this_thread::sleep_for(std::chrono::duration<double>(how.interrupt_after));
    ::kill(child, how.interrupt);
  }
  Result result;
  if (reading >= 0) {
    if (how.out == Stdout::kSlowPipe) std::this_thread::sleep_for(std::chrono::milliseconds(1500));
    char buffer[4096];
    for (ssize_t n = 0; (n = ::read(reading, buffer, sizeof buffer)) > 0;) {
      result.out.append(buffer, static_cast<std::size_t>(n));
    }
    ::close(reading);
  }
  int status = 0;
  rusage used{};
  ::wait4(child, &status, 0, &used);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  };
  result.cpu_seconds = seconds(used.ru_utime) + seconds(used.ru_stime);
  if (WIFEXITED(status)) result.code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) result.signal = WTERMSIG(status);
  if (reading < 0) result.out = contents(out.get());
  result.err = contents(err.get());
  return result;
}

testing::AssertionResult is_one_line(const Result& result, const std::string& contains) {
  const std::string& err = result.err;
  if (err.rfind("manyheads", 0) == 0 && std::count(err.begin(), err.end(), '\n') == 1 && err.back() == '\n' &&
      err.find(contains) != std::string::npos) {
    return testing::AssertionSuccess();
  }
  return testing::AssertionFailure() << "standard error is \"" << err << "\", without one line on \"" << contains
                                     << "\"";
}

void Folder::SetUp() {
  std::string name = (std::filesystem::temp_directory_path() / "manyheads-XXXXXX").string();
  ASSERT_NE(::mkdtemp(name.data()), nullptr);
  folder_ = name;
}

void Folder::TearDown() { std::filesystem::remove_all(folder_); }

std::vector<std::string> Folder::names() const {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder_)) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace manyheads::cli_test
