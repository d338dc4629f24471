#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <manyheads/lens/trace.hpp>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lens/scan.hpp"
#include "lens/scan_file.hpp"
#include "line_reader.hpp"
#include "model/tokenizer.hpp"

namespace manyheads::cli {

// The texts of a scan, one a line: files, of which some are JSON lines, and standard input ("-").
// - A line is the passage, or in JSON lines its "text". Blank ones are passed over.
// - A long text is read in parts of about 64 KiB, cut where the tokenizer allows it.
class ScanTexts {
 public:
  struct Source {
    std::string name;
    bool json_lines = false;
    std::int64_t bytes = 0;  // 0: not known
  };
  // A text, or a part of a long one.
  struct Part {
    lens::ScanPassage passage;  // text: empty
    std::string text;
    std::string subject;  // for messages
  };

  // `json_lines`: all are; else those named *.jsonl or *.ndjson. Throws Error where a file cannot be opened.
  ScanTexts(const std::vector<std::string>& names, bool json_lines, const model::TextBreaks& breaks);

  // The next part; false at the end. While it waits for standard input it asks stopped() now and then, and returns
  // false where that is true. Throws Error that names the line.
  bool next(Part* part, const std::function<bool()>& stopped);

  const std::vector<Source>& sources() const { return sources_; }
  std::size_t parts() const { return parts_; }        // that next() gave
  std::uint64_t hash() const { return hash_; }        // of all lines read so far, and where they stand
  std::int64_t bytes_read() const { return bytes_; }  // of all files

 private:
  bool next_line(const std::function<bool()>& stopped);

  std::vector<Source> sources_;
  model::TextBreaks breaks_;
  std::unique_ptr<LineReader> reader_;
  std::size_t source_ = 0;
  std::size_t parts_ = 0;
  std::uint64_t hash_;
  std::int64_t bytes_ = 0, bytes_before_ = 0;
  lens::ScanPassage line_;  // of the line under way
  std::string text_, subject_;
  std::size_t begin_ = 0;  // of the next part in text_
};

// The text of an example: as the scan's file holds it, or read from the file that it names. Throws Error where that
// cannot be opened or has become another.
std::string open_passage(const std::string& name, bool json_lines, std::int64_t offset, std::int64_t length,
                         std::int64_t begin, std::int64_t end);

// The text of a row of the scan's table of passages; none where it cannot be opened.
std::optional<std::string> text_of(const lens::ScanFile& scan, std::int64_t row);

// Continues a hash, of 64 bits, over some bytes.
std::uint64_t hash_bytes(std::uint64_t hash, const void* data, std::size_t size);
constexpr std::uint64_t kNoBytes = 0xcbf29ce484222325u;

}  // namespace manyheads::cli
