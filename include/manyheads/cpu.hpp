#pragma once

#include <string>
#include <vector>

#include <manyheads/export.hpp>

namespace manyheads {

// The instruction sets that this build holds and this machine runs, best first: "avx512", "avx2", "sse4", "neon",
// "portable". For tensors of BF16 also:
// - "amx_bf16": tiles;
// - "avx512_bf16": dot products; before "avx512" only where they are faster than F32, on AMD;
// - "amx_emulated_avx512": the bits of "amx_bf16" without tiles, slowly;
// - "amx_emulated": emulated tiles on other machines, slowly.
MANYHEADS_API std::vector<std::string> available_isas();

// The instruction set that calls use: the one given to set_isa, else the one that MANYHEADS_ISA names, else the best.
// Throws Error where the name is unknown or the machine lacks it.
MANYHEADS_API std::string active_isa();

// Chooses the instruction set of all later calls of this process; "" goes back to the default. Not while another call
// runs.
MANYHEADS_API void set_isa(const std::string& name);

}  // namespace manyheads
