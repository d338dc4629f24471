// One table of kernels for each of Highway's targets in MANYHEADS_TARGETS, which the including file names: this file is read
// once for each of them. The targets are spread over files because one of them takes a minute to compile.
#include <cstdint>
#include <type_traits>

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
#include "kernels/algorithm/head_copy-inl.hpp"
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

// The forward of a table whose attention over BF16 multiplies with a unit.
template <class Bf16>
struct Forms {
  // visit(unit) with the unit that a call takes.
  template <class Visit>
  static auto With(const AttentionCall& call, Visit&& visit) {
    if (call.int8_products) {
#if HWY_TARGET == HWY_AVX3
      if (has_vnni()) return visit(VnniQuads());
#endif
      return visit(Quads());
    }
    if (!call.pairs()) return visit(Floats());
#if HWY_TARGET == HWY_AVX3
    if constexpr (std::is_same_v<Bf16, Pairs>) {
      if (call.kv_type == DType::kI8) return visit(BytePairs());
    }
#endif
    return visit(Bf16());
  }
  static void Forward(const AttentionCall& call, const Tile& tile, const KeyPart& part, const Tile& next, float* node,
                      float* scratch) {
    With(call, [&]<class Unit>(Unit) { ForwardTile<Unit>(call, tile, part, next, node, scratch); });
  }
  static std::int64_t TileQueries(const AttentionCall& call) {
    return With(call, []<class Unit>(Unit) {
      return Unit::kRowsOnly ? std::int64_t{Unit::kFewRows}
             : Unit::kTiles  ? 4 * static_cast<std::int64_t>(kTileSide)
                             : kTileVectors * static_cast<std::int64_t>(LaneCount());
    });
  }
  static std::size_t Head(const AttentionCall& call) {
    return With(call, [&]<class Unit>(Unit) { return HeadFloats<Unit>(call); });
  }
  static void Copy(const AttentionCall& call, const Tile& tile, std::int64_t keys, float* to) {
    With(call, [&]<class Unit>(Unit) { Gather<Unit>(call, tile, keys, to); });
  }
  static AttentionCall OnCopy(const AttentionCall& call, const float* from) {
    return With(call, [&]<class Unit>(Unit) { return Gathered<Unit>(call, from); });
  }
  static std::size_t Node(const AttentionCall& call, const Tile& tile) {
    return With(call, [&]<class Unit>(Unit) { return NodeFloats<Unit>(call, tile); });
  }
  static void Merge(const AttentionCall& call, const Tile& tile, float* nodes, std::int64_t count) {
    With(call, [&]<class Unit>(Unit) { MergeTile<Unit>(call, tile, nodes, count); });
  }
};

// Built on call: no code of this target runs before the machine was asked whether it can.
template <class Bf16>
KernelTable Table(const char* name) {
  const std::int64_t lanes = static_cast<std::int64_t>(LaneCount());
  KernelTable table{.name = name,
                    .target = HWY_TARGET,
                    .panel = kPanelVectors * lanes,
                    .linear_rows = kLinearRows,
                    .bf16_products = !std::is_same_v<Bf16, Floats>,
                    .bf16_rows = false,
                    .linear_floats = 0,
                    .tile_queries = Forms<Bf16>::TileQueries,
                    .scratch_floats = ScratchFloats,
                    .forward = Forms<Bf16>::Forward,
                    .node_floats = Forms<Bf16>::Node,
                    .merge = Forms<Bf16>::Merge,
                    .weights = Weights,
                    .head_floats = Forms<Bf16>::Head,
                    .gather = Forms<Bf16>::Copy,
                    .gathered = Forms<Bf16>::OnCopy,
                    .linear = Linear,
                    .layer_norm = LayerNorm,
                    .fma_work = FmaWork,
                    .read_work = ReadWork};
#if HWY_TARGET == HWY_AVX3
  if (std::is_same_v<Bf16, Pairs>) {
    table.bf16_rows = true;
    table.linear_floats = kPairsWords;
    table.linear = LinearBf16;
  }
#endif
  return table;
}

[[maybe_unused]] const TargetRegistration kRegistration{Name(), HWY_TARGET, [] { return Table<Floats>(Name()); }};

// Highway has no target for these: they are asked for at run time beside the target's own bit.
#if HWY_TARGET == HWY_AVX3
const TargetRegistration kBf16Registration{"avx512_bf16", HWY_TARGET, [] { return Table<Pairs>("avx512_bf16"); },
                                           [] { return bf16_dot_work() != nullptr; },
                                           [] { return fast_bf16_products() ? -1 : 1; }};
const TargetRegistration kAmxRegistration{"amx_bf16", HWY_TARGET, [] { return Table<AmxTiles>("amx_bf16"); },
                                          has_amx_bf16, [] { return -2; }};
#elif HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_NEON
// Not for speed: so that the path over tiles is tested on every machine.
const TargetRegistration kTilesRegistration{"amx_emulated", HWY_TARGET,
                                            [] { return Table<EmulatedTiles>("amx_emulated"); }, [] { return true; },
                                            [] { return 1; }};
#endif

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // MANYHEADS_TARGETS

#if HWY_ONCE
namespace manyheads::kernels {
void MANYHEADS_LINK() {}
}  // namespace manyheads::kernels
#endif
