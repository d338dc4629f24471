#pragma once

#include <cstdint>

#include "kernels/canonical_order.hpp"
#include "kernels/params.hpp"

// A pass over the keys of one head for a block of its queries: the weights themselves, or what is summed of them.
//
//   p = exp2(score - shift) factor      with a shift and a factor for each row
namespace manyheads::kernels {

constexpr std::int64_t kPassRows = 64;  // rows of a block, and of a cell of the finest pooled level

// One entry and one head. Shifts and factors are [tq]; a row of factor 0 is left out: its weights are 0.
struct HeadPassParams : QkvMask {
  std::int64_t row_step = 1;  // row i stands at query i * row_step of the diagonal
  const float* shift = nullptr;
  const float* factor = nullptr;
};

// What a pass over a block writes, each part null where nobody asks for it. R runs of 64 keys hold tk keys. The caller
// fills `blocks`, `columns` and `distances` with 0 before.
struct HeadPassOutputs {
  double* sum = nullptr;       // [64]: of p over the row's keys
  double* log_sum = nullptr;   // [64]: of p (score - shift)
  float* block_sum = nullptr;  // [R][64]: of p over the keys of a run, by row
  float* block_max = nullptr;  // [R][64]
  float* columns = nullptr;    // [R 64]: of p over the block's rows; added to
  float* distances = nullptr;  // [(R + 1) 64]: of p where row - key = place - (R - 1) 64 - 64; added to
  std::int64_t top = 0;  // the largest p of each row, descending, of equal ones the first key; 0 and -1 behind them
  float* top_weights = nullptr;      // [64][top]
  std::int64_t* top_keys = nullptr;  // [64][top]
  float* weights = nullptr;          // [rows][tk]: p; keys that no row sees are not written
  std::int64_t weights_stride[2] = {};
};

}  // namespace manyheads::kernels
