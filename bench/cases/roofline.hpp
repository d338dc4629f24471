#pragma once

#include <cstddef>
#include <cstdint>

#include "base/aligned_buffer.hpp"
#include "kernels/kernel_table.hpp"

namespace manyheads::bench {

// Bytes that no cache holds: twice the last one, and never much of the memory.
std::size_t beyond_caches();

// Samples of the most that this machine can do. Each takes some milliseconds. Machines drift: take samples in turn with
// what they are compared to, and use the median or the best.
class Roofline {
 public:
  // GFLOP/s of work that only arithmetic limits: a table's fma_probe, or kernels::bf16_dot_probe(). Runs for at least
  // `least` seconds: as long as what it is compared to, so that both see the same share of a busy machine.
  using Work = double (*)(std::int64_t rounds, float* value);
  double arithmetic(Work work, int threads, double least = 4e-3);
  // GB/s of reading beyond_caches(), each vector multiplied and added so many times meanwhile: a multiple of 8.
  double memory(const kernels::KernelTable& table, int threads, int multiplies = 0);
  // The same in pieces of so many bytes, a multiple of 512, that follow each other in no order. They are fetched some
  // pieces before they are read.
  double memory_in_pieces(const kernels::KernelTable& table, int threads, std::size_t bytes);

 private:
  // GB/s of read(begin, end) over [0, count) in parts.
  template <class Read>
  double reading(std::int64_t count, int threads, const Read& read);
  const float* memory_to_read();
  base::AlignedBuffer<float> memory_;
};

}  // namespace manyheads::bench
