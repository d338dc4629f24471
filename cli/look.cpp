#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <manyheads/error.hpp>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/format.hpp"
#include "cli.hpp"
#include "heatmap.hpp"
#include "lens/read_heads.hpp"
#include "lens/unicode.hpp"
#include "model/bert.hpp"
#include "model/tokenizer.hpp"
#include "text.hpp"

namespace manyheads::cli {

namespace {

using Json = nlohmann::ordered_json;

struct Look {
  Common common;
  std::optional<std::string> text;
  std::string model;
  std::string trace;
  std::optional<std::string> pair;
  std::vector<std::string> links;
  std::string head;
  bool truncate = false;
};

// Looked for in every text when no link is asked for.
constexpr std::array<std::array<const char*, 2>, 3> kUsualLinks = {{{"cat", "sat"}, {"black", "cat"}, {"sat", "mat"}}};
constexpr std::size_t kStrongest = 3;
constexpr std::size_t kBestInJson = 5;
constexpr std::size_t kBestInText = 3;

struct HeadName {
  std::size_t layer = 0;
  std::int64_t head = 0;
};

// What there is to show.
struct Findings {
  lens::Trace trace;
  std::size_t full_size = 0;  // tokens before truncation
  std::vector<lens::Word> words;
  std::vector<std::string> word_names;  // "the", and "the#2" for its second occurrence
  std::vector<lens::HeadReading> heads;
  std::vector<lens::LinkReading> links;
};

HeadName parse_head(const std::string& text) {
  HeadName name;
  const std::size_t dot = text.find('.');
  const char* const end = text.data() + text.size();
  if (dot != std::string::npos) {
    const auto [layer_end, layer_problem] = std::from_chars(text.data(), text.data() + dot, name.layer);
    const auto [head_end, head_problem] = std::from_chars(text.data() + dot + 1, end, name.head);
    if (layer_problem == std::errc() && head_problem == std::errc() && layer_end == text.data() + dot &&
        head_end == end && name.head >= 0) {
      return name;
    }
  }
  throw UsageError("--head takes LAYER.HEAD, both counted from 0, such as 2.7; got \"" + text + "\"");
}

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

std::vector<lens::Link> choose_links(const std::vector<std::string>& asked, const std::vector<lens::Word>& words) {
  std::vector<lens::Link> links;
  for (const std::string& text : asked) {
    const std::array<std::string, 2> sides = split_link(text);
    links.push_back({lens::find_word(words, sides[0]), lens::find_word(words, sides[1])});
  }
  if (!asked.empty()) return links;
  for (const auto& [query, key] : kUsualLinks) {
    if (lens::has_word(words, query) && lens::has_word(words, key)) {
      links.push_back({lens::find_word(words, query), lens::find_word(words, key)});
    }
  }
  return links;
}

std::vector<std::string> name_words(const std::vector<lens::Word>& words) {
  std::vector<std::string> names;
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::string small = lens::lower_case(words[i].text);
    std::size_t occurrence = 1;
    for (std::size_t j = 0; j < i; ++j) occurrence += lens::lower_case(words[j].text) == small ? 1 : 0;
    names.push_back(lens::printable(words[i].text) + (occurrence == 1 ? "" : "#" + std::to_string(occurrence)));
  }
  return names;
}

lens::Trace run_model(const Look& request, std::size_t* full_size) {
  check_text("TEXT", *request.text);
  if (request.pair) check_text("--pair", *request.pair);
  check_model(request.model);
  const model::Tokenizer tokenizer(std::filesystem::path(request.model) / "tokenizer.json");
  const model::BertEncoder encoder = model::BertEncoder::load(request.model);
  const EncodedText encoded = encode_text(tokenizer, "TEXT", *request.text, request.pair,
                                          encoder.config().max_position_embeddings, request.truncate);
  *full_size = encoded.full_size;
  lens::TraceOptions options;
  options.text2 = request.pair;
  options.num_threads = request.common.threads;
  return lens::make_trace(encoder, encoded.encoding, model_name(request.model), *request.text, options);
}

Findings find(const Look& request) {
  for (const std::string& link : request.links) split_link(link);
  Findings found;
  if (!request.trace.empty()) {
    found.trace = lens::load_trace(request.trace);
    found.full_size = found.trace.tokens.size();
  } else {
    found.trace = run_model(request, &found.full_size);
  }
  found.words = lens::words_of(found.trace);
  found.word_names = name_words(found.words);
  const std::vector<lens::Link> links = choose_links(request.links, found.words);
  found.heads = lens::read_heads(found.trace, found.words, links, kStrongest, request.common.threads);
  found.links = lens::rank_heads(found.heads, links);
  return found;
}

const lens::HeadReading& find_head(const Findings& found, const HeadName& name) {
  for (const lens::HeadReading& reading : found.heads) {
    if (reading.layer == name.layer && reading.head == name.head) return reading;
  }
  throw UsageError(base::format("--head {}.{}: there are {} layers of {} heads, both counted from 0", name.layer,
                                name.head, found.trace.layers.size(), found.trace.num_heads(0)));
}

Tensor weights_of(const Findings& found, const HeadName& name, int threads) {
  Tensor weights(DType::kF32, Dims{found.trace.num_queries(), found.trace.num_keys()});
  lens::trace_weights(found.trace, name.layer, name.head, weights.view(), threads);
  return weights;
}

// ---- JSON

Json number(const std::optional<double>& value) {
  return value && std::isfinite(*value) ? Json(*value) : Json(nullptr);
}

Json scores_json(const lens::HeadScores& scores) {
  Json json = Json::object();
  for (const lens::ScoreRule& rule : lens::score_rules()) {
    const lens::Score& score = scores.scores[static_cast<std::size_t>(rule.id)];
    json[rule.name] = number(score.value);
    const bool has_place = rule.id == lens::ScoreId::kPositional || rule.id == lens::ScoreId::kSink;
    if (has_place) {
      json[rule.id == lens::ScoreId::kSink ? "sink_key" : "positional_offset"] =
          score.place ? Json(*score.place) : Json(nullptr);
    }
  }
  return json;
}

Json rules_json() {
  Json list = Json::array();
  for (const lens::ScoreRule& rule : lens::score_rules()) {
    list.push_back({{"score", rule.name},
                    {"role", rule.role == nullptr ? Json(nullptr) : Json(rule.role)},
                    {"threshold", rule.role == nullptr ? Json(nullptr) : Json(rule.threshold)},
                    {"threshold_from", rule.role == nullptr     ? Json(nullptr)
                                       : rule.threshold_is_ours ? Json("manyheads")
                                                                : Json("source")},
                    {"formula", rule.formula},
                    {"source", rule.source}});
  }
  return list;
}

Json links_json(const Findings& found) {
  Json list = Json::array();
  for (const lens::LinkReading& reading : found.links) {
    const auto& [query, key] = reading.link;
    Json best = Json::array();
    for (std::size_t i = 0; i < std::min(kBestInJson, reading.best.size()); ++i) {
      const auto& head = reading.best[i];
      best.push_back({{"layer", head.layer}, {"head", head.head}, {"weight", number(head.weight)}});
    }
    list.push_back({{"name", found.word_names[query] + "→" + found.word_names[key]},
                    {"query", found.words[query].text},
                    {"key", found.words[key].text},
                    {"query_word", query},
                    {"key_word", key},
                    {"best", best},
                    {"mean", number(reading.mean)}});
  }
  return list;
}

Json heads_json(const Findings& found) {
  Json list = Json::array();
  for (const lens::HeadReading& reading : found.heads) {
    Json roles = Json::array();
    for (const lens::ScoreRule* rule : reading.scores.roles) roles.push_back(rule->role);
    Json strongest = Json::array();
    for (const lens::WeighedLink& link : reading.strongest) {
      strongest.push_back({{"query", found.words[link.link.query].text},
                           {"key", found.words[link.link.key].text},
                           {"query_word", link.link.query},
                           {"key_word", link.link.key},
                           {"weight", number(link.weight)}});
    }
    list.push_back({{"layer", reading.layer},
                    {"head", reading.head},
                    {"scores", scores_json(reading.scores)},
                    {"roles", roles},
                    {"strongest", strongest}});
  }
  return list;
}

void print_findings_json(const Findings& found, const std::optional<HeadName>& head, int threads) {
  Json words = Json::array();
  for (const lens::Word& word : found.words) {
    words.push_back({{"text", word.text},
                     {"first_token", word.first_token},
                     {"num_tokens", word.num_tokens},
                     {"sequence", word.sequence}});
  }
  Json json = {{"model", found.trace.model},
               {"text", found.trace.text},
               {"text2", found.trace.text2 ? Json(*found.trace.text2) : Json(nullptr)},
               {"tokens", found.trace.tokens},
               {"truncated_from", found.full_size > found.trace.tokens.size() ? Json(found.full_size) : Json(nullptr)},
               {"words", words},
               {"num_layers", found.trace.layers.size()},
               {"num_heads", found.trace.num_heads(0)},
               {"links", links_json(found)},
               {"heads", heads_json(found)},
               {"score_rules", rules_json()}};
  if (head) {
    const Tensor weights = weights_of(found, *head, threads);
    Json rows = Json::array();
    for (std::int64_t q = 0; q < weights.size(0); ++q) {
      Json row = Json::array();
      for (std::int64_t k = 0; k < weights.size(1); ++k) {
        row.push_back(number(static_cast<double>(weights.as<float>()[q * weights.size(1) + k])));
      }
      rows.push_back(row);
    }
    json["head"] = {{"layer", head->layer}, {"head", head->head}, {"weights", rows}};
  }
  print_json(json);
}

// ---- Text

constexpr const char* kBold = "1";
constexpr const char* kDim = "2";
constexpr const char* kBadge = "38;5;30";

class Painter {
 public:
  explicit Painter(bool colour) : colour_(colour) {}
  std::string operator()(const char* style, const std::string& text) const {
    return colour_ ? base::format("\x1b[{}m{}\x1b[0m", style, text) : text;
  }

