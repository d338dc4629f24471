#include "lens/roles.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <manyheads/error.hpp>

namespace manyheads::lens {

namespace {

constexpr const char* kClark = "Clark et al. 2019, What Does BERT Look At";
constexpr const char* kDetector = "TransformerLens head detector; Olsson et al. 2022";
constexpr const char* kVoita = "Voita et al. 2019, Analyzing Multi-Head Self-Attention";
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
};

// The mean of a row property over the rows that have it.
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

Score fixed_offset(const HeadWeights& a, std::int64_t offset) {
  Mean mean;
  for (std::int64_t q = 0; q < a.n; ++q) {
    if (q + offset >= 0 && q + offset < a.n) mean.add(a(q, q + offset));
  }
  return {mean.value(), {}};
}

Score first_token(const HeadWeights& a) {
  Mean mean;
  for (std::int64_t q = 0; q < a.n; ++q) mean.add(a(q, 0));
  return {mean.value(), {}};
}

// None where no token is of the kind.
Score mass_on(const HeadWeights& a, const std::vector<bool>& kind) {
  if (std::find(kind.begin(), kind.end(), true) == kind.end()) return {};
  Mean mean;
  for (std::int64_t q = 0; q < a.n; ++q) {
    double mass = 0;
    for (std::int64_t k = 0; k < a.n; ++k) {
      if (kind[static_cast<std::size_t>(k)]) mass += a(q, k);
    }
    mean.add(mass);
  }
  return {mean.value(), {}};
}

Score entropy(const HeadWeights& a) {
  Mean mean;
  for (std::int64_t q = 0; q < a.n; ++q) {
    double sum = 0;
    for (std::int64_t k = 0; k < a.n; ++k) {
      const double p = 0.9999 * a(q, k) + 0.0001 / static_cast<double>(a.n);
      sum -= p * std::log(p);
    }
    mean.add(sum);
  }
  return {mean.value(), {}};
}

struct Duplicates {
  Score mul, abs;
};

Duplicates duplicate_token(const HeadWeights& a, const std::vector<std::int64_t>& ids) {
  double on_pattern = 0;
  double total = 0;
  double distance = 0;
  for (std::int64_t q = 0; q < a.n; ++q) {
    for (std::int64_t k = 0; k < a.n; ++k) {
      const bool p = k < q && ids[static_cast<std::size_t>(k)] == ids[static_cast<std::size_t>(q)];
      if (p) on_pattern += a(q, k);
      total += a(q, k);
      distance += std::abs(a(q, k) - (p ? 1.0 : 0.0));
    }
  }
  Duplicates result;
  // n mean|A - P| over n * n places is the sum over n.
  if (a.n > 0) result.abs.value = 1.0 - distance / static_cast<double>(a.n);
  if (total != 0) result.mul.value = on_pattern / total;
  return result;
}

struct Maxima {
  Score confidence, positional;
};

Maxima row_maxima(const HeadWeights& a, const std::vector<bool>& left_out) {
  Mean confidence;
  const std::int64_t n = a.n;
  std::vector<std::int64_t> hits(static_cast<std::size_t>(std::max<std::int64_t>(0, 2 * n - 1)));  // by offset + n - 1
  for (std::int64_t q = 0; q < n; ++q) {
    if (left_out[static_cast<std::size_t>(q)]) continue;
    double largest = 0;
    std::int64_t argmax = -1;
    for (std::int64_t k = 0; k < n; ++k) {
      if (left_out[static_cast<std::size_t>(k)]) continue;
      // A NaN must reach the mean, not hide behind a comparison.
      if (argmax < 0 || a(q, k) > largest || std::isnan(a(q, k))) {
        largest = a(q, k);
        argmax = k;
      }
    }
    confidence.add(largest);
    ++hits[static_cast<std::size_t>(argmax - q + n - 1)];
  }
  Maxima result;
  result.confidence.value = confidence.value();
  if (!result.confidence.value || std::isnan(*result.confidence.value)) return result;

  // Of equally frequent offsets, the nearest; of those, the one to the left.
  std::int64_t offset = 0;
  std::int64_t most = hits[static_cast<std::size_t>(n - 1)];
  for (std::int64_t distance = 1; distance < n; ++distance) {
    for (const std::int64_t o : {-distance, distance}) {
      const std::int64_t h = hits[static_cast<std::size_t>(o + n - 1)];
      if (h > most) {
        most = h;
        offset = o;
      }
    }
  }
  std::int64_t have_place = 0;
  for (std::int64_t q = std::max<std::int64_t>(0, -offset); q < std::min(n, n - offset); ++q) {
    if (!left_out[static_cast<std::size_t>(q)] && !left_out[static_cast<std::size_t>(q + offset)]) ++have_place;
  }
  result.positional.value = static_cast<double>(most) / static_cast<double>(have_place);
  result.positional.place = offset;
  return result;
}

Score sink(const HeadWeights& a) {
  Score best;
  for (std::int64_t k = 0; k < a.n; ++k) {
    Mean mean;
    for (std::int64_t q = k; q < a.n; ++q) mean.add(a(q, k));
    const double value = *mean.value();
    if (!best.value || value > *best.value) best = {value, k};
  }
  return best;
}

}  // namespace

std::span<const ScoreRule> score_rules() { return kRules; }

HeadScores score_head(const HeadWeights& weights, const TokenKinds& tokens) {
  const auto n = static_cast<std::size_t>(weights.n);
  if (tokens.ids.size() != n || tokens.separator.size() != n || tokens.punctuation.size() != n) {
    throw Error(ErrorCode::kInvalidArgument, "score_head: tokens describes " + std::to_string(tokens.ids.size()) +
                                                 " ids, " + std::to_string(tokens.separator.size()) +
                                                 " separators and " + std::to_string(tokens.punctuation.size()) +
                                                 " punctuation marks, weights has " + std::to_string(weights.n) +
                                                 " tokens");
  }
  HeadScores result;
  if (weights.n == 0) {
    result.scores.resize(std::size(kRules));
    return result;
  }
  Duplicates duplicates = duplicate_token(weights, tokens.ids);
  Maxima maxima = row_maxima(weights, tokens.separator);
  result.scores = {fixed_offset(weights, 0),
                   fixed_offset(weights, -1),
                   fixed_offset(weights, 1),
                   first_token(weights),
                   mass_on(weights, tokens.separator),
                   mass_on(weights, tokens.punctuation),
                   entropy(weights),
                   duplicates.mul,
                   duplicates.abs,
                   maxima.confidence,
                   maxima.positional,
                   sink(weights)};
  for (const ScoreRule& rule : kRules) {
    const Score& score = result.scores[static_cast<std::size_t>(rule.id)];
    if (rule.role == nullptr || !score.value) continue;
    const bool passes =
        rule.id == ScoreId::kPositional ? *score.value >= rule.threshold : *score.value > rule.threshold;
    if (passes) result.roles.push_back(&rule);
  }
  return result;
}

}  // namespace manyheads::lens
