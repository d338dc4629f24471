#pragma once

#include <algorithm>

#include "kernels/kernel_table.hpp"

// The part of a mask that is known without looking at keys: where each row's keys begin and end, and what of a block of
// keys a tile may see.
namespace manyheads::kernels {

struct KeyRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;  // <= begin: no key at all
};

// The keys that causal, window and key length leave to query i.
inline KeyRange key_range(const AttentionCall& call, std::int64_t b, std::int64_t i) noexcept {
  KeyRange range{0, call.key_length(b)};
  const std::int64_t diagonal = i + call.diagonal(b);
  if (call.causal) range.end = std::min(range.end, diagonal + 1);
  if (call.window_left >= 0) range.begin = std::max(range.begin, diagonal - call.window_left);
  if (call.window_right >= 0) range.end = std::min(range.end, diagonal + call.window_right + 1);
  range.end = std::max(range.end, range.begin);
  return range;
}

// Walks the rows of a tile: the query of each, and its head within the group. Divides once, not once a row.
struct RowCursor {
  RowCursor(const AttentionCall& call, const Tile& tile) noexcept
      : tq(call.queries(tile.batch)), head(tile.row / tq), query(tile.row % tq) {}
  void next() noexcept {
    if (++query == tq) {
      query = 0;
      ++head;
    }
  }
  std::int64_t tq, head, query;
};

// Over the rows of a tile: the keys that any row sees, and those that all rows see.
struct TileRange {
  KeyRange any;
  KeyRange all;
};

inline TileRange tile_range(const AttentionCall& call, const Tile& tile) noexcept {
  TileRange range{{call.tk, 0}, {0, call.tk}};
  RowCursor cursor(call, tile);
  for (std::int64_t r = 0; r < tile.rows; ++r, cursor.next()) {
    const KeyRange row = key_range(call, tile.batch, cursor.query);
    if (row.begin < row.end) {
      range.any.begin = std::min(range.any.begin, row.begin);
      range.any.end = std::max(range.any.end, row.end);
    }
    range.all.begin = std::max(range.all.begin, row.begin);
    range.all.end = std::min(range.all.end, row.end);
  }
  return range;
}

enum class Visibility { kNone, kSome, kAll };

// What documents leave of keys [begin, end) to a tile whose rows' ids lie in [low, high]. Reads ids, never keys.
inline Visibility documents_of(const AttentionCall& call, const Tile& tile, std::int64_t low, std::int64_t high,
                               std::int64_t begin, std::int64_t end) noexcept {
  std::int64_t key_low = call.k_documents.at(tile.batch, begin);
  std::int64_t key_high = key_low;
  for (std::int64_t j = begin + 1; j < end; ++j) {
    const std::int64_t id = call.k_documents.at(tile.batch, j);
    key_low = std::min(key_low, id);
    key_high = std::max(key_high, id);
  }
  if (key_high < low || high < key_low) return Visibility::kNone;
  if (low == high && key_low == key_high) return Visibility::kAll;
  return Visibility::kSome;
}

// What the bool mask leaves of keys [begin, end) to the rows of a tile.
inline Visibility allowed_of(const AttentionCall& call, const Tile& tile, std::int64_t begin,
                             std::int64_t end) noexcept {
  const std::int64_t group = call.q_heads / call.kv_heads;
  const std::int64_t* stride = call.allowed_stride;
  bool any = false;
  bool all = true;
  RowCursor cursor(call, tile);
  for (std::int64_t r = 0; r < tile.rows && (all || !any); ++r, cursor.next()) {
    const std::uint8_t* at = call.allowed + tile.batch * stride[0] + (tile.kv_head * group + cursor.head) * stride[1] +
                             cursor.query * stride[2];
    std::int64_t seen = 0;
    if (stride[3] == 1) {  // by itself, so that it becomes vectors
      for (std::int64_t j = begin; j < end; ++j) seen += at[j] != 0 ? 1 : 0;
    } else {
      for (std::int64_t j = begin; j < end; ++j) seen += at[j * stride[3]] != 0 ? 1 : 0;
    }
    any = any || seen > 0;
    all = all && seen == end - begin;
    if (stride[1] == 0 && stride[2] == 0) break;  // one row for all
  }
  return all ? Visibility::kAll : any ? Visibility::kSome : Visibility::kNone;
}

// Walks the runs of keys that a tile has to read, in ascending order: visit(begin, end, some) with [begin, end) inside
// one run, `some` true where a row of the tile may not see all of them. Returns the number of runs visited.
template <class Visit>
std::int64_t for_each_run(const AttentionCall& call, const Tile& tile, const TileRange& range, Visit&& visit) {
  std::int64_t low = 0;
  std::int64_t high = 0;
  const bool documents = call.q_documents.data != nullptr;
  if (documents) {
    RowCursor cursor(call, tile);
    low = high = call.q_documents.at(tile.batch, cursor.query);
    for (std::int64_t r = 1; r < tile.rows; ++r) {
      cursor.next();
      const std::int64_t id = call.q_documents.at(tile.batch, cursor.query);
      low = std::min(low, id);
      high = std::max(high, id);
    }
  }
  std::int64_t visited = 0;
  for (std::int64_t run = range.any.begin / kRunKeys * kRunKeys; run < range.any.end; run += kRunKeys) {
    const std::int64_t begin = std::max(run, range.any.begin);
    const std::int64_t end = std::min(run + kRunKeys, range.any.end);
    bool some = begin < range.all.begin || end > range.all.end;
    if (documents) {
      const Visibility seen = documents_of(call, tile, low, high, begin, end);
      if (seen == Visibility::kNone) continue;
      some = some || seen == Visibility::kSome;
    }
    if (call.allowed != nullptr) {
      const Visibility seen = allowed_of(call, tile, begin, end);
      if (seen == Visibility::kNone) continue;
      some = some || seen == Visibility::kSome;
    }
    visit(begin, end, some);
    ++visited;
  }
  return visited;
}

}  // namespace manyheads::kernels
