#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "base/format.hpp"
#include "cli.hpp"
#include "findings.hpp"
#include "heatmap.hpp"
#include "lens/unicode.hpp"
#include "look_text.hpp"

namespace manyheads::cli {

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

std::string paragraph(const std::string& text, int columns, int indent) {
  std::vector<std::string> words;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find(' ', begin), text.size());
    words.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return flow(words, columns, indent);
}

int num_lines(const std::string& text) { return static_cast<int>(std::count(text.begin(), text.end(), '\n')); }

std::string cut_lines(const std::string& text, int lines, const std::string& note) {
  std::size_t end = 0;
  for (int line = 0; line < lines && end < text.size(); ++line) end = text.find('\n', end) + 1;
  return end == text.size() ? text : text.substr(0, end) + note;
}

std::string short_name(const Findings& found, std::size_t word, int columns) {
  const std::string& name = found.word_names[word];
  const std::string text = lens::printable(found.words[word].text);
  const std::string occurrence = name.substr(text.size());
  std::string cut = fit(text, std::max(2, columns - static_cast<int>(occurrence.size())));
  cut.erase(cut.find_last_not_of(' ') + 1);
  return cut + occurrence;
}

std::string link_text(const Findings& found, const lens::WeighedLink& link, int columns) {
  return base::format("{} → {} {}", short_name(found, link.link.query, columns),
                      short_name(found, link.link.key, columns), weight_text(link));
}

std::string weight_text(const lens::WeighedLink& link) {
  return link.offset_mean ? base::format("{:.2f} ({:.2f})", link.weight, *link.offset_mean)
                          : base::format("{:.2f} (-)", link.weight);
}

