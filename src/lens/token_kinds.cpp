#include "lens/token_kinds.hpp"

#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "lens/unicode.hpp"

namespace manyheads::lens {
namespace {

bool is_special(const Trace& trace, std::size_t t) { return !trace.words.empty() && trace.words[t] < 0; }

// The text that a token stands for.
std::string token_text(const Trace& trace, std::size_t t) {
  if (trace.offsets.empty()) return trace.tokens[t];
  const std::string& own = !trace.sequences.empty() && trace.sequences[t] == 1 ? *trace.text2 : trace.text;
  const auto [begin, end] = trace.offsets[t];
  return own.substr(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
}

bool all_punctuation(const std::string& text) {
  bool any = false;
  char32_t c;
  for (std::size_t p = 0; p < text.size();) {
    if (!next_code_point(text, &p, &c)) return false;
    if (c == ' ') continue;
    if (!is_punctuation(c)) return false;
    any = true;
  }
  return any;
}

}  // namespace

TokenKinds token_kinds(const Trace& trace) {
  TokenKinds kinds;
  const auto n = static_cast<std::size_t>(trace.key_length);
  // A [SEP] written into the text is the same token to the model.
  std::unordered_set<std::string_view> separators;
  for (std::size_t t = 1; t < trace.tokens.size(); ++t) {
    if (is_special(trace, t)) separators.insert(trace.tokens[t]);
  }
  // Without ids, equal spellings are equal tokens.
  std::unordered_map<std::string_view, std::int64_t> first_of;
  for (std::size_t t = 0; t < n; ++t) {
    const bool special = is_special(trace, t);
    kinds.separator.push_back(t > 0 && (special || separators.count(trace.tokens[t]) != 0));
    kinds.punctuation.push_back(!special && all_punctuation(token_text(trace, t)));
    kinds.ids.push_back(trace.token_ids.empty()
                            ? first_of.emplace(trace.tokens[t], static_cast<std::int64_t>(t)).first->second
                            : trace.token_ids[t]);
  }
  return kinds;
}

}  // namespace manyheads::lens
