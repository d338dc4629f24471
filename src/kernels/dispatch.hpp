#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/kernel_table.hpp"

namespace manyheads::kernels {

// What the units in units/ compile for one of Highway's targets. A kernel that a target lacks is all null.
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

// Adds what a unit compiled for a target, before main. `fill` runs code of that target, so it is called only on
// machines that have it.
struct UnitRegistration {
  UnitRegistration(std::int64_t target, void (*fill)(TargetKernels&));
};

// The tables of the instruction sets that this machine runs, best first.
const std::vector<KernelTable>& available_tables();

// The table that calls use: the one set by name, else the one that MANYHEADS_ISA names, else the best. Throws Error
// where the name is unknown or the machine cannot run it.
const KernelTable& active_table();
void set_active_table(const std::string& name);

}  // namespace manyheads::kernels
