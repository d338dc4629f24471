#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "base/format.hpp"
#include "cli.hpp"
#include "findings.hpp"
#include "heatmap.hpp"
#include "lens/unicode.hpp"

namespace manyheads::cli {
namespace {

constexpr std::size_t kBestInText = 3;
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
      out += '\n';
      out.append(static_cast<std::size_t>(indent), ' ');
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
    place = base::format(" {}", lens::printable(found.trace.tokens[static_cast<std::size_t>(*score.place)]));
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
      line += '\n';
      line.append(kIndent, ' ');
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

}  // namespace

void print_findings(const Findings& found, const std::optional<HeadName>& head, int threads) {
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
    const Tensor weights = weights_of(found, *head, threads);
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

}  // namespace manyheads::cli
