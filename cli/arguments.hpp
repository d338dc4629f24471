#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace manyheads::cli {

// A verb's arguments in a form that CLI11 reads without guessing.
struct Arguments {
  std::vector<std::string> words;  // options and their values, each a word of its own, then "--" and the rest
  bool help = false;
  bool threads = false;  // whether --threads is among them
};

// Reads the arguments behind the verb.
// - An option has its whole name: "-o FILE", "-oFILE" or "--out=FILE".
// - Its value may begin with "-" but is no other option's name.
// - Behind "--" nothing is an option.
// Throws UsageError for an unknown or repeated option, a flag with a value, an option with none or an empty one, and a
// word too many.
Arguments read_arguments(const CLI::App& verb, const std::vector<std::string>& given);

// For Option::transform: a whole number within bounds, or any finite number. CLI11 itself reads "010" as 8, and a
// number that is too large as the nearest that fits.
std::function<std::string(std::string)> whole_number(std::int64_t least = INT64_MIN, std::int64_t most = INT64_MAX);
std::function<std::string(std::string)> finite_number();

// For Option::transform: a text without the byte order mark that a file may begin with.
std::string plain_text(const std::string& text);

}  // namespace manyheads::cli
