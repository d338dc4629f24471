#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <manyheads/lens/links.hpp>
#include <manyheads/model/text_model.hpp>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lens/text_batches.hpp"
#include "lens/treebank.hpp"

// Whether a head finds a word's partner in the sentence's tree, word by word as in Clark et al. 2019: weights are
// summed over the pieces of the attended word and averaged over those of the attending one; special tokens and the word
// itself are left out; the head is right where its heaviest word is the partner.
namespace manyheads::lens {

// The words of a tree as the model's tokens tell them apart.
struct AlignedSentence {
  std::vector<Word> words;                          // their tokens, in order
  std::vector<std::optional<std::size_t>> word_of;  // by word of the tree: which of `words`; none where several share a
                                                    // token, or where none is there
};
AlignedSentence align(const TreebankSentence& sentence, const model::Encoding& encoding);

// The 95 % interval of a share, Wilson's. 0 to 1 for n = 0.
std::array<double, 2> wilson(std::int64_t right, std::int64_t n);

// The relations of a treebank without their subtypes, the most frequent first; without root and punct.
std::vector<std::string> relations_of(const std::vector<TreebankSentence>& treebank);

struct HeadOnRelation {
  std::size_t layer = 0;
  std::int64_t head = 0;
  double chosen_by = 0;            // its accuracy on the half that it was chosen on
  double accuracy = 0;             // on the other half
  std::array<double, 2> interval;  // of it
  double mean_weight = 0;          // on the partners
  bool reads = false;              // in both halves the interval lies above the accuracy of that half's best offset
};

// One relation in one direction.
struct RelationReading {
  std::string relation;
  bool to_head = true;         // from a word to its head, or from a word to those it is the head of
  std::int64_t chosen_on = 0;  // words with a partner, in the half on which heads are chosen
  std::int64_t scored_on = 0;  // in the other
  std::int64_t unseen = 0;     // words whose partners all stand later, where words see only earlier ones
  std::int64_t left_out = 0;  // words that share a token with another, or whose only partner does or is the first token
  std::optional<std::int64_t> offset;  // key - query of the fixed offset that finds most, in words
  double offset_accuracy = 0;
  std::vector<HeadOnRelation> best;  // by chosen_by

  bool enough() const { return chosen_on >= kFewest && scored_on >= kFewest; }
  static constexpr std::int64_t kFewest = 20;  // with fewer no head is said to read the relation
};

// Counts how often each head is right. Heads are chosen on the sentences with an even index and scored on the others;
// the offset is the best on the very words that it is compared on. Sums run in double; results depend on neither
// batches nor threads.
class RelationScorer {
 public:
  // Each of `relations` is a name, or several with "+" between them that count as one: "obj+obl". A name stands for its
  // subtypes too. Throws Error for an empty name.
  RelationScorer(std::vector<std::string> relations, std::int64_t num_layers, std::int64_t num_heads, bool causal);

  // From now on hits() grows with each text.
  void keep_hits() { keep_hits_ = true; }
  // texts[i] is of treebank[texts[i].index].
  void add(const std::vector<TreebankSentence>& treebank, std::span<const BatchText> texts, const Threads& threads);
  // For each relation from a word to its head, then from the head to the word.
  std::vector<RelationReading> finish(std::size_t num_best) const;

  // A text's right heads: heads[i] are those right for one of its words at least, layer * num_heads + head, ascending;
  // i counts as in finish().
  struct Hits {
    std::size_t index = 0;  // of the text
    std::vector<std::vector<std::size_t>> heads;
  };
  // In the order in which the texts came.
  const std::vector<Hits>& hits() const { return hits_; }

 private:
  // A word that has partners. A question is a relation in one direction.
  struct Query {
    std::size_t question, word;
    std::vector<std::size_t> partners;
  };
  struct Sentence {
    std::vector<Word> words;
    std::vector<Query> queries;  // by word
    std::size_t first_key = 0;   // words before it are no keys
  };
  struct Tally {
    std::int64_t right = 0;
    double weight = 0;
  };
  struct Question {
    std::array<std::int64_t, 2> asked{};                       // by half
    std::array<std::map<std::int64_t, std::int64_t>, 2> hits;  // by half and offset
    std::int64_t unseen = 0, left_out = 0;
  };

  Sentence prepare(const TreebankSentence& tree, const model::Encoding& encoding, std::size_t half);
  // Returns for each question whether the head was right for a word.
  std::vector<bool> read_head(const Trace& trace, const Sentence& sentence, std::size_t half, std::size_t index);

  std::vector<std::string> relations_;
  std::int64_t num_heads_;
  bool causal_;
  bool keep_hits_ = false;
  std::vector<Question> questions_;
  std::vector<std::vector<Tally>> heads_;  // by head, then 2 question + half
  std::vector<Hits> hits_;
};

}  // namespace manyheads::lens
