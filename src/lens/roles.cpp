#include <manyheads/lens/roles.hpp>

namespace manyheads::lens {
namespace {

constexpr const char* kClark = "Clark et al. 2019, What Does BERT Look At";
constexpr const char* kDetector = "TransformerLens head detector; Olsson et al. 2022";
constexpr const char* kVoita = "Voita et al. 2019, Analyzing Multi-Head Self-Attention";
constexpr const char* kHeadVis = "HeadVis, query-key distance; Luger et al. 2026";
constexpr const char* kSinks = "Gu et al. 2024, When Attention Sink Emerges; Xiao et al. 2023";

constexpr ScoreRule kRules[] = {
    {ScoreId::kSelf, "self", "self", 0.5, true, "mean over q of A[q,q]", kClark},
    {ScoreId::kPrevious, "previous", "previous", 0.5, false, "mean over q >= 1 of A[q,q-1]", kClark},
    {ScoreId::kNext, "next", "next", 0.5, false, "mean over q <= n-2 of A[q,q+1]", kClark},
    {ScoreId::kFirst, "first", "first", 0.6, false, "mean over q of A[q,0]", kClark},
    {ScoreId::kSeparator, "separator", "separator", 0.6, false,
     "mean over q of the sum of A[q,k] over separators k ([SEP])", kClark},
    {ScoreId::kPunctuation, "punctuation", "punctuation", 0.6, true,
     "mean over q of the sum of A[q,k] over punctuation k", kClark},
    {ScoreId::kEntropy, "entropy", "broad", 3.8, false,
     "mean over q of the entropy in nats of 0.9999 A[q,:] + 0.0001/n", kClark},
    {ScoreId::kDuplicateTokenMul, "duplicate_token_mul", "duplicate token", 0.5, true,
     "sum(A P) / sum(A), P[q,k] = 1 for k < q with an equal token", kDetector},
    {ScoreId::kDuplicateTokenAbs, "duplicate_token_abs", nullptr, 0.5, true,
     "1 - n mean|A - P|, P as in duplicate_token_mul", kDetector},
    {ScoreId::kConfidence, "confidence", "confident", 0.8, true,
     "mean over q of max_k A[q,k], separators left out as q and as k", kVoita},
    {ScoreId::kPositional, "positional", "positional", 0.9, false,
     "share of q whose argmax_k A[q,k] is at the most frequent offset k - q, of the q that have such a place; "
     "separators left out as q and as k",
     kVoita},
    {ScoreId::kSink, "sink", "sink", 0.3, false, "max over k of the mean over q >= k of A[q,k]", kSinks},
    {ScoreId::kPreviousTokenMul, "previous_token_mul", nullptr, 0.5, true, "sum(A P) / sum(A), P[q,k] = 1 for k = q-1",
     kDetector},
    {ScoreId::kPreviousTokenAbs, "previous_token_abs", nullptr, 0.5, true,
     "1 - n mean|A - P|, P as in previous_token_mul", kDetector},
    {ScoreId::kInductionMul, "induction_mul", nullptr, 0.5, true,
     "sum(A P) / sum(A), P[q,k] = 1 for k <= q where token k-1 equals token q", kDetector},
    {ScoreId::kInductionAbs, "induction_abs", nullptr, 0.5, true, "1 - n mean|A - P|, P as in induction_mul",
     kDetector},
    {ScoreId::kDistance, "distance", nullptr, 0, true,
     "mean over q of d(q), the sum over k of A[q,k] |q - k| over the sum of A[q,k]", kHeadVis},
    {ScoreId::kDistanceVariance, "distance_variance", nullptr, 0, true,
     "mean over q of the sum over k of A[q,k] (|q - k| - d(q))^2 over the sum of A[q,k], d(q) as in distance",
     kHeadVis},
};

}  // namespace

std::span<const ScoreRule> score_rules() { return kRules; }

bool passes(const ScoreRule& rule, double value) {
  if (rule.role == nullptr) return false;
  return rule.id == ScoreId::kPositional ? value >= rule.threshold : value > rule.threshold;
}

}  // namespace manyheads::lens
