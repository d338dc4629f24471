#pragma once

#include <functional>
#include <string>

namespace manyheads::cli {

// The file that a verb's -o names. "-", /dev/stdout and the like are standard output, which then holds nothing else.
class OutFile {
 public:
  // Throws UsageError where the file would share standard output with --json or a terminal, Error where the path is a
  // folder or lies in none.
  OutFile(const std::string& named, bool json);

  // Calls write(path). A closed pipe ends the program quietly, as with print.
  void save(const std::function<void(const std::string& path)>& write) const;

  // Tells that the file is written. Beside a file on standard output it tells only what was `asked` for, on standard
  // error.
  void report(const std::string& text, const std::string& asked = "") const;

  std::string shown() const;  // for a message

 private:
  std::string path_;
  bool standard_;
};

}  // namespace manyheads::cli
