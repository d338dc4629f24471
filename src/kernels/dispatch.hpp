#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/kernel_table.hpp"

namespace manyheads::kernels {

// What the units of isa/ compile for one of Highway's targets. A kernel that a target lacks is all null.
struct TargetKernels {
  AttentionKernels f32{}, bf16{}, bf16_int8{}, int8{}, int8_vnni{}, amx{}, amx_emulated{};
  ProbsKernel probs = nullptr;
  StatesKernels states{};
  LinearKernels linear{}, linear_bf16{};
  PackWeightsKernel pack_weights = nullptr;
  CacheRowKernel cache_row = nullptr;
  NormKernel layer_norm = nullptr;
  RooflineProbes probes{};
};

// A unit of isa/ adds what it compiled for a target, before main. `fill` runs code of that target: it is called only
// where the machine has it.
struct UnitRegistration {
  UnitRegistration(std::int64_t target, void (*fill)(TargetKernels&));
};

// The tables of the instruction sets that this machine runs, best first.
const std::vector<KernelTable>& available_tables();

// The one that calls use: set by name, by MANYHEADS_ISA, or the best. Throws Error on a name that is unknown or that
// the machine cannot run.
const KernelTable& active_table();
void set_active_table(const std::string& name);

}  // namespace manyheads::kernels
