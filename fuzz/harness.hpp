#pragma once

#include <fuzzer/FuzzedDataProvider.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <manyheads/error.hpp>
#include <string>
#include <string_view>
#include <vector>

// What the harnesses share. Each is a program of libFuzzer's: it gives bytes, the harness makes a call of them, and
// whatever is neither a right result nor an Error ends the program.
namespace manyheads::fuzz {

[[noreturn]] inline void fail(const std::string& what) {
  std::fprintf(stderr, "wrong: %s\n", what.c_str());
  std::abort();
}

inline void require(bool holds, const char* what) {
  if (!holds) fail(what);
}

// Runs `work`; true where it throws no Error. An Error is one line, whatever the file held.
template <class Work>
bool taken(Work&& work) {
  try {
    work();
    return true;
  } catch (const Error& error) {
    const std::string_view text = error.what();
    require(!text.empty(), "an Error without a word");
    for (const char c : text) require(static_cast<unsigned char>(c) >= 0x20 && c != 0x7f, "an Error of several lines");
    return false;
  }
}

// The parts of an input, with a zero byte between each two.
inline std::vector<std::string> split(std::string_view bytes, std::size_t most) {
  std::vector<std::string> parts(1);
  for (const char c : bytes) {
    if (c == '\0' && parts.size() < most) {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  parts.resize(most);
  return parts;
}

// A folder in memory, of this process.
class Folder {
 public:
  Folder() {
    const char* base = std::filesystem::is_directory("/dev/shm") ? "/dev/shm" : "/tmp";
    std::string name = std::string(base) + "/manyheads_fuzz_XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) fail("no folder for files");
    path_ = name;
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path write(const std::string& name, std::string_view bytes) const {
    const std::filesystem::path path = path_ / name;
    std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    return path;
  }

 private:
  std::filesystem::path path_;
};

// The bytes of a safetensors file: the header's size, the header, the data.
inline std::string safetensors_file(std::string_view header, std::string_view data) {
  std::string file;
  for (int i = 0; i < 8; ++i) file += static_cast<char>(static_cast<std::uint64_t>(header.size()) >> (8 * i) & 0xff);
  file += header;
  file += data;
  return file;
}

}  // namespace manyheads::fuzz
