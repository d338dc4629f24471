#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <manyheads/error.hpp>
#include <optional>
#include <unordered_map>
#include <utility>

#include "arguments.hpp"
#include "base/format.hpp"
#include "cli.hpp"
#include "findings.hpp"
#include "lens/unicode.hpp"
#include "text_trace.hpp"

namespace manyheads::cli {
namespace {

struct Look {
  Common common;
  std::optional<std::string> text;
  std::string model;
  std::string trace;
  std::optional<std::string> pair;
  std::vector<std::string> links;
  std::string head;
  bool all = false;
  bool legend = false;
  bool truncate = false;
};

// The links of a text when none is named, turned round where words see only earlier ones.
constexpr std::array<std::array<const char*, 2>, 3> kUsualLinks = {{{"cat", "sat"}, {"black", "cat"}, {"sat", "mat"}}};
constexpr std::size_t kStrongest = 3;

// "cat,sat", or "cat->sat", with which a comma can be a word.
std::array<std::string, 2> split_link(const std::string& text) {
  const std::size_t arrow = text.find("->");
  const std::size_t comma = text.find(',');
  const std::size_t at = arrow != std::string::npos ? arrow : comma;
  if (at != std::string::npos) {
    std::array<std::string, 2> sides = {text.substr(0, at), text.substr(at + (arrow != std::string::npos ? 2 : 1))};
    for (std::string& side : sides) {
      side.erase(0, std::min(side.find_first_not_of(' '), side.size()));
      side.erase(side.find_last_not_of(' ') + 1);
    }
    const bool one_comma = arrow != std::string::npos || text.find(',', comma + 1) == std::string::npos;
    if (!sides[0].empty() && !sides[1].empty() && one_comma && lens::is_utf8(text)) return sides;
  }
  throw UsageError("--link takes two words with a comma between them, such as \"cat,sat\"; got \"" + text + "\"");
}

std::vector<lens::Link> choose_links(const std::vector<std::string>& asked, const std::vector<lens::Word>& words,
                                     bool causal) {
  std::vector<lens::Link> links;
  for (const std::string& text : asked) {
    const std::array<std::string, 2> sides = split_link(text);
    links.push_back({lens::find_word(words, sides[0]), lens::find_word(words, sides[1])});
    if (causal && links.back().query < links.back().key) {
      throw Error(ErrorCode::kInvalidArgument,
                  base::format("--link {}: in this model a word sees only itself and earlier ones; ask for {},{}", text,
                               sides[1], sides[0]));
    }
  }
  if (!asked.empty()) return links;
  for (auto [query, key] : kUsualLinks) {
    if (causal) std::swap(query, key);
    if (lens::has_word(words, query) && lens::has_word(words, key)) {
      links.push_back({lens::find_word(words, query), lens::find_word(words, key)});
    }
  }
  return links;
}

std::vector<std::string> name_words(const std::vector<lens::Word>& words) {
  std::vector<std::string> names;
  std::unordered_map<std::string, std::size_t> seen;
  for (const lens::Word& word : words) {
    const std::size_t occurrence = ++seen[lens::fold_case(word.text)];
    names.push_back(lens::printable(word.text) + (occurrence == 1 ? "" : "#" + std::to_string(occurrence)));
  }
  return names;
}

Findings find(const Look& request) {
  for (const std::string& link : request.links) split_link(link);
  Findings found;
  if (!request.trace.empty()) {
    found.trace = lens::load_trace(request.trace);
    found.full_size = found.trace.tokens.size();
  } else {
    TextTrace made = trace_text({*request.text, request.model, request.pair, request.truncate}, request.common);
    found.trace = std::move(made.trace);
    found.full_size = made.full_size;
  }
  found.words = lens::words_of(found.trace);
  found.word_names = name_words(found.words);
  const std::vector<lens::Link> links = choose_links(request.links, found.words, found.trace.causal);
  found.heads = lens::read_heads(found.trace, found.words, links, kStrongest, {.num_threads = request.common.threads});
  found.links = lens::rank_heads(found.heads, links);
  return found;
}

void look(const Look& request) {
  if (request.trace.empty() && !request.text) throw UsageError("TEXT is required");
  if (request.trace.empty() && request.model.empty()) throw UsageError("--model is required");
  if (!request.trace.empty() && (!request.model.empty() || request.text || request.pair)) {
    throw UsageError("--trace takes the text and the model from the file; leave out TEXT, --pair and --model");
  }
  if (request.all && !request.head.empty()) {
    throw UsageError("--all shows every head, --head draws one; leave out one of the two");
  }
  Shown shown{{}, request.all, request.legend, request.common.threads};
  if (!request.head.empty()) shown.head = parse_head(request.head);
  const Findings found = find(request);
  if (shown.head) find_head(found, *shown.head);
  if (request.common.json) {
    print_findings_json(found, shown);
  } else {
    print_findings(found, shown);
  }
}

}  // namespace

void add_look(CLI::App& app) {
  auto request = std::make_shared<Look>();
  CLI::App* verb = app.add_subcommand("look", "What each head of a model looks at in a text");
  verb->add_option("TEXT", request->text, "The text")->transform(plain_text)->type_name("");
  verb->add_option("--model", request->model, "Folder with config.json, model.safetensors and tokenizer.json")
      ->type_name("DIR");
  verb->add_option("--pair", request->pair, "A second text: the model sees both, as two segments")
      ->transform(plain_text)
      ->type_name("TEXT2");
  verb->add_option("--link", request->links,
                   "The link from one word to another, \"cat,sat\"; may be repeated. \"sat#2\" is the word's second "
                   "occurrence. A word in small letters matches in any case. \"cat->,\" names a comma")
      ->type_name("\"A,B\"")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->allow_extra_args(false);
  verb->add_option("--head", request->head, "Draw one head as a heat map: layer.head, both counted from 0")
      ->type_name("L.H");
  verb->add_flag("--all", request->all, "Show every head and every token, on as many lines as that takes");
  verb->add_flag("--legend", request->legend, "Say how each role is worked out, with its threshold and its source");
  CLI::Option* trace =
      verb->add_option("--trace", request->trace, "Look at a file that trace wrote, instead of TEXT and --model")
          ->type_name("FILE");
  verb->add_flag("--truncate", request->truncate, "Cut a text that is longer than the model takes");
  add_bits(*verb, request->common)->excludes(trace);
  add_common(*verb, request->common);
  verb->footer("Example: manyheads look \"The black cat sat on the mat.\" --model models/all-MiniLM-L6-v2 --head 2.8");
  verb->callback([request] { look(*request); });
}

}  // namespace manyheads::cli
