#include "lens/treebank.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "io/malformed.hpp"
#include "support.hpp"

namespace manyheads::lens {
namespace {

using test::Malformed;

std::string line(const std::vector<std::string>& columns) {
  std::string text;
  for (const std::string& column : columns) text += column + "\t";
  text.back() = '\n';
  return text;
}

// "The cat sat.", a line a word; `id`, `form`, `head` and `relation` may be spoilt.
using Rows = std::vector<std::vector<std::string>>;
Rows rows() {
  return {{"1", "The", "the", "DET", "_", "_", "2", "det", "_", "_"},
          {"2", "cat", "cat", "NOUN", "_", "_", "3", "nsubj", "_", "_"},
          {"3", "sat", "sit", "VERB", "_", "_", "0", "root", "_", "SpaceAfter=No"},
          {"4", ".", ".", "PUNCT", "_", "_", "3", "punct", "_", "_"}};
}
std::string text_of(const Rows& rows) {
  std::string text;
  for (const auto& row : rows) text += line(row);
  return text + "\n";
}

std::vector<TreebankSentence> load(const std::string& bytes) {
  const test::TemporaryFolder folder;
  return load_treebank(folder.write("trees.conllu", bytes));
}

std::string form(const TreebankSentence& sentence, std::size_t word) {
  const auto [begin, end] = sentence.words.at(word).offsets;
  return sentence.text.substr(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
}

TEST(TreebankTest, WordsHeadsRelationsAndTheirPlacesInTheText) {
  for (const std::string& start : {std::string(), std::string("# text = The cat sat.\n"), std::string("\xef\xbb\xbf"),
                                   std::string("# text =  The cat  sat.\n"), std::string("#\n# sent_id = 1\n"),
                                   std::string("# text_en = no cat\n# bell = \a\n")}) {
    const std::vector<TreebankSentence> trees = load(start + text_of(rows()) + "\n\n" + text_of(rows()));
    ASSERT_EQ(trees.size(), 2u);
    const TreebankSentence& tree = trees[0];
    if (start.find("cat  sat") == std::string::npos) {
      EXPECT_EQ(tree.text, "The cat sat.");
    }
    ASSERT_EQ(tree.words.size(), 4u);
    EXPECT_EQ(tree.line, std::count(start.begin(), start.end(), '\n') + 1);
    for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(form(tree, i), rows()[i][1]);
    EXPECT_EQ(tree.words[0].head, 1);
    EXPECT_EQ(tree.words[2].head, -1);
    EXPECT_EQ(tree.words[1].relation, "nsubj");
  }
}

TEST(TreebankTest, TheCommentOfTheTextNeedsNoBlanks) {
  EXPECT_EQ(load("#text=The  cat sat.\n" + text_of(rows())).at(0).text, "The  cat sat.");
}

TEST(TreebankTest, LinesMayEndAsOnOtherSystemsAndTheLastBlankLineMayBeMissing) {
  std::string bytes = text_of(rows());
  bytes.pop_back();
  EXPECT_EQ(load(bytes).at(0).words.size(), 4u);
  bytes.pop_back();
  EXPECT_EQ(load(bytes).at(0).words.size(), 4u);
  std::string windows;
  for (const char c : bytes) windows += c == '\n' ? std::string("\r\n") : std::string(1, c);
  EXPECT_EQ(load(windows + "\r\n\r\n").at(0).text, "The cat sat.");
}

TEST(TreebankTest, WordsOfATokenOfSeveralShareItsPlaceAndEmptyNodesAreNone) {
  const std::string bytes = line({"1-2", "del", "_", "_", "_", "_", "_", "_", "_", "SpaceAfter=No|Gloss=of"}) +
                            line({"1", "de", "_", "ADP", "_", "_", "3", "case", "_", "_"}) +
                            line({"2", "el", "_", "DET", "_", "_", "3", "det", "_", "_"}) +
                            line({"2.1", "x", "_", "_", "_", "_", "_", "_", "1:dep", "_"}) +
                            line({"2.2", "y", "_", "_", "_", "_", "_", "_", "1:dep", "_"}) +
                            line({"3", "mar", "_", "NOUN", "_", "_", "0", "root", "_", "Gloss=sea|SpaceAfter=No"}) +
                            line({"4", "!", "_", "PUNCT", "_", "_", "3", "punct", "_", "_"}) + "\n";
  const TreebankSentence tree = load(bytes).at(0);
  EXPECT_EQ(tree.text, "delmar!");
  ASSERT_EQ(tree.words.size(), 4u);
  EXPECT_EQ(tree.line, 1);
  EXPECT_EQ(form(tree, 0), "del");
  EXPECT_EQ(form(tree, 1), "del");
  EXPECT_EQ(form(tree, 2), "mar");
  EXPECT_EQ(load("# text = delmar!\n" + bytes).at(0).words[3].offsets, tree.words[3].offsets);
  // A token of one word, tokens of several side by side, empty nodes behind several words.
  const std::string more = line({"0.1", "x", "_", "_", "_", "_", "_", "_", "_", "_"}) +
                           line({"1-1", "A", "_", "_", "_", "_", "_", "_", "_", "_"}) +
                           line({"1", "a", "_", "_", "_", "_", "0", "root", "_", "_"}) +
                           line({"1.1", "y", "_", "_", "_", "_", "_", "_", "_", "_"}) +
                           line({"2-3", "bc", "_", "_", "_", "_", "_", "_", "_", "_"}) +
                           line({"2", "b", "_", "_", "_", "_", "1", "x", "_", "_"}) +
                           line({"2.1", "z", "_", "_", "_", "_", "_", "_", "_", "_"}) +
                           line({"3", "c", "_", "_", "_", "_", "1", "x", "_", "_"}) +
                           line({"4-5", "de", "_", "_", "_", "_", "_", "_", "_", "SpaceAfter=Nowhere"}) +
                           line({"4", "d", "_", "_", "_", "_", "1", "x", "_", "_"}) +
                           line({"5", "e", "_", "_", "_", "_", "1", "x", "_", "_"}) +
                           line({"6", "f", "_", "_", "_", "_", "1", "x", "_", "_"}) + "\n";
  // Each sentence starts anew.
  const std::string after_nothing = line({"0.1", "x", "_", "_", "_", "_", "_", "_", "_", "_"}) +
                                    line({"1", "a", "_", "_", "_", "_", "0", "root", "_", "_"}) + "\n\n";
  EXPECT_EQ(load(after_nothing + after_nothing).size(), 2u);
  const std::vector<TreebankSentence> trees = load(bytes + more + "# text = Abcde f\n" + more + bytes);
  ASSERT_EQ(trees.size(), 4u);
  EXPECT_EQ(trees[1].text, "A bc de f");
  EXPECT_EQ(trees[2].text, "Abcde f");
  for (const std::size_t i : {1u, 2u}) {
    const char* const forms[] = {"A", "bc", "bc", "de", "de", "f"};
    ASSERT_EQ(trees[i].words.size(), 6u);
    for (std::size_t w = 0; w < 6; ++w) EXPECT_EQ(form(trees[i], w), forms[w]);
  }
  EXPECT_EQ(trees[3].text, tree.text);
  for (std::size_t w = 0; w < 4; ++w) EXPECT_EQ(trees[3].words.at(w).offsets, tree.words[w].offsets);
}

TEST(TreebankTest, PlacesAreBytesAndFormsMayHoldBlanks) {
  Rows wide = rows();
  wide[0][1] = "L\u00e9 grand";
  wide[1][1] = " \u732b";
  for (const std::string& start : {std::string(), std::string("# text = L\u00e9 grand  \u732b sat.\n")}) {
    const TreebankSentence tree = load(start + text_of(wide)).at(0);
    for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(form(tree, i), wide[i][1]) << start;
    EXPECT_EQ(tree.words[1].offsets, (std::array<std::int64_t, 2>{10, 14})) << start;
  }
}

// Every case names its line.
std::vector<Malformed> spoilt() {
  std::vector<Malformed> cases;
  const auto spoil = [&](std::size_t row, std::size_t column, const std::string& value, const std::string& expected) {
    Rows bad = rows();
    bad[row][column] = value;
    cases.push_back({text_of(bad), expected.empty() ? "line " + std::to_string(row + 1) + ":" : expected});
  };
  for (std::size_t row = 0; row < 4; ++row) {
    const std::string here = "line " + std::to_string(row + 1) + ":";
    for (std::size_t columns = 1; columns < 14; ++columns) {
      if (columns == 10) continue;
      Rows bad = rows();
      bad[row].resize(columns, "_");
      cases.push_back({text_of(bad), here + " " + std::to_string(columns) + " column"});
    }
    const char* const names[] = {"ID", "FORM", "LEMMA", "UPOS", "XPOS", "FEATS", "HEAD", "DEPREL", "DEPS", "MISC"};
    for (std::size_t column = 0; column < 10; ++column) {
      spoil(row, column, "", here + " column " + std::to_string(column + 1) + " (" + names[column] + ") is empty");
    }
    for (const char* id : {"x", "-1", "0", "+1", "01", "1.", ".1", "1-", "-", "1-x", "99999999999999999999", "5", "1e1",
                           " 1", "1.99999999999999999999", "3-2", "9-10", "7.1", "\xef\xbc\x91"}) {
      spoil(row, 0, id, here + " ID");
    }
    for (const char* head :
         {"x", "_", "-1", "+1", "01", "1.1", "1-2", "99999999999999999999", "9223372036854775808", "0x1", " 2"}) {
      spoil(row, 6, head, here + " HEAD");
    }
    if (row != 2) {
      for (const std::string head : {"5", "99", "9223372036854775807"}) {
        spoil(row, 6, head, here + " HEAD " + head + ", the sentence has 4 words");
      }
      spoil(row, 6, "0", here + " DEPREL");
      spoil(row, 7, "root", here + " DEPREL");
    }
    spoil(row, 6, std::to_string(row + 1), here + " word " + std::to_string(row + 1) + " is its own HEAD");
    for (const char* relation : {"_", "a b", " "}) spoil(row, 7, relation, here + " DEPREL");
    for (const char* bytes : {"\xff", "\xc0\xaf", "\xe2\x82", "\xed\xa0\x80", "\xf5\x80\x80\x80", "\x80"}) {
      for (const std::size_t column : {1u, 2u, 5u, 9u}) {
        std::size_t at = 1;
        for (std::size_t before = 0; before < column; ++before) at += rows()[row][before].size() + 1;
        spoil(row, column, std::string("a") + bytes,
              here + " byte " + std::to_string(at) + " (" + names[column] + ") is not UTF-8");
      }
    }
    for (const char* control : {"\u0085", "\u2028", "\u202e", "\u007f"}) {
      spoil(row, 1, std::string("a") + control, here + " byte 3 (FORM) is the control character U+");
    }
    for (char c = 1; c < 32; ++c) {
      if (c != '\t' && c != '\n') spoil(row, 1, std::string("a") + c + "b", here + " byte");
    }
    spoil(row, 1, std::string("a\0b", 3), here + " byte");
    spoil(row, 1, "a\nb", "line " + std::to_string(row + 1));
  }
  // Heads in a circle beside the root, of every length.
  for (std::size_t n = 2; n < 30; ++n) {
    Rows bad{{"1", "a", "_", "_", "_", "_", "0", "root", "_", "_"}};
    for (std::size_t i = 2; i <= n + 1; ++i) {
      bad.push_back(
          {std::to_string(i), "a", "_", "_", "_", "_", std::to_string(i == n + 1 ? 2 : i + 1), "x", "_", "_"});
    }
    cases.push_back({text_of(bad), "line 2: the heads of word 2 lead in a circle"});
  }
  Rows bad = rows();
  bad[2][6] = "4";
  bad[2][7] = "x";
  cases.push_back({text_of(bad), "line 1: the sentence has no root"});
  bad = rows();
  bad[3][6] = "0";
  bad[3][7] = "root";
  cases.push_back({text_of(bad), "line 4: a second root beside word 3"});
  // A word outside leads into the circle.
  bad = rows();
  bad[0][6] = "2";
  bad[1][6] = "4";
  bad[3][6] = "2";
  cases.push_back({text_of(bad), "line 2: the heads of word 2 lead in a circle"});
  const std::string good = text_of(rows());
  // Lines count through the file.
  bad[1][6] = "9";
  cases.push_back({good + "\n" + text_of(bad), "line 8: HEAD 9, the sentence has 4 words"});
  cases.push_back({"", "holds no sentence"});
  cases.push_back({"\n\n\n", "holds no sentence"});
  cases.push_back({"# only = this\n", "holds no sentence"});
  cases.push_back({"# text = The cat sat.\n\n" + good, "line 1: \"# text =\" without a sentence"});
  cases.push_back({"# text = a\n# text = b\n" + good, "line 2: a second"});
  cases.push_back({"# text = The dog sat.\n" + good,
                   "line 3: FORM \"cat\" does not follow in the text of line 1, which goes on \"dog sat.\""});
  cases.push_back({"# text = The cat\n" + good, "line 4: FORM \"sat\" does not follow"});
  cases.push_back({"# text = The, cat sat.\n" + good, "line 3: FORM \"cat\" does not follow"});
  cases.push_back({"# text =\n" + good, "line 2: FORM \"The\" does not follow"});
  cases.push_back({"# text = The cat sat. Then it slept.\n" + good, "line 1: the text goes on behind the last word"});
  cases.push_back({"# text = Th\xff cat sat.\n" + good, "line 1: byte 11 is not UTF-8"});
  cases.push_back({line(rows()[0]) + "# late\n" + good, "line 2: a comment between"});
  for (const char* id : {"1-2", "0.1"}) {
    cases.push_back(
        {line({id, "x", "_", "_", "_", "_", "_", "_", "_", "_"}) + "# late\n" + good, "line 2: a comment between"});
  }
  cases.push_back(
      {good + line({"1-2", "del", "_", "_", "_", "_", "_", "_", "_", "_"}) + "\n", "line 7: a sentence without"});
  cases.push_back({line({"0.1", "x", "_", "_", "_", "_", "_", "_", "_", "_"}) + "\n", "line 2: a sentence without"});
  cases.push_back(
      {line({"1-5", "x", "_", "_", "_", "_", "_", "_", "_", "_"}) + good, "line 6: the sentence ends before"});
  cases.push_back({line({"1-5", "x", "_", "_", "_", "_", "_", "_", "_", "_"}) + good.substr(0, good.size() - 2),
                   "line 6: the sentence ends before"});  // without its last line's end
  cases.push_back({line({"1-9223372036854775807", "x", "_", "_", "_", "_", "_", "_", "_", "_"}) + good,
                   "line 6: the sentence ends before"});
  cases.push_back({line({"1-2", "x", "_", "_", "_", "_", "_", "_", "_", "_"}) +
                       line({"1-2", "x", "_", "_", "_", "_", "_", "_", "_", "_"}) + good,
                   "line 2: ID"});
  cases.push_back({line({"1-2", "x", "_", "_", "_", "_", "_", "_", "_", "_"}) + line(rows()[0]) +
                       line({"2-3", "x", "_", "_", "_", "_", "_", "_", "_", "_"}) + good,
                   "line 3: ID"});
  cases.push_back({line(rows()[0]) + line({"1.1", "x", "_", "_", "_", "_", "_", "_", "_", "_"}) +
                       line({"1.1", "x", "_", "_", "_", "_", "_", "_", "_", "_"}) + good,
                   "line 3: ID \"1.1\": the next empty node is 1.2"});
  cases.push_back({line({"0.2", "x", "_", "_", "_", "_", "_", "_", "_", "_"}) + good, "line 1: ID"});
  cases.push_back({good + good.substr(line(rows()[0]).size()), "line 6: ID \"2\", expected 1"});
  cases.push_back({std::string(100'000, 'x') + "\n", "line 1: 1 column"});
  cases.push_back({std::string(50, '\t') + "\xff\n", "line 1: byte 50 is not UTF-8"});
  cases.push_back({std::string(100'000, '\t') + "\n", "line 1: 100001 columns"});
  return cases;
}

TEST(TreebankTest, SpoiltFilesNameTheLine) {
  test::expect_refused(spoilt(), "trees.conllu", 300, [](const auto& path) { load_treebank(path); });
}

TEST(TreebankTest, AFileThatIsNotThereIsNamed) {
  EXPECT_NE(
      test::error_of([] { load_treebank("/nowhere/trees.conllu"); }, ErrorCode::kIo).find("/nowhere/trees.conllu"),
      std::string::npos);
}

// The sentences of examples/: partners stand 1 to 8 words apart, and no distance finds half of them, from a word to its
// head or from the head to one of its words.
TEST(TreebankTest, InTheExampleNoDistanceFindsHalfOfTheThreeRelations) {
  const std::vector<TreebankSentence> trees = load_treebank(test::source_dir() / "examples/relations.conllu");
  EXPECT_EQ(trees.size(), 400u);
  for (const std::vector<std::string>& names :
       std::vector<std::vector<std::string>>{{"amod"}, {"nsubj", "nsubj:pass"}, {"obj", "obl"}}) {
    std::map<std::int64_t, int> to_head, to_word;
    int pairs = 0, heads = 0;
    for (const TreebankSentence& tree : trees) {
      std::map<std::int64_t, int> of_head;
      for (std::size_t i = 0; i < tree.words.size(); ++i) {
        if (std::find(names.begin(), names.end(), tree.words[i].relation) == names.end()) continue;
        const std::int64_t offset = tree.words[i].head - static_cast<std::int64_t>(i);
        EXPECT_GE(std::abs(offset), 1);
        EXPECT_LE(std::abs(offset), 8);
        ++to_head[offset];
        ++to_word[-offset];
        ++pairs;
        heads += of_head[tree.words[i].head]++ == 0 ? 1 : 0;
      }
    }
    EXPECT_GE(pairs, 400);
    const int way = names[0][0] == 'o' ? -1 : 1;
    for (int distance = 1; distance <= 8; ++distance) EXPECT_GT(to_head[way * distance], 0) << names[0] << distance;
    for (const auto& [offset, count] : to_head) EXPECT_LT(2 * count, pairs) << names[0] << " " << offset;
    for (const auto& [offset, count] : to_word) EXPECT_LT(2 * count, heads) << names[0] << " " << offset;
  }
}

}  // namespace
}  // namespace manyheads::lens
