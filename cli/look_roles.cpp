#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "base/format.hpp"
#include "findings.hpp"
#include "heatmap.hpp"
#include "lens/token_kinds.hpp"
#include "lens/unicode.hpp"
#include "look_text.hpp"

namespace manyheads::cli {
namespace {

using lens::ScoreId;

// The roles that say where attention goes. A head is listed under the first that it has.
constexpr ScoreId kTold[] = {ScoreId::kFirst, ScoreId::kSeparator, ScoreId::kPunctuation,       ScoreId::kPrevious,
                             ScoreId::kNext,  ScoreId::kSelf,      ScoreId::kDuplicateTokenMul, ScoreId::kEntropy};

const lens::ScoreRule* told_by(const lens::HeadReading& reading) {
  for (const ScoreId id : kTold) {
    for (const lens::ScoreRule* rule : reading.scores.roles) {
      if (rule->id == id) return rule;
    }
  }
  return nullptr;
}

// "[CLS]", or "the first token" where it is a word of the text.
std::string first_token(const Findings& found) {
  const lens::Trace& trace = found.trace;
  const bool special = !trace.words.empty() && trace.words.front() < 0;
  return special ? lens::printable(trace.tokens.front()) : "the first token";
}

// "[SEP]", or a general name where there are several kinds.
std::string separators(const Findings& found) {
  const lens::TokenKinds kinds = lens::token_kinds(found.trace);
  std::string name;
  for (std::size_t t = 0; t < kinds.separator.size(); ++t) {
    if (!kinds.separator[t] || found.trace.tokens[t] == name) continue;
    if (!name.empty()) return "the marks behind the text";
    name = found.trace.tokens[t];
  }
  return lens::printable(name);
}

// What heads of a role do: "rest on [CLS]", or of one head "rests on [CLS]".
std::string told(const Findings& found, ScoreId id, bool one) {
  const std::string s = one ? "s" : "";
  switch (id) {
    case ScoreId::kFirst:
      return "rest" + s + " on " + first_token(found);
    case ScoreId::kSeparator:
      return "rest" + s + " on " + separators(found);
    case ScoreId::kPunctuation:
      return "rest" + s + " on punctuation";
    case ScoreId::kPrevious:
      return "look" + s + " at the token before (" + (one ? "the previous-word head)" : "previous-word heads)");
    case ScoreId::kNext:
      return "look" + s + " at the next token (" + (one ? "the next-word head)" : "next-word heads)");
    case ScoreId::kSelf:
      return "look" + s + " at the token itself";
    case ScoreId::kDuplicateTokenMul:
      return "look" + s + " at earlier copies of the same token";
    default:
      return "spread" + s + " as wide as an even share over 45 tokens or more";
  }
}

}  // namespace

std::string plain_words(const Findings& found, const lens::HeadReading& reading, const lens::ScoreRule& rule) {
  const lens::Score& score = reading.scores.scores[static_cast<std::size_t>(rule.id)];
  const auto gives = [&](const std::string& to) { return base::format("gives {:.2f} to {}", *score.value, to); };
  const std::string marks = separators(found);
  const std::string but = marks.empty() ? "" : " (" + marks + " left out)";
  switch (rule.id) {
    case ScoreId::kSelf:
      return gives("the token itself");
    case ScoreId::kPrevious:
      return gives("the token before");
    case ScoreId::kNext:
      return gives("the next token");
    case ScoreId::kFirst:
      return gives(first_token(found));
    case ScoreId::kSeparator:
      return gives(marks);
    case ScoreId::kPunctuation:
      return gives("punctuation");
    case ScoreId::kDuplicateTokenMul:
      return gives("earlier copies of the same token");
    case ScoreId::kConfidence:
      return gives("the token that it weighs most" + but);
    case ScoreId::kPositional:
      return base::format("weighs the token at {:+d} most{}, for {:.0f} % of the tokens that have one there",
                          *score.place, but, 100 * *score.value);
    case ScoreId::kSink: {
      const std::string token = lens::printable(found.trace.tokens[static_cast<std::size_t>(*score.place)]);
      return gives(*score.place == 0 ? first_token(found)
                                     : base::format("{} (token {} from 0), counting that token and those behind it",
                                                    token, *score.place));
    }
    default:
      return base::format("spreads as wide as an even share over {:.0f} tokens", std::exp(*score.value));
  }
}

std::string heads_by_role(const Findings& found, int columns, int lines) {
  constexpr int kGroupLines = 2;
  constexpr int kFewestLines = 6;
  std::string out;
  std::size_t grouped = 0;
  for (const ScoreId id : kTold) {
    std::vector<std::string> names;
    for (const lens::HeadReading& reading : found.heads) {
      const lens::ScoreRule* rule = told_by(reading);
      if (rule == nullptr || rule->id != id) continue;
      names.push_back(base::format("{}.{},", reading.layer, reading.head));
    }
    if (names.empty()) continue;
    grouped += names.size();
    const bool one = names.size() == 1;
    names.back().pop_back();
    const std::string title = base::format("{} head{} {}:", names.size(), one ? "" : "s", told(found, id, one));
    names.insert(names.begin(), title);
    while (num_lines(flow(names, columns, 2)) > kGroupLines) {
      if (names.back() == "…") names.pop_back();
      names.back() = "…";
    }
    out += flow(names, columns, 2);
  }
  if (grouped > 0) {
    out = paragraph(
              "What does each head do with this text? What it rests on or looks at gets more than half of its "
              "attention, on "
              "average over the tokens; each head stands once.",
              columns, 0) +
          out;
  }

  std::vector<const lens::HeadReading*> rest;
  for (const lens::HeadReading& reading : found.heads) {
    if (told_by(reading) == nullptr && !reading.strongest.empty()) rest.push_back(&reading);
  }
  std::stable_sort(rest.begin(), rest.end(), [](const lens::HeadReading* a, const lens::HeadReading* b) {
    return ranks_before(a->strongest[0], b->strongest[0]);
  });
  if (rest.empty()) return out;
  // Two of these fit side by side on 80 columns.
  std::size_t name_columns = 0;
  for (const lens::HeadReading* reading : rest) {
    name_columns = std::max(name_columns, base::format("{}.{}", reading->layer, reading->head).size());
  }
  const int word_columns = name_columns > 4 ? 8 : 9;
  std::vector<std::string> cells;
  int width = 0;
  for (const lens::HeadReading* reading : rest) {
    const std::string name = base::format("{}.{}", reading->layer, reading->head);
    cells.push_back(fit(name, static_cast<int>(name_columns) + 1) +
                    link_text(found, reading->strongest[0], word_columns));
    width = std::max(width, lens::display_width(cells.back()));
  }
  width += 1;
  const auto across = static_cast<std::size_t>(std::max(1, (columns - 1) / width));
  const auto room = static_cast<std::size_t>(std::max(kFewestLines, lines - num_lines(out) - 3));
  const std::size_t shown = std::min(rest.size(), room * across);
  out += paragraph(base::format("The {}{} head{}, each with the link that stands out most from its distance{}:",
                                grouped > 0 ? "other " : "", rest.size(), rest.size() == 1 ? "" : "s",
                                found.trace.causal ? ", those to the first token left out" : ""),
                   columns, 0);
  for (std::size_t i = 0; i < shown; ++i) {
    out += (i % across == 0 ? "  " : "") + fit(cells[i], width);
    if (i % across + 1 == across || i + 1 == shown) {
      out.erase(out.find_last_not_of(' ') + 1);
      out += "\n";
    }
  }
  if (shown < rest.size()) out += base::format("  … and {} more\n", rest.size() - shown);
  return out;
}

}  // namespace manyheads::cli
