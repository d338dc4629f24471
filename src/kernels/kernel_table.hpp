#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/head_pass.hpp"
#include "kernels/params.hpp"

// The only seam between meaning and machine. Above it nothing knows a register; below it nothing knows a model, a file
// or an error message.
namespace manyheads::kernels {

// The forward for one type of products.
struct AttentionKernels {
  std::int64_t query_block_rows;                                       // the most rows of a query block
  std::size_t (*workspace_floats)(const QkvMask&, std::int64_t rows);  // for a query block of so many rows
  // Computes a query block over one split of its keys.
  // - states null: the last split writes the caller's rows. Else: writes row_state_floats floats to `states`.
  // - next: the block that the worker will likely take next; what it reads is prefetched. No rows: not known.
  void (*forward)(const ForwardParams&, const QueryBlock&, const KvSplit&, const QueryBlock& next, float* states,
                  float* workspace);
  std::size_t (*row_state_floats)(const QkvMask&, std::int64_t rows);
  // Combines the row states of a block's splits, which lie one after the other in `states`, and writes the caller's
  // rows. Where the caller asks for row states, it writes those of each split too.
  void (*combine)(const ForwardParams&, const QueryBlock&, const KvSplits&, float* states);
  std::size_t (*packed_kv_floats)(const QkvMask&);
  // Packs keys and values [0, keys) of a block's head to `to` [packed_kv_floats], dense, in the form that the products
  // read.
  void (*pack_kv)(const QkvMask&, const QueryBlock&, std::int64_t keys, float* to);
  // The call that reads packed K and V; for query blocks of that head alone.
  ForwardParams (*on_packed_kv)(const ForwardParams&, const float* from);
};

// Combines the row states of parts of the keys for rows [row_begin, row_end).
struct StatesKernels {
  std::size_t (*workspace_floats)(std::int64_t dv);
  void (*combine)(const StatesParams&, std::int64_t row_begin, std::int64_t row_end, float* workspace);
};

// Passes over the keys of one head.
struct HeadPassKernels {
  std::size_t (*workspace_floats)(const HeadPassParams&);
  // Rows [row, row + rows), at most kPassRows.
  void (*run)(const HeadPassParams&, std::int64_t row, std::int64_t rows, const HeadPassOutputs&, float* workspace);
};

using ProbsKernel = void (*)(const ProbsParams&, const QueryBlock&, float* workspace);

struct LinearKernels {
  std::int64_t panel;             // columns of a packed panel
  std::int64_t block_rows;        // rows of the largest register tile
  bool rounds_rows_to_bf16;       // for BF16 weights: rounds rows of x too and multiplies pairs
  std::int64_t workspace_floats;  // of one worker, where it rounds rows
  // Reads `workspace` only where it rounds rows.
  void (*linear)(const LinearParams&, std::int64_t row_begin, std::int64_t row_end, std::int64_t panel_begin,
                 std::int64_t panel_end, float* workspace);
};

// Projections of F32 by tiles, from weights in pieces.
struct SplitLinearKernels {
  LinearKernels linear;  // reads LinearParams::split; null where there are no tiles
  // Splits panels [begin, end) of packed F32 weights [in][out] to `split`. A panel takes split_words words.
  void (*split_weights)(const LinearParams&, std::int64_t panel_begin, std::int64_t panel_end, float* split);
  std::size_t (*split_words)(std::int64_t in);
  // The products alone, of operands in L1. Returns the FLOP done, of F32; `value` keeps the compiler from dropping
  // them.
  double (*probe)(std::int64_t rounds, float* value);
};

using PackWeightsKernel = void (*)(const PackWeightsParams&, std::int64_t panel_begin, std::int64_t panel_end);

using CacheRowKernel = void (*)(const CacheRowParams&);

// Each over rows [row_begin, row_end).
using NormKernel = void (*)(const NormParams&, std::int64_t row_begin, std::int64_t row_end);
using RmsNormKernel = void (*)(const RmsNormParams&, std::int64_t row_begin, std::int64_t row_end);
using RotaryKernel = void (*)(const RotaryParams&, std::int64_t row_begin, std::int64_t row_end);
using SwiGluKernel = void (*)(const SwiGluParams&, std::int64_t row_begin, std::int64_t row_end);

// Work that one unit of the machine alone limits.
struct RooflineProbes {
  // Multiply-adds. Returns the FLOP done; `value` keeps the compiler from dropping them.
  double (*fma)(std::int64_t rounds, float* value);
  // Reads the floats once and returns their sum.
  // - multiplies: multiply-adds for each vector, a multiple of 8.
  // - ahead: prefetches as many floats from here on; null: none.
  float (*read)(const float* data, std::int64_t count, int multiplies, const float* ahead);
};

// The kernels of one instruction set.
struct KernelTable {
  const char* name;
  std::int64_t target;  // Highway's bit
  AttentionKernels f32, bf16, bf16_int8, int8;
  bool bf16_products;  // `bf16` multiplies BF16 pairs without widening them to F32
  ProbsKernel probs;
  StatesKernels states;
  HeadPassKernels head_pass;
  LinearKernels linear;
  SplitLinearKernels split_linear;  // of a table that splits F32
  PackWeightsKernel pack_weights;
  CacheRowKernel cache_row;
  NormKernel layer_norm;
  RmsNormKernel rms_norm;
  RotaryKernel rotary;
  SwiGluKernel swiglu;
  RooflineProbes probes;
  const char* bits[3];  // the family of bits of each kind of products (cpu.hpp)
  // Of a table that multiplies F32 through tiles of BF16: the one that does not, otherwise the same. Else null.
  const KernelTable* unsplit;

  const char* bits_of(Products products) const noexcept { return bits[static_cast<int>(products)]; }
  bool splits_f32() const noexcept { return unsplit != nullptr; }
  // The kernels for a call.
  const AttentionKernels& attention(const QkvMask& params) const noexcept {
    if (params.int8_products) return int8;
    if (!params.bf16_pairs()) return f32;
    return params.kv_type == DType::kI8 ? bf16_int8 : bf16;
  }
};

// The table whose F32 products are multiply-adds.
inline const KernelTable& unsplit(const KernelTable& table) noexcept {
  return table.splits_f32() ? *table.unsplit : table;
}

}  // namespace manyheads::kernels
