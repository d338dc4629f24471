// One table of kernels for each of Highway's targets in MANYHEADS_TARGETS, which the including file names: this file is read
// once for each of them. The targets are spread over files because one of them takes a minute to compile.
#include <cstdint>

#include "kernels/dispatch.hpp"
#include "kernels/kernel_table.hpp"
#include "kernels/mask.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/isa/highway-inl.hpp"
#include "hwy/foreach_target.h"
// After it, so that the headers below are read for each target.
#include "hwy/highway.h"
#if (HWY_TARGET & (MANYHEADS_TARGETS)) != 0
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

std::int64_t LaneQueries(const AttentionCall&) { return kTileVectors * static_cast<std::int64_t>(LaneCount()); }

// Built on call: no code of this target runs before the machine was asked whether it can.
KernelTable Table() {
  const std::int64_t lanes = static_cast<std::int64_t>(LaneCount());
  return {.name = Name(),
          .target = HWY_TARGET,
          .panel = kPanelVectors * lanes,
          .linear_rows = kLinearRows,
          .bf16_products = false,
          .bf16_rows = false,
          .tile_queries = LaneQueries,
          .scratch_floats = ScratchFloats,
          .forward = ForwardTile<Floats>,
          .node_floats = NodeFloats<Floats>,
          .merge = MergeTile<Floats>,
          .weights = Weights,
          .linear = Linear,
          .layer_norm = LayerNorm,
          .fma_work = FmaWork,
          .read_work = ReadWork};
}

[[maybe_unused]] const TargetRegistration kRegistration{Name(), HWY_TARGET, Table};

#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_NEON
// The same with a unit that multiplies BF16 as it is.
template <class Unit>
struct Bf16Kernels {
  static bool Takes(const AttentionCall& call) {
    return call.type == DType::kBF16 && call.kv_type == DType::kBF16;
  }
  static void Forward(const AttentionCall& call, const Tile& tile, const ChunkRange& chunks, float* node,
                      float* scratch) {
    (Takes(call) ? ForwardTile<Unit> : ForwardTile<Floats>)(call, tile, chunks, node, scratch);
  }
  static std::int64_t TileQueries(const AttentionCall& call) {
    return Takes(call) && Unit::kTiles ? 4 * static_cast<std::int64_t>(kTileSide) : LaneQueries(call);
  }
  static std::size_t Node(const AttentionCall& call, const Tile& tile) {
    return (Takes(call) ? NodeFloats<Unit> : NodeFloats<Floats>)(call, tile);
  }
  static void Merge(const AttentionCall& call, const Tile& tile, float* nodes, std::int64_t count) {
    (Takes(call) ? MergeTile<Unit> : MergeTile<Floats>)(call, tile, nodes, count);
  }
  static KernelTable Named(const char* name) {
    KernelTable table = Table();
    table.name = name;
    table.bf16_products = true;
    table.tile_queries = TileQueries;
    table.forward = Forward;
    table.node_floats = Node;
    table.merge = Merge;
#if HWY_TARGET == HWY_AVX3
    if (!Unit::kTiles) {
      table.bf16_rows = true;
      table.linear = LinearBf16;
    }
#endif
    return table;
  }
};
#endif

// Highway has no target for these: they are asked for at run time beside the target's own bit.
#if HWY_TARGET == HWY_AVX3
const TargetRegistration kBf16Registration{
    "avx512_bf16", HWY_TARGET, [] { return Bf16Kernels<Pairs>::Named("avx512_bf16"); },
    [] { return bf16_dot_work() != nullptr; }, [] { return fast_bf16_products() ? -1 : 1; }};
const TargetRegistration kAmxRegistration{"amx_bf16", HWY_TARGET,
                                          [] { return Bf16Kernels<AmxTiles>::Named("amx_bf16"); }, has_amx_bf16,
                                          [] { return -2; }};
#elif HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_NEON
// Not for speed: so that the path over tiles is tested on every machine.
const TargetRegistration kTilesRegistration{"amx_emulated", HWY_TARGET,
                                            [] { return Bf16Kernels<EmulatedTiles>::Named("amx_emulated"); },
                                            [] { return true; }, [] { return 1; }};
#endif

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // MANYHEADS_TARGETS

#if HWY_ONCE
namespace manyheads::kernels {
void MANYHEADS_LINK() {}
}  // namespace manyheads::kernels
#endif
