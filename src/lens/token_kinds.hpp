#pragma once

#include <cstdint>
#include <manyheads/lens/trace.hpp>
#include <vector>

namespace manyheads::lens {

// What the scores need to know of the n tokens.
struct TokenKinds {
  std::vector<std::int64_t> ids;  // equal ids are equal tokens
  std::vector<bool> separator;    // ends a text: [SEP], </s>
  std::vector<bool> punctuation;
};

// Separators are the special tokens behind the first token, and tokens spelled like one of them. A token is punctuation
// by its text.
TokenKinds token_kinds(const Trace& trace);

}  // namespace manyheads::lens
