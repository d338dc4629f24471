#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lens/roles.hpp"
#include "lens/trace.hpp"

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

// Finds a word by name: its first occurrence, or the i-th with "name#i", i from 1. A name in small letters matches in
// any case; one with capitals matches the same spelling, or any case where that does not occur; the normal form (NFC,
// NFD) makes no difference. Throws Error that lists the words where there is none.
std::size_t find_word(const std::vector<Word>& words, std::string_view name);
bool has_word(const std::vector<Word>& words, std::string_view name);

// Word by word: the sum over the pieces of the attended word, the mean over the pieces of the attending word (Clark et
// al. 2019). Row-major [words,words].
std::vector<double> word_weights(const HeadWeights& weights, const std::vector<Word>& words);

struct WeighedLink {
  Link link;
  double weight = 0;
};

// The `count` heaviest links between different words, heaviest first. Links with no weight are left out.
std::vector<WeighedLink> strongest_links(const std::vector<double>& word_weights, std::size_t num_words,
                                         std::size_t count);

}  // namespace manyheads::lens
