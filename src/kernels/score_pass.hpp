#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/head_pass.hpp"
#include "kernels/kernel_table.hpp"

// The weights of one head for a block of its queries, and what scores need to know of every one of them. For heads whose
// queries and keys are the same tokens.
namespace manyheads::kernels {

// Weights of a run of 64 keys: key after key, each with its 64 rows and padding of 0.
constexpr std::int64_t kScorePadding = 16;
constexpr std::int64_t kScoreStride = kPassRows + kScorePadding;
constexpr std::int64_t kScoreTile = kScorePadding + kRunKeys * kScoreStride;
// The weights of a block's rows for a key: [64].
inline const float* score_weights(const float* tiles, std::int64_t key) {
  return tiles + key / kRunKeys * kScoreTile + kScorePadding + key % kRunKeys * kScoreStride;
}

// What a block writes, all of it. R runs of 64 keys hold tk keys. The tiles are 0 before the first block.
struct ScorePassOutputs {
  float* tiles = nullptr;         // [R kScoreTile]: the weights; each row adds up to 1
  double* sum = nullptr;          // [64]: of exp2(score - shift) over the row's keys, by which the row was divided
  double* entropy = nullptr;      // [64]: in nats, of 0.9999 p + 0.0001 / tk, over all tk keys
  double* distance = nullptr;     // [64]: of p |row - key|
  double* variance = nullptr;     // [64]: of p (|row - key| - distance)^2
  float* largest = nullptr;       // [64]: over the keys that are not left out; -1 where there is none
  float* largest_key = nullptr;   // [64]: the first key of that weight; -1
  float* columns = nullptr;       // [R 64]: of p over the block's rows
  float* distances = nullptr;     // [(R + 1) 64]: of p where row - key = place - (R - 1) 64 - 64
};

constexpr std::int64_t kProductRows = 4;

struct ScorePassKernels {
  std::size_t (*workspace_floats)(const HeadPassParams&) = nullptr;
  // Rows [row, row + rows), at most kPassRows. Shifts are the params'; factors are 1. left_out [tk] tells the keys that
  // are no largest one.
  void (*run)(const HeadPassParams&, std::int64_t row, std::int64_t rows, const bool* left_out,
              const ScorePassOutputs&, float* workspace) = nullptr;
  // Adds rows [rows,d] of F32, `stride` apart, to sum [d] and their products to the lower triangle of products [d,d], in
  // double, row by row. The upper triangle may change too. `wide` [kProductRows d] is its own.
  void (*add_products)(const float* x, std::int64_t stride, std::int64_t rows, std::int64_t d, double* sum,
                       double* products, double* wide) = nullptr;
};

// Adds what a unit compiled for one of Highway's targets, before main.
struct ScorePassRegistration {
  ScorePassRegistration(std::int64_t target, const ScorePassKernels& kernels);
};

// The kernels of a table's instruction set.
const ScorePassKernels& score_pass_kernels(const KernelTable& table);

}  // namespace manyheads::kernels
