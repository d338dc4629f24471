#pragma once

#include <cstddef>
#include <cstdint>
#include <manyheads/lens/trace.hpp>
#include <manyheads/parallel.hpp>
#include <vector>

namespace manyheads::lens {

// How unlike the rows of two heads are on the same inputs (Clark et al. 2019): the mean over queries of the
// Jensen-Shannon divergence in nats, 0 to log 2.
//   JS(a, b) = H((a + b) / 2) - (H(a) + H(b)) / 2, H the entropy
class HeadDistances {
 public:
  // Queries of a text that are read: all, or of a longer text so many at even steps.
  static constexpr std::int64_t kMostRows = 64;

  // without_special: of rows without special tokens (WithoutSpecial), which else hide all other weights.
  explicit HeadDistances(std::size_t heads, bool without_special = false)
      : heads_(heads), without_special_(without_special), sums_(heads * heads) {}
  // Takes a text's rows. Cost: queries x keys x pairs of heads logarithms. Holds a row of each head.
  void add(const Trace& trace, const Threads& threads);

  std::int64_t rows() const { return rows_; }
  // [heads,heads], by layer and head; all 0 without rows.
  std::vector<double> mean() const;

 private:
  std::size_t heads_;
  bool without_special_;
  std::int64_t rows_ = 0;
  std::vector<double> sums_;  // at [a,b] for a < b
};

// Heads that are close to each other.
struct HeadCluster {
  std::vector<std::size_t> heads;  // ascending
  double mean_distance = 0;        // over the pairs of its heads; 0 of one head
};

// Joins the two nearest clusters, first those of one head, until so many are left. The distance of two clusters is the
// mean over the pairs of their heads (average linkage); of equally near ones the first are joined. In the order of
// their first heads. `distances` [heads,heads] is symmetric; 1 <= clusters <= heads.
std::vector<HeadCluster> cluster_heads(const std::vector<double>& distances, std::size_t heads, std::size_t clusters);

}  // namespace manyheads::lens
