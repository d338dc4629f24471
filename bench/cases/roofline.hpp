#pragma once

#include <cstddef>
#include <cstdint>

#include "base/aligned_buffer.hpp"
#include "kernels/kernel_table.hpp"

namespace manyheads::bench {

// Bytes that no cache holds: twice the last cache, and at most an eighth of the memory.
std::size_t beyond_caches();

// Samples of this machine's roofline, some milliseconds each. Machines drift: take them in turn with what is compared
// to them, and use the median or the best.
class Roofline {
 public:
  // GFLOP/s of work that only arithmetic bounds: a table's probes.fma, or kernels::bf16_dot_probe(). Runs for at least
  // `least` seconds; as long as what it is compared to, both see the same share of a busy machine.
  using Work = double (*)(std::int64_t rounds, float* value);
  double arithmetic(Work work, int threads, double least = 4e-3);
  // GB/s of reading beyond_caches() bytes. Each vector takes part in `multiplies` FMAs, a multiple of 8.
  double memory(const kernels::KernelTable& table, int threads, int multiplies = 0);
  // The same in pieces of `bytes`, a multiple of 512, in random order, with prefetch some pieces ahead.
  double memory_in_pieces(const kernels::KernelTable& table, int threads, std::size_t bytes);

 private:
  // GB/s of read(begin, end) over the parts of [0, count).
  template <class Read>
  double reading(std::int64_t count, int threads, const Read& read);
  const float* memory_to_read();
  base::AlignedBuffer<float> memory_;
};

}  // namespace manyheads::bench
