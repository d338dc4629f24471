#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/utf8.hpp"

namespace manyheads::base {

// The bytes of a regular file, mapped read-only and shared. Each copy of `bytes` keeps the map alive. The file must not
// be shortened in place while it is mapped. Replacing it by rename is fine, as FileWriter does.
struct MappedFile {
  std::shared_ptr<const std::byte> bytes;  // null for an empty file
  std::size_t size = 0;

  std::string_view text() const noexcept { return {reinterpret_cast<const char*>(bytes.get()), size}; }
};

// Throws Error (kIo) where there is no such file, it cannot be read, or it is a folder or a device.
MappedFile map_file(const std::filesystem::path& path);

// Writes all of it to a descriptor. Returns 0 or the system's errno. Waits where the descriptor does not block.
int write_all(int fd, const void* data, std::size_t size) noexcept;

// The descriptor that a path names: /dev/stdout, /dev/stderr, /dev/fd/N, /proc/self/fd/N; -1 for any other path.
int descriptor_of(const std::filesystem::path& path);

// Writes a file that appears whole or not at all.
// - The bytes go to a nameless file in the same folder, which takes the name on commit. Until then nothing is left
//   behind, not even when the process is killed.
// - Where the file system has no nameless files, or /proc is not there to name them, a file with a name that ends in
//   .tmp stands in. The destructor removes it, and so does remove_temporaries().
// - A path that is no regular file (a device, a pipe) is written directly. So is a descriptor of this process
//   (descriptor_of), from where it stands.
// - A link stays a link: what it leads to is written, or made.
// Every failure throws Error (kIo) with the path and the system's reason.
class FileWriter {
 public:
  explicit FileWriter(std::filesystem::path path);
  ~FileWriter();
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;

  void write(const void* data, std::size_t size);
  void write(std::string_view text) { write(text.data(), text.size()); }
  void commit();  // nothing may be written after it

 private:
  void fail(const char* action, int error);  // closes and removes before it throws
  void close_and_remove() noexcept;
  // Calls make(name) with names of our own in the target's folder until it succeeds, and keeps the name. False: see
  // errno.
  template <class Make>
  bool make_temporary(const Make& make);
  void remember_temporary() noexcept;
  void forget_temporary() noexcept;

  std::filesystem::path path_;       // as the caller gave it
  std::filesystem::path target_;     // where links lead
  std::filesystem::path temporary_;  // empty while the file has no name
  int fd_ = -1;
  int slot_ = -1;  // where remove_temporaries finds the temporary name
  bool direct_ = false;
};

// Removes the temporary files of every FileWriter. For a signal handler that ends the process: safe to call in one.
void remove_temporaries() noexcept;

inline std::string path_in_quotes(const std::filesystem::path& path) { return in_quotes(path.native(), 4096); }

}  // namespace manyheads::base
