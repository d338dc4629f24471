// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_FORWARD_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_FORWARD_INL_HPP
#undef MANYHEADS_FORWARD_INL_HPP
#else
#define MANYHEADS_FORWARD_INL_HPP
#endif

#include <algorithm>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/algorithm/few_rows-inl.hpp"
#include "kernels/algorithm/lanes-inl.hpp"
#include "kernels/algorithm/merge-inl.hpp"
#include "kernels/kernel_table.hpp"

// The fused forward: online softmax over runs of 64 keys, chunks of 512, chunks merged in a fixed tree. What a row
// computes depends on itself only, at fixed key positions: a run or chunk that is skipped leaves the same bits as one
// whose keys are all forbidden to the row. Many rows lie in the vector lanes (ForwardLanes); for a few of them, as in
// decoding, keys and values do (ForwardRows).
HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Vectors of the lanes of so many tiles side by side.
constexpr int SideVectors(int sides) { return sides * static_cast<int>(kTileSide) / static_cast<int>(HWY_LANES(float)); }

// The kernel for `count` vectors or rows, N at most. Where only rows there are, a power of two: the places between see
// no key.
template <class Unit, template <class, int> class Kernel, int N, class... Args>
HWY_INLINE float* WithCount(std::size_t count, Args&&... args) {
  if constexpr (N > 1) {
    constexpr int kLess = Unit::kRowsOnly ? N / 2 : N - 1;
    if (count <= kLess) return WithCount<Unit, Kernel, kLess>(count, args...);
  }
  return Kernel<Unit, N>::Run(args...);
}

template <class Unit, int NV>
struct LanesKernel {
  static float* Run(const AttentionCall& call, const Tile& tile, const KeyPart& part, float* scratch, TileState& state,
                    const Tile& next, bool writes) {
    return ForwardLanes<typename ManyRowsOf<Unit>::Unit, NV>(call, tile, part, scratch, state, next, writes);
  }
};
template <class Unit, int R>
struct RowsKernel {
  static float* Run(const AttentionCall& call, const Tile& tile, const KeyPart& part, float* scratch,
                    TileState& state) {
    return ForwardRows<Unit, R>(call, tile, part, scratch, state);
  }
};

// A tile's rows over the part given of its keys, to the caller's output, or to a node of the merge tree where one is
// given.
template <class Unit>
void ForwardTile(const AttentionCall& call, const Tile& tile, const KeyPart& part, const Tile& next, float* node,
                 float* scratch) {
  TileState state;
  const std::size_t places = PlacesOf<Unit>(tile);
  BeginTile<Unit>(call, tile, places, state);
  float* root = nullptr;
  const bool writes = node == nullptr && part.last;
  if constexpr (Unit::kTiles) {
    const std::size_t sides = places / kTileSide;
    Unit::Begin();
    root = sides == 1   ? ForwardLanes<Unit, SideVectors(1)>(call, tile, part, scratch, state, next, writes)
           : sides == 2 ? ForwardLanes<Unit, SideVectors(2)>(call, tile, part, scratch, state, next, writes)
           : sides == 3 ? ForwardLanes<Unit, SideVectors(3)>(call, tile, part, scratch, state, next, writes)
                        : ForwardLanes<Unit, SideVectors(4)>(call, tile, part, scratch, state, next, writes);
    Unit::End();
  } else if (Unit::kRowsOnly || tile.rows <= Unit::kFewRows) {
    root = WithCount<Unit, RowsKernel, Unit::kFewRows>(static_cast<std::size_t>(tile.rows), call, tile, part, scratch,
                                                       state);
  } else if constexpr (!Unit::kRowsOnly) {
    root = WithCount<Unit, LanesKernel, kTileVectors>(places / LaneCount(), call, tile, part, scratch, state, next,
                                                      writes);
  }
  if (!part.last) return;
  if (node == nullptr) {
    if (root == nullptr) {
      root = scratch + ForwardScratch(call, tile).nodes;
      ClearNode<Unit>(call, tile, root);
    }
    StoreTile<Unit>(call, tile, state, root);
  } else if (root == nullptr) {
    ClearNode<Unit>(call, tile, node);
  } else {
    std::copy_n(root, NodeFloats<Unit>(call, tile), node);
  }
}

// Merges the nodes of a tile's blocks of chunks, in place, as the one tree over all chunks would, and stores the rows.
template <class Unit>
void MergeTile(const AttentionCall& call, const Tile& tile, float* nodes, std::int64_t count) {
  TileState state;
  BeginTile<Unit>(call, tile, PlacesOf<Unit>(tile), state);
  const std::size_t node = NodeFloats<Unit>(call, tile);
  const auto merge_all = [&](const auto& merger) HWY_ATTR {
    for (std::int64_t step = 1; step < count; step *= 2) {
      for (std::int64_t i = 0; i + step < count; i += 2 * step) {
        merger.Merge(nodes + static_cast<std::size_t>(i) * node, nodes + static_cast<std::size_t>(i + step) * node);
      }
    }
  };
  if (tile.rows <= Unit::kFewRows) {
    merge_all(RowNodes{OutputWidth<Unit>(call, tile), static_cast<std::size_t>(tile.rows)});
  } else {
    merge_all(LaneNodes{PlacesOf<Unit>(tile), OutputWidth<Unit>(call, tile)});
  }
  StoreTile<Unit>(call, tile, state, nodes);
}

inline std::size_t ScratchFloats(const AttentionCall& call, const Tile& tile) {
  return ForwardScratch(call, tile).total;
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
