#include "arguments.hpp"

#include <CLI/CLI.hpp>
#include <charconv>
#include <climits>
#include <cmath>
#include <manyheads/attention.hpp>
#include <set>
#include <string_view>

#include "base/format.hpp"
#include "base/utf8.hpp"
#include "cli.hpp"

namespace manyheads::cli {

void add_common(CLI::App& verb, Common& common) {
  verb.add_flag("--json", common.json, "Print JSON for machines (docs/json.md)");
  verb.add_option("--threads", common.threads, "Threads to use; default: every processor this process may run on")
      ->transform(whole_number(1, INT_MAX))
      ->type_name("N");
}

CLI::Option* add_bits(CLI::App& verb, Common& common) {
  return verb
      .add_option("--bits", common.bits,
                  "The family of bits that the result must have, as f32-fma-1: the same on every machine that has it; "
                  "default: the fastest's")
      ->type_name("NAME");
}

void add_dropout(CLI::App& verb, Dropout& dropout) {
  CLI::Option* p = verb.add_option("--dropout", dropout.p,
                                   "Each weight becomes 0 with this probability, else weight / (1 - P); lse is that of "
                                   "all weights")
                       ->transform(finite_number())
                       ->type_name("P");
  verb.add_option("--dropout-seed", dropout.seed, "Which weights go: the same for the same seed; default 0")
      ->transform(whole_number(0))
      ->type_name("N")
      ->needs(p);
}

namespace {

using base::in_quotes;

// An argument that names an option, taken apart.
struct Named {
  std::string name;  // "--out", "-o"; empty where the argument is no option's name
  std::string value;
  bool has_value = false;  // within the same argument
};

Named take_apart(const std::string& word) {
  if (word.size() < 2 || word[0] != '-') return {};
  if (word[1] != '-') return {word.substr(0, 2), word.substr(2), word.size() > 2};
  const std::size_t equals = word.find('=');
  if (equals == std::string::npos) return {word, "", false};
  return {word.substr(0, equals), word.substr(equals + 1), true};
}

bool takes_value(const CLI::Option& option) { return option.get_items_expected_max() > 0; }

// The option that the argument means, or null: "-hello" is not -h.
const CLI::Option* find_option(const CLI::App& verb, const Named& named) {
  const CLI::Option* option = named.name.empty() ? nullptr : verb.get_option_no_throw(named.name);
  const bool glued = named.has_value && named.name[1] != '-';
  return option != nullptr && glued && !takes_value(*option) ? nullptr : option;
}

int most_positionals(const CLI::App& verb) {
  int most = 0;
  for (const CLI::Option* option : verb.get_options()) {
    if (option->get_positional()) most += option->get_items_expected_max();
  }
  return most;
}

[[noreturn]] void refuse_unknown(const CLI::App& verb, const std::string& word) {
  throw UsageError("unknown option " + in_quotes(word) +
                   (most_positionals(verb) == 0 ? ""
                                                : "; what begins with - and is no option goes behind --: manyheads " +
                                                      verb.get_name() + " [options] -- " + in_quotes(word)));
}

}  // namespace

Arguments read_arguments(const CLI::App& verb, const std::vector<std::string>& given) {
  Arguments arguments;
  std::vector<std::string> rest;
  bool behind = false;  // --
  std::set<const CLI::Option*> seen;
  for (std::size_t i = 0; i < given.size(); ++i) {
    const std::string& word = given[i];
    if (word == "--") {
      behind = true;
      rest.insert(rest.end(), given.begin() + static_cast<std::ptrdiff_t>(i) + 1, given.end());
      break;
    }
    Named named = take_apart(word);
    if (named.name.empty()) {
      rest.push_back(word);
      continue;
    }
    const CLI::Option* option = find_option(verb, named);
    if (option == nullptr) refuse_unknown(verb, word);
    arguments.help = arguments.help || option == verb.get_help_ptr();
    arguments.threads = arguments.threads || option->check_name("--threads");
    arguments.words.push_back(named.name);
    if (!takes_value(*option)) {
      if (named.has_value) throw UsageError(named.name + " takes no value, got " + in_quotes(named.value));
      continue;
    }
    if (!named.has_value) {
      if (i + 1 == given.size()) throw UsageError(named.name + " needs a value");
      named.value = given[++i];
      if (named.value == "--" || find_option(verb, take_apart(named.value)) != nullptr) {
        throw UsageError(named.name + " needs a value, and " + named.value + " follows; " + named.name + "=" +
                         named.value + " takes that");
      }
    }
    if (named.value.empty()) throw UsageError(named.name + " needs a value, got \"\"");
    const bool once = option->get_multi_option_policy() == CLI::MultiOptionPolicy::Throw;
    if (!seen.insert(option).second && once) throw UsageError(option->get_name() + " is given twice");
    arguments.words.push_back(named.value);
  }
  const auto most = static_cast<std::size_t>(most_positionals(verb));
  if (rest.size() > most) {
    const bool option = behind && find_option(verb, take_apart(rest[most])) != nullptr;
    throw UsageError("unknown argument " + in_quotes(rest[most]) + (option ? ": behind -- nothing is an option" : ""));
  }
  if (!rest.empty()) arguments.words.push_back("--");
  arguments.words.insert(arguments.words.end(), rest.begin(), rest.end());
  return arguments;
}

std::function<std::string(std::string)> whole_number(std::int64_t least, std::int64_t most) {
  return [least, most](const std::string& text) {
    const char* const end = text.data() + text.size();
    std::int64_t value = 0;
    const auto [stop, problem] = std::from_chars(text.data(), end, value);
    if (problem == std::errc() && stop == end && value >= least && value <= most) return std::to_string(value);
    const std::string bounds = most < INT64_MAX    ? base::format(" from {} to {}", least, most)
                               : least > INT64_MIN ? base::format(" of {} or more, within 64 bits", least)
                                                   : " of 64 bits";
    throw CLI::ValidationError(base::format("takes a whole number{}, got {}", bounds, in_quotes(text)));
  };
}

std::function<std::string(std::string)> finite_number() {
  return [](const std::string& text) {
    const char* const end = text.data() + text.size();
    double value = 0;
    const auto [stop, problem] = std::from_chars(text.data() + (text.starts_with('+') ? 1 : 0), end, value);
    if (problem == std::errc() && stop == end && std::isfinite(value)) return text;
    throw CLI::ValidationError("takes a number that a double holds, got " + in_quotes(text));
  };
}

std::string plain_text(const std::string& text) { return std::string(base::without_byte_order_mark(text)); }

}  // namespace manyheads::cli
