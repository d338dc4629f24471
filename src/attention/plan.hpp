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
  // Tiles of a head that a worker takes over each part of the keys before the next part, which so stays in its second
  // cache.
  std::int64_t group = 1;
  std::int64_t part_keys = 0;      // 0: each tile by itself over all of them
  std::size_t tile_floats = 0;     // of scratch for one tile
  std::size_t scratch_floats = 0;  // for one worker
  std::size_t head_floats = 0;     // of them, at the end, for its copy of a head; 0: rows are read where they lie
  std::size_t node_floats = 0;     // for one block of a tile, where there are several

  std::int64_t tiles_per_head = 0;  // where they come in groups

  // A group of tiles, or a block of one.
  std::int64_t tasks() const noexcept {
    return group > 1 ? tiles / tiles_per_head * groups_per_head() : tiles * blocks;
  }
  std::int64_t groups_per_head() const noexcept { return (tiles_per_head + group - 1) / group; }
  std::size_t workspace_floats() const noexcept {
    return static_cast<std::size_t>(workers) * scratch_floats + static_cast<std::size_t>(tiles * blocks) * node_floats +
           entry_floats + document_floats;
  }
  kernels::KeyPart block(std::int64_t i) const noexcept {
    const std::int64_t keys = block_chunks * kernels::kChunkKeys;
    return {i * keys, i + 1 == blocks ? -1 : (i + 1) * keys};
  }

  std::int64_t tile_rows = 0;
  std::size_t entry_floats = 0;     // for the index of the entries' tiles, where they are not alike
  bool cut = false;                 // tiles end where long documents do
  std::size_t document_floats = 0;  // for AttentionCall::run_documents
};

// The tiles of a batch entry. A part is one head's queries, or a whole group's where they are few.
struct EntryTiles {
  EntryTiles(const kernels::AttentionCall& call, std::int64_t tile_rows, std::int64_t longest_folded, std::int64_t b) {
    const std::int64_t group = call.q_heads / call.kv_heads;
    const std::int64_t queries = call.queries(b);
    const bool fold = queries < longest_folded;
    parts = fold ? 1 : group;
    rows_per_part = fold ? group * queries : queries;
    tiles_per_part = (rows_per_part + tile_rows - 1) / tile_rows;
    count = call.kv_heads * parts * tiles_per_part;
  }
  std::int64_t parts, rows_per_part, tiles_per_part, count;
};

// Tile number i of a call. Tiles of one head follow each other, its last queries first: under a causal mask they have
// the most keys.
class TileIndex {
 public:
  // `memory` holds plan.entry_floats floats and outlives the index.
  TileIndex(const kernels::AttentionCall& call, const Plan& plan, const kernels::KernelTable& table, float* memory);
  kernels::Tile operator()(std::int64_t i) const noexcept;

 private:
  kernels::Tile cut_tile(std::int64_t b, std::int64_t i) const noexcept;

  const kernels::AttentionCall& call_;
  std::int64_t tile_rows_, longest_folded_;
  std::int64_t* first_ = nullptr;   // tile of each entry, where they are not alike
  std::int64_t* begins_ = nullptr;  // queries at which an entry's tiles begin, where they are cut, and Tq behind them
};

// Whether pairs of BF16 are multiplied, and not F32.
bool multiplies_pairs(const kernels::AttentionCall& call, const kernels::KernelTable& table);

// `split`: whether the keys of a tile may be cut into blocks.
Plan plan(const kernels::AttentionCall& call, const kernels::KernelTable& table, const AttentionOptions& options,
          bool split = true);

}  // namespace manyheads::attention_detail
