#include "line_reader.hpp"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <manyheads/error.hpp>

#include "base/file.hpp"
#include "base/format.hpp"

namespace manyheads::cli {
namespace {

constexpr std::size_t kLongestLine = std::size_t{64} << 20;
constexpr std::size_t kBuffer = std::size_t{1} << 16;
constexpr const char* kByteOrderMark = "\xef\xbb\xbf";

}  // namespace

LineReader::LineReader(const std::string& path)
    : name_(path == "-" ? "standard input" : base::path_in_quotes(path)),
      fd_(path == "-" ? STDIN_FILENO : ::open(path.c_str(), O_RDONLY | O_CLOEXEC)),
      buffer_(kBuffer) {
  if (fd_ < 0) fail();
}

LineReader::~LineReader() {
  if (fd_ != STDIN_FILENO) ::close(fd_);
}

bool LineReader::ready() {
  while (!has_line()) {
    if (!wait(0)) return false;
    fill();
  }
  return true;
}

bool LineReader::next(std::string* line) {
  while (!has_line()) fill();
  if (!whole_ && line_.empty()) return false;
  offset_ = taken_ - line_.size() - (whole_ ? 1 : 0);
  line->swap(line_);
  line_.clear();
  whole_ = false;
  ++number_;
  if (!line->empty() && line->back() == '\r') line->pop_back();
  return true;
}

bool LineReader::has_line() {
  while (!whole_ && begin_ < end_) {
    const char* at = buffer_.data() + begin_;
    const void* newline = std::memchr(at, '\n', end_ - begin_);
    const std::size_t size =
        newline == nullptr ? end_ - begin_ : static_cast<std::size_t>(static_cast<const char*>(newline) - at);
    line_.append(at, size);
    begin_ += size + (newline == nullptr ? 0 : 1);
    taken_ += size + (newline == nullptr ? 0 : 1);
    whole_ = newline != nullptr;
    if (line_.size() > kLongestLine) {
      throw Error(ErrorCode::kInvalidArgument,
                  base::format("line {} of {} is longer than {} MiB", number_ + 1, name_, kLongestLine >> 20));
    }
  }
  if (number_ == 0 && (whole_ || ended_) && line_.starts_with(kByteOrderMark)) line_.erase(0, 3);
  return whole_ || ended_;
}

void LineReader::fill() {
  for (;;) {
    const ssize_t n = ::read(fd_, buffer_.data(), buffer_.size());
    if (n >= 0) {
      begin_ = 0;
      end_ = static_cast<std::size_t>(n);
      ended_ = n == 0;
      return;
    }
    if (errno == EAGAIN || errno == EWOULDBLOCK) {
      wait(-1);
    } else if (errno != EINTR) {
      fail();
    }
  }
}

bool LineReader::wait(int milliseconds) const {
  pollfd poll{fd_, POLLIN, 0};
  // An error or the end counts as something to read: read() then tells which.
  return ::poll(&poll, 1, milliseconds) > 0;
}

void LineReader::fail() const { throw Error(ErrorCode::kIo, "cannot read " + name_ + ": " + std::strerror(errno)); }

}  // namespace manyheads::cli
