#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "study/random.hpp"

namespace manyheads::study {

// What a word may be asked for: its partner, which it names.
enum Relation : int {
  kVerb,       // subject <-> its verb
  kAdjective,  // noun <-> its adjective
  kObject,     // verb <-> its object, through the preposition
  kBefore,     // the word kWordsBefore places before a noun, verb or adjective
};
constexpr int kRelations = 4;
constexpr int kWordsBefore = 3;
constexpr int kMaxWords = 20;
constexpr int kVocabulary = 44;

const char* name_of(Relation relation);
const char* meaning_of(Relation relation);

// The words of the grammar, in classes. A word's id is its index.
const std::vector<std::string>& vocabulary();

struct Sentence {
  std::vector<int> words;  // ids; punctuation marks are words
  // partner[relation][i]: the place of word i's partner; -1 where it has none.
  std::array<std::vector<int>, kRelations> partner;
};

// A sentence in the manner of "The black cat sat on the mat.".
// - A second clause ("and the dog slept") may follow, and a noun may have its adjective before it or behind it between
//   commas. Adverbs, compounds ("the stone bridge") and "from the village" vary the distances.
// - Subjects and objects are of one class of words, and so are all adjectives: no bag of words tells them apart.
// - One look suffices for each: a noun's verb and adjective and an adjective's noun are the nearest of their class, a
//   verb's subject is the last noun before it, its object the next.
// - No noun, verb or adjective occurs twice in a sentence, so that its name is enough.
Sentence draw(Random& random);

// The same with each partner drawn from all places of the sentence alike: nothing to learn.
Sentence shuffled(Sentence sentence, Random& random);

std::string text_of(const Sentence& sentence);

// What answering with a fixed offset reaches.
struct OffsetBaseline {
  std::int64_t pairs = 0;
  int offset = 0;   // the best one for all pairs
  double one = 0;   // its accuracy
  double each = 0;  // accuracy where each class of words (nouns, verbs, ...) has its own best offset
};
std::array<OffsetBaseline, kRelations> offset_baselines(const std::vector<Sentence>& sentences);

}  // namespace manyheads::study
