#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace manyheads::lens {

// One head's weights among n tokens: A[q,k] is the share of its attention that token q gives to token k.
struct HeadWeights {
  const float* data = nullptr;
  std::int64_t n = 0;
  std::int64_t row_stride = 0;

  double operator()(std::int64_t q, std::int64_t k) const { return static_cast<double>(data[q * row_stride + k]); }
};

// What the scores ask of the n tokens.
struct TokenKinds {
  std::vector<std::int64_t> ids;  // equal ids are equal tokens
  std::vector<bool> separator;    // ends a text: [SEP], </s>
  std::vector<bool> punctuation;
};

enum class ScoreId {
  kSelf,
  kPrevious,
  kNext,
  kFirst,
  kSeparator,
  kPunctuation,
  kEntropy,
  kDuplicateTokenMul,
  kDuplicateTokenAbs,
  kConfidence,
  kPositional,
  kSink,
};

// How a score is worked out and read. A head has the role when its value is above the threshold (kPositional: at or
// above). Where the source gives no threshold, `threshold_is_ours` says so.
struct ScoreRule {
  ScoreId id;
  const char* name;  // "previous"
  const char* role;  // the badge: "previous"; null for a score that gives none
  double threshold;
  bool threshold_is_ours;
  const char* formula;
  const char* source;
};

// All rules, in the order of ScoreId.
std::span<const ScoreRule> score_rules();

struct Score {
  std::optional<double> value;        // none where the tokens leave nothing to take a mean over
  std::optional<std::int64_t> place;  // kPositional: the offset k - q; kSink: the key
};

// The scores of a head, in the order of ScoreId, and the rules it passes.
struct HeadScores {
  std::vector<Score> scores;
  std::vector<const ScoreRule*> roles;
};

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

// Reads the rows of a head's weights one by one, so that what it holds grows with n and not with its square. Sums run
// in double.
class HeadScorer {
 public:
  // `tokens` must outlive this. Throws Error where its lists differ in length, which is n.
  explicit HeadScorer(const TokenKinds& tokens);

  // The n weights of the next query, from the first on.
  void add(const float* row);
  // The scores of the rows so far, which should be all n.
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
