#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "model/tokenizer.hpp"

namespace manyheads::model {

// The tokens of a text that a model takes.
struct FirstTokens {
  std::vector<std::int64_t> ids;
  std::vector<std::int64_t> type_ids;
  std::size_t text_tokens = 0;  // of the text as far as it was read, special ones not counted
  bool cut = false;             // whether the text has more tokens than are here
  bool read_whole = true;       // whether text_tokens counts the whole text
};

// Encodes `text` with special tokens and cuts it on the right to `max_tokens`, as the tokenizers library does. Reads a
// long text in parts and only as far as needed: memory grows with max_tokens, not with the text. Throws Error
// (kInvalidArgument) when the text is not UTF-8, when max_tokens has no room for the special tokens, or when more than
// kLongestPart bytes have no place for a cut.
constexpr std::size_t kLongestPart = std::size_t{1} << 20;
FirstTokens first_tokens(const Tokenizer& tokenizer, std::string_view text, std::size_t max_tokens);

}  // namespace manyheads::model
