// Treebanks. The input is a CoNLL-U file.
#include "harness.hpp"
#include "lens/treebank.hpp"
#include "lens/unicode.hpp"

using namespace manyheads;

namespace {

void check_tree(const lens::TreebankSentence& tree, std::int64_t line_before) {
  fuzz::require(tree.line > line_before, "lines out of order");
  fuzz::require(!tree.words.empty() && lens::is_utf8(tree.text), "a sentence without words, or not UTF-8");
  const auto words = static_cast<std::int64_t>(tree.words.size());
  std::int64_t roots = 0, end_before = 0;
  for (const lens::TreebankWord& word : tree.words) {
    const auto [begin, end] = word.offsets;
    fuzz::require(0 <= begin && begin <= end && end <= static_cast<std::int64_t>(tree.text.size()), "offsets outside");
    fuzz::require(end >= end_before, "words out of order");
    end_before = end;
    const std::string_view form =
        std::string_view(tree.text).substr(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
    fuzz::require(lens::is_utf8(form), "offsets within a character");
    fuzz::require(!word.relation.empty() && word.head >= -1 && word.head < words, "a head that is no word");
    roots += word.head == -1 ? 1 : 0;
    // No way from a word to the root is longer than the sentence.
    std::int64_t at = word.head, steps = 0;
    for (; at != -1 && steps <= words; ++steps) at = tree.words[static_cast<std::size_t>(at)].head;
    fuzz::require(at == -1, "heads in a circle");
  }
  fuzz::require(roots == 1, "not one root");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  static const fuzz::Folder folder;
  const auto path = folder.write("trees.conllu", {reinterpret_cast<const char*>(bytes), size});
  std::vector<lens::TreebankSentence> trees;
  if (!fuzz::taken([&] { trees = lens::load_treebank(path); })) return 0;
  fuzz::require(!trees.empty(), "a file without a sentence");
  std::int64_t line = 0;
  for (const lens::TreebankSentence& tree : trees) {
    check_tree(tree, line);
    line = tree.line;
  }
  return 0;
}
