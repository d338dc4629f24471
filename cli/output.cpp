#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <manyheads/error.hpp>
#include <nlohmann/json.hpp>

#include "base/file.hpp"
#include "cli.hpp"

namespace manyheads::cli {

void print(std::string_view text) {
  const int error = base::write_all(STDOUT_FILENO, text.data(), text.size());
  if (error == EPIPE) throw ClosedPipe{};
  if (error != 0) {
    throw Error(ErrorCode::kIo, std::string("cannot write to standard output: ") + std::strerror(error));
  }
}

void complain(const std::string& verb, std::string message) {
  std::replace(message.begin(), message.end(), '\n', ' ');
  message.erase(message.find_last_not_of(' ') + 1);
  const std::string line = "manyheads" + (verb.empty() ? "" : " " + verb) + ": " + base::escaped(message) + "\n";
  base::write_all(STDERR_FILENO, line.data(), line.size());  // there is nowhere left to report a failure
}

void print_json(const nlohmann::ordered_json& value) {
  print(value.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
}

namespace {

bool takes_colours(int fd) {
  const char* no_color = std::getenv("NO_COLOR");
  const char* term = std::getenv("TERM");
  return ::isatty(fd) == 1 && (no_color == nullptr || *no_color == '\0') &&
         (term == nullptr || std::strcmp(term, "dumb") != 0);
}

}  // namespace

bool colour_output() { return takes_colours(STDOUT_FILENO); }
bool terminal_errors() { return ::isatty(STDERR_FILENO) == 1; }

std::vector<std::int64_t> parse_integers(const std::string& option, const std::string& text) {
  std::vector<std::int64_t> values;
  const char* at = text.data();
  const char* const end = at + text.size();
  for (;;) {
    std::int64_t value = 0;
    const auto [stop, problem] = std::from_chars(at, end, value);
    if (problem != std::errc{} || (stop != end && *stop != ',')) {
      throw UsageError(option + " takes whole numbers with commas between them, got \"" + text + "\"");
    }
    values.push_back(value);
    if (stop == end) return values;
    at = stop + 1;
  }
}

}  // namespace manyheads::cli
