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
  std::size_t text_tokens = 0;  // that the text has, as far as it was read: the special ones are not counted
  bool cut = false;             // whether the text has more than are here
  bool read_whole = true;       // whether text_tokens is all there are
};

// Encodes `text` with special tokens and cuts it on the right to `max_tokens`, as the tokenizers library does. A long
// text is read in parts, as far as it is needed, so that memory follows max_tokens and not the text. Throws Error
// (kInvalidArgument) when the text is not UTF-8, when max_tokens has no room for the special tokens, or when more than
// kLongestPart bytes can only be encoded together.
constexpr std::size_t kLongestPart = std::size_t{1} << 20;
FirstTokens first_tokens(const Tokenizer& tokenizer, std::string_view text, std::size_t max_tokens);

}  // namespace manyheads::model
