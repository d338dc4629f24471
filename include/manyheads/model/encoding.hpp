#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace manyheads::model {

// The tokens of a text, or of a pair of texts. Every list has one entry a token.
struct Encoding {
  std::vector<std::int64_t> ids;
  std::vector<std::int64_t> type_ids;                // the segment, as the model takes it
  std::vector<std::string> tokens;                   // as the vocabulary spells them: "[CLS]", "cat", "##s"
  std::vector<std::array<std::int64_t, 2>> offsets;  // bytes [begin, end) of its own text
  std::vector<std::int64_t> words;      // index of the word, counted on through the second text; -1 for special tokens
  std::vector<std::int32_t> sequences;  // the text it stands in, 0 or 1; -1 for special tokens
  std::vector<bool> special;            // added by the tokenizer

  std::size_t size() const noexcept { return ids.size(); }
};

}  // namespace manyheads::model
