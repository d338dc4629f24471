#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace manyheads::cli {

// Reads the lines of a file or of standard input ("-"), without their ends; the last line needs none. Leaves out a byte
// order mark before the first line. Waits for a descriptor that does not block.
class LineReader {
 public:
  explicit LineReader(const std::string& path);
  ~LineReader();
  LineReader(const LineReader&) = delete;
  LineReader& operator=(const LineReader&) = delete;

  // Whether next() would answer without waiting for the writer. Reads what is there.
  bool ready();

  // The next line, waited for; false at the end. Throws Error when nothing can be read or a line is longer than 64 MiB.
  bool next(std::string* line);

  std::size_t number() const { return number_; }  // of the last line, from 1
  std::size_t offset() const { return offset_; }  // of the last line's first byte in all that was read
  const std::string& name() const { return name_; }

 private:
  [[noreturn]] void fail() const;
  bool has_line();                    // moves what is read into line_; true when a whole line, or the end, is there
  void fill();                        // reads once, and waits for it
  bool wait(int milliseconds) const;  // for something to read; -1: for as long as it takes

  std::string name_;
  int fd_;
  std::vector<char> buffer_;  // on the heap: stacks may be small
  std::size_t begin_ = 0, end_ = 0;
  std::string line_;
  bool whole_ = false;  // line_ has met its end
  bool ended_ = false;  // nothing comes after buffer_
  std::size_t number_ = 0;
  std::size_t taken_ = 0;  // bytes moved to lines
  std::size_t offset_ = 0;
};

}  // namespace manyheads::cli
