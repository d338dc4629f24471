#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/params.hpp"

// The only seam between meaning and machine. Above it nothing knows a register; below it nothing knows a model, a file
// or an error message.
namespace manyheads::kernels {

// The forward with one way to multiply.
struct AttentionKernels {
  std::int64_t query_block_rows;                                       // of the largest query block
  std::size_t (*workspace_floats)(const QkvMask&, std::int64_t rows);  // for a query block of so many rows
  // The rows of a query block over a split of its keys: to the caller's output, or to `states` (row_state_floats) where
  // it is not null; the row states of the splits of a block follow each other, and combine stores what they come to, and
  // where the caller asks for row states those of each split.
  // What `next`, the block that the worker will likely take then, reads is prefetched meanwhile; no rows: not known.
  void (*forward)(const ForwardParams&, const QueryBlock&, const KvSplit&, const QueryBlock& next, float* states,
                  float* workspace);
  std::size_t (*row_state_floats)(const QkvMask&, std::int64_t rows);
  void (*combine)(const ForwardParams&, const QueryBlock&, const KvSplits&, float* states);
  // Packed K and packed V: keys and values [0, keys) of a block's head to `to` (packed_kv_floats), dense, in the form
  // that the products read; and the call that reads them there, for query blocks of that head alone.
  std::size_t (*packed_kv_floats)(const QkvMask&);
  void (*pack_kv)(const QkvMask&, const QueryBlock&, std::int64_t keys, float* to);
  ForwardParams (*on_packed_kv)(const ForwardParams&, const float* from);
};

// Rows [row_begin, row_end) of an attention whose keys were computed in parts.
struct StatesKernels {
  std::size_t (*workspace_floats)(std::int64_t dv);
  void (*combine)(const StatesParams&, std::int64_t row_begin, std::int64_t row_end, float* workspace);
};

using ProbsKernel = void (*)(const ProbsParams&, const QueryBlock&, float* workspace);

struct LinearKernels {
  std::int64_t panel;             // columns of a packed panel
  std::int64_t block_rows;        // rows of the largest register tile
  bool rounds_rows_to_bf16;       // with BF16 weights: rows are rounded too, and pairs multiplied
  std::int64_t workspace_floats;  // that one worker takes then
  // `workspace` is not looked at else.
  void (*linear)(const LinearParams&, std::int64_t row_begin, std::int64_t row_end, std::int64_t panel_begin,
                 std::int64_t panel_end, float* workspace);
};

using PackWeightsKernel = void (*)(const PackWeightsParams&, std::int64_t panel_begin, std::int64_t panel_end);

using CacheRowKernel = void (*)(const CacheRowParams&);

using NormKernel = void (*)(const NormParams&, std::int64_t row_begin, std::int64_t row_end);

// Work that one unit of the machine alone limits.
struct RooflineProbes {
  // Multiply-adds: returns the FLOP done; the value keeps the compiler from dropping it.
  double (*fma)(std::int64_t rounds, float* value);
  // Reads the floats once and returns their sum; each vector is multiplied and added so many times, a multiple of 8.
  // As many floats from `ahead` on are prefetched meanwhile; null: none.
  float (*read)(const float* data, std::int64_t count, int multiplies, const float* ahead);
};

// What one instruction set offers.
struct KernelTable {
  const char* name;
  std::int64_t target;  // Highway's bit for it
  AttentionKernels f32, bf16, bf16_int8, int8;
  bool bf16_products;  // `bf16` multiplies pairs of BF16 without making them F32
  ProbsKernel probs;
  StatesKernels states;
  LinearKernels linear;
  PackWeightsKernel pack_weights;
  CacheRowKernel cache_row;
  NormKernel layer_norm;
  RooflineProbes probes;

  // The kernels that a call takes.
  const AttentionKernels& attention(const QkvMask& params) const noexcept {
    if (params.int8_products) return int8;
    if (!params.bf16_pairs()) return f32;
    return params.kv_type == DType::kI8 ? bf16_int8 : bf16;
  }
};

}  // namespace manyheads::kernels
