#pragma once

#include <cstddef>
#include <cstdint>

#include <manyheads/attention.hpp>

#include "kernels/dispatch.hpp"

namespace manyheads::attention_detail {

// How a call is cut into tiles of queries, those of few tiles into blocks of keys too, and who computes them. It decides
// only who computes what and when.
struct Plan {
  std::int64_t tiles = 0;
  std::int64_t blocks = 1;        // of keys in each tile; more than one: their nodes are merged at the end
  std::int64_t block_chunks = 0;  // chunks in a block, a power of two; 0 where there is one block
  int workers = 1;
  std::size_t scratch_floats = 0;  // for one worker
  std::size_t node_floats = 0;     // for one block of a tile, where there are several

  std::int64_t tasks() const noexcept { return tiles * blocks; }
  std::size_t workspace_floats() const noexcept {
    return static_cast<std::size_t>(workers) * scratch_floats + static_cast<std::size_t>(tasks()) * node_floats;
  }
  // Tiles of one head follow each other, its last queries first: under a causal mask they have the most keys.
  kernels::Tile tile(std::int64_t i) const noexcept;
  kernels::ChunkRange chunks(std::int64_t block) const noexcept {
    return {block * block_chunks, block + 1 == blocks ? -1 : (block + 1) * block_chunks};
  }

  std::int64_t kv_heads = 0;
  std::int64_t rows_per_part = 0;  // a part is one head's queries, or a whole group's where they are few
  std::int64_t parts = 0;          // parts of a group
  std::int64_t tiles_per_part = 0;
  std::int64_t tile_rows = 0;
};

// `split`: whether the keys of a tile may be cut into blocks.
Plan plan(const kernels::AttentionCall& call, const kernels::KernelTable& table, const AttentionOptions& options,
          bool split = true);

}  // namespace manyheads::attention_detail
