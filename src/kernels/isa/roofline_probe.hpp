#pragma once

#include <cstdint>

namespace manyheads::kernels {

// Work that one unit of the machine alone limits, of instructions beyond Highway's targets. Returns the operations
// done, a multiplication and an addition each; `value` keeps the compiler from dropping them.
using ArithmeticProbe = double (*)(std::int64_t rounds, float* value);

// The BF16 dot product (AVX-512 BF16), BF16 tiles (AMX) and the dot product of bytes (AVX-512 VNNI). Null where the
// machine has none.
ArithmeticProbe bf16_dot_probe();
ArithmeticProbe amx_tile_probe();
ArithmeticProbe int8_dot_probe();

}  // namespace manyheads::kernels
