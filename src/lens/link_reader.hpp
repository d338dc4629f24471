#pragma once

#include <cstddef>
#include <cstdint>
#include <manyheads/lens/links.hpp>
#include <optional>
#include <vector>

namespace manyheads::lens {

// Works out the links of a head from the rows of its weights, one by one: memory grows with the number of words, not
// with its square. Sums run in double.
class LinkReader {
 public:
  // `words` must outlive this. `skips_first`: links to the word of the text's first token are never among the
  // strongest.
  LinkReader(const std::vector<Word>& words, std::vector<Link> asked, std::size_t num_strongest,
             bool skips_first = false);

  // Takes the weights of the next token.
  void add(const float* row);

  // Once all rows are in: the links asked for, and the first `num_strongest` by rank between different words. Links
  // without weight are left out of these.
  std::vector<WeighedLink> asked() const;
  std::vector<WeighedLink> strongest() const;

 private:
  // What the head gives at one offset.
  struct Offset {
    double sum = 0;
    std::int64_t count = 0;
    std::vector<WeighedLink> heaviest;  // in order: links of one offset rank by weight
  };

  std::size_t place(const Link& link) const;
  void finish_word();
  std::optional<double> mean_without(const Link& link, double weight) const;

  const std::vector<Word>& words_;
  std::vector<Link> links_;
  std::size_t num_strongest_;
  bool skips_first_;
  std::int64_t token_ = 0;
  std::size_t word_ = 0;         // the word whose rows come now or next
  std::vector<double> row_;      // that word's weight on each word
  std::vector<double> weights_;  // of links_
  std::vector<Offset> offsets_;  // by key - query + words - 1: links in one text, then links across
};

}  // namespace manyheads::lens
