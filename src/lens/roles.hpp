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

// Sums run in double. Throws Error when `tokens` does not describe n tokens.
HeadScores score_head(const HeadWeights& weights, const TokenKinds& tokens);

}  // namespace manyheads::lens
