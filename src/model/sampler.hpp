#pragma once

#include <cstdint>
#include <manyheads/model/generate.hpp>
#include <span>
#include <vector>

namespace manyheads::model {

// Throws Error where the temperature is negative or not finite, or top_p is outside (0, 1].
void check_sampling(const Sampling& sampling);

// The id of the token that comes next. Throws Error where a logit is NaN, or the largest is not finite.
std::int64_t sample(std::span<const float> logits, const Sampling& sampling, std::uint64_t prompt, std::uint64_t place);

struct LikelyToken {
  std::int64_t id = 0;
  double probability = 0;  // softmax(logits)[id], summed in float64
};

// The `count` likeliest tokens, of equals the lower id first: the first is what greedy decoding takes. Throws Error as
// sample does.
std::vector<LikelyToken> likeliest(std::span<const float> logits, std::size_t count);

// log softmax(logits)[id], natural.
double log_probability(std::span<const float> logits, std::int64_t id);

}  // namespace manyheads::model
