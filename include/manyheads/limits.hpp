#pragma once

#include <cstdint>
#include <string>

#include <manyheads/export.hpp>
#include <manyheads/parallel.hpp>

namespace manyheads {

// What bounds attention on this machine, as measured. GFLOP/s and GB/s: 1e9 a second, a multiply-add is 2 FLOP. A rate
// of what the machine lacks is 0.
struct MANYHEADS_API Limits {
  std::string isa;                   // the instruction set in use (active_isa), which multiplies F32 and reads
  int threads = 1;                   // asked of the executor or the pool, for all rates but the one of one thread
  double fma_gflops = 0;             // F32 multiply-adds
  double bf16_dot_gflops = 0;        // dot products of BF16 (AVX-512 BF16)
  double bf16_tile_gflops = 0;       // products of BF16 tiles (AMX), "amx_bf16"
  double int8_dot_gflops = 0;        // dot products of bytes (AVX-512 VNNI), as of int8_products
  double memory_gbs = 0;             // reads of memory that no cache holds
  double memory_gbs_one_thread = 0;  // the same on one thread
  // Caches in bytes: L1 for data and L2 of one core, the whole L3. Defaults of 32 KB, 1 MB and 32 MB where the system
  // does not say.
  std::int64_t l1_bytes = 0, l2_bytes = 0, l3_bytes = 0;

  std::string to_string() const;  // all of it in one sentence
};

// Measures them, in a second or two on all threads. Each rate is the best of up to five samples taken in turn; whatever
// else runs lowers it. Keep the result, nothing is kept here.
// - Allocates the memory that it reads, twice the last cache (256 MB to 1 GB, an eighth of the machine's at most), and
//   frees it.
// - Thread-safe, but two at once share the machine, and what they measure.
// Throws Error: num_threads below 0, kOutOfMemory, and what active_isa throws.
MANYHEADS_API Limits limits(const Threads& threads = {});

}  // namespace manyheads
