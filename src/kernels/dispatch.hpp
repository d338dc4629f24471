#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/kernel_table.hpp"

namespace manyheads::kernels {

// What the units in units/ compile for one of Highway's targets. A kernel that a target lacks is all null.
struct TargetKernels {
  AttentionKernels f32{}, bf16{}, bf16_int8{}, int8{}, int8_vnni{}, amx{}, amx_emulated{};
  AttentionKernels f32_amx{}, f32_amx_emulated{};
  SplitLinearKernels linear_amx{}, linear_amx_emulated{};
  ProbsKernel probs = nullptr;
  StatesKernels states{};
  HeadPassKernels head_pass{};
  LinearKernels linear{}, linear_bf16{};
  PackWeightsKernel pack_weights = nullptr;
  CacheRowKernel cache_row = nullptr;
  NormKernel layer_norm = nullptr;
  RmsNormKernel rms_norm = nullptr;
  RotaryKernel rotary = nullptr;
  SwiGluKernel swiglu = nullptr;
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

// A table of the active one's vectors that gives a family of bits for such products: the active one where it does.
// `bits` empty: the active one. Throws Error that names the function and what can be had.
const KernelTable& table_with(const char* function, std::string_view bits, Products products);

// While it lives, active_table() is this table on this thread.
class TableScope {
 public:
  explicit TableScope(const KernelTable& table) noexcept;
  ~TableScope();
  TableScope(const TableScope&) = delete;
  TableScope& operator=(const TableScope&) = delete;

 private:
  const KernelTable* before_;
};

}  // namespace manyheads::kernels
