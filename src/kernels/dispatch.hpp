#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/kernel_table.hpp"

namespace manyheads::kernels {

// One compiled instruction set: its name, Highway's bit for it (larger is simpler) and the maker of its table. Where it
// asks for more than that bit, also whether the machine has it, and its place beside the plain one of that bit: below 0
// goes before it. Filled in before main by each target's part of isa/.
struct TargetRegistration {
  TargetRegistration(const char* name, std::int64_t target, KernelTable (*table)(), bool (*has_more)() = nullptr,
                     int (*place)() = nullptr);
};

// The tables of the instruction sets that this machine runs, best first.
const std::vector<KernelTable>& available_tables();

// The one that calls use: set by name, by MANYHEADS_ISA, or the best. Throws Error on a name that is unknown or that
// the machine cannot run.
const KernelTable& active_table();
void set_active_table(const std::string& name);

// FLOP rate of the bf16 dot product (AVX-512 BF16) and of tiles (AMX), for the benchmarks: null where the machine has
// none.
using DotWork = double (*)(std::int64_t rounds, float* value);
DotWork bf16_dot_work();
DotWork amx_tile_work();
// Whether the dot product is faster than F32 on this machine: AMD starts two a cycle, Intel one in two cycles, half the
// FLOP of its multiply-adds (`manyheads bench` measures both). Never by the clock: the bits would follow it.
bool fast_bf16_products();
// Whether it multiplies bytes in vectors of 512 bits (VNNI).
bool has_vnni();
// Whether what is far ahead of few rows, keys or weights, is fetched into the second cache: where only few missing
// lines can be on their way to the first, fetching them holds up what is read. So it is on AMD before Zen 5 (Zen 4:
// decoding of F32 and BF16 takes a sixth to two fifths less time; on Zen 5 up to a sixth more).
bool fetches_into_second_cache();
// Whether this machine multiplies tiles of BF16, and its system lets this process do so.
bool has_amx_bf16();

}  // namespace manyheads::kernels
