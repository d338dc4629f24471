#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace manyheads::model {

// The tokens of a text, or of two. One entry a token in every list.
struct Encoding {
  std::vector<std::int64_t> ids;
  std::vector<std::int64_t> type_ids;                // segment, as the model takes it
  std::vector<std::string> tokens;                   // as the vocabulary spells them: "[CLS]", "cat", "##s"
  std::vector<std::array<std::int64_t, 2>> offsets;  // bytes [begin, end) of the token's own text
  std::vector<std::int64_t> words;  // index of the word; those of the second text go on from the first; -1 for special
  std::vector<std::int32_t> sequences;  // the text a token stands in: 0 or 1; -1 for special
  std::vector<bool> special;            // added by the tokenizer, not by the text

  std::size_t size() const noexcept { return ids.size(); }
};

}  // namespace manyheads::model
