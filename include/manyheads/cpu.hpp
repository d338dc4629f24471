#pragma once

#include <string>
#include <vector>

#include <manyheads/export.hpp>

namespace manyheads {

// Instruction sets this build holds and this machine runs, best first: "avx512", "avx2", "sse4", "neon", "portable"; for
// tensors of BF16 also "amx_bf16" (tiles), "avx512_bf16" (dot products; before "avx512" only where they are faster than
// F32, on AMD) and "amx_emulated", which computes the bits of tiles without them, slowly.
MANYHEADS_API std::vector<std::string> available_isas();

// The one that calls use: the best, or the one named by the environment variable MANYHEADS_ISA, or set_isa's.
// Throws Error when the name is unknown or the machine lacks it.
MANYHEADS_API std::string active_isa();

// Chooses for all later calls of this process; "" goes back to the default. Not while another call runs.
MANYHEADS_API void set_isa(const std::string& name);

}  // namespace manyheads
