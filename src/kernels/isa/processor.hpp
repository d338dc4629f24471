#pragma once

#include <string>

// What depends on the processor beyond Highway's targets.
namespace manyheads::kernels {

// AVX-512 BF16, and whether its dot product beats F32 here. AMD starts two a cycle, Intel one in two cycles: half the
// FLOP of its multiply-adds (`manyheads bench` measures both). Never decided by the clock: the bits would follow it.
bool has_bf16_products();
bool fast_bf16_products();
// Byte products (VNNI) in 512-bit vectors.
bool has_vnni();
// BF16 tiles, which the system lets this process use.
bool has_amx_bf16();

// What decides over them. `refused`: the errno with which Linux keeps their state from this process, 0: it grants it.
struct TileFacts {
  bool tiles = false, bf16 = false;
  bool bf16_products = false;  // AVX-512 BF16, by which operands are packed for them
  bool state_kept = false;     // by the system, over a change of threads
  int refused = 0;
};
// Why a processor that has tiles multiplies no BF16 by them; empty where it does, and where it has none.
std::string why_no_tiles(const TileFacts& facts);
const std::string& why_no_tiles();  // here
// Whether only few missing lines can be on their way to L1: AMD before Zen 5.
bool prefetches_into_l2();

}  // namespace manyheads::kernels
