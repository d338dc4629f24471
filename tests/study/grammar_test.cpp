#include "study/grammar.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

namespace manyheads::study {
namespace {

const std::string& word(int id) { return vocabulary()[static_cast<std::size_t>(id)]; }

std::vector<Sentence> some(int count) {
  Random random(5);
  std::vector<Sentence> sentences;
  for (int i = 0; i < count; ++i) sentences.push_back(draw(random));
  return sentences;
}

TEST(StudyGrammar, VocabularyIsOfDifferentWords) {
  EXPECT_EQ(vocabulary().size(), static_cast<std::size_t>(kVocabulary));
  EXPECT_EQ(std::set<std::string>(vocabulary().begin(), vocabulary().end()).size(), vocabulary().size());
}

TEST(StudyGrammar, PartnersFindEachOther) {
  const std::set<std::string> verbs = {"sat", "slept", "stood", "waited", "played", "rested"};
  const std::set<std::string> adjectives = {"black", "hungry", "old", "quiet", "strange", "wooden", "broken", "small"};
  std::set<int> lengths;
  for (const Sentence& sentence : some(2000)) {
    const int count = static_cast<int>(sentence.words.size());
    ASSERT_LE(count, kMaxWords);
    lengths.insert(count);
    const std::string text = text_of(sentence);
    for (int i = 0; i < count; ++i) {
      const auto at = static_cast<std::size_t>(i);
      const std::string& own = word(sentence.words[at]);
      for (const Relation r : {kVerb, kAdjective, kObject}) {
        const int partner = sentence.partner[r][at];
        if (partner < 0) continue;
        EXPECT_EQ(sentence.partner[r][static_cast<std::size_t>(partner)], i) << text;
        const std::string& other = word(sentence.words[static_cast<std::size_t>(partner)]);
        const auto& side = r == kAdjective ? adjectives : verbs;
        EXPECT_NE(side.count(own), side.count(other)) << name_of(r) << ": " << own << ", " << other << " in " << text;
        EXPECT_EQ(std::count(sentence.words.begin(), sentence.words.end(), sentence.words[at]), 1) << text;
        if (r == kVerb && verbs.count(own) > 0) {
          EXPECT_LT(partner, i) << text;
        }
        if (r == kObject && verbs.count(own) > 0) {
          EXPECT_GT(partner, i) << text;
        }
      }
      if (sentence.partner[kBefore][at] >= 0) {
        EXPECT_EQ(sentence.partner[kBefore][at], i - kWordsBefore);
      }
    }
  }
  EXPECT_GT(lengths.size(), 10U);
}

// "The black cat sat on the mat." and its like: the same form with other words.
TEST(StudyGrammar, TheChaptersSentenceIsOfTheGrammar) {
  for (const char* form : {"the", "black", "cat", "sat", "on", "mat", "."}) {
    EXPECT_EQ(std::count(vocabulary().begin(), vocabulary().end(), form), 1) << form;
  }
  int found = 0;
  for (const Sentence& sentence : some(5000)) {
    const auto is = [&](std::size_t i, const char* form) { return word(sentence.words[i]) == form; };
    if (sentence.words.size() != 8 || !is(0, "the") || !is(5, "the") || sentence.partner[kAdjective][2] != 1) continue;
    if (sentence.partner[kVerb][2] != 3 || sentence.partner[kObject][3] != 6) continue;
    ++found;
    EXPECT_EQ(sentence.partner[kVerb], std::vector<int>({-1, -1, 3, 2, -1, -1, -1, -1}));
    EXPECT_EQ(sentence.partner[kAdjective], std::vector<int>({-1, 2, 1, -1, -1, -1, -1, -1}));
    EXPECT_EQ(sentence.partner[kObject], std::vector<int>({-1, -1, -1, 6, -1, -1, 3, -1}));
    EXPECT_EQ(sentence.partner[kBefore], std::vector<int>({-1, -1, -1, 0, -1, -1, 3, -1}));
  }
  EXPECT_GT(found, 5);
}

TEST(StudyGrammar, NoFixedOffsetAnswersButForTheDistance) {
  const auto baselines = offset_baselines(some(5000));
  for (const Relation r : {kVerb, kAdjective, kObject}) {
    EXPECT_LT(baselines[r].one, 0.3) << name_of(r);
    EXPECT_LT(baselines[r].each, 0.5) << name_of(r);
  }
  EXPECT_EQ(baselines[kBefore].one, 1);
  EXPECT_EQ(baselines[kBefore].offset, -kWordsBefore);
}

TEST(StudyGrammar, OffsetsOfSentencesByHand) {
  Sentence sentence;
  sentence.words = {0, 1, 2, 3};
  for (auto& partner : sentence.partner) partner.assign(4, -1);
  sentence.partner[kVerb] = {1, 2, 3, 0};  // +1 three times, -3 once, all words of one class
  const OffsetBaseline found = offset_baselines({sentence})[kVerb];
  EXPECT_EQ(found.pairs, 4);
  EXPECT_EQ(found.offset, 1);
  EXPECT_EQ(found.one, 0.75);
  EXPECT_EQ(found.each, 0.75);
}

}  // namespace
}  // namespace manyheads::study
