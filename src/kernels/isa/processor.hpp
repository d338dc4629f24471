#pragma once

#include <cstdint>

// What depends on the processor beside Highway's targets.
namespace manyheads::kernels {

// FLOP rate of the BF16 dot product (AVX-512 BF16) and of tiles (AMX), for the benchmarks: null where the machine has
// none.
using ArithmeticProbe = double (*)(std::int64_t rounds, float* value);
ArithmeticProbe bf16_dot_probe();
ArithmeticProbe amx_tile_probe();

// AVX-512 BF16, and whether its dot product is faster than F32 on this machine: AMD starts two a cycle, Intel one in
// two cycles, half the FLOP of its multiply-adds (`manyheads bench` measures both). Never by the clock: the bits would
// follow it.
bool has_bf16_products();
bool fast_bf16_products();
// Products of bytes in vectors of 512 bits (VNNI).
bool has_vnni();
// Products of BF16 tiles, which the system lets this process use.
bool has_amx_bf16();
// AMD before Zen 5, where only few missing lines can be on their way to L1.
bool prefetches_into_l2();

}  // namespace manyheads::kernels