namespace {

constexpr std::size_t kBestInText = 3;
constexpr const char* kBold = "1";
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

// Explains the special tokens that occur.
std::string token_notes(const lens::Trace& trace, int columns) {
  const auto occurs = [&](const std::string& token) {
    return std::find(trace.tokens.begin(), trace.tokens.end(), token) != trace.tokens.end();
  };
  const bool pieces = std::any_of(trace.tokens.begin(), trace.tokens.end(), [](const std::string& token) {
    return token.size() > 2 && token.rfind("##", 0) == 0;
  });
  std::string text;
  for (const std::string token : {"[CLS]", "<s>"}) {
    if (occurs(token)) text += token + ": the model's mark before all text. ";
  }
  for (const std::string token : {"[SEP]", "</s>"}) {
    if (occurs(token)) text += token + ": its mark at the end of a text. ";
  }
  if (pieces) text += "##: a piece that continues the word before it. ";
  if (std::any_of(trace.tokens.begin(), trace.tokens.end(), [](const std::string& t) { return t.starts_with("Ġ"); })) {
    text += "Ġ: a blank before the token. ";
  }
  for (const std::string token : {"[UNK]", "<unk>"}) {
    if (occurs(token)) text += token + ": something the model has no token for. ";
  }
  return text.empty() ? "" : paragraph(text, columns, 2);
}

std::string tokens_text(const Findings& found, bool all, int columns) {
  constexpr int kLines = 6;
  const lens::Trace& trace = found.trace;
  std::vector<std::string> tokens;
  for (const std::string& token : trace.tokens) tokens.push_back(lens::printable(token));
  const std::string flowed = flow(tokens, columns, 2);
  return base::format("{} token{}{}, {} layer{} of {} head{}{}:\n", tokens.size(), tokens.size() == 1 ? "" : "s",
                      found.full_size > tokens.size() ? base::format(" (cut from {})", found.full_size) : "",
                      trace.layers.size(), trace.layers.size() == 1 ? "" : "s", trace.num_heads(0),
                      trace.num_heads(0) == 1 ? "" : "s",
                      trace.model.empty() ? "" : " in " + lens::printable(trace.model)) +
         (all ? flowed : cut_lines(flowed, kLines, "  … (--all shows all tokens)\n")) + token_notes(trace, columns);
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

// A head's two strongest links and its roles.
std::string head_line(const Findings& found, const lens::HeadReading& reading, const Painter& paint, int columns) {
  constexpr int kIndent = 8;
  constexpr std::size_t kLinks = 2;
  std::string line = paint(kBold, base::format("  {:<6}", base::format("{}.{}", reading.layer, reading.head)));
  int used = kIndent;
  for (std::size_t i = 0; i < std::min(kLinks, reading.strongest.size()); ++i) {
    const std::string text = link_text(found, reading.strongest[i], 10);
    const int cell = std::max(26, lens::display_width(text) + 2);
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

// The link that stands out most, and its head; null where no head has a link.
struct Example {
  const lens::HeadReading* head = nullptr;
  const lens::WeighedLink* link = nullptr;
};

Example example_of(const Findings& found, const Shown& shown) {
  if (!found.links.empty() && !found.links[0].best.empty()) {
    const lens::LinkReading::Head& best = found.links[0].best[0];
    return {&find_head(found, {best.layer, best.head}), &best.link};
  }
  Example example;
  for (const lens::HeadReading& head : found.heads) {
    if (shown.head && (head.layer != shown.head->layer || head.head != shown.head->head)) continue;
    if (head.strongest.empty() || (example.link != nullptr && !ranks_before(head.strongest[0], *example.link)))
      continue;
    example = {&head, &head.strongest[0]};
  }
  return example;
}

// How to read "0.60 (0.02)", explained at the first pair shown.
std::string how_to_read(const Findings& found, const Example& shown, int columns) {
  if (shown.link == nullptr) return "";
  const lens::HeadReading* reader = shown.head;
  const lens::WeighedLink* example = shown.link;
  const auto word = [&](std::size_t w) { return base::format("\"{}\"", short_name(found, w, 20)); };
  std::string text = base::format(
      "How to read it: \"{}.{} {}\" says that head {} of layer {} (both counted from 0) gives {:.2f} of the attention "
      "of "
      "{} to {}.",
      reader->layer, reader->head, link_text(found, *example, 20), reader->head, reader->layer, example->weight,
      word(example->link.query), word(example->link.key));
  text += example->offset_mean
              ? base::format(
                    " In brackets: what it gives on average, from the other words, to the word at the same "
                    "distance. The more the first number exceeds it, the less distance alone explains the link.")
              : " In brackets would stand what it gives, from the other words, to the word at the same distance; a - "
                "says that no other word has one.";
  if (found.trace.text2) text += " Links within a text and links across the two are averaged apart.";
  for (std::size_t w = 0; w < found.words.size(); ++w) {
    if (found.word_names[w] != lens::printable(found.words[w].text) + "#2") continue;
    text += base::format(" {} is the second \"{}\".", word(w), lens::printable(found.words[w].text));
    break;
  }
  return paragraph(text, columns, 0) + "\n";
}

std::string links_text(const Findings& found, const Painter& paint, int columns) {
  if (found.links.empty()) {
    if (found.words.size() < 2) return "";
    std::string example = "FIRST,SECOND";
    for (std::size_t i = 0; i + 1 < found.words.size(); ++i) {
      const std::string& query = found.word_names[i];
      const std::string& key = found.word_names[i + 1];
      const bool long_words = lens::display_width(query) + lens::display_width(key) > 20;
      if (long_words || (query + key).find_first_of(",\"'.!?;:()$`\\") != std::string::npos) continue;
      example = query + "," + key;
      break;
    }
    return "To see which heads give most to a link, name two words: --link \"" + example + "\"\n\n";
  }
  int name_columns = 12;
  for (const lens::LinkReading& reading : found.links) {
    const int width = lens::display_width(found.word_names[reading.link.query]) +
                      lens::display_width(found.word_names[reading.link.key]) + 3;
    name_columns = std::max(name_columns, std::min(width, columns - 68));
  }
  std::string out = paint(kBold, "Which heads give a link most, compared with its distance?") + " The best three;\n" +
                    base::format("\"mean\" is what all {} heads give it on average, \"away\" the distance in words.\n",
                                 found.heads.size());
  out += "  " + fit("link", name_columns) + "  away  mean\n";
  for (const lens::LinkReading& reading : found.links) {
    const auto& [query, key] = reading.link;
    const auto away = static_cast<std::int64_t>(key) - static_cast<std::int64_t>(query);
    out += "  " + fit(found.word_names[query] + " → " + found.word_names[key], name_columns) +
           base::format("  {:>+4d}  {:.2f}", away, reading.mean);
    for (std::size_t i = 0; i < std::min(kBestInText, reading.best.size()); ++i) {
      const auto& head = reading.best[i];
      const std::string text =
          base::format("{:>6} {}", base::format("{}.{}", head.layer, head.head), weight_text(head.link));
      out += i == 0 ? paint(kBadge, text) : text;
    }
    out += "\n";
  }
  return out + "\n";
}

std::string legend(const Painter& paint, int columns) {
  std::string out =
      paint(kBold, "Roles") + ": A[q,k] is the share of its attention that token q gives to token k, of n.\n";
  const char* source = nullptr;
  for (const lens::ScoreRule& rule : lens::score_rules()) {
    if (rule.role == nullptr) continue;
    if (source != rule.source) out += std::string(rule.source) + ":\n";
    source = rule.source;
    const std::string text = base::format("{} {:g}{}: {}", rule.id == lens::ScoreId::kPositional ? "from" : "above",
                                          rule.threshold, rule.threshold_is_ours ? "*" : "", rule.formula);
    const std::string role = base::format("  {:<16}", rule.role);
    out += role + paragraph(text, columns, 18).substr(role.size());
  }
  return out + "* The threshold is this program's own; the source gives none.\n";
}

std::string one_head(const Findings& found, const Shown& shown, const Painter& paint, int columns, bool colour) {
  const lens::HeadReading& reading = find_head(found, *shown.head);
  const auto listed = [&](const std::vector<lens::WeighedLink>& links) {
    std::vector<std::string> pieces;
    for (const lens::WeighedLink& link : links) pieces.push_back(link_text(found, link, 14) + ",");
    if (!pieces.empty()) pieces.back().pop_back();
    return flow(pieces, columns, 2);
  };
  std::string out = paint(kBold, base::format("Head {}.{}", reading.layer, reading.head));
  if (reading.strongest.empty()) {
    out += '\n';
  } else {
    out += ", and the links that stand out most from their distance in it:\n" + listed(reading.strongest);
  }
  if (!reading.asked.empty()) out += "What it gives to the links above:\n" + listed(reading.asked);
  if (!reading.scores.roles.empty()) out += "On average over the tokens, of the attention of each, it\n";
  std::string said;
  for (const lens::ScoreRule* rule : reading.scores.roles) {
    const std::string words = plain_words(found, reading, *rule);
    if (words != said) out += paragraph(words, columns, 2);
    if (rule->id == lens::ScoreId::kFirst) said = words;  // a sink that is the first token says the same
  }
  std::vector<std::string> tokens;
  for (std::int64_t t = 0; t < found.trace.key_length; ++t) {
    tokens.push_back(lens::printable(found.trace.tokens[static_cast<std::size_t>(t)]));
  }
  if (tokens.empty()) return out + "\nThere is no token to look at.\n";
  const Tensor weights = weights_of(found, *shown.head, heat_map_size(tokens, columns), shown.threads);
  return out + "\n" + heat_map(weights.as<float>(), found.trace.num_keys(), tokens, columns, colour);
}

}  // namespace

void print_findings(const Findings& found, const Shown& shown) {
  constexpr int kScreen = 40;
  const bool colour = colour_output();
  const Painter paint(colour);
  const int columns = terminal_columns();
  std::string out = tokens_text(found, shown.all, columns) + "\n";
  const Example example = example_of(found, shown);
  out += how_to_read(found, example, columns);
  out += links_text(found, paint, columns);
  if (shown.head) {
    out += one_head(found, shown, paint, columns, colour);
  } else if (shown.all) {
    out += paint(kBold, "Every head") + ": its strongest links, and its roles (--legend explains them).\n";
    for (const lens::HeadReading& reading : found.heads) out += head_line(found, reading, paint, columns);
  } else {
    out += heads_by_role(found, columns, kScreen - num_lines(out));
  }
  if (shown.legend) {
    out += '\n';
    out += legend(paint, columns);
  }
  if (!shown.head && !found.heads.empty()) {
    out += base::format(
        "One text is an anecdote: try others before you name a head.\n"
        "One head as a heat map: --head {}.{}. Every head: --all. Formulas: --legend.\n",
        example.head == nullptr ? 0 : example.head->layer, example.head == nullptr ? 0 : example.head->head);
  }
  print(out);
}

}  // namespace manyheads::cli
