#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "kernels/kernel_table.hpp"

// The backward of attention for one batch entry and one key/value head, chunk of keys by chunk of keys.
//
//   P = exp(score - lse),  dP = dout v^T,  dS = P (dP - delta),  delta = sum over Dv of dout out, less dlse
//   dv = P^T dout,  dk = scale dS^T q,  dq = scale dS k
//
// Source: Dao 2023 (FlashAttention-2), algorithm 2.
namespace manyheads::kernels {

constexpr std::int64_t kGradRows = 64;  // queries of a block: a run, as keys have them

// A gradient that the caller asks for; data null where not. Strides are of batch, head, row, element; 0 along an axis
// that a bias broadcasts.
struct Gradient {
  void* data = nullptr;
  DType type = DType::kF32;
  std::int64_t size[4] = {};
  std::int64_t stride[4] = {};
  bool defined() const noexcept { return data != nullptr; }
};

struct BackwardParams : QkvMask {
  const void* out = nullptr;
  DType out_type = DType::kF32;
  std::int64_t out_stride[4] = {};
  const void* dout = nullptr;
  DType dout_type = DType::kF32;
  std::int64_t dout_stride[4] = {};
  const float* lse = nullptr;
  std::int64_t lse_stride[3] = {};
  const float* dlse = nullptr;  // may be null
  std::int64_t dlse_stride[3] = {};

  Gradient dq, dk, dvalue, dbias, dsinks, dalibi;  // QkvMask::dv is a size; the last two: stride[1] of the head
  bool accumulate = false;                         // adds to what the gradients hold

  // Of each row, as grad_row counts: P = exp2(score - shift) factor, and delta.
  float* shift = nullptr;
  float* factor = nullptr;
  float* delta = nullptr;
  std::int64_t rows = 0;  // of a head, over all entries

  std::int64_t out_at(std::int64_t b, std::int64_t h, std::int64_t i) const noexcept {
    return row_at(out_stride, q_starts, b, h, i);
  }
  std::int64_t dout_at(std::int64_t b, std::int64_t h, std::int64_t i) const noexcept {
    return row_at(dout_stride, q_starts, b, h, i);
  }
  std::int64_t lse_at(std::int64_t b, std::int64_t h, std::int64_t i) const noexcept {
    return row_at(lse_stride, q_starts, b, h, i);
  }
  std::int64_t dlse_at(std::int64_t b, std::int64_t h, std::int64_t i) const noexcept {
    return row_at(dlse_stride, q_starts, b, h, i);
  }
  std::int64_t dq_at(std::int64_t b, std::int64_t h, std::int64_t i) const noexcept {
    return row_at(dq.stride, q_starts, b, h, i);
  }
  std::int64_t grad_row(std::int64_t b, std::int64_t h, std::int64_t i) const noexcept {
    return h * rows + (q_starts.defined() ? q_starts.at(b, 0) : b * tq) + i;
  }
};

// The chunk of keys that a task holds, and its memory.
struct KeyChunk {
  std::int64_t batch = 0, kv_head = 0;
  std::int64_t begin = 0, end = 0;  // at most kChunkKeys keys, from a multiple of kChunkKeys on
  float* workspace = nullptr;
};

// What a block of queries adds to, and writes, within a chunk of keys.
struct BlockGradients {
  float* keys = nullptr;     // [kChunkKeys][key_floats]: dk / scale and dv; added to
  float* queries = nullptr;  // [D][kGradRows]: this chunk's part of dq / scale
  double* alibi = nullptr;   // of the slope; added to. Null where nobody asks
};

struct BackwardKernels {
  // Of a task: the keys and values of its chunk, and a block's rows.
  std::size_t (*workspace_floats)(const BackwardParams&) = nullptr;
  // dk and dv of a key.
  std::size_t (*key_floats)(const BackwardParams&) = nullptr;
  // Fills shift, factor and delta of queries [begin, end) of query head h, `begin` a multiple of kGradRows. Of the
  // chunk it takes batch, kv_head and workspace.
  void (*prepare)(const BackwardParams&, const KeyChunk&, std::int64_t h, std::int64_t begin,
                  std::int64_t end) = nullptr;
  // Reads the keys and values of a chunk to its workspace.
  void (*load)(const BackwardParams&, const KeyChunk&) = nullptr;
  // Adds what a block of at most kGradRows queries of one head gives. Returns the number of runs read; with 0 nothing
  // was written.
  std::int64_t (*block)(const BackwardParams&, const KeyChunk&, const QueryBlock&, const BlockGradients&) = nullptr;
  // Adds dS before softcap to sums [kChunkKeys][kGradRows], in double.
  void (*bias)(const BackwardParams&, const KeyChunk&, const QueryBlock&, double* sums) = nullptr;
  // Writes dq of a block from the sum of two, [D][kGradRows] each; `low` may be null, both where no key was read.
  void (*store_queries)(const BackwardParams&, const QueryBlock&, const float* high, const float* low,
                        float* workspace) = nullptr;
  // Writes dk and dv of a chunk; `keys` null: no query was read.
  void (*store_keys)(const BackwardParams&, const KeyChunk&, float* keys) = nullptr;
};

// Adds what a unit compiled for one of Highway's targets, before main.
struct BackwardRegistration {
  BackwardRegistration(std::int64_t target, Products products, const BackwardKernels& kernels);
};

// The definition: float64, plain loops over every score. Reads neither out nor lse. Allocates O(Tk (D + Dv)).
void reference_backward(const BackwardParams& params);

// The kernels of a table's instruction set, by F32 or BF16 pairs.
const BackwardKernels& backward_kernels(const KernelTable& table, Products products);

// table_with of a backward. Gradients are never multiplied through tiles: Error where `bits` asks for that.
const KernelTable& backward_table(const char* function, std::string_view bits, Products products);
// What a backward with these tensors multiplies: BF16 pairs where the table it will run at does, else F32. There is
// none over tiles or integers.
Products backward_products(const BackwardParams& params, std::string_view bits);

}  // namespace manyheads::kernels
