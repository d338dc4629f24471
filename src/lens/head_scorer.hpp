#pragma once

#include <cstdint>
#include <manyheads/lens/roles.hpp>
#include <optional>
#include <vector>

#include "lens/token_kinds.hpp"

namespace manyheads::lens {

// The mean of a property over the rows that have it.
class Mean {
 public:
  void add(double value) {
    sum_ += value;
    ++count_;
  }
  std::optional<double> value() const {
    if (count_ == 0) return std::nullopt;
    return sum_ / static_cast<double>(count_);
  }

 private:
  double sum_ = 0;
  std::int64_t count_ = 0;
};

// Works out a head's scores from the rows of its weights, one by one: memory grows with n, not with its square. Sums
// run in double.
class HeadScorer {
 public:
  // `tokens` must outlive this. Its lists have length n; throws Error where they differ.
  explicit HeadScorer(const TokenKinds& tokens);

  // Takes the n weights of the next query.
  void add(const float* row);
  // The scores, once all n rows are in.
  HeadScores finish() const;

 private:
  double mass_on(const float* row, const std::vector<bool>& kind) const;
  void add_duplicates(const float* row);
  void add_maximum(const float* row);
  Score positional() const;
  Score sink() const;

  const TokenKinds& tokens_;
  std::int64_t n_ = 0;
  std::int64_t query_ = 0;
  bool any_separator_ = false, any_punctuation_ = false;
  Mean self_, previous_, next_, first_, separator_, punctuation_, entropy_, confidence_;
  double on_pattern_ = 0, total_ = 0, distance_ = 0;  // of duplicate tokens
  std::vector<std::int64_t> hits_;                    // by offset + n - 1: rows whose largest weight is there
  std::vector<double> from_itself_;                   // by key k: the sum of A[q,k] over q >= k
};

}  // namespace manyheads::lens
