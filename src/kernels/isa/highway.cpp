// One table of kernels for each of Highway's targets: this file is compiled once for each of them.
#include <cstdint>

#include "kernels/dispatch.hpp"
#include "kernels/kernel_table.hpp"
#include "kernels/mask.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/isa/highway.cpp"
#include "hwy/foreach_target.h"
// After it, so that the headers below are read for each target.
#include "hwy/highway.h"
#include "kernels/algorithm/forward-inl.hpp"
#include "kernels/algorithm/limits-inl.hpp"
#include "kernels/algorithm/linear-inl.hpp"
#include "kernels/algorithm/weights-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {

constexpr const char* Name() {
  return HWY_TARGET == HWY_AVX3   ? "avx512"
         : HWY_TARGET == HWY_AVX2 ? "avx2"
         : HWY_TARGET == HWY_SSE4 ? "sse4"
         : HWY_TARGET == HWY_NEON ? "neon"
                                  : "portable";
}

// Built on call: no code of this target runs before the machine was asked whether it can.
KernelTable Table() {
  const std::int64_t lanes = static_cast<std::int64_t>(LaneCount());
  return {.name = Name(),
          .target = HWY_TARGET,
          .tile_queries = kTileVectors * lanes,
          .panel = kPanelVectors * lanes,
          .linear_rows = kLinearRows,
          .bf16_products = false,
          .scratch_floats = ScratchFloats,
          .forward = ForwardTile<Floats>,
          .node_floats = NodeFloats,
          .merge = MergeTile,
          .weights = Weights,
          .linear = Linear,
          .layer_norm = LayerNorm,
          .fma_work = FmaWork,
          .read_work = ReadWork};
}

[[maybe_unused]] const TargetRegistration kRegistration{Name(), HWY_TARGET, Table, nullptr};

#if HWY_TARGET == HWY_AVX3
// The same with the dot product of BF16 pairs, which Highway has no target for.
void ForwardBf16(const AttentionCall& call, const Tile& tile, const ChunkRange& chunks, float* node, float* scratch) {
  if (call.type == DType::kBF16 && call.kv_type == DType::kBF16) return ForwardTile<Pairs>(call, tile, chunks, node, scratch);
  ForwardTile<Floats>(call, tile, chunks, node, scratch);
}

KernelTable Bf16Table() {
  KernelTable table = Table();
  table.name = "avx512_bf16";
  table.bf16_products = true;
  table.forward = ForwardBf16;
  table.linear = LinearBf16;
  return table;
}

const TargetRegistration kBf16Registration{"avx512_bf16", HWY_TARGET, Bf16Table,
                                           [] { return bf16_dot_work() != nullptr; }};
#endif

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace manyheads::kernels {
void link_highway_targets() {}
}  // namespace manyheads::kernels
#endif
