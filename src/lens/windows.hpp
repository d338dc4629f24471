#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <manyheads/model/encoding.hpp>
#include <vector>

namespace manyheads::lens {

// A part of a text that a model takes, with the special tokens of the whole.
struct Window {
  model::Encoding encoding;             // offsets and words count from the window's first
  std::array<std::int64_t, 2> bytes{};  // of the text: from its first token to the end of its last
};

// Cuts the encoding of one text into windows of at most `max_tokens`, none where it has no token. Each token is in one
// window. A window ends before a word, but for a word that is longer than a window. Throws Error where the special
// tokens leave no room.
std::vector<Window> windows_of(const model::Encoding& encoding, std::size_t max_tokens);

}  // namespace manyheads::lens
