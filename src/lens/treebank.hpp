#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace manyheads::lens {

// A word of a sentence's tree.
struct TreebankWord {
  std::array<std::int64_t, 2> offsets{};  // bytes [begin, end) of the sentence's text
  std::int64_t head = -1;                 // index of its head in the sentence, -1 for the root
  std::string relation;                   // to its head: "nsubj", "nsubj:pass"
};

struct TreebankSentence {
  std::int64_t line = 0;  // of its first word, from 1
  std::string text;
  std::vector<TreebankWord> words;
};

// Reads trees in the CoNLL-U format: ID, FORM, HEAD, DEPREL and SpaceAfter=No, and the comment "# text = ", in which
// the words must then stand one behind the other.
// - The words of a multiword token (1-2) have the offsets of the whole token.
// - Empty nodes (1.1) are no words and are passed over.
// Throws Error (kMalformedFile) that names the file and the line: a line that is not UTF-8 or has not ten columns, an
// ID out of order, a HEAD that is no word, no root or several, a cycle, words that do not stand in the text, a file
// without a sentence. Memory grows with the file.
std::vector<TreebankSentence> load_treebank(const std::filesystem::path& path);
// The same of a text in memory; errors name `name`.
std::vector<TreebankSentence> parse_treebank(std::string_view text, const std::filesystem::path& name);

}  // namespace manyheads::lens
