#include "base/file.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <manyheads/error.hpp>
#include <utility>

namespace manyheads::base {
namespace {

[[noreturn]] void throw_io(const char* action, const std::filesystem::path& path, int error, const char* at = "") {
  throw Error(ErrorCode::kIo, std::string(action) + " " + path_in_quotes(path) + ": " + at + std::strerror(error));
}

// A name of our own in that folder. It is short, so that it fits wherever the target's name does. It is random, since
// another machine or container that writes there may number its processes as this one does.
std::filesystem::path temporary_name(const std::filesystem::path& folder) {
  std::uint32_t chance = 0;
  if (::getrandom(&chance, sizeof chance, GRND_NONBLOCK) != sizeof chance) {
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    chance = static_cast<std::uint32_t>(now.tv_nsec) ^ (static_cast<std::uint32_t>(::getpid()) << 12);
  }
  char name[32];
  std::snprintf(name, sizeof name, ".manyheads-%08x.tmp", chance);
  return folder / name;
}

// The names of temporary files, where a signal handler can read them: no lock, no allocation.
struct TemporarySlot {
  std::atomic<bool> taken{false};
  std::atomic<bool> filled{false};
  char name[4096];
};
std::array<TemporarySlot, 16> temporaries;

std::filesystem::path folder_of(const std::filesystem::path& target) {
  const std::filesystem::path folder = target.parent_path();
  return folder.empty() ? std::filesystem::path(".") : folder;
}

// Follows links to where they lead, even where nothing is there yet.
std::filesystem::path follow_links(std::filesystem::path path) {
  constexpr int kMostLinks = 40;  // as the system takes
  std::error_code problem;
  for (int i = 0; i < kMostLinks && std::filesystem::is_symlink(path, problem); ++i) {
    const std::filesystem::path next = std::filesystem::read_symlink(path, problem);
    path = next.is_absolute() ? next : path.parent_path() / next;
  }
  return path;
}

std::string path_of_descriptor(int fd) { return "/proc/self/fd/" + std::to_string(fd); }

}  // namespace

MappedFile map_file(const std::filesystem::path& path) {
  // O_NONBLOCK: a pipe without a writer must give the error below, not wait.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) throw_io("cannot open", path, errno);
  struct stat info{};
  int error = ::fstat(fd, &info) < 0 ? errno : 0;
  if (error == 0 && S_ISDIR(info.st_mode)) error = EISDIR;
  if (error != 0) {
    ::close(fd);
    throw_io("cannot read", path, error);
  }
  if (!S_ISREG(info.st_mode)) {
    ::close(fd);
    throw Error(ErrorCode::kIo, "cannot read " + path_in_quotes(path) + ": not a regular file");
  }
  MappedFile file;
  file.size = static_cast<std::size_t>(info.st_size);
  if (file.size > 0) {
    void* address = ::mmap(nullptr, file.size, PROT_READ, MAP_PRIVATE, fd, 0);
    error = address == MAP_FAILED ? errno : 0;
    ::close(fd);
    if (error != 0) throw_io("cannot map", path, error);
    const std::size_t size = file.size;
    file.bytes = std::shared_ptr<const std::byte>(
        static_cast<const std::byte*>(address),
        [size](const std::byte* bytes) { ::munmap(const_cast<std::byte*>(bytes), size); });
  } else {
    ::close(fd);
  }
  return file;
}

int write_all(int fd, const void* data, std::size_t size) noexcept {
  const char* next = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t written = ::write(fd, next, std::min(size, std::size_t{1} << 30));
    if (written >= 0) {
      next += written;
      size -= static_cast<std::size_t>(written);
    } else if (errno == EAGAIN) {
      pollfd room{.fd = fd, .events = POLLOUT, .revents = 0};
      if (::poll(&room, 1, -1) < 0 && errno != EINTR) return errno;
    } else if (errno != EINTR) {
      return errno;
    }
  }
  return 0;
}

int descriptor_of(const std::filesystem::path& path) {
  const std::string& name = path.native();
  if (name == "/dev/stdout") return STDOUT_FILENO;
  if (name == "/dev/stderr") return STDERR_FILENO;
  for (const std::string_view folder : {"/dev/fd/", "/proc/self/fd/"}) {
    if (!name.starts_with(folder)) continue;
    int fd = -1;
    const char* const end = name.data() + name.size();
    const auto [stop, problem] = std::from_chars(name.data() + folder.size(), end, fd);
    if (problem == std::errc() && stop == end && fd >= 0) return fd;
  }
  return -1;
}

