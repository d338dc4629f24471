#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace manyheads::lens {

// The distribution of a score over passages, in memory that does not grow with their number: counts in 4096 bins on
// either side of 0.
// - Bins are 2^e wide, the last end of one is part of it, and 0 of the first. e begins at -12, for scores up to 1. A value
//   beyond the last bin doubles the width and merges bins by twos. So the bins are the same in any order of the values.
// - A quantile is the end of its bin: off by less than the width.
class ScoreSketch {
 public:
  static constexpr std::int64_t kBins = 4096;
  static constexpr std::int64_t kParts = 64;  // of the histogram

  // Throws Error where value is not finite or its magnitude 2^64 or more.
  void add(double value);

  std::int64_t count() const { return count_; }
  double min() const { return min_; }
  double max() const { return max_; }
  double mean() const { return count_ == 0 ? 0 : sum_ / static_cast<double>(count_); }  // summed in the order of adding
  double bin_width() const;

  // The bin of a value that was added: 0, 1, ... above 0, -1, -2, ... below.
  std::int64_t bin_of(double value) const;
  // The bin that holds the value of rank ceil(count part / parts) from below, of rank 1 for part 0. Needs a count.
  std::int64_t quantile_bin(std::int64_t part, std::int64_t parts) const;
  double quantile(std::int64_t part, std::int64_t parts) const;

  // Counts in 64 equal parts of [first, last], which are 0 and the end of the last bin; where a value was below 0, as far
  // to the other side.
  struct Histogram {
    double first = 0, last = 0;
    std::array<std::int64_t, kParts> counts{};
  };
  Histogram histogram() const;

  // For a checkpoint, exactly: [kStateValues] numbers and [kBins] counts on a side.
  static constexpr std::int64_t kStateValues = 4;
  void save(double* values, std::int64_t* count, std::int32_t* above, std::int32_t* below) const;
  // False where they are no state.
  bool restore(const double* values, std::int64_t count, const std::int32_t* above, const std::int32_t* below);
  bool any_below() const { return !below_.empty(); }

 private:
  void widen();

  int exponent_ = -12;
  std::int64_t count_ = 0;
  double sum_ = 0, min_ = 0, max_ = 0;
  // There from the start, so that a long scan's memory does not grow among what its batches come and go with.
  std::vector<std::int32_t> above_ = std::vector<std::int32_t>(kBins);
  std::vector<std::int32_t> below_;  // empty until a value is below 0
};

}  // namespace manyheads::lens
