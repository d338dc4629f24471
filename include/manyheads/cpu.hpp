#pragma once

#include <string>
#include <vector>

#include <manyheads/export.hpp>
#include <manyheads/tensor.hpp>

namespace manyheads {

// The instruction sets that this build holds and this machine runs, best first: "avx512", "avx2", "sse4", "neon",
// "wasm", "portable". For tensors of BF16 also:
// - "amx_bf16": tiles;
// - "avx512_bf16": dot products; before "avx512" only where they are faster than F32, on AMD;
// - "amx_emulated_avx512", "amx_emulated": the bits of "amx_bf16" without tiles, slowly.
MANYHEADS_API std::vector<std::string> available_isas();

// The instruction set that calls use: the one given to set_isa, else the one that MANYHEADS_ISA names, else the best.
// Throws Error where the name is unknown or the machine lacks it.
MANYHEADS_API std::string active_isa();

// Chooses the instruction set of all later calls of this process; "" goes back to the default. Not while another call
// runs.
MANYHEADS_API void set_isa(const std::string& name);

// The family of bits of calls on tensors of that type at the instruction set in use; kI8 asks for int8_products. Calls
// with equal inputs and one family give equal bits on every machine, whatever the threads, the batch and the strides.
// Of a NaN only that it is one.
// - "f32-fma-1": F32, and BF16, F16 and I8 read as F32; multiply-adds round once. avx512, avx2, neon; portable is its
//   definition, slowly.
// - "f32-unfused-1": the same with products rounded by themselves. sse4, wasm.
// - "bf16-pairs-1", BF16 at avx512_bf16: AVX-512's dot products, whose sums know no denormals.
// - "bf16-tiles-1", BF16 at amx_bf16 and its emulations: tiles, likewise.
// - "f32-tiles-1", F32 at amx_bf16 and its emulations: tiles of BF16 pieces, within F32's bounds. Never unasked: only
//   options.bits gives it. Gradients have no such family.
// - "int8-fma-1", "int8-unfused-1": int8_products.
// The number moves when a release changes a bit. options.bits asks for a family.
MANYHEADS_API std::string active_bits(DType dtype = DType::kF32);

}  // namespace manyheads