template <class Make>
bool FileWriter::make_temporary(const Make& make) {
  constexpr int kTries = 100;
  for (int i = 0; i < kTries; ++i) {
    temporary_ = temporary_name(folder_of(target_));
    remember_temporary();  // first: a signal may come as soon as the file is there
    if (make(temporary_.c_str())) return true;
    const int error = errno;
    forget_temporary();
    errno = error;
    if (error != EEXIST) return false;
  }
  return false;
}

FileWriter::FileWriter(std::filesystem::path path) : path_(std::move(path)), target_(path_) {
  if (const int named = descriptor_of(path_); named >= 0) {
    direct_ = true;
    fd_ = ::fcntl(named, F_DUPFD_CLOEXEC, 0);
    if (fd_ < 0) throw_io("cannot write", path_, errno);
    return;
  }
  struct stat info{};
  const bool exists = ::stat(path_.c_str(), &info) == 0;
  if (!exists && errno != ENOENT) throw_io("cannot write", path_, errno);
  if (exists && S_ISDIR(info.st_mode)) throw_io("cannot write", path_, EISDIR);
  direct_ = exists && !S_ISREG(info.st_mode);
  if (direct_) {
    fd_ = ::open(path_.c_str(), O_WRONLY | O_CLOEXEC);
    if (fd_ < 0) throw_io("cannot write", path_, errno);
    return;
  }
  if (exists && ::access(path_.c_str(), W_OK) < 0) throw_io("cannot write", path_, errno);
  target_ = exists ? std::filesystem::canonical(path_) : follow_links(path_);
  if (target_.filename().empty()) throw_io("cannot write", path_, path_.empty() ? ENOENT : EISDIR);
  fd_ = ::open(folder_of(target_).c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, 0666);
  const bool cannot_be_named = fd_ >= 0 && ::access(path_of_descriptor(fd_).c_str(), F_OK) < 0;
  if (cannot_be_named) ::close(std::exchange(fd_, -1));
  if (fd_ < 0 && (cannot_be_named || errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL)) {
    make_temporary([this](const char* name) {
      fd_ = ::open(name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0666);
      return fd_ >= 0;
    });
  }
  if (fd_ < 0) throw_io("cannot write", path_, errno, exists ? "a new file beside it: " : "");
  if (exists && ::fchmod(fd_, info.st_mode & 07777) < 0) fail("cannot write", errno);
}

FileWriter::~FileWriter() { close_and_remove(); }

void FileWriter::close_and_remove() noexcept {
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
  forget_temporary();
}

void FileWriter::remember_temporary() noexcept {
  const std::string& name = temporary_.native();
  for (std::size_t i = 0; i < temporaries.size() && name.size() < sizeof temporaries[i].name; ++i) {
    if (temporaries[i].taken.exchange(true)) continue;
    std::memcpy(temporaries[i].name, name.c_str(), name.size() + 1);
    temporaries[i].filled = true;
    slot_ = static_cast<int>(i);
    return;
  }
}

void FileWriter::forget_temporary() noexcept {
  if (slot_ >= 0) {
    TemporarySlot& slot = temporaries[static_cast<std::size_t>(std::exchange(slot_, -1))];
    slot.filled = false;
    slot.taken = false;
  }
  temporary_.clear();
}

void remove_temporaries() noexcept {
  for (TemporarySlot& slot : temporaries) {
    if (slot.filled) ::unlink(slot.name);
  }
}

void FileWriter::fail(const char* action, int error) {
  close_and_remove();
  throw_io(action, path_, error);
}

void FileWriter::write(const void* data, std::size_t size) {
  if (const int error = write_all(fd_, data, size)) fail("cannot write", error);
}

void FileWriter::commit() {
  if (!direct_ && temporary_.empty()) {
    const std::string self = path_of_descriptor(fd_);
    const bool named = make_temporary(
        [&self](const char* name) { return ::linkat(AT_FDCWD, self.c_str(), AT_FDCWD, name, AT_SYMLINK_FOLLOW) == 0; });
    if (!named) fail("cannot write", errno);
  }
  // Some file systems report a full disk only here.
  if (::close(std::exchange(fd_, -1)) < 0) fail("cannot write", errno);
  if (direct_) return;
  if (::rename(temporary_.c_str(), target_.c_str()) < 0) fail("cannot write", errno);
  forget_temporary();
}

}  // namespace manyheads::base
