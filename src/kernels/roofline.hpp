#pragma once

#include <cstddef>
#include <cstdint>
#include <manyheads/parallel.hpp>

#include "base/aligned_buffer.hpp"
#include "kernels/isa/roofline_probe.hpp"
#include "kernels/kernel_table.hpp"

namespace manyheads::kernels {

// Samples of this machine's roofline, some milliseconds each. Machines drift: take them in turn with what is compared
// to them, and use the median or the best.
class Roofline {
 public:
  // On the executor's threads; null: on the library's pool.
  explicit Roofline(Executor* executor = nullptr) : executor_(executor) {}
  // GFLOP/s of work that only arithmetic bounds: a table's probes.fma, or kernels::bf16_dot_probe(). Runs for at least
  // `least` seconds; as long as what it is compared to, both see the same share of a busy machine.
  double arithmetic(ArithmeticProbe work, int threads, double least = 4e-3);
  // GB/s of reading memory that no cache holds (beyond_caches): twice the last cache, and at most an eighth of the
  // memory. Each vector takes part in `multiplies` FMAs, a multiple of 8.
  double memory(const KernelTable& table, int threads, int multiplies = 0);
  // The same in pieces of `bytes`, a multiple of 512, in random order, with prefetch some pieces ahead.
  double memory_in_pieces(const KernelTable& table, int threads, std::size_t bytes);

 private:
  // GB/s of read(begin, end) over the parts of [0, count).
  template <class Read>
  double reading(std::int64_t count, int threads, const Read& read);
  const float* memory_to_read();
  Executor* executor_;
  base::AlignedBuffer<float> memory_;
};

// Bytes that no cache holds, as Roofline::memory reads. In WebAssembly, where nothing tells of caches, 64 MiB.
std::size_t beyond_caches();

}  // namespace manyheads::kernels
