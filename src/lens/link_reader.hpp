#pragma once

#include <cstddef>
#include <cstdint>
#include <manyheads/lens/links.hpp>
#include <optional>
#include <vector>

namespace manyheads::lens {

// Reads a head's weights row by row, so that what it holds grows with the number of words and not with its square.
// Sums run in double.
class LinkReader {
 public:
  // `words` must outlive this.
  LinkReader(const std::vector<Word>& words, std::vector<Link> asked, std::size_t num_strongest);

  // The weights of the next token of the text, from the first on.
  void add(const float* row);

  // Once all rows are read: the links asked for, and the `num_strongest` between different words that rank first. Links
  // with no weight are none of these.
  std::vector<WeighedLink> asked() const;
  std::vector<WeighedLink> strongest() const;

 private:
  // What the head gives at one offset.
  struct Offset {
    double sum = 0;
    std::int64_t count = 0;
    std::vector<WeighedLink> heaviest;  // in order; of one offset, the heaviest rank first
  };

  std::size_t place(const Link& link) const;
  void finish_word();
  std::optional<double> mean_without(const Link& link, double weight) const;

  const std::vector<Word>& words_;
  std::vector<Link> links_;
  std::size_t num_strongest_;
  std::int64_t token_ = 0;
  std::size_t word_ = 0;         // whose rows come now, or next
  std::vector<double> row_;      // what that word gives to each word
  std::vector<double> weights_;  // of links_
  std::vector<Offset> offsets_;  // of links in one text, then of those across, by key - query + words - 1
};

}  // namespace manyheads::lens
