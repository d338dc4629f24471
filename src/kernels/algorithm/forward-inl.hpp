// The fused forward of one query block: prefill or decode mainloop, then the epilogue.
//
// Contract: online softmax over runs of 64 keys and chunks of 512; chunks combine in a fixed tree
// (canonical_order.hpp). A row depends on itself only, at fixed key positions: a skipped run or chunk leaves the same
// bits as one whose keys are all forbidden to the row.
// Cost: see the mainloops. The workspace is ForwardWorkspace; no Tq x Tk memory.

// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_ALGORITHM_FORWARD_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_ALGORITHM_FORWARD_INL_HPP
#undef MANYHEADS_ALGORITHM_FORWARD_INL_HPP
#else
#define MANYHEADS_ALGORITHM_FORWARD_INL_HPP
#endif

#include <algorithm>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/algorithm/decode_mainloop-inl.hpp"
#include "kernels/algorithm/epilogue-inl.hpp"
#include "kernels/algorithm/prefill_mainloop-inl.hpp"
#include "kernels/kernel_table.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Vectors in the lanes of so many AMX tiles side by side.
constexpr int TileVectors(int tiles) {
  return tiles * static_cast<int>(kTileSide) / static_cast<int>(HWY_LANES(float));
}

// Runs the kernel for `count` vectors or rows, at most N. Decode-only products take a power of two: the rows between
// are padded and see no key.
template <class Mma, template <class, int> class Kernel, int N, class... Args>
HWY_INLINE float* WithCount(std::size_t count, Args&&... args) {
  if constexpr (N > 1) {
    constexpr int kLess = Mma::kDecodeOnly ? N / 2 : N - 1;
    if (count <= kLess) return WithCount<Mma, Kernel, kLess>(count, args...);
  }
  return Kernel<Mma, N>::Run(args...);
}

template <class Mma, int NV>
struct PrefillKernel {
  static float* Run(const ForwardParams& params, const QueryBlock& q_block, const KvSplit& split, float* workspace,
                    BlockInfo& info, const QueryBlock& next, bool writes) {
    return PrefillMainloop<typename PrefillMmaOf<Mma>::Mma, NV>(params, q_block, split, workspace, info, next, writes);
  }
};
template <class Mma, int R>
struct DecodeKernel {
  static float* Run(const ForwardParams& params, const QueryBlock& q_block, const KvSplit& split, float* workspace,
                    BlockInfo& info) {
    return DecodeMainloop<Mma, R>(params, q_block, split, workspace, info);
  }
};

// Computes a query block over one split of its keys. Writes the caller's rows, or row states where `states` is not
// null.
template <class Mma>
void ForwardBlock(const ForwardParams& params, const QueryBlock& q_block, const KvSplit& split, const QueryBlock& next,
                  float* states, float* workspace) {
  BlockInfo info;
  const std::size_t padded_rows = PaddedRows<Mma>(q_block.rows);
  BeginBlock<Mma>(params, q_block, padded_rows, info);
  float* row_states = nullptr;
  const bool writes = states == nullptr && split.last;
  if constexpr (Mma::kAmx) {
    const std::size_t tiles = padded_rows / kTileSide;
    Mma::Begin();
    row_states =
        tiles == 1   ? PrefillMainloop<Mma, TileVectors(1)>(params, q_block, split, workspace, info, next, writes)
        : tiles == 2 ? PrefillMainloop<Mma, TileVectors(2)>(params, q_block, split, workspace, info, next, writes)
        : tiles == 3 ? PrefillMainloop<Mma, TileVectors(3)>(params, q_block, split, workspace, info, next, writes)
                     : PrefillMainloop<Mma, TileVectors(4)>(params, q_block, split, workspace, info, next, writes);
    Mma::End();
  } else if (Mma::kDecodeOnly || q_block.rows <= Mma::kDecodeRows) {
    row_states = WithCount<Mma, DecodeKernel, Mma::kDecodeRows>(static_cast<std::size_t>(q_block.rows), params, q_block,
                                                                split, workspace, info);
  } else if constexpr (!Mma::kDecodeOnly) {
    row_states = WithCount<Mma, PrefillKernel, kBlockVectors>(padded_rows / LaneCount(), params, q_block, split,
                                                              workspace, info, next, writes);
  }
  if (!split.last) return;
  if (states == nullptr) {
    if (row_states == nullptr) {
      row_states = workspace + ForwardWorkspace(params, q_block.rows).states;
      ClearRowStates<Mma>(params, q_block, row_states);
    }
    StoreBlock<Mma>(params, q_block, info, row_states);
  } else if (row_states == nullptr) {
    ClearRowStates<Mma>(params, q_block, states);
  } else {
    std::copy_n(row_states, RowStateFloats<Mma>(params, q_block.rows), states);
  }
}

// Combines the row states of a query block's splits in place, as one tree over all chunks would, and writes the rows.
template <class Mma>
void CombineBlock(const ForwardParams& params, const QueryBlock& q_block, const KvSplits& splits, float* states) {
  BlockInfo info;
  BeginBlock<Mma>(params, q_block, PaddedRows<Mma>(q_block.rows), info);
  const std::size_t floats = RowStateFloats<Mma>(params, q_block.rows);
  for (std::int64_t i = 0; params.row_max != nullptr && i < splits.count; ++i) {
    SaveRowStates<Mma>(params, q_block, info, states + static_cast<std::size_t>(i) * floats, i);
  }
  OpenStates::Chunks opened;
  const auto combine_all = [&](const auto& combiner) HWY_ATTR {
    CombineTree tree(combiner, {&opened, states, floats}, true);
    for (std::int64_t i = 0; i < splits.count; ++i) {
      float* const to = tree.open(splits.chunk(i));
      const float* const from = states + static_cast<std::size_t>(i) * floats;
      if (to != from) std::copy_n(from, floats, to);
    }
    tree.close();
  };
  if (q_block.rows <= Mma::kDecodeRows) {
    combine_all(StatesInRows{OutputWidth<Mma>(params, q_block.rows), static_cast<std::size_t>(q_block.rows)});
  } else {
    combine_all(StatesInLanes{PaddedRows<Mma>(q_block.rows), OutputWidth<Mma>(params, q_block.rows)});
  }
  StoreBlock<Mma>(params, q_block, info, states);
}

template <class Mma>
std::size_t WorkspaceFloats(const QkvMask& params, std::int64_t rows) {
  return ForwardWorkspace(params, rows, Mma::kSplits).total;
}

template <class Mma>
AttentionKernels ForwardKernels() {
  const std::int64_t rows = Mma::kDecodeOnly ? Mma::kDecodeRows
                            : Mma::kAmx      ? 4 * static_cast<std::int64_t>(kTileSide)
                                             : kBlockVectors * static_cast<std::int64_t>(LaneCount());
  return {
      rows,        WorkspaceFloats<Mma>, ForwardBlock<Mma>, RowStateFloats<Mma>, CombineBlock<Mma>, PackedKvFloats<Mma>,
      PackKv<Mma>, OnPackedKv<Mma>};
}

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
