#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

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
  // For projections that take `words` words together (Linear::words).
  explicit PackedMemory(std::size_t words);
  // The next words of it; they keep the block alive.
  std::shared_ptr<float> take(std::size_t words);

 private:
  std::shared_ptr<base::AlignedBuffer<float>> block_;
  std::size_t used_ = 0;
};

// y = activation(x W^T + b), with W [N,K] packed once into panels of columns. Each y is one chain of sums over k in
// ascending order, in F32: the bits of a row do not depend on the number of rows, threads or strides.
//
// Weights are kept as F32 or as BF16, rounded to nearest even: half the memory. BF16 weights multiply as the F32 of the
// same value, to the same bits; where the instruction set multiplies pairs of BF16
// (LinearKernels::rounds_rows_to_bf16), x is rounded to BF16 too, and each product is exact before it is added.
class Linear {
 public:
  Linear() = default;
  // weight [N,K] and bias [N] (or undefined) of F32, BF16 or F16, any strides; kept is F32 or BF16. Packs into
  // `memory`, or a block of its own.
  Linear(ConstTensorView weight, ConstTensorView bias, DType kept = DType::kF32, PackedMemory* memory = nullptr);

  // Words of 32 bits that the packed weight [N,K] takes at the instruction set in use.
  static std::size_t words(std::int64_t out, std::int64_t in, DType kept);

  std::int64_t in_features() const noexcept { return in_; }
  std::int64_t out_features() const noexcept { return out_; }

  // Floats that a run over up to so many rows works in, on up to so many threads: 0 where rows are not rounded.
  std::size_t workspace_floats(std::int64_t rows, const Threads& threads) const;

  // Rows lie x_stride and y_stride floats apart. x and y must not overlap. Works in `workspace`, workspace_floats of
  // them at a multiple of 64 bytes, or allocates them where it is null.
  void run(const float* x, std::int64_t rows, std::int64_t x_stride, float* y, std::int64_t y_stride,
           Activation activation = Activation::kNone, const Threads& threads = {}, float* workspace = nullptr) const;

  // Whether the instruction set in use rounds the rows, as the weights are.
  bool rounds_rows() const;
  // Where rounds_rows(): y rounded to BF16. `sums` is memory for rows as run would write them.
  void run_rounded(const float* x, std::int64_t rows, std::int64_t x_stride, float* sums, std::int64_t sums_stride,
                   bfloat16* y, std::int64_t y_stride, const Threads& threads = {}, float* workspace = nullptr) const;

 private:
  void run(kernels::LinearParams& params, std::int64_t rows, const Threads& threads, float* workspace) const;
  int workers(std::int64_t rows, const Threads& threads) const;

  std::int64_t in_ = 0;
  std::int64_t out_ = 0;
  int panel_ = 0;  // columns of a panel, as the instruction set wants them
  DType kept_ = DType::kF32;
  std::shared_ptr<float> packed_;    // as LinearParams says, zeros behind N
  base::AlignedBuffer<float> bias_;  // [N rounded up to panel], zeros where there is none
};

}  // namespace manyheads::layer
