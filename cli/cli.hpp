#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <string_view>

namespace manyheads::cli {

// Options that every verb takes.
struct Common {
  bool json = false;
  int threads = 0;
};

// One file per verb. Each adds its subcommand, with an example in its help, and a callback that does the work and
// throws: manyheads::Error becomes exit code 1, CLI::ParseError and UsageError become 2.
void add_dims(CLI::App& app);
void add_look(CLI::App& app);
void add_trace(CLI::App& app);
void add_embed(CLI::App& app);
void add_attend(CLI::App& app);
void add_layer(CLI::App& app);
void add_bench(CLI::App& app);

// Adds --json and --threads (1 or more) to a verb.
void add_common(CLI::App& verb, Common& common);

// A request that does not make sense, found after parsing: exit code 2.
struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Standard output, checked: a closed pipe ends the program quietly, a full disk is an Error.
void print(std::string_view text);

// Whether standard output (or standard error) is a terminal that takes colours (NO_COLOR is honoured).
bool colour_output();
bool terminal_errors();

}  // namespace manyheads::cli
