// The workspace of one worker: where the arrays of a query block lie in it.

// Per-target include guard: this file is read once for each instruction set.
#if defined(MANYHEADS_ALGORITHM_WORKSPACE_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef MANYHEADS_ALGORITHM_WORKSPACE_INL_HPP
#undef MANYHEADS_ALGORITHM_WORKSPACE_INL_HPP
#else
#define MANYHEADS_ALGORITHM_WORKSPACE_INL_HPP
#endif

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/isa/split_f32-inl.hpp"
#include "kernels/params.hpp"

HWY_BEFORE_NAMESPACE();
namespace manyheads::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr std::size_t kDecodeRows = MmaF32::kDecodeRows;

// The rows of a query block, padded: prefill to whole vectors (AMX: whole tiles), decode to kDecodeRows.
template <class Mma>
HWY_INLINE std::size_t PaddedRows(std::int64_t block_rows) {
  const std::size_t rows = static_cast<std::size_t>(block_rows);
  return rows <= Mma::kDecodeRows ? kDecodeRows : RoundUp(rows, Mma::kAmx ? kTileSide : LaneCount());
}
// Floats in the output of a row.
template <class Mma>
HWY_INLINE std::size_t OutputWidth(const QkvMask& params, std::int64_t block_rows) {
  const std::size_t dv = static_cast<std::size_t>(params.dv);
  if (Mma::kAmx) return RoundUp(dv, kTileSide);
  return block_rows <= Mma::kDecodeRows ? RoundUp(dv, LaneCount()) : dv;
}

// Floats of the row states of a block: maximum, sum, and the output before the division, [Dv][lanes] or [rows][Dv].
template <class Mma>
HWY_INLINE std::size_t RowStateFloats(const QkvMask& params, std::int64_t block_rows) {
  return RoundUp((2 + OutputWidth<Mma>(params, block_rows)) * PaddedRows<Mma>(block_rows), 16);
}

// Where the open row states of the combine tree lie, and the chunk that was opened last in each.
struct OpenStates {
  struct Chunks {
    std::int64_t count;
    std::int64_t last[63];
  };
  Chunks* chunks;
  float* states;
  std::size_t floats;  // of one block's row states
};

// The workspace of a query block. Offsets in floats, each array at a multiple of 64 bytes.
struct ForwardWorkspace {
  std::size_t packed, keys, values, amx_values, scores, added, opened, states, state_floats;
  std::size_t split_queries, split_keys, split_probs, split_values, squares, unsplit;  // where operands are split
  std::size_t total;

  ForwardWorkspace(const QkvMask& params, std::int64_t block_rows, bool splits = false) {
    std::size_t at = 0;
    const auto take = [&at](std::size_t floats) {
      const std::size_t begin = at;
      at += RoundUp(floats, 16);
      return begin;
    };
    // Enough for a block of so many rows or fewer, prefill or decode.
    const std::size_t padded_rows =
        RoundUp(std::max<std::size_t>(static_cast<std::size_t>(block_rows), kDecodeRows), kTileSide);
    const std::size_t d = RoundUp(static_cast<std::size_t>(params.d), 2 * kTileSide);
    const std::size_t dv = RoundUp(static_cast<std::size_t>(params.dv), kTileSide);
    packed = take(d * padded_rows);
    keys = take(kRunKeys * d);
    values = take(kRunKeys * dv);
    amx_values = take(params.bf16_pairs() ? kRunKeys / 2 * dv : 0);
    scores = take(kRunKeys * padded_rows);
    added = take(params.bias != nullptr || params.allowed != nullptr ? kRunKeys * kDecodeRows : 0);  // decode only
    state_floats = RoundUp((2 + dv) * padded_rows, 16);
    opened = take(sizeof(OpenStates::Chunks) / sizeof(float));
    // The tree holds one open state a level, and the chunk under way.
    const std::uint64_t chunks = static_cast<std::uint64_t>(params.tk / kChunkKeys + 1);
    states = take(state_floats * static_cast<std::size_t>(std::bit_width(chunks) + 2));
    const auto take_split = [&](std::size_t floats) { return take(splits ? floats : 0); };
    split_queries = take_split(SplitWords(d) * padded_rows);
    split_keys = take_split(SplitWords(d) * kRunKeys);
    split_probs = take_split(SplitWords(kRunKeys) * padded_rows);
    split_values = take_split(SplitWords(kRunKeys) * dv);
    squares = take_split(kRunKeys / 2 * dv);
    unsplit = take_split(padded_rows);
    total = at;
  }
  OpenStates tree(float* workspace) const {
    return {reinterpret_cast<OpenStates::Chunks*>(workspace + opened), workspace + states, state_floats};
  }
};

}  // namespace manyheads::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
