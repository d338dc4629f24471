#include "model/sampler.hpp"

#include <algorithm>
#include <cmath>
#include <manyheads/error.hpp>
#include <numeric>
#include <vector>

#include "base/format.hpp"
#include "base/math.hpp"

namespace manyheads::model {
namespace {

std::uint64_t mix(std::uint64_t x) {  // SplitMix64's
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
  x = (x ^ x >> 27) * 0x94d049bb133111ebu;
  return x ^ x >> 31;
}

// In [0, 1), in steps of 2^-53.
double draw(std::uint64_t seed, std::uint64_t prompt, std::uint64_t place) {
  return static_cast<double>(mix(mix(mix(seed) ^ prompt) ^ place) >> 11) * 0x1p-53;
}

struct Token {
  float logit;
  std::int64_t id;
  double mass;  // probability times a constant
};

std::int64_t largest(std::span<const float> logits) {
  std::size_t best = 0;
  bool number = true;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    number = number && !std::isnan(logits[i]);
    if (logits[i] > logits[best]) best = i;
  }
  if (!number) throw Error(ErrorCode::kInvalidArgument, "generate: the model gave logits that are NaN");
  if (logits.empty() || !std::isfinite(logits[best])) {
    throw Error(ErrorCode::kInvalidArgument,
                logits.empty() ? "generate: the model gave no logits"
                               : base::format("generate: the model's largest logit is {}", logits[best]));
  }
  return static_cast<std::int64_t>(best);
}

// The likeliest tokens, until their mass reaches `enough`. Equal ones by their ids.
std::vector<Token> nucleus(std::vector<Token> tokens, double enough) {
  const auto behind = [](const Token& a, const Token& b) {
    return a.logit < b.logit || (a.logit == b.logit && a.id > b.id);
  };
  std::make_heap(tokens.begin(), tokens.end(), behind);
  std::vector<Token> kept;
  double mass = 0;
  for (auto end = tokens.end(); end != tokens.begin() && mass < enough; --end) {
    std::pop_heap(tokens.begin(), end, behind);
    kept.push_back(*(end - 1));
    mass += kept.back().mass;
  }
  return kept;
}

}  // namespace

void check_sampling(const Sampling& sampling) {
  if (!(sampling.temperature >= 0) || !std::isfinite(sampling.temperature)) {
    throw Error(
        ErrorCode::kInvalidArgument,
        base::format("generate: temperature is {}, a finite number of 0 or more is needed", sampling.temperature));
  }
  if (!(sampling.top_p > 0 && sampling.top_p <= 1)) {
    throw Error(ErrorCode::kInvalidArgument,
                base::format("generate: top_p is {}, a number above 0 and up to 1 is needed", sampling.top_p));
  }
}

std::int64_t sample(std::span<const float> logits, const Sampling& sampling, std::uint64_t prompt,
                    std::uint64_t place) {
  const std::int64_t best = largest(logits);
  if (sampling.temperature == 0) return best;
  const auto top = static_cast<double>(logits[static_cast<std::size_t>(best)]);
  std::vector<Token> tokens;
  tokens.reserve(logits.size());
  double total = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const double mass = base::exp((static_cast<double>(logits[i]) - top) / sampling.temperature);
    if (mass == 0) continue;
    tokens.push_back({logits[i], static_cast<std::int64_t>(i), mass});
    total += mass;
  }
  if (sampling.top_p < 1) {
    tokens = nucleus(std::move(tokens), sampling.top_p * total);
    total = 0;
    for (const Token& token : tokens) total += token.mass;
  }
  const double drawn = draw(sampling.seed, prompt, place) * total;
  double mass = 0;
  for (const Token& token : tokens) {
    mass += token.mass;
    if (mass > drawn) return token.id;
  }
  return tokens.back().id;  // where the product rounds up to the total
}

std::vector<LikelyToken> likeliest(std::span<const float> logits, std::size_t count) {
  const auto top = static_cast<double>(logits[static_cast<std::size_t>(largest(logits))]);
  double sum = 0;
  for (const float logit : logits) sum += base::exp(static_cast<double>(logit) - top);
  std::vector<std::size_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), std::size_t{0});
  const auto end = ids.begin() + static_cast<std::ptrdiff_t>(std::min(count, ids.size()));
  std::partial_sort(ids.begin(), end, ids.end(), [&](std::size_t a, std::size_t b) {
    return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
  });
  std::vector<LikelyToken> tokens;
  for (auto id = ids.begin(); id != end; ++id) {
    tokens.push_back({static_cast<std::int64_t>(*id), base::exp(static_cast<double>(logits[*id]) - top) / sum});
  }
  return tokens;
}

double log_probability(std::span<const float> logits, std::int64_t id) {
  const auto top = static_cast<double>(*std::max_element(logits.begin(), logits.end()));
  double sum = 0;
  for (const float logit : logits) sum += base::exp(static_cast<double>(logit) - top);
  return static_cast<double>(logits[static_cast<std::size_t>(id)]) - top - base::log(sum);
}

}  // namespace manyheads::model
