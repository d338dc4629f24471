#pragma once

#include <cstddef>
#include <cstdint>
#include <manyheads/lens/roles.hpp>
#include <manyheads/lens/trace.hpp>
#include <vector>

#include "lens/token_kinds.hpp"

namespace manyheads::lens {

// What one head does with a text of n tokens. A text token is one that is not special.
struct PassageReading {
  std::vector<Score> scores;          // in the order of score_rules()
  std::vector<double> distance_mass;  // [2n-1]: the weights of q - k = place - (n - 1)
  std::vector<double> given;     // [n]: what text token q gives to other text tokens, sum over k != q of A[q,k]; else 0
  std::vector<double> received;  // [n]: what text token k receives from other text tokens, sum over q != k; else 0
};

// Reads the heads of a text that attends to itself.
class PassageReader {
 public:
  // `trace` must outlive this.
  explicit PassageReader(const Trace& trace);

  // Throws Error as trace_weights does. Thread-safe for disjoint readings.
  void read(std::size_t layer, std::int64_t head, PassageReading& reading) const;

  const std::vector<bool>& text_tokens() const { return text_; }

 private:
  const Trace& trace_;
  TokenKinds kinds_;
  std::vector<bool> text_;  // by token
};

}  // namespace manyheads::lens
