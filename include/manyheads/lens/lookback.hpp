#pragma once

#include <array>
#include <cstdint>
#include <manyheads/model/encoder.hpp>
#include <manyheads/parallel.hpp>
#include <manyheads/tensor.hpp>
#include <span>
#include <string_view>
#include <vector>

namespace manyheads::lens {

// What one head gives to a token, and what it gave before.
struct LookingHead {
  std::int64_t layer = 0;
  std::int64_t head = 0;
  double weight = 0;
  double usual = 0;  // the larger of its means at that offset and on that token

  double rise() const { return weight - usual; }
};

// A token that the last one looked at, and the heads whose weight on it rises most, the largest rise first.
struct LookedAt {
  std::int64_t token = 0;
  std::vector<LookingHead> heads;
};

// What each token of a growing text looked at, told as it comes. Of one prompt that generate() goes on from:
//   Lookback lookback(decoder.config(), prompt.size());
//   options.on_heads = [&](auto layers) { lookback.append(layers); };
//   options.on_token = [&](auto token) { ... lookback.last() ... };
//
//   rise of a head on a token = its weight - max(its mean weight at the same offset, its mean weight on the same token)
//
// - The means are over the tokens before this one, and one more that spreads its weight evenly over all keys but the
//   first. So neither heads that always look so far back nor tokens that heads always rest on rank high.
// - Tokens rank by the largest rise of any head. The first token is left out: heads rest on it that look at nothing.
// - Of a long prompt the means take the last 256 tokens.
class Lookback {
 public:
  Lookback(const model::EncoderConfig& config, std::int64_t prompt_tokens, const Threads& threads = {},
           std::string_view bits = {});

  // Adds the tokens of a pass, whose keys it copies. The weights are those of queries and keys in F32, whatever type a
  // cache has.
  void append(std::span<const model::LayerHeads> layers);

  // Of the last token: at most three tokens, each with at most two heads. Only those with a rise above 0.
  std::vector<LookedAt> last() const;

 private:
  struct Layer {
    Tensor k;  // [Hkv,capacity,D]
    // Sums of weights of the tokens read, of each head: [Hq,capacity], by offset and by token.
    std::vector<double> by_offset, by_token;
  };

  void grow(std::int64_t tokens);
  void read(std::int64_t layer, const model::LayerHeads& heads, std::int64_t row, std::int64_t rows);
  void compare(std::int64_t layer, std::int64_t head, std::int64_t query, const float* weights);
  void note(std::int64_t token, const LookingHead& head);

  model::EncoderConfig config_;
  std::int64_t first_;  // the first token whose weights are read
  Threads threads_;
  std::string_view bits_;
  std::int64_t tokens_ = 0, capacity_ = 0;
  std::vector<Layer> layers_;
  std::vector<float> weights_;
  std::vector<std::array<LookingHead, 2>> best_;  // of each token, as the last one sees it
};

}  // namespace manyheads::lens
