#pragma once

#include <cstddef>
#include <cstdint>
#include <manyheads/lens/trace.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace manyheads::lens {

// A word of the text and the tokens that are its pieces.
struct Word {
  std::string text;
  std::int64_t first_token = 0;
  std::int64_t num_tokens = 0;
  std::int64_t sequence = 0;  // 1 for the second text of a pair
};

// The words in their order; special tokens belong to none. Where the trace has no `words`, each token is a word.
std::vector<Word> words_of(const Trace& trace);

// "cat -> sat": how much the query word attends to the key word.
struct Link {
  std::size_t query = 0;  // indices of words
  std::size_t key = 0;
};

// Finds a word by name: its first occurrence, or the i-th with "name#i", i from 1. Throws Error that lists the words
// where there is none.
// - A name in small letters matches in any case.
// - A name with capitals matches its own spelling, or any case where that does not occur.
// - The normal form (NFC, NFD) makes no difference.
std::size_t find_word(const std::vector<Word>& words, std::string_view name);
bool has_word(const std::vector<Word>& words, std::string_view name);

// A link as one head weighs it, word by word: the sum over the pieces of the attended word, the mean over the pieces of
// the attending word (Clark et al. 2019).
struct WeighedLink {
  Link link;
  double weight = 0;
  // The head's mean weight at the same offset (key - query, in words) over the other words that have a word there. In a
  // pair of texts, a link within one text is compared to such links, a link across to links across. None where no other
  // word has one: nothing then tells the link from its offset.
  std::optional<double> offset_mean;

  std::optional<double> above_offset() const {
    return offset_mean ? std::optional<double>(weight - *offset_mean) : std::nullopt;
  }
};

// Ranks by above_offset, largest first; then links without one, by weight; NaN is last.
bool ranks_before(const WeighedLink& a, const WeighedLink& b);

}  // namespace manyheads::lens