 private:
  bool colour_;
};

// Pieces put on lines of so many columns, each line begun with `indent` spaces.
std::string flow(const std::vector<std::string>& pieces, int columns, int indent) {
  std::string out(static_cast<std::size_t>(indent), ' ');
  int used = indent;
  for (const std::string& piece : pieces) {
    const int width = lens::display_width(piece);
    if (used > indent && used + 1 + width > columns) {
      out += "\n" + std::string(static_cast<std::size_t>(indent), ' ');
      used = indent;
    }
    if (used > indent) {
      out += ' ';
      ++used;
    }
    out += piece;
    used += width;
  }
  return out + "\n";
}

std::string shown_name(const Findings& found, std::size_t word, int columns) {
  std::string name = fit(found.word_names[word], columns);
  name.erase(name.find_last_not_of(' ') + 1);
  return name;
}

// "[sink [CLS] 0.66]"
std::string badge(const Findings& found, const lens::HeadReading& reading, const lens::ScoreRule& rule) {
  const lens::Score& score = reading.scores.scores[static_cast<std::size_t>(rule.id)];
  std::string place;
  if (rule.id == lens::ScoreId::kPositional) place = base::format(" {:+d}", *score.place);
  if (rule.id == lens::ScoreId::kSink) {
    place = " " + lens::printable(found.trace.tokens[static_cast<std::size_t>(*score.place)]);
  }
  return base::format("[{}{} {:.2f}]", rule.role, place, *score.value);
}

std::string head_text(const Findings& found, const lens::HeadReading& reading, const Painter& paint, int columns) {
  constexpr int kIndent = 8;
  constexpr std::size_t kShown = 2;
  std::string line = paint(kBold, base::format("  {:<6}", base::format("{}.{}", reading.layer, reading.head)));
  int used = kIndent;
  for (std::size_t i = 0; i < std::min(kShown, reading.strongest.size()); ++i) {
    const lens::WeighedLink& link = reading.strongest[i];
    const std::string text = base::format("{} → {} {:.2f}", shown_name(found, link.link.query, 11),
                                          shown_name(found, link.link.key, 11), link.weight);
    const int cell = std::max(20, lens::display_width(text) + 2);
    line += fit(text, cell);
    used += cell;
  }
  for (const lens::ScoreRule* rule : reading.scores.roles) {
    const std::string text = badge(found, reading, *rule);
    if (used + lens::display_width(text) > columns) {
      line.erase(line.find_last_not_of(' ') + 1);
      line += "\n" + std::string(kIndent, ' ');
      used = kIndent;
    }
    line += paint(kBadge, text) + " ";
    used += lens::display_width(text) + 1;
  }
  line.erase(line.find_last_not_of(' ') + 1);
  return line + "\n";
}

// "Of 72 heads: 1 previous, 1 next, 30 first."
std::string role_counts(const Findings& found, int columns) {
  std::vector<std::string> pieces = {"Of", std::to_string(found.heads.size()), "heads:"};
  const std::size_t before = pieces.size();
  for (const lens::ScoreRule& rule : lens::score_rules()) {
    const auto count = std::count_if(found.heads.begin(), found.heads.end(), [&](const lens::HeadReading& reading) {
      const auto& roles = reading.scores.roles;
      return std::find(roles.begin(), roles.end(), &rule) != roles.end();
    });
    if (count > 0) pieces.push_back(base::format("{} {},", count, rule.role));
  }
  if (pieces.size() == before) pieces.push_back("no role at all.");
  pieces.back().back() = '.';
  return flow(pieces, columns, 0);
}

std::string links_text(const Findings& found, const Painter& paint, int columns) {
  if (found.links.empty()) {
    std::string example = "cat,sat";
    for (std::size_t i = 0; i + 1 < found.words.size(); ++i) {
      const std::string& query = found.word_names[i];
      const std::string& key = found.word_names[i + 1];
      const bool long_words = lens::display_width(query) + lens::display_width(key) > 14;
      if (long_words || (query + key).find_first_of(",\"'.!?;:()") != std::string::npos) continue;
      example = query + "," + key;
      break;
    }
    return "To see which heads read a link best, name two words: --link \"" + example + "\"\n\n";
  }
  std::string out = paint(kBold, "Which heads read a link best?") +
                    " The weight is the share of its attention that\n"
                    "the first word gives to the second. Heads are layer.head, from 0.\n";
  const std::size_t num_heads = found.heads.size();
  int name_columns = 12;
  for (const lens::LinkReading& reading : found.links) {
    const int width = lens::display_width(found.word_names[reading.link.query]) +
                      lens::display_width(found.word_names[reading.link.key]) + 3;
    name_columns = std::max(name_columns, std::min(width, columns - 60));
  }
  for (const lens::LinkReading& reading : found.links) {
    out += "  " + fit(found.word_names[reading.link.query] + " → " + found.word_names[reading.link.key], name_columns);
    for (std::size_t i = 0; i < std::min(kBestInText, reading.best.size()); ++i) {
      const auto& head = reading.best[i];
      const std::string text = base::format("{:>7} {:.2f}", base::format("{}.{}", head.layer, head.head), head.weight);
      out += i == 0 ? paint(kBadge, text) : text;
    }
    out += paint(kDim, base::format("   mean of {} heads {:.2f}", num_heads, reading.mean)) + "\n";
  }
  return out + "\n";
}

std::string legend(const Painter& paint, int columns) {
  std::string out =
      paint(kBold, "Roles") + ": A[q,k] is the share of its attention that token q gives to token k, of n.\n";
  const char* source = nullptr;
  for (const lens::ScoreRule& rule : lens::score_rules()) {
    if (rule.role == nullptr) continue;
    if (source != rule.source) out += paint(kDim, std::string(rule.source) + ":") + "\n";
    source = rule.source;
    std::vector<std::string> words;
    const std::string text = base::format("{} {:g}{}: {}", rule.id == lens::ScoreId::kPositional ? "from" : "above",
                                          rule.threshold, rule.threshold_is_ours ? "*" : "", rule.formula);
    for (std::size_t begin = 0; begin < text.size();) {
      const std::size_t end = std::min(text.find(' ', begin), text.size());
      words.push_back(text.substr(begin, end - begin));
      begin = end + 1;
    }
    std::string block = flow(words, columns, 18);
    const std::string role = base::format("  {:<16}", rule.role);
    out += role + block.substr(role.size());
  }
  return out + "* The threshold is this program's own; the source gives none.\n";
}

void print_findings(const Look& request, const Findings& found, const std::optional<HeadName>& head) {
  const bool colour = colour_output();
  const Painter paint(colour);
  const int columns = terminal_columns();
  const lens::Trace& trace = found.trace;

  std::vector<std::string> tokens;
  for (const std::string& token : trace.tokens) tokens.push_back(lens::printable(token));
  std::string out;
  out += base::format("{} tokens{}, {} layers of {} heads{}:\n", tokens.size(),
                      found.full_size > tokens.size() ? base::format(" (cut from {})", found.full_size) : "",
                      trace.layers.size(), trace.num_heads(0),
                      trace.model.empty() ? "" : " in " + lens::printable(trace.model));
  out += flow(tokens, columns, 2) + "\n";
  out += links_text(found, paint, columns);

  if (head) {
    const Tensor weights = weights_of(found, *head, request.common.threads);
    out += paint(kBold, base::format("Head {}.{}", head->layer, head->head)) +
           ": its heaviest links between words, and its roles.\n";
    out += head_text(found, find_head(found, *head), paint, columns) + "\n";
    tokens.resize(static_cast<std::size_t>(trace.key_length));
    out += heat_map({weights.as<float>(), trace.key_length, trace.num_keys()}, tokens, columns, colour) + "\n";
  } else {
    out += paint(kBold, "What does each head do?") + " Its heaviest links between words, and its roles.\n";
    out += role_counts(found, columns);
    for (const lens::HeadReading& reading : found.heads) out += head_text(found, reading, paint, columns);
    out += "\n";
  }
  out += legend(paint, columns);
  if (!head) {
    const HeadName best =
        found.links.empty() ? HeadName{} : HeadName{found.links[0].best[0].layer, found.links[0].best[0].head};
    out += base::format("\nOne head as a heat map: the same command with --head {}.{}\n", best.layer, best.head);
  }
  print(out);
}

void look(const Look& request) {
  if (request.trace.empty() && !request.text) throw UsageError("TEXT is required");
  if (request.trace.empty() && request.model.empty()) throw UsageError("--model is required");
  if (!request.trace.empty() && (!request.model.empty() || request.text || request.pair)) {
    throw UsageError("--trace takes the text and the model from the file; leave out TEXT, --pair and --model");
  }
  std::optional<HeadName> head;
  if (!request.head.empty()) head = parse_head(request.head);
  const Findings found = find(request);
  if (head) find_head(found, *head);
  if (request.common.json) {
    print_findings_json(found, head, request.common.threads);
  } else {
    print_findings(request, found, head);
  }
}

}  // namespace

