#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace manyheads::lens {

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
  kPreviousTokenMul,
  kPreviousTokenAbs,
  kInductionMul,
  kInductionAbs,
  kDistance,
  kDistanceVariance,
};

// How a score is computed and read. A head has the role when its score is above the threshold (kPositional: at or above
// it). `threshold_is_ours` tells that the source gives none.
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

// Whether a head with this value has the rule's role. False for a rule that gives none.
bool passes(const ScoreRule& rule, double value);

struct Score {
  std::optional<double> value;        // none where there is nothing to take a mean over
  std::optional<std::int64_t> place;  // kPositional: the offset k - q; kSink: the key
};

// The scores of a head, in the order of ScoreId, and the rules it passes.
struct HeadScores {
  std::vector<Score> scores;
  std::vector<const ScoreRule*> roles;
};

}  // namespace manyheads::lens
