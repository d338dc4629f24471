#include "view/pairs.hpp"

#include <algorithm>
#include <cstddef>
#include <nlohmann/json.hpp>
#include <set>

#include "base/utf8.hpp"
#include "lens/unicode.hpp"

namespace manyheads::cli {
namespace {

using nlohmann::json;

// Words that rarely say what a sentence is about, as viewer/src/tour/pairs.ts has them.
const std::set<std::string>& small_words() {
  static const std::set<std::string> words = {
      "a",     "an",    "the",  "this", "that", "these", "those", "my",    "your", "his",  "her",  "its", "our",
      "their", "and",   "or",   "but",  "of",   "in",    "on",    "at",    "to",   "from", "with", "by",  "for",
      "as",    "into",  "near", "is",   "was",  "were",  "are",   "be",    "been", "has",  "have", "had", "do",
      "does",  "did",   "not",  "it",   "he",   "she",   "they",  "we",    "you",  "i",    "der",  "die", "das",
      "den",   "dem",   "des",  "ein",  "eine", "einen", "einem", "einer", "und",  "oder", "aber", "von", "im",
      "auf",   "am",    "zu",   "zum",  "zur",  "mit",   "bei",   "für",   "ist",  "war",  "sind", "hat", "haben",
      "hatte", "nicht", "er",   "sie",  "es",   "wir",   "ihr",   "ich"};
  return words;
}

std::string lower(std::string text) {
  for (char& c : text) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return text;
}

bool has_letter(const std::string& text) {
  char32_t c;
  for (std::size_t at = 0; at < text.size() && base::next_code_point(text, &at, &c);) {
    if ((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= 0x80 && !lens::is_punctuation(c))) return true;
  }
  return false;
}

std::string word_at(const json& trace, std::int64_t index) {
  return trace["words"][static_cast<std::size_t>(index)]["text"].get<std::string>();
}

}  // namespace

bool is_chapters(const json& trace) {
  if (trace["causal"].get<bool>()) return false;
  std::int64_t last = -1;
  for (const char* wanted : {"black", "cat", "sat", "mat"}) {
    std::int64_t found = -1;
    for (std::size_t i = trace["words"].size(); i-- > 0;) {
      if (lower(word_at(trace, static_cast<std::int64_t>(i))) == wanted) found = static_cast<std::int64_t>(i);
    }
    if (found <= last) return false;
    last = found;
  }
  return true;
}

std::vector<Pair> pairs_of(const json& trace, const std::string& given) {
  const auto count = static_cast<std::int64_t>(trace["words"].size());
  std::vector<Pair> named;
  for (std::size_t at = 0; at < given.size() && named.size() < 3;) {
    const std::size_t end = std::min(given.find(',', at), given.size()), dash = given.find('-', at);
    if (dash >= end) break;
    const auto number = [&](std::size_t from, std::size_t to) {
      const std::string digits = given.substr(from, to - from);
      const bool whole =
          !digits.empty() && digits.size() <= 5 && digits.find_first_not_of("0123456789") == std::string::npos;
      return whole ? std::stoll(digits) : -1;
    };
    const Pair pair{number(at, dash), number(dash + 1, end)};
    if (pair.first >= 0 && pair.second >= 0 && pair.first != pair.second && std::max(pair.first, pair.second) < count) {
      named.push_back(pair);
    }
    at = end + 1;
  }
  if (!named.empty()) return named;
  std::vector<std::int64_t> lettered, telling;
  const bool of_chapter = is_chapters(trace);
  for (std::int64_t i = 0; i < count; ++i) {
    const std::string low = lower(word_at(trace, i));
    if (of_chapter) {
      const bool wanted = low == "black" || low == "cat" || low == "sat" || low == "mat";
      const bool again = std::any_of(telling.begin(), telling.end(),
                                     [&](std::int64_t at) { return lower(word_at(trace, at)) == low; });
      if (wanted && !again) telling.push_back(i);
      continue;
    }
    if (!has_letter(low)) continue;
    lettered.push_back(i);
    if (small_words().count(low) == 0) telling.push_back(i);
  }
  std::vector<std::int64_t> at = telling.size() > 1 ? telling : lettered;
  if (at.size() > 4) at.resize(4);
  for (std::size_t i = 1; i < at.size(); ++i) {
    // Where words see only earlier ones, the later word of a link is the one that looks.
    named.push_back(trace["causal"].get<bool>() ? Pair{at[i], at[i - 1]} : Pair{at[i - 1], at[i]});
  }
  return named;
}

}  // namespace manyheads::cli