void add_look(CLI::App& app) {
  auto request = std::make_shared<Look>();
  CLI::App* verb = app.add_subcommand("look", "What each head of a model looks at in a text");
  verb->add_option("TEXT", request->text, "The text")->type_name("");
  verb->add_option("--model", request->model, "Folder with config.json, model.safetensors and tokenizer.json")
      ->type_name("DIR");
  verb->add_option("--pair", request->pair, "A second text: the model sees both, as two segments")->type_name("TEXT2");
  verb->add_option("--link", request->links,
                   "The link from one word to another, \"cat,sat\"; may be repeated. \"sat#2\" is the word's second "
                   "occurrence. A word in small letters matches in any case. \"cat->,\" names a comma")
      ->type_name("\"A,B\"")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->allow_extra_args(false);
  verb->add_option("--head", request->head, "Draw one head as a heat map: layer.head, both counted from 0")
      ->type_name("L.H");
  verb->add_option("--trace", request->trace, "Look at a file that trace wrote, instead of TEXT and --model")
      ->type_name("FILE");
  verb->add_flag("--truncate", request->truncate, "Cut a text that is longer than the model takes");
  add_common(*verb, request->common);
  verb->footer("Example: manyheads look \"The black cat sat on the mat.\" --model models/all-MiniLM-L6-v2 --head 2.7");
  verb->callback([request] { look(*request); });
}

}  // namespace manyheads::cli
