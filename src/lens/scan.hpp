#pragma once

#include <cstddef>
#include <cstdint>
#include <manyheads/lens/roles.hpp>
#include <manyheads/model/encoder.hpp>
#include <manyheads/parallel.hpp>
#include <manyheads/tensor.hpp>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "lens/components.hpp"
#include "lens/passage_reader.hpp"
#include "lens/score_sketch.hpp"
#include "lens/text_batches.hpp"

namespace manyheads::lens {

// Where a passage stands, so that it opens again.
struct ScanPassage {
  std::int64_t number = 0;              // in the corpus, from 0
  std::int64_t file = 0;                // of the scan's files
  std::int64_t offset = 0, length = 0;  // bytes of the file: the passage, or the line of JSON that holds it
  std::int64_t begin = 0, end = 0;      // bytes of the text there
  std::string text;                     // empty where the file can be opened again
};


constexpr std::int64_t kScanTop = 10;         // examples with the largest score
constexpr std::int64_t kScanDeciles = 10;     // parts of a score's distribution
constexpr std::int64_t kScanSamples = 3;      // examples from each decile
constexpr std::int64_t kScanTokens = 50;      // tokens that ask, and that are asked, most
constexpr std::int64_t kScanFewest = 5;       // occurrences of a token among these
constexpr std::int64_t kScanComponents = 8;   // of queries and of keys
constexpr std::int64_t kScanReservoir = 1024; // passages that the samples are taken from

// The ends of the bins of distances q - k: one a distance up to 255 either way, then twice as wide each.
const std::vector<std::int64_t>& distance_edges();

// What every head of a model does over a corpus, summed passage by passage.
// - Sums run in double in the order of the passages. The result depends on neither batches nor threads.
// - Memory grows with heads, scores and vocabulary, not with the corpus.
class Scan {
 public:
  Scan(const model::EncoderConfig& config, std::int64_t seed);

  // Adds the passages of a batch in their order. Throws Error where a score is no finite number, which names head and
  // passage.
  void add(std::span<const BatchText> texts, std::span<const ScanPassage> passages, const Threads& threads);

  std::int64_t passages() const { return passages_; }
  std::int64_t tokens() const { return tokens_; }  // special ones counted

  // All that add() goes on from, exactly.
  StateDict state();
  // Throws Error (kInvalidArgument) where it is no state of a scan of this model.
  void restore(const StateDict& state);

  // What the scan found: the tensors of docs/scan.md.
  StateDict finish();

 private:
  struct Example {
    double value = 0;
    std::int64_t passage = -1;
  };
  struct Head {
    std::vector<ScoreSketch> sketches;      // by score
    std::vector<std::vector<Example>> top;  // by score, descending; of equal ones the earlier first
    std::vector<double> distance_mass;      // by bin
    std::vector<double> given, received;    // by token id
    Moments queries;
  };
  struct Kept {
    std::uint64_t priority = 0;
    std::int64_t passage = 0;
    std::size_t row = 0;  // of kept_values_
    bool operator<(const Kept& other) const {
      return priority != other.priority ? priority < other.priority : passage < other.passage;
    }
  };

  // What a worker keeps between heads.
  struct Memory {
    PassageReader::Memory reader;
    PassageReading reading;
    std::vector<double> wide;
  };

  void read_head(std::size_t index, std::span<const BatchText> texts, std::span<const PassageReader> readers,
                 Memory& memory, double* values);
  void add_top(std::vector<Example>& top, double value, std::int64_t passage) const;
  std::uint64_t priority_of(std::int64_t passage) const;
  void forget_passages();
  std::size_t heads() const { return heads_.size(); }
  // Where the values of a kept passage begin.
  std::size_t place_of(const Kept& kept) const { return kept.row * heads() * scores_; }
  void put_scores(StateDict& out) const;
  void put_examples(StateDict& out) const;
  void put_tokens(StateDict& out) const;
  void put_components(StateDict& out) const;
  static void put_passages(const std::vector<const ScanPassage*>& table, StateDict& out);

  std::int64_t layers_, num_heads_, num_kv_heads_, head_dim_, vocabulary_;
  std::int64_t seed_;
  std::size_t scores_;
  std::int64_t passages_ = 0, tokens_ = 0;
  std::vector<Head> heads_;          // [layers,heads]
  std::vector<Moments> keys_;        // [layers,kv heads]
  std::vector<std::int64_t> counts_; // by token id, where it is a text token
  std::vector<Kept> reservoir_;      // the passages of least priority: a heap, the largest first
  std::vector<double> kept_values_;  // [kScanReservoir,heads,scores]; NaN: none
  std::map<std::int64_t, ScanPassage> known_;  // by number: those that examples may need
  std::size_t forget_at_ = 4096;
  std::vector<Memory> memory_;  // by worker
};

}  // namespace manyheads::lens
