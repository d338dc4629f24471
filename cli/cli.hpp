#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace manyheads {
struct Dropout;
}

namespace manyheads::cli {

// Options that every verb takes.
struct Common {
  bool json = false;
  int threads = 0;
  std::string bits;  // of verbs that compute
};

// One file a verb. Each adds its subcommand, with an example in its help, and a callback that does the work. The
// callback throws manyheads::Error for exit code 1, CLI::ParseError or UsageError for 2.
void add_dims(CLI::App& app);
void add_look(CLI::App& app);
void add_trace(CLI::App& app);
void add_map(CLI::App& app);
void add_view(CLI::App& app);
void add_roles(CLI::App& app);
void add_scan(CLI::App& app);
void add_embed(CLI::App& app);
void add_generate(CLI::App& app);
void add_attend(CLI::App& app);
void add_layer(CLI::App& app);
void add_study(CLI::App& app);
void add_bench(CLI::App& app);

// Adds --json and --threads (1 or more) to a verb.
void add_common(CLI::App& verb, Common& common);
// Adds --bits.
CLI::Option* add_bits(CLI::App& verb, Common& common);
// Adds --dropout and --dropout-seed.
void add_dropout(CLI::App& verb, Dropout& dropout);

// A senseless request, found after parsing: exit code 2.
struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// print throws it when standard output has lost its reader: destructors clean up, main ends quietly with 0.
struct ClosedPipe {};

// Writes to standard output. A closed pipe ends the program quietly, a full disk is an Error.
void print(std::string_view text);

// Writes one line to standard error, "manyheads VERB: message", whatever the message quotes.
void complain(const std::string& verb, std::string message);

// Writes one line of JSON. Numbers that are not finite become null, bytes that are not UTF-8 U+FFFD.
void print_json(const nlohmann::ordered_json& value);

// Whether standard output (or standard error) is a terminal that takes colours (NO_COLOR is honoured).
bool colour_output();
bool terminal_errors();

// "1,2,4,8" as whole numbers. Throws UsageError that names the option.
std::vector<std::int64_t> parse_integers(const std::string& option, const std::string& text);

}  // namespace manyheads::cli
