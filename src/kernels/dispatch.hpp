#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/kernel_table.hpp"

namespace manyheads::kernels {

// One compiled instruction set: its name, Highway's bit for it (larger is simpler) and the maker of its table. Filled
// in before main by each target's part of isa/.
struct TargetRegistration {
  TargetRegistration(const char* name, std::int64_t target, KernelTable (*table)());
};

// The tables of the instruction sets that this machine runs, best first.
const std::vector<KernelTable>& available_tables();

// The one that calls use: set by name, by MANYHEADS_ISA, or the best. Throws Error on a name that is unknown or that
// the machine cannot run.
const KernelTable& active_table();
void set_active_table(const std::string& name);

// FLOP rate of the bf16 dot product (AVX-512 BF16), for the benchmarks: null where the machine has none.
using DotWork = double (*)(std::int64_t rounds, float* value);
DotWork bf16_dot_work();

}  // namespace manyheads::kernels
