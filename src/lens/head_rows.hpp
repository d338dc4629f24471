#pragma once

#include <cstddef>
#include <cstdint>
#include <manyheads/lens/patch.hpp>
#include <manyheads/lens/trace.hpp>
#include <vector>

#include "kernels/head_pass.hpp"

// Some rows of one head, as a pass over its keys takes them.
namespace manyheads::lens {

// Every row_step-th query of `rows` and the keys that exist of `keys`. Shifts and factors are the caller's.
kernels::HeadPassParams head_pass_params(const Trace& trace, std::size_t layer, std::int64_t head, Range rows,
                                         Range keys, std::int64_t row_step = 1);

// lse of query i.
float lse_of(const Trace& trace, std::size_t layer, std::int64_t head, std::int64_t i);

// The sums [Tq] of a head in its layer's row_sum; undefined where the trace has none.
ConstTensorView row_sum_of(const Trace& trace, std::size_t layer, std::int64_t head);

// exp(score - lse) / row_sum = exp2(score' - shift) factor, for scores and shifts in base 2. Factor 0: a row that sees
// no key by its place, or that is computed whole.
struct RowScale {
  float shift = 0, factor = 0;
  bool whole = false;  // lse is no number to shift by, far from 0 or not that of a row without keys; or the sum is 0
};

class RowScales {
 public:
  RowScales(const Trace& trace, std::size_t layer, std::int64_t head);
  // row_sum null: not known, taken as 1.
  RowScale of(std::int64_t i, const float* row_sum) const;
  // With the sink's own, where the head has one: a pass's sum of exp2(score' - shift) factor over all keys of row i.
  double with_sink(const RowScale& scale, double sum) const;
  // Such a sum as one of exp(score - lse). A pass with the scale of(i, nullptr) gives it the same bits wherever it
  // runs.
  double row_sum(std::int64_t i, const RowScale& scale, double sum) const;

 private:
  bool sees_no_key(std::int64_t i) const;

  const Trace& trace_;
  std::size_t layer_;
  std::int64_t head_;
  kernels::HeadPassParams params_;
};

}  // namespace manyheads::lens
