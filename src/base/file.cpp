#include "base/file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <manyheads/error.hpp>
#include <utility>

namespace manyheads::base {
namespace {

[[noreturn]] void throw_io(const char* action, const std::filesystem::path& path, int error) {
  throw Error(ErrorCode::kIo, std::string(action) + " " + path_in_quotes(path) + ": " + std::strerror(error));
}

// A name of our own for the folder of `target`: short, so that it fits wherever the target's name does.
std::filesystem::path temporary_name(const std::filesystem::path& target) {
  static std::atomic<unsigned> count{0};
  return target.parent_path() /
         (".manyheads-" + std::to_string(::getpid()) + "-" + std::to_string(count.fetch_add(1)) + ".tmp");
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

// Bytes of the UTF-8 character that begins at `at`, or 0 where none does.
std::size_t utf8_length(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  const unsigned lead = byte(at), next = byte(at + 1);
  const auto tail = [&](std::size_t i) { return (byte(i) & 0xc0u) == 0x80u; };
  if (lead < 0x80) return 1;
  if (lead >= 0xc2 && lead <= 0xdf) return tail(at + 1) ? 2 : 0;
  if (lead >= 0xe0 && lead <= 0xef) {
    if (!tail(at + 1) || !tail(at + 2) || (lead == 0xe0 && next < 0xa0) || (lead == 0xed && next > 0x9f)) return 0;
    return 3;
  }
  if (lead >= 0xf0 && lead <= 0xf4) {
    if (!tail(at + 1) || !tail(at + 2) || !tail(at + 3)) return 0;
    return (lead == 0xf0 && next < 0x90) || (lead == 0xf4 && next > 0x8f) ? 0 : 4;
  }
  return 0;
}

}  // namespace

MappedFile map_file(const std::filesystem::path& path) {
  // O_NONBLOCK: a pipe without a writer must give the error below, not wait.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) throw_io("cannot open", path, errno);
  struct stat info {};
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

FileWriter::FileWriter(std::filesystem::path path) : path_(std::move(path)), target_(path_) {
  struct stat info {};
  const bool exists = ::stat(path_.c_str(), &info) == 0;
  if (!exists && errno != ENOENT) throw_io("cannot write", path_, errno);
  if (exists && S_ISDIR(info.st_mode)) throw_io("cannot write", path_, EISDIR);
  direct_ = exists && !S_ISREG(info.st_mode);
  if (direct_) {
    fd_ = ::open(path_.c_str(), O_WRONLY | O_CLOEXEC);
    if (fd_ < 0) throw_io("cannot write", path_, errno);
    return;
  }
  if (path_.filename().empty()) throw_io("cannot write", path_, path_.empty() ? ENOENT : EISDIR);
  if (exists && ::access(path_.c_str(), W_OK) < 0) throw_io("cannot write", path_, errno);
  if (exists) target_ = std::filesystem::canonical(path_);  // a link stays a link
  fd_ = ::open(folder_of(target_).c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, 0666);
  if (fd_ < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL)) {
    temporary_ = temporary_name(target_);
    fd_ = ::open(temporary_.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0666);
    if (fd_ < 0) {
      temporary_.clear();
    } else {
      remember_temporary();
    }
  }
  if (fd_ < 0) throw_io("cannot write", path_, errno);
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
  const char* next = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t written = ::write(fd_, next, std::min(size, std::size_t{1} << 30));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail("cannot write", errno);
    next += written;
    size -= static_cast<std::size_t>(written);
  }
}

void FileWriter::commit() {
  if (!direct_ && temporary_.empty()) {
    std::filesystem::path name = temporary_name(target_);
    const std::string self = "/proc/self/fd/" + std::to_string(fd_);
    if (::linkat(AT_FDCWD, self.c_str(), AT_FDCWD, name.c_str(), AT_SYMLINK_FOLLOW) < 0) fail("cannot write", errno);
    temporary_ = std::move(name);
    remember_temporary();
  }
  // Some file systems report a full disk only here.
  if (::close(std::exchange(fd_, -1)) < 0) fail("cannot write", errno);
  if (direct_) return;
  if (::rename(temporary_.c_str(), target_.c_str()) < 0) fail("cannot write", errno);
  forget_temporary();
}

std::string path_in_quotes(const std::filesystem::path& path) { return in_quotes(path.native(), 4096); }

std::string in_quotes(std::string_view text, std::size_t longest) {
  std::string out = "\"";
  for (std::size_t i = 0; i < text.size();) {
    if (i >= longest) return out + "...\"";
    const unsigned char c = static_cast<unsigned char>(text[i]);
    const std::size_t length = utf8_length(text, i);
    if (length == 0) {
      out += "\xef\xbf\xbd";  // the replacement character
    } else if (c == '"' || c == '\\') {
      out += {'\\', text[i]};
    } else if (c < 0x20 || c == 0x7f) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04x", c);
      out += escape;
    } else {
      out += text.substr(i, length);
    }
    i += std::max<std::size_t>(length, 1);
  }
  return out + "\"";
}

}  // namespace manyheads::base
