#include "model/first_tokens.hpp"

#include <algorithm>
#include <manyheads/error.hpp>
#include <string>

namespace manyheads::model {
namespace {

// Texts of up to this many bytes are encoded at once, longer ones in parts of about this size.
constexpr std::size_t kPart = std::size_t{1} << 14;

std::size_t text_tokens_of(const Encoding& encoding) {
  return static_cast<std::size_t>(
      std::count_if(encoding.sequences.begin(), encoding.sequences.end(), [](std::int32_t s) { return s >= 0; }));
}

// The text with each long ASCII word cut down to as many letters as make it unknown.
std::string shorten_words(std::string_view text, std::size_t unknown_from) {
  std::string out;
  for (std::size_t begin = 0; begin < text.size();) {
    const auto from = text.begin() + static_cast<std::ptrdiff_t>(begin);
    const bool letters = is_alnum(*from);
    const auto end = std::find_if(from, text.end(), [&](char c) { return is_alnum(c) != letters; });
    const std::string_view run = text.substr(begin, static_cast<std::size_t>(end - from));
    if (letters && run.size() > unknown_from) {
      out += run.substr(0, unknown_from / 2);
      out += run.substr(run.size() - unknown_from / 2);
    } else {
      out += run;
    }
    begin += run.size();
  }
  return out;
}

}  // namespace

FirstTokens first_tokens(const Tokenizer& tokenizer, std::string_view text, std::size_t max_tokens) {
  std::string shortened;
  if (text.size() > kPart && tokenizer.breaks().unknown_from > 0) {
    shortened = shorten_words(text, tokenizer.breaks().unknown_from);
    text = shortened;
  }
  FirstTokens result;
  Encoding head;                     // of the first part with a token: it shows where special tokens stand
  std::vector<std::int64_t> others;  // of the parts after it
  std::size_t room = 0;
  for (std::size_t begin = 0;;) {
    std::size_t end = text.size();
    if (tokenizer.breaks().known && end - begin > kPart) end = tokenizer.breaks().find(text, begin + 1, begin + kPart);
    if (end - begin > kLongestPart) {
      throw Error(ErrorCode::kInvalidArgument,
                  "more than " + std::to_string(kLongestPart >> 20) + " MiB without a place to cut it at");
    }
    const std::string_view part = text.substr(begin, end - begin);
    if (result.text_tokens == 0) {
      head = tokenizer.encode(part);
      result.text_tokens = text_tokens_of(head);
      const std::size_t special = head.size() - result.text_tokens;
      if (special > max_tokens) {
        throw Error(ErrorCode::kInvalidArgument, std::to_string(special) + " special tokens alone are more than the " +
                                                     std::to_string(max_tokens) + " that a text may have");
      }
      room = max_tokens - special;
    } else {
      const Encoding encoding = tokenizer.encode(part, false);
      others.insert(others.end(), encoding.ids.begin(), encoding.ids.end());
      result.text_tokens += encoding.size();
    }
    begin = end;
    result.read_whole = begin == text.size();
    if (result.read_whole || result.text_tokens > room) break;
  }
  result.cut = result.text_tokens > room;

  const std::size_t in_head = text_tokens_of(head);
  std::size_t taken = 0;
  for (std::size_t i = 0; i < head.size(); ++i) {
    const bool special = head.sequences[i] < 0;
    if (special || taken < room) {
      result.ids.push_back(head.ids[i]);
      result.type_ids.push_back(head.type_ids[i]);
    }
    if (special || ++taken != in_head) continue;
    const std::size_t more = std::min(others.size(), room - std::min(room, in_head));
    result.ids.insert(result.ids.end(), others.begin(), others.begin() + static_cast<std::ptrdiff_t>(more));
    result.type_ids.insert(result.type_ids.end(), more, head.type_ids[i]);
  }
  return result;
}

}  // namespace manyheads::model
