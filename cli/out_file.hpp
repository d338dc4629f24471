#pragma once

#include <functional>
#include <string>

namespace manyheads::cli {

// Where a verb's -o leads. "-", /dev/stdout and their like are standard output, which then holds the file and nothing
// else.
class OutFile {
 public:
  // Throws UsageError where --json would share standard output, or where that is a terminal; Error where the path is a
  // folder or lies in none.
  OutFile(const std::string& named, bool json);

  // Calls write(path). A reader of standard output that has gone ends the program quietly, as with print.
  void save(const std::function<void(const std::string& path)>& write) const;

  // What the verb says when the file is there; beside a file on standard output it says only what was `asked` for, on
  // standard error.
  void report(const std::string& text, const std::string& asked = "") const;

  std::string shown() const;  // for a message

 private:
  std::string path_;
  bool standard_;
};

}  // namespace manyheads::cli
