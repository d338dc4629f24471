#include "out_file.hpp"

#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <manyheads/error.hpp>

#include "base/file.hpp"
#include "cli.hpp"
#include "text.hpp"

namespace manyheads::cli {
namespace {

// A pipe may have a name of its own too.
bool is_standard_output(const std::string& path) {
  if (base::descriptor_of(path) == STDOUT_FILENO) return true;
  struct stat named{}, output{};
  return ::stat(path.c_str(), &named) == 0 && ::fstat(STDOUT_FILENO, &output) == 0 && named.st_dev == output.st_dev &&
         named.st_ino == output.st_ino && (S_ISFIFO(named.st_mode) || S_ISSOCK(named.st_mode));
}

bool nobody_reads_standard_output() {
  pollfd output{.fd = STDOUT_FILENO, .events = POLLOUT, .revents = 0};
  return ::poll(&output, 1, 0) == 1 && (output.revents & POLLERR) != 0;
}

}  // namespace

OutFile::OutFile(const std::string& named, bool json)
    : path_(named == "-" ? "/dev/stdout" : named), standard_(is_standard_output(path_)) {
  if (standard_ && json) throw UsageError("--json and --out " + named + " both write to standard output");
  if (standard_ && ::isatty(STDOUT_FILENO) == 1) {
    throw UsageError("--out " + named + " writes a safetensors file, and standard output is a terminal");
  }
  if (!standard_) check_output(path_);
}

void OutFile::save(const std::function<void(const std::string& path)>& write) const {
  try {
    write(path_);
  } catch (const Error& error) {
    if (standard_ && error.code() == ErrorCode::kIo && nobody_reads_standard_output()) throw ClosedPipe{};
    throw;
  }
}

void OutFile::report(const std::string& text, const std::string& asked) const {
  if (!standard_) {
    print(text + asked);
  } else if (!asked.empty()) {
    base::write_all(STDERR_FILENO, asked.data(), asked.size());
  }
}

std::string OutFile::shown() const { return base::escaped(path_); }

}  // namespace manyheads::cli
