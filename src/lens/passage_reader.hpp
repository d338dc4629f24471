#pragma once

#include <cstddef>
#include <cstdint>
#include <manyheads/lens/roles.hpp>
#include <manyheads/lens/trace.hpp>
#include <memory>
#include <utility>
#include <vector>

#include "base/aligned_buffer.hpp"
#include "kernels/score_pass.hpp"
#include <manyheads/lens/patch.hpp>
#include "lens/token_kinds.hpp"

namespace manyheads::lens {

// What one head does with a text of n tokens. A text token is one that is not special.
struct PassageReading {
  std::vector<Score> scores;          // in the order of score_rules()
  std::vector<double> distance_mass;  // [2n-1]: the weights of q - k = place - (n - 1)
  std::vector<double> given;     // [n]: what text token q gives to other text tokens, sum over k != q of A[q,k]; else 0
  std::vector<double> received;  // [n]: what text token k receives from other text tokens, sum over q != k; else 0
};

// Reads the heads of a text that attends to itself, in blocks of rows: what HeadScorer tells from rows one by one, within
// the roundings of sums in F32.
class PassageReader {
 public:
  // What a thread keeps between readings.
  struct Memory {
    base::AlignedBuffer<float> tiles, workspace;
    std::vector<float> shifts, columns, distances;
    std::vector<double> from_itself;
    std::vector<std::int64_t> hits;
  };

  // `trace` must outlive this. Throws Error where it has not as many queries as keys.
  explicit PassageReader(const Trace& trace);

  // Throws Error where a row's lse is not what its scores give, by a factor of 2^40. Thread-safe for disjoint readings and
  // memories.
  void read(std::size_t layer, std::int64_t head, Memory& memory, PassageReading& reading) const;

  const std::vector<bool>& text_tokens() const { return text_; }
  // The text tokens as ranges, in order.
  const std::vector<Range>& text_ranges() const { return text_ranges_; }

 private:
  struct Sums;
  void read_block(const kernels::HeadPassParams& params, std::int64_t first, std::int64_t rows, std::size_t layer,
                  std::int64_t head, Memory& memory, Sums& sums, PassageReading& reading) const;
  void put_scores(std::size_t layer, std::int64_t head, const Sums& sums, const Memory& memory,
                  PassageReading& reading) const;

  const Trace& trace_;
  const kernels::ScorePassKernels& pass_;
  TokenKinds kinds_;
  std::int64_t n_;
  std::vector<bool> text_;
  std::vector<Range> text_ranges_;
  std::vector<std::int64_t> separators_, punctuation_, special_;     // places
  std::vector<std::pair<std::int64_t, std::int64_t>> duplicates_;    // (q, k < q) of equal tokens, by q
  std::unique_ptr<bool[]> left_out_;                                 // separators, by place
};

}  // namespace manyheads::lens
