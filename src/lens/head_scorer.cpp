#include "lens/head_scorer.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <manyheads/error.hpp>
#include <string>

namespace manyheads::lens {
namespace {

bool any_of(const std::vector<bool>& kind) { return std::find(kind.begin(), kind.end(), true) != kind.end(); }

}  // namespace

Score positional_score(const TokenKinds& tokens, const std::vector<std::int64_t>& all_hits) {
  const auto n = static_cast<std::int64_t>(tokens.ids.size());
  const auto hits = [&](std::int64_t o) { return all_hits[static_cast<std::size_t>(o + n - 1)]; };
  // Of equally frequent offsets, the nearest; of those, the one to the left.
  std::int64_t offset = 0;
  for (std::int64_t distance = 1; distance < n; ++distance) {
    for (const std::int64_t o : {-distance, distance}) {
      if (hits(o) > hits(offset)) offset = o;
    }
  }
  std::int64_t have_place = 0;
  for (std::int64_t q = std::max<std::int64_t>(0, -offset); q < std::min(n, n - offset); ++q) {
    const auto at = static_cast<std::size_t>(q);
    if (!tokens.separator[at] && !tokens.separator[static_cast<std::size_t>(q + offset)]) ++have_place;
  }
  return {static_cast<double>(hits(offset)) / static_cast<double>(have_place), offset};
}

Score sink_score(const std::vector<double>& from_itself) {
  const auto n = static_cast<std::int64_t>(from_itself.size());
  Score best;
  for (std::int64_t k = 0; k < n; ++k) {
    const double value = from_itself[static_cast<std::size_t>(k)] / static_cast<double>(n - k);
    if (!best.value || value > *best.value) best = {value, k};
  }
  return best;
}

HeadScorer::HeadScorer(const TokenKinds& tokens)
    : tokens_(tokens),
      n_(static_cast<std::int64_t>(tokens.ids.size())),
      any_separator_(any_of(tokens.separator)),
      any_punctuation_(any_of(tokens.punctuation)),
      hits_(n_ == 0 ? 0 : static_cast<std::size_t>(2 * n_ - 1)),
      from_itself_(static_cast<std::size_t>(n_)) {
  if (tokens.separator.size() != tokens.ids.size() || tokens.punctuation.size() != tokens.ids.size()) {
    throw Error(ErrorCode::kInvalidArgument, "HeadScorer: tokens describes " + std::to_string(tokens.ids.size()) +
                                                 " ids, " + std::to_string(tokens.separator.size()) +
                                                 " separators and " + std::to_string(tokens.punctuation.size()) +
                                                 " punctuation marks");
  }
}

double HeadScorer::mass_on(const float* row, const std::vector<bool>& kind) const {
  double mass = 0;
  for (std::int64_t k = 0; k < n_; ++k) {
    if (kind[static_cast<std::size_t>(k)]) mass += static_cast<double>(row[k]);
  }
  return mass;
}

void HeadScorer::add_patterns(const float* row) {
  const std::int64_t* const ids = tokens_.ids.data();
  const std::int64_t own = ids[query_];
  for (std::int64_t k = 0; k < n_; ++k) {
    const double weight = static_cast<double>(row[k]);
    previous_token_.add(weight, k + 1 == query_);
    duplicate_token_.add(weight, k < query_ && ids[k] == own);
    // Of the token itself too, where it equals the one before: k - 1 is earlier all the same.
    induction_.add(weight, k > 0 && k <= query_ && ids[k - 1] == own);
  }
}

void HeadScorer::add_distance(const float* row) {
  double total = 0, distance = 0;
  for (std::int64_t k = 0; k < n_; ++k) {
    const double weight = static_cast<double>(row[k]);
    total += weight;
    distance += weight * static_cast<double>(std::abs(query_ - k));
  }
  // A row that sees no key has no distance.
  if (total == 0) return;
  distance /= total;
  double variance = 0;
  for (std::int64_t k = 0; k < n_; ++k) {
    const double from_mean = static_cast<double>(std::abs(query_ - k)) - distance;
    variance += static_cast<double>(row[k]) * from_mean * from_mean;
  }
  distance_.add(distance);
  variance_.add(variance / total);
}

void HeadScorer::add_maximum(const float* row) {
  const std::vector<bool>& left_out = tokens_.separator;
  if (left_out[static_cast<std::size_t>(query_)]) return;
  double largest = 0;
  std::int64_t argmax = -1;
  for (std::int64_t k = 0; k < n_; ++k) {
    if (left_out[static_cast<std::size_t>(k)]) continue;
    const double weight = static_cast<double>(row[k]);
    // A NaN must reach the mean, not hide behind a comparison.
    if (argmax < 0 || weight > largest || std::isnan(weight)) {
      largest = weight;
      argmax = k;
    }
  }
  confidence_.add(largest);
  ++hits_[static_cast<std::size_t>(argmax - query_ + n_ - 1)];
}

void HeadScorer::add(const float* row) {
  const std::int64_t q = query_;
  const auto at = [&](std::int64_t k) { return static_cast<double>(row[k]); };
  self_.add(at(q));
  if (q > 0) previous_.add(at(q - 1));
  if (q + 1 < n_) next_.add(at(q + 1));
  first_.add(at(0));
  // None where no token is of the kind.
  if (any_separator_) separator_.add(mass_on(row, tokens_.separator));
  if (any_punctuation_) punctuation_.add(mass_on(row, tokens_.punctuation));
  double entropy = 0;
  for (std::int64_t k = 0; k < n_; ++k) {
    const double p = 0.9999 * at(k) + 0.0001 / static_cast<double>(n_);
    entropy -= p * std::log(p);
  }
  entropy_.add(entropy);
  add_patterns(row);
  add_distance(row);
  add_maximum(row);
  for (std::int64_t k = 0; k <= q; ++k) from_itself_[static_cast<std::size_t>(k)] += at(k);
  ++query_;
}

Score HeadScorer::positional() const {
  const std::optional<double> confidence = confidence_.value();
  if (!confidence || std::isnan(*confidence)) return {};
  return positional_score(tokens_, hits_);
}

HeadScores HeadScorer::finish() const {
  HeadScores result;
  if (n_ == 0) {
    result.scores.resize(score_rules().size());
    return result;
  }
  result.scores = {
      {self_.value(), {}},      {previous_.value(), {}},    {next_.value(), {}},    {first_.value(), {}},
      {separator_.value(), {}}, {punctuation_.value(), {}}, {entropy_.value(), {}}, duplicate_token_.mul(),
      duplicate_token_.abs(n_), {confidence_.value(), {}},  positional(),           sink_score(from_itself_),
      previous_token_.mul(),    previous_token_.abs(n_),    induction_.mul(),       induction_.abs(n_),
      {distance_.value(), {}},  {variance_.value(), {}}};
  for (const ScoreRule& rule : score_rules()) {
    const Score& score = result.scores[static_cast<std::size_t>(rule.id)];
    if (score.value && passes(rule, *score.value)) result.roles.push_back(&rule);
  }
  return result;
}

}  // namespace manyheads::lens
