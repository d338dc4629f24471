#include "scan_texts.hpp"

#include <poll.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <manyheads/error.hpp>

#include "base/file.hpp"
#include "base/format.hpp"
#include "io/json.hpp"
#include "model/first_tokens.hpp"
#include "text.hpp"

namespace manyheads::cli {
namespace {

constexpr std::size_t kPart = std::size_t{1} << 16;
constexpr const char* kBlanks = " \t\r\n\v\f";

bool named_json_lines(const std::string& name) { return name.ends_with(".jsonl") || name.ends_with(".ndjson"); }

std::string text_of_json(const std::string& line, const std::string& subject) {
  return io::require_string(io::parse_json(line, subject), "text");
}

}  // namespace

std::optional<std::string> text_of(const lens::ScanFile& scan, std::int64_t row) {
  const std::int64_t* const place = scan.tensors.at("passages").as<std::int64_t>() + 6 * row;
  const lens::ScanFile::File& file = scan.files[static_cast<std::size_t>(place[1])];
  if (std::string kept = scan.kept_text(row); !kept.empty()) return kept;
  try {
    return open_passage(file.name, file.json_lines, place[2], place[3], place[4], place[5]);
  } catch (const Error&) {
    return std::nullopt;
  }
}

std::uint64_t hash_bytes(std::uint64_t hash, const void* data, std::size_t size) {
  const char* at = static_cast<const char*>(data);
  const auto add = [&hash](std::uint64_t word) {
    hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
    hash ^= hash >> 29;
  };
  for (; size >= 8; size -= 8, at += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, at, 8);
    add(word);
  }
  std::uint64_t rest = 0;
  std::memcpy(&rest, at, size);
  add(rest);
  add(size);
  return hash;
}

ScanTexts::ScanTexts(const std::vector<std::string>& names, bool json_lines, const model::TextBreaks& breaks)
    : breaks_(breaks), hash_(kNoBytes) {
  for (const std::string& name : names) {
    Source source{name, json_lines || named_json_lines(name), 0};
    struct stat info{};
    if (name != "-") {
      if (::stat(name.c_str(), &info) != 0) {
        throw Error(ErrorCode::kIo, "cannot read " + base::path_in_quotes(name) + ": " + std::strerror(errno));
      }
      if (S_ISREG(info.st_mode)) source.bytes = info.st_size;
    }
    sources_.push_back(std::move(source));
  }
}

bool ScanTexts::next_line(const std::function<bool()>& stopped) {
  for (; source_ < sources_.size(); ++source_) {
    const Source& source = sources_[source_];
    if (reader_ == nullptr) {
      reader_ = std::make_unique<LineReader>(source.name);
      bytes_before_ = bytes_;
    }
    for (;;) {
      while (!reader_->ready()) {
        if (stopped()) return false;
        ::poll(nullptr, 0, 20);
      }
      if (stopped()) return false;
      std::string line;
      if (!reader_->next(&line)) break;
      const auto offset = static_cast<std::int64_t>(reader_->offset());
      bytes_ = bytes_before_ + offset + static_cast<std::int64_t>(line.size());
      const std::int64_t place[] = {static_cast<std::int64_t>(source_), offset};
      hash_ = hash_bytes(hash_bytes(hash_, place, sizeof place), line.data(), line.size());
      subject_ = base::format("line {} of {}", reader_->number(), reader_->name());
      check_utf8(subject_, line);
      if (line.find_first_not_of(kBlanks) == std::string::npos) continue;
      line_ = {};
      line_.file = static_cast<std::int64_t>(source_);
      line_.offset = offset;
      line_.length = static_cast<std::int64_t>(line.size());
      text_ = source.json_lines ? text_of_json(line, subject_) : std::move(line);
      begin_ = 0;
      if (text_.find_first_not_of(kBlanks) != std::string::npos) return true;
    }
    reader_.reset();
  }
  return false;
}

bool ScanTexts::next(Part* part, const std::function<bool()>& stopped) {
  if (begin_ >= text_.size() && !next_line(stopped)) return false;
  std::size_t end = text_.size();
  if (end - begin_ > kPart) {
    if (breaks_.known) end = breaks_.find(text_, begin_ + 1, begin_ + kPart);
    if (end - begin_ > model::kLongestPart) {
      throw Error(ErrorCode::kInvalidArgument, subject_ + base::format(": more than {} MiB without a place to cut it at",
                                                                       model::kLongestPart >> 20));
    }
  }
  part->passage = line_;
  part->passage.begin = static_cast<std::int64_t>(begin_);
  part->passage.end = static_cast<std::int64_t>(end);
  part->text = text_.substr(begin_, end - begin_);
  part->subject = subject_;
  begin_ = end;
  ++parts_;
  return true;
}

std::string open_passage(const std::string& name, bool json_lines, std::int64_t offset, std::int64_t length,
                         std::int64_t begin, std::int64_t end) {
  const base::MappedFile file = base::map_file(name);
  const auto fail = [&] {
    throw Error(ErrorCode::kIo, base::path_in_quotes(name) + " is no longer the file that was scanned");
  };
  const std::string_view all = file.text();
  const auto within = [](std::int64_t from, std::int64_t count, std::size_t size) {
    return from >= 0 && count >= 0 && static_cast<std::uint64_t>(from) <= size &&
           static_cast<std::uint64_t>(count) <= size - static_cast<std::uint64_t>(from);
  };
  if (!within(offset, length, all.size())) fail();
  std::string text(all.substr(static_cast<std::size_t>(offset), static_cast<std::size_t>(length)));
  if (json_lines) text = text_of_json(text, base::format("byte {} of {}", offset, base::path_in_quotes(name)));
  if (!within(begin, end - begin, text.size())) fail();
  text = text.substr(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
  if (!base::is_utf8(text)) fail();
  return text;
}

}  // namespace manyheads::cli
