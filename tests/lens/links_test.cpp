#include <gtest/gtest.h>

#include <manyheads/error.hpp>
#include <manyheads/lens/links.hpp>
#include <string>
#include <vector>

namespace manyheads::lens {
namespace {

// [CLS] The embed ##ding the embed ##ding Cat [SEP], the second embedding in a second text.
Trace small_trace() {
  Trace trace;
  trace.text = "The embedding";
  trace.text2 = "the  embedding Cat";
  trace.tokens = {"[CLS]", "the", "embed", "##ding", "the", "embed", "##ding", "cat", "[SEP]"};
  trace.offsets = {{0, 0}, {0, 3}, {4, 9}, {9, 13}, {0, 3}, {5, 10}, {10, 14}, {15, 18}, {0, 0}};
  trace.words = {-1, 0, 1, 1, 2, 3, 3, 4, -1};
  trace.sequences = {-1, 0, 0, 0, 1, 1, 1, 1, -1};
  trace.key_length = 9;
  return trace;
}

TEST(WordsTest, PiecesBecomeWordsAndSpecialTokensNone) {
  const std::vector<Word> words = words_of(small_trace());
  ASSERT_EQ(words.size(), 5u);
  EXPECT_EQ(words[0].text, "The");
  EXPECT_EQ(words[1].text, "embedding");
  EXPECT_EQ(words[1].first_token, 2);
  EXPECT_EQ(words[1].num_tokens, 2);
  EXPECT_EQ(words[1].sequence, 0);
  EXPECT_EQ(words[3].text, "embedding");
  EXPECT_EQ(words[3].first_token, 5);
  EXPECT_EQ(words[3].sequence, 1);
  EXPECT_EQ(words[4].text, "Cat");
}

TEST(WordsTest, WithoutOffsetsThePiecesAreJoined) {
  Trace trace = small_trace();
  trace.offsets.clear();
  EXPECT_EQ(words_of(trace)[1].text, "embedding");
}

TEST(WordsTest, WithoutWordsEachTokenIsOne) {
  Trace trace = small_trace();
  trace.offsets.clear();
  trace.words.clear();
  trace.sequences.clear();
  const std::vector<Word> words = words_of(trace);
  ASSERT_EQ(words.size(), 9u);
  EXPECT_EQ(words[0].text, "[CLS]");
}

TEST(FindWordTest, FirstOccurrenceUnlessAnIndexIsGiven) {
  const std::vector<Word> words = words_of(small_trace());
  EXPECT_EQ(find_word(words, "the"), 0u);  // small letters match in any case
  EXPECT_EQ(find_word(words, "the#1"), 0u);
  EXPECT_EQ(find_word(words, "the#2"), 2u);
  EXPECT_EQ(find_word(words, "embedding#2"), 3u);
  EXPECT_EQ(find_word(words, "cat"), 4u);
  EXPECT_EQ(find_word(words, "CAT"), 4u);  // capitals that the text does not have: any case
  EXPECT_EQ(find_word(words, "The"), 0u);
  EXPECT_THROW(find_word(words, "The#2"), Error);  // the text has these capitals once
}

TEST(FindWordTest, AnyCaseAndAnyNormalForm) {
  const std::vector<Word> words = {{"ΣΊΣΥΦΟΣ", 0, 1, 0},   {"cafe\u0301", 1, 1, 0}, {"Ệ", 2, 1, 0},
                                   {"caf\u00e9", 3, 1, 0}, {"Caf\u00e9", 4, 1, 0},  {"ԵՐԵՎԱՆ", 5, 1, 0}};
  EXPECT_EQ(find_word(words, "σίσυφος"), 0u);
  EXPECT_EQ(find_word(words, "ệ"), 2u);
  EXPECT_EQ(find_word(words, "երեվան"), 5u);
  EXPECT_EQ(find_word(words, "caf\u00e9"), 1u);
  EXPECT_EQ(find_word(words, "cafe\u0301#2"), 3u);
  EXPECT_EQ(find_word(words, "caf\u00e9#3"), 4u);
  EXPECT_EQ(find_word(words, "Cafe\u0301"), 4u);  // capitals that the text has, whichever way composed
  EXPECT_EQ(find_word(words, "CAFE\u0301"), 1u);  // and that it does not have
  EXPECT_FALSE(has_word(words, "cafe"));
}

// A tokenizer that strips accents leaves the last one out of its token; it belongs to the word all the same.
TEST(WordsTest, MarksAtTheEndBelongToTheWord) {
  Trace trace;
  trace.text = "cafe\u0301 e\u0323\u0302, a\u0301";
  trace.tokens = {"[CLS]", "cafe", "e", ",", "a", "[SEP]"};
  trace.offsets = {{0, 0}, {0, 4}, {7, 8}, {12, 13}, {14, 15}, {0, 0}};
  trace.words = {-1, 0, 1, 2, 3, -1};
  trace.sequences = {-1, 0, 0, 0, 0, -1};
  trace.key_length = 6;
  const std::vector<Word> words = words_of(trace);
  ASSERT_EQ(words.size(), 4u);
  EXPECT_EQ(words[0].text, "cafe\u0301");
  EXPECT_EQ(words[1].text, "e\u0323\u0302");
  EXPECT_EQ(words[2].text, ",");
  EXPECT_EQ(words[3].text, "a\u0301");
  trace.offsets[2] = {4, 6};  // the mark is a token of its own
  EXPECT_EQ(words_of(trace)[0].text, "cafe");
}

TEST(FindWordTest, AHashCanBeAWord) {
  const std::vector<Word> words = {{"#", 0, 1, 0}, {"a", 1, 1, 0}, {"a#2", 2, 1, 0}, {"a", 3, 1, 0}};
  EXPECT_EQ(find_word(words, "#"), 0u);
  EXPECT_EQ(find_word(words, "a#2"), 2u);  // a word of that very name comes first
  EXPECT_EQ(find_word(words, "a#1"), 1u);
}

TEST(FindWordTest, AnAbsentWordIsAnErrorThatListsTheWords) {
  const std::vector<Word> words = words_of(small_trace());
  for (const char* name : {"dog", "dog#1", "", "the#3", "the#0", "the#-1", "the#x", "the#99999999999999999999"}) {
    try {
      find_word(words, name);
      FAIL() << name;
    } catch (const Error& error) {
      const std::string message = error.what();
      EXPECT_TRUE(message.find("The embedding the embedding Cat") != std::string::npos ||
                  message.find("occurs 2 times") != std::string::npos)
          << message;
    }
  }
  EXPECT_FALSE(has_word(words, "dog"));
  EXPECT_TRUE(has_word(words, "cat"));
}

}  // namespace
}  // namespace manyheads::lens
