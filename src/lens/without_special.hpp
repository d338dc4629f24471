#pragma once

#include <cstdint>
#include <manyheads/lens/trace.hpp>
#include <vector>

#include "lens/token_kinds.hpp"

namespace manyheads::lens {

// A text without its special tokens, and what a head's weights are there. Where a decoder's text has no special token,
// its first token is left out in their place: heads rest on it (Xiao et al. 2023).
class WithoutSpecial {
 public:
  explicit WithoutSpecial(const Trace& trace);

  const std::vector<std::int64_t>& kept() const { return kept_; }  // tokens, ascending
  // Of the tokens that are kept.
  const TokenKinds& kinds() const { return kinds_; }

  // From the weights of query q the weights on the kept tokens, made to add up to 1, in `row` [kept]; all 0 where they
  // add up to 0. False where q is no kept token.
  bool renormalise(std::int64_t q, const float* weights, std::vector<float>& row) const;

 private:
  std::vector<std::int64_t> kept_;
  TokenKinds kinds_;
};

}  // namespace manyheads::lens
