#include <algorithm>
#include <charconv>
#include <cmath>
#include <manyheads/error.hpp>
#include <manyheads/lens/links.hpp>

#include "base/file.hpp"
#include "lens/unicode.hpp"

namespace manyheads::lens {

namespace {

constexpr std::size_t kMaxListedWords = 40;

std::string strip_spaces(const std::string& text) {
  const std::size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string::npos) return text;
  return text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1);
}

// The end of a word's text, `last` being its last token. A tokenizer that strips accents leaves out those of the last
// letter; they belong to the word.
std::size_t end_of_word(const Trace& trace, const std::string& text, std::size_t last) {
  auto end = static_cast<std::size_t>(trace.offsets[last][1]);
  std::size_t limit = text.size();
  if (last + 1 < trace.offsets.size() && trace.offsets[last + 1][0] >= trace.offsets[last][1]) {
    limit = std::min(limit, static_cast<std::size_t>(trace.offsets[last + 1][0]));
  }
  char32_t c;
  for (std::size_t next = end; next < limit && next_code_point(text, &next, &c) && is_mark(c);) end = next;
  return end;
}

// The word as the text spells it, or its pieces joined where the trace has no offsets.
std::string spelling(const Trace& trace, const Word& word) {
  const auto first = static_cast<std::size_t>(word.first_token);
  const auto last = static_cast<std::size_t>(word.first_token + word.num_tokens - 1);
  if (!trace.offsets.empty()) {
    const std::string& own = word.sequence == 1 ? *trace.text2 : trace.text;
    const std::int64_t begin = trace.offsets[first][0];
    const std::int64_t end = trace.offsets[last][1];
    if (begin < end && end <= static_cast<std::int64_t>(own.size())) {
      const auto from = static_cast<std::size_t>(begin);
      return strip_spaces(own.substr(from, end_of_word(trace, own, last) - from));
    }
  }
  std::string text;
  for (std::size_t t = first; t <= last; ++t) {
    const std::string& token = trace.tokens[t];
    text += token.size() > 2 && token.compare(0, 2, "##") == 0 ? token.substr(2) : token;
  }
  return text;
}

// The words that carry the name.
std::vector<std::size_t> occurrences(const std::vector<Word>& words, std::string_view name) {
  const std::string exact = normal_form(name), folded = fold_case(name);
  std::vector<std::size_t> same, any_case;
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (fold_case(words[i].text) != folded) continue;
    any_case.push_back(i);
    if (normal_form(words[i].text) == exact) same.push_back(i);
  }
  return same.empty() || !has_capitals(name) ? any_case : same;
}

}  // namespace

std::vector<Word> words_of(const Trace& trace) {
  std::vector<Word> words;
  const auto n = static_cast<std::size_t>(trace.key_length);
  for (std::size_t t = 0; t < n; ++t) {
    const std::int64_t sequence = trace.sequences.empty() ? 0 : trace.sequences[t];
    if (sequence < 0 || (!trace.words.empty() && trace.words[t] < 0)) continue;
    const bool goes_on = t > 0 && !words.empty() && !trace.words.empty() && trace.words[t] == trace.words[t - 1] &&
                         words.back().sequence == sequence;
    if (goes_on) {
      ++words.back().num_tokens;
    } else {
      words.push_back({"", static_cast<std::int64_t>(t), 1, sequence});
    }
  }
  for (Word& word : words) word.text = spelling(trace, word);
  return words;
}

bool has_word(const std::vector<Word>& words, std::string_view name) { return !occurrences(words, name).empty(); }

std::size_t find_word(const std::vector<Word>& words, std::string_view name) {
  std::vector<std::size_t> found = occurrences(words, name);
  if (!found.empty()) return found.front();

  const std::size_t hash = name.rfind('#');
  if (hash != std::string_view::npos && hash > 0) {
    std::size_t index = 0;
    const std::string_view digits = name.substr(hash + 1);
    const auto [end, status] = std::from_chars(digits.data(), digits.data() + digits.size(), index);
    if (status == std::errc() && end == digits.data() + digits.size()) {
      found = occurrences(words, name.substr(0, hash));
      if (index >= 1 && index <= found.size()) return found[index - 1];
      if (!found.empty()) {
        throw Error(ErrorCode::kInvalidArgument, base::in_quotes(name) + " asks for occurrence " + std::string(digits) +
                                                     ", " + base::in_quotes(name.substr(0, hash)) + " occurs " +
                                                     std::to_string(found.size()) +
                                                     (found.size() == 1 ? " time" : " times") + ", counted from 1");
      }
    }
  }
  std::string listed;
  for (std::size_t i = 0; i < words.size() && i < kMaxListedWords; ++i) {
    listed += ' ';
    listed += printable(words[i].text);
  }
  if (words.size() > kMaxListedWords) listed += " ... (" + std::to_string(words.size()) + " words)";
  throw Error(ErrorCode::kInvalidArgument,
              "the text has no word " + base::in_quotes(name) + "; its words are:" + listed);
}

bool ranks_before(const WeighedLink& a, const WeighedLink& b) {
  if (std::isnan(a.weight) || std::isnan(b.weight)) return !std::isnan(a.weight) && std::isnan(b.weight);
  if (a.offset_mean.has_value() != b.offset_mean.has_value()) return a.offset_mean.has_value();
  const double first = a.above_offset().value_or(a.weight), second = b.above_offset().value_or(b.weight);
  if (std::isnan(first) || std::isnan(second)) return !std::isnan(first) && std::isnan(second);
  return first > second;
}

}  // namespace manyheads::lens
