#include "kernels/dispatch.hpp"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <map>

#include <manyheads/cpu.hpp>
#include <manyheads/error.hpp>

#include "hwy/highway.h"
#include "hwy/targets.h"
#include "kernels/isa/processor.hpp"

namespace manyheads {
namespace kernels {

// Each is empty. Naming it keeps its unit, units/*.cpp, in a static link.
void link_avx512_attention_f32();
void link_avx512_attention_bf16();
void link_avx512_attention_int8();
void link_avx512_attention_amx();
void link_avx512_attention_amx_emulated();
void link_avx512_linear();
void link_avx512_head_pass();
void link_avx2_attention_f32();
void link_avx2_attention_int8();
void link_avx2_attention_amx_emulated();
void link_avx2_linear();
void link_avx2_head_pass();
void link_other_attention_f32();
void link_other_attention_int8();
void link_other_attention_amx_emulated();
void link_other_linear();
void link_other_head_pass();

namespace {

void link_units() {
  link_avx512_attention_f32();
  link_avx512_attention_bf16();
  link_avx512_attention_int8();
  link_avx512_attention_amx();
  link_avx512_attention_amx_emulated();
  link_avx512_linear();
  link_avx512_head_pass();
  link_avx2_attention_f32();
  link_avx2_attention_int8();
  link_avx2_attention_amx_emulated();
  link_avx2_linear();
  link_avx2_head_pass();
  link_other_attention_f32();
  link_other_attention_int8();
  link_other_attention_amx_emulated();
  link_other_linear();
  link_other_head_pass();
}

using Fill = void (*)(TargetKernels&);

// What the units registered, by Highway's target.
std::map<std::int64_t, std::vector<Fill>>& units() {
  static std::map<std::int64_t, std::vector<Fill>> map;
  return map;
}

// How an instruction set multiplies BF16.
enum class Bf16 { kAsF32, kPairs, kTiles, kEmulatedTiles };

// An instruction set: one of Highway's targets, and what it needs beyond that target.
struct Isa {
  const char* name;
  std::int64_t target;
  Bf16 bf16;
  bool (*has_more)();
};

bool always() { return true; }
bool has_fast_bf16_products() { return has_bf16_products() && fast_bf16_products(); }
bool has_slow_bf16_products() { return has_bf16_products() && !fast_bf16_products(); }

constexpr std::int64_t kWasm = HWY_WASM | HWY_WASM_EMU256;
constexpr std::int64_t kNamedTargets = HWY_AVX3 | HWY_AVX2 | HWY_SSE4 | HWY_NEON | kWasm;
// Those without fused multiply-adds. Each other target's bits are those of the portable one, which calls std::fma.
constexpr std::int64_t kUnfused = HWY_SSE4 | kWasm;

// Best first. The emulation of tiles is not for speed: it lets every machine test the path over tiles, and has its
// bits.
constexpr Isa kIsas[] = {
    {"amx_bf16", HWY_AVX3, Bf16::kTiles, has_amx_bf16},
    {"avx512_bf16", HWY_AVX3, Bf16::kPairs, has_fast_bf16_products},
    {"avx512", HWY_AVX3, Bf16::kAsF32, always},
    {"avx512_bf16", HWY_AVX3, Bf16::kPairs, has_slow_bf16_products},
    {"amx_emulated_avx512", HWY_AVX3, Bf16::kEmulatedTiles, always},
    {"avx2", HWY_AVX2, Bf16::kAsF32, always},
    {"amx_emulated", HWY_AVX2, Bf16::kEmulatedTiles, always},
    {"sse4", HWY_SSE4, Bf16::kAsF32, always},
    {"neon", HWY_NEON, Bf16::kAsF32, always},
    {"amx_emulated", HWY_NEON, Bf16::kEmulatedTiles, always},
    {"wasm", kWasm, Bf16::kAsF32, always},
    {"portable", ~kNamedTargets, Bf16::kAsF32, always},
};

KernelTable table_of(const Isa& isa, std::int64_t target) {
  TargetKernels kernels;
  for (const Fill fill : units().at(target)) fill(kernels);
  const bool pairs = isa.bf16 == Bf16::kPairs;
  const bool fused = (target & kUnfused) == 0;
  const char* const f32_bits = fused ? "f32-fma-1" : "f32-unfused-1";
  const char* const int8_bits = fused ? "int8-fma-1" : "int8-unfused-1";
  const AttentionKernels& bf16 = pairs                              ? kernels.bf16
                                 : isa.bf16 == Bf16::kTiles         ? kernels.amx
                                 : isa.bf16 == Bf16::kEmulatedTiles ? kernels.amx_emulated
                                                                    : kernels.f32;
  return {.name = isa.name,
          .target = target,
          .f32 = kernels.f32,
          .bf16 = bf16,
          .bf16_int8 = pairs ? kernels.bf16_int8 : bf16,
          .int8 = kernels.int8_vnni.forward != nullptr && has_vnni() ? kernels.int8_vnni : kernels.int8,
          .bf16_products = isa.bf16 != Bf16::kAsF32,
          .probs = kernels.probs,
          .states = kernels.states,
          .head_pass = kernels.head_pass,
          .linear = pairs ? kernels.linear_bf16 : kernels.linear,
          .split_linear = {},
          .pack_weights = kernels.pack_weights,
          .cache_row = kernels.cache_row,
          .layer_norm = kernels.layer_norm,
          .rms_norm = kernels.rms_norm,
          .rotary = kernels.rotary,
          .swiglu = kernels.swiglu,
          .probes = kernels.probes,
          .bits = {f32_bits,
                   pairs                      ? "bf16-pairs-1"
                   : isa.bf16 == Bf16::kAsF32 ? f32_bits
                                              : "bf16-tiles-1",
                   int8_bits},
          .unsplit = nullptr};
}

// The same where F32 is multiplied through its tiles: a family of bits that is asked for by name.
KernelTable split_table_of(const Isa& isa, const KernelTable& table) {
  TargetKernels kernels;
  for (const Fill fill : units().at(table.target)) fill(kernels);
  const bool emulated = isa.bf16 == Bf16::kEmulatedTiles;
  KernelTable split = table;
  split.f32 = emulated ? kernels.f32_amx_emulated : kernels.f32_amx;
  split.split_linear = emulated ? kernels.linear_amx_emulated : kernels.linear_amx;
  split.bits[static_cast<int>(Products::kF32)] = "f32-tiles-1";
  split.unsplit = &table;
  return split;
}

// Calls visit(isa, target) for each instruction set of this build, best first.
template <class Visit>
void each_built(Visit&& visit) {
  link_units();
  for (const Isa& isa : kIsas) {
    for (const auto& [target, fills] : units()) {
      if ((target & isa.target) != 0) visit(isa, target);
    }
  }
}

std::string names(const std::vector<std::string>& list) {
  std::string text;
  for (const std::string& name : list) text += (text.empty() ? "" : ", ") + name;
  return text;
}

const KernelTable& table_named(const std::string& name, const std::string& where) {
  for (const KernelTable& table : available_tables()) {
    if (name == table.name) return table;
  }
  std::vector<std::string> built;
  each_built([&](const Isa& isa, std::int64_t) {
    if (std::find(built.begin(), built.end(), isa.name) == built.end()) built.emplace_back(isa.name);
  });
  if (std::find(built.begin(), built.end(), name) != built.end()) {
    throw Error(ErrorCode::kUnsupported, where + ": this machine does not run the instruction set " + name +
                                             "; it runs " + names(available_isas()));
  }
  throw Error(ErrorCode::kInvalidArgument,
              where + ": no instruction set is called \"" + name + "\"; this build has " + names(built));
}

std::atomic<const KernelTable*> g_active{nullptr};
thread_local const KernelTable* t_scoped = nullptr;

}  // namespace

UnitRegistration::UnitRegistration(std::int64_t target, void (*fill)(TargetKernels&)) {
  units()[target].push_back(fill);
}

const std::vector<KernelTable>& available_tables() {
  static const std::vector<KernelTable> tables = [] {
    // What the compiler may use everywhere runs here. Highway does not count NEON without AES.
    const std::int64_t runs = hwy::SupportedTargets() | HWY_STATIC_TARGET;
    std::vector<KernelTable> list;
    each_built([&](const Isa& isa, std::int64_t target) {
      if ((runs & target) == 0 || !isa.has_more()) return;
      const KernelTable table = table_of(isa, target);
      if (table.bf16.forward != nullptr) list.push_back(table);  // else a build without these tiles
    });
    return list;
  }();
  return tables;
}

const KernelTable& active_table() {
  if (t_scoped != nullptr) return *t_scoped;
  const KernelTable* active = g_active.load(std::memory_order_acquire);
  if (active == nullptr) {
    const char* forced = std::getenv("MANYHEADS_ISA");
    active = forced != nullptr && *forced != '\0' ? &table_named(forced, std::string("MANYHEADS_ISA=") + forced)
                                                  : &available_tables().front();
    g_active.store(active, std::memory_order_release);
  }
  return *active;
}

void set_active_table(const std::string& name) {
  g_active.store(name.empty() ? nullptr : &table_named(name, "set_isa"), std::memory_order_release);
}

namespace {

const std::vector<KernelTable>& split_tables() {
  static const std::vector<KernelTable> tables = [] {
    std::vector<KernelTable> list;
    for (const KernelTable& table : available_tables()) {
      each_built([&](const Isa& isa, std::int64_t target) {
        const bool tiles = isa.bf16 == Bf16::kTiles || isa.bf16 == Bf16::kEmulatedTiles;
        if (tiles && target == table.target && table.name == std::string_view(isa.name)) {
          list.push_back(split_table_of(isa, table));
        }
      });
    }
    return list;
  }();
  return tables;
}

}  // namespace

const KernelTable& table_with(const char* function, std::string_view bits, Products products) {
  const KernelTable& active = active_table();
  if (bits.empty() || bits == active.bits_of(products)) return active;
  std::vector<std::string> others;
  const auto find = [&](const std::vector<KernelTable>& tables) -> const KernelTable* {
    for (const KernelTable& table : tables) {
      if (bits != table.bits_of(products)) continue;
      if (table.target == active.target) return &table;
      others.emplace_back(table.name);
    }
    return nullptr;
  };
  if (const KernelTable* found = find(available_tables())) return *found;
  if (products == Products::kF32) {
    if (const KernelTable* found = find(split_tables())) return *found;
  }
  constexpr const char* kWhat[] = {"F32 products", "BF16 tensors", "int8_products"};
  throw Error(
      ErrorCode::kUnsupported,
      std::string(function) + ": bits \"" + std::string(bits) + "\" cannot be had of " +
          kWhat[static_cast<int>(products)] + " at " + active.name + ", which gives " + active.bits_of(products) +
          (others.empty() ? "" : "; " + names(others) + (others.size() == 1 ? " has" : " have") + " it (set_isa)"));
}

TableScope::TableScope(const KernelTable& table) noexcept : before_(t_scoped) { t_scoped = &table; }
TableScope::~TableScope() { t_scoped = before_; }

}  // namespace kernels

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const kernels::KernelTable& table : kernels::available_tables()) names.emplace_back(table.name);
  return names;
}

std::string active_isa() { return kernels::active_table().name; }

std::string active_bits(DType dtype) {
  return kernels::active_table().bits_of(dtype == DType::kBF16 ? kernels::Products::kBF16
                                         : dtype == DType::kI8 ? kernels::Products::kInt8
                                                               : kernels::Products::kF32);
}

void set_isa(const std::string& name) { kernels::set_active_table(name); }

}  // namespace manyheads
