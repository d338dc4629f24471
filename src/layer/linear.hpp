#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>

#include <manyheads/half.hpp>
#include <manyheads/parallel.hpp>
#include <manyheads/tensor.hpp>

#include "base/aligned_buffer.hpp"
#include "kernels/params.hpp"

namespace manyheads::layer {

using kernels::Activation;

// One block of memory for the packed weights of several projections, so that large pages cover all of them.
class PackedMemory {
 public:
  // Room for `words` words: the sum of Linear::words over the projections.
  explicit PackedMemory(std::size_t words);
  // The next `words` words. They keep the block alive.
  std::shared_ptr<float> take(std::size_t words);

 private:
  std::shared_ptr<base::AlignedBuffer<float>> block_;
  std::size_t used_ = 0;
};

// Packs `count` inputs of F32 weights [N,K] whose columns n lie side by side, input k at from + k stride, as
// LinearParams says: panels [begin, end) of columns, 0 behind the last. Copies.
void pack_columns(const float* from, std::int64_t stride, std::int64_t out, std::int64_t count, float* packed,
                  std::int64_t begin, std::int64_t end);

// A projection, y = activation(x W^T + b), with W [N,K] packed once into panels of columns.
// - Each y is one chain of sums over k, ascending, in F32. The bits of a row do not depend on the number of rows,
//   threads or strides.
// - Weights are kept as F32, or as BF16 rounded to nearest even: half the memory. BF16 weights multiply as the F32 of
//   the same value, to the same bits.
// - Where the instruction set multiplies BF16 pairs (LinearKernels::rounds_rows_to_bf16), BF16 weights round x to BF16
//   too. Each product is exact before it is added.
// - Where F32 is multiplied through tiles (KernelTable::splits_f32), F32 weights are split into BF16 pieces when first
//   run so, once: six bytes each besides their four. The order of sums is linear_tiles-inl.hpp's.
class Linear {
 public:
  Linear() = default;
  // weight [N,K] and bias [N] (or undefined): F32, BF16 or F16, any strides. kept: F32 or BF16. Packs into `memory`, or
  // where it is null into a block of its own.
  Linear(ConstTensorView weight, ConstTensorView bias, DType kept = DType::kF32, PackedMemory* memory = nullptr,
         const Threads& threads = {});

  // Words of 32 bits in a packed weight [N,K] at the instruction set in use.
  static std::size_t words(std::int64_t out, std::int64_t in, DType kept);

  std::int64_t in_features() const noexcept { return in_; }
  std::int64_t out_features() const noexcept { return out_; }

  // Floats of workspace for a run of up to `rows` rows on up to so many threads; 0 where rows are multiplied as they
  // are.
  std::size_t workspace_floats(std::int64_t rows, const Threads& threads) const;

  // Rows are x_stride and y_stride floats apart; x and y do not overlap. `workspace` holds workspace_floats floats at a
  // multiple of 64 bytes; where it is null, they are allocated.
  void run(const float* x, std::int64_t rows, std::int64_t x_stride, float* y, std::int64_t y_stride,
           Activation activation = Activation::kNone, const Threads& threads = {}, float* workspace = nullptr) const;

  // Whether the instruction set in use rounds the rows of x to BF16.
  bool rounds_rows() const;
  // Where rounds_rows(): the same with y rounded to BF16. `sums` has room for rows as run would write them.
  void run_rounded(const float* x, std::int64_t rows, std::int64_t x_stride, float* sums, std::int64_t sums_stride,
                   bfloat16* y, std::int64_t y_stride, const Threads& threads = {}, float* workspace = nullptr) const;

 private:
  struct Split {
    std::once_flag made;
    base::AlignedBuffer<float> pieces;
  };

  bool splits() const;
  const float* split(const kernels::LinearParams& params, const Threads& threads) const;
  void run(kernels::LinearParams& params, std::int64_t rows, const Threads& threads, float* workspace) const;
  int workers(std::int64_t rows, const Threads& threads) const;

  std::int64_t in_ = 0;
  std::int64_t out_ = 0;
  int panel_ = 0;  // columns of a panel at the instruction set in use
  DType kept_ = DType::kF32;
  std::shared_ptr<float> packed_;    // as LinearParams says, 0 behind N
  std::shared_ptr<Split> split_;     // of F32 weights
  base::AlignedBuffer<float> bias_;  // [N rounded up to panel], 0 where there is no bias
};

}  // namespace manyheads::layer
