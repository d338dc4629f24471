#pragma once

#include <cmath>
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

// How far a head's weights A are a pattern P of ones and zeros: mul = sum(A P) / sum(A), abs = 1 - n mean|A - P|.
class PatternScore {
 public:
  void add(double weight, bool in_pattern) {
    if (in_pattern) on_pattern_ += weight;
    total_ += weight;
    difference_ += std::abs(weight - (in_pattern ? 1.0 : 0.0));
  }
  Score mul() const {
    if (total_ == 0) return {};
    return {on_pattern_ / total_, {}};
  }
  // n mean|A - P| over n * n places is the sum over n.
  Score abs(std::int64_t n) const { return {1.0 - difference_ / static_cast<double>(n), {}}; }

 private:
  double on_pattern_ = 0, total_ = 0, difference_ = 0;
};

// Of n rows whose largest weight is at offset k - q, hits[k - q + n - 1] of them: the most frequent offset, and the share of
// the rows that have such a place.
Score positional_score(const TokenKinds& tokens, const std::vector<std::int64_t>& hits);
// from_itself[k]: the sum of A[q,k] over q >= k.
Score sink_score(const std::vector<double>& from_itself);

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
  void add_patterns(const float* row);
  void add_distance(const float* row);
  void add_maximum(const float* row);
  Score positional() const;

  const TokenKinds& tokens_;
  std::int64_t n_ = 0;
  std::int64_t query_ = 0;
  bool any_separator_ = false, any_punctuation_ = false;
  Mean self_, previous_, next_, first_, separator_, punctuation_, entropy_, confidence_, distance_, variance_;
  PatternScore previous_token_, duplicate_token_, induction_;
  std::vector<std::int64_t> hits_;   // by offset + n - 1: rows whose largest weight is there
  std::vector<double> from_itself_;  // by key k: the sum of A[q,k] over q >= k
};

}  // namespace manyheads::lens
