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

// The keys that causal, window and key length leave to the queries of entry b.
struct QueryKeys {
  QueryKeys(const AttentionCall& call, std::int64_t b) noexcept
      : length(call.key_length(b)), diagonal(call.diagonal(b)), left(call.window_left), right(call.window_right) {
    if (call.causal) right = right < 0 ? 0 : std::min(right, std::int64_t{0});
  }
  KeyRange operator()(std::int64_t i) const noexcept {
    const std::int64_t begin = left >= 0 ? std::max(i + diagonal - left, std::int64_t{0}) : 0;
    return {begin, std::max(end(i), begin)};
  }
  // The key behind the last that query i or one before it sees.
  std::int64_t end(std::int64_t i) const noexcept {
    return right >= 0 ? std::max(std::min(length, i + diagonal + right + 1), std::int64_t{0}) : length;
  }
  std::int64_t length, diagonal, left, right;
};

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
  explicit TileRange(const AttentionCall& call) noexcept : any{call.tk, 0}, all{0, call.tk} {}
  TileRange() = default;
  void add(const KeyRange& row) noexcept {
    if (row.begin < row.end) any = {std::min(any.begin, row.begin), std::max(any.end, row.end)};
    all = {std::max(all.begin, row.begin), std::min(all.end, row.end)};
  }
  KeyRange any;
  KeyRange all;
};

enum class Visibility { kNone, kSome, kAll };

constexpr std::int64_t runs_of(std::int64_t keys) noexcept { return (keys + kRunKeys - 1) / kRunKeys; }

// The lowest and the highest of some document ids.
struct IdRange {
  std::int64_t low = 0;
  std::int64_t high = 0;
};

// Calls with the ids from [b, begin] on, as they lie, and the step between them.
template <class Visit>
auto with_ids(const IntegerView& ids, std::int64_t b, std::int64_t begin, Visit&& visit) noexcept {
  const std::int64_t at = b * ids.stride[0] + begin * ids.stride[1];
  return ids.wide ? visit(static_cast<const std::int64_t*>(ids.data) + at, ids.stride[1])
                  : visit(static_cast<const std::int32_t*>(ids.data) + at, ids.stride[1]);
}

inline IdRange id_range(const IntegerView& ids, std::int64_t b, std::int64_t begin, std::int64_t end) noexcept {
  return with_ids(ids, b, begin, [&](const auto* id, std::int64_t step) noexcept {
    auto low = *id;
    auto high = *id;
    if (step == 1) {  // by itself, so that it becomes vectors
      for (std::int64_t j = 0; j < end - begin; ++j) {
        low = id[j] < low ? id[j] : low;
        high = id[j] > high ? id[j] : high;
      }
    } else {
      for (std::int64_t j = 0; j < end - begin; ++j) {
        low = std::min(low, id[j * step]);
        high = std::max(high, id[j * step]);
      }
    }
    return IdRange{low, high};
  });
}

// The same of the keys' documents, from the call's table where it has them.
inline IdRange key_ids(const AttentionCall& call, std::int64_t b, std::int64_t begin, std::int64_t end) noexcept {
  const bool whole = begin % kRunKeys == 0 && (end - begin == kRunKeys || end == call.tk);
  if (call.run_documents == nullptr || !whole) return id_range(call.k_documents, b, begin, end);
  const std::int64_t* run = call.run_documents + 2 * (b * runs_of(call.tk) + begin / kRunKeys);
  return {run[0], run[1]};
}

// Fills such a table.
inline void tabulate_documents(const AttentionCall& call, std::int64_t* to) noexcept {
  for (std::int64_t b = 0; b < call.batch; ++b) {
    for (std::int64_t begin = 0; begin < call.tk; begin += kRunKeys) {
      const IdRange ids = id_range(call.k_documents, b, begin, std::min(begin + kRunKeys, call.tk));
      *to++ = ids.low;
      *to++ = ids.high;
    }
  }
}

// The ids of rows [row, row + rows) of a tile.
inline IdRange query_ids(const AttentionCall& call, const Tile& tile, std::int64_t row, std::int64_t rows) noexcept {
  RowCursor cursor(call, {tile.batch, tile.kv_head, tile.row + row, rows});
  if (cursor.query + rows <= cursor.tq) {
    return id_range(call.q_documents, tile.batch, cursor.query, cursor.query + rows);
  }
  const std::int64_t first = call.q_documents.at(tile.batch, cursor.query);
  IdRange ids{first, first};
  for (std::int64_t r = 1; r < rows; ++r) {
    cursor.next();
    const std::int64_t id = call.q_documents.at(tile.batch, cursor.query);
    ids = {std::min(ids.low, id), std::max(ids.high, id)};
  }
  return ids;
}

// From the first to the last of keys [begin, end) whose ids lie in `ids`.
inline KeyRange keys_of(const AttentionCall& call, std::int64_t b, const IdRange& ids, std::int64_t begin,
                        std::int64_t end) noexcept {
  return with_ids(call.k_documents, b, 0, [&](const auto* id, std::int64_t step) noexcept {
    const auto outside = [&](std::int64_t j) { return id[j * step] < ids.low || id[j * step] > ids.high; };
    while (begin < end && outside(begin)) ++begin;
    while (begin < end && outside(end - 1)) --end;
    return KeyRange{begin, end};
  });
}

// What documents leave of keys [begin, end) to a tile whose rows have these ids. Reads ids, never keys.
inline Visibility documents_of(const AttentionCall& call, const Tile& tile, const IdRange& ids, std::int64_t begin,
                               std::int64_t end) noexcept {
  const IdRange keys = key_ids(call, tile.batch, begin, end);
  if (keys.high < ids.low || ids.high < keys.low) return Visibility::kNone;
  if (ids.low == ids.high && keys.low == keys.high) return Visibility::kAll;
  return Visibility::kSome;
}

// Leaves out the keys before the first and behind the last that a tile's rows may see for their documents.
inline void narrow_to_documents(const AttentionCall& call, const Tile& tile, KeyRange& keys) noexcept {
  if (keys.begin >= keys.end) return;
  const IdRange ids = query_ids(call, tile, 0, tile.rows);
  const auto none = [&](std::int64_t run) noexcept {
    const IdRange there = key_ids(call, tile.batch, run * kRunKeys, std::min((run + 1) * kRunKeys, call.tk));
    return there.high < ids.low || ids.high < there.low;
  };
  std::int64_t first = keys.begin / kRunKeys;
  std::int64_t last = (keys.end - 1) / kRunKeys;
  while (first <= last && none(first)) ++first;
  while (first < last && none(last)) --last;
  if (first > last) {
    keys.end = keys.begin;
    return;
  }
  keys = {std::max(keys.begin, first * kRunKeys), std::min(keys.end, (last + 1) * kRunKeys)};
  keys.begin = keys_of(call, tile.batch, ids, keys.begin, std::min(keys.end, (first + 1) * kRunKeys)).begin;
  const std::int64_t begin = std::max(keys.begin, last * kRunKeys);
  const KeyRange there = keys_of(call, tile.batch, ids, begin, keys.end);
  keys.end = there.begin < there.end ? there.end : begin;
}

inline TileRange tile_range(const AttentionCall& call, const Tile& tile) noexcept {
  TileRange range(call);
  RowCursor cursor(call, tile);
  const QueryKeys keys(call, tile.batch);
  for (std::int64_t r = 0; r < tile.rows; ++r, cursor.next()) range.add(keys(cursor.query));
  if (call.q_documents.data != nullptr) narrow_to_documents(call, tile, range.any);
  return range;
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
    const std::uint8_t* at =
        call.allowed + call.allowed_at(tile.batch, tile.kv_head * group + cursor.head, cursor.query, begin);
    std::uint8_t seen = 0;  // of a run's 64 keys
    if (stride[3] == 1) {  // by itself, so that it becomes vectors
      for (std::int64_t j = 0; j < end - begin; ++j) seen = static_cast<std::uint8_t>(seen + (at[j] != 0 ? 1 : 0));
    } else {
      for (std::int64_t j = 0; j < end - begin; ++j) {
        seen = static_cast<std::uint8_t>(seen + (at[j * stride[3]] != 0 ? 1 : 0));
      }
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
  const bool documents = call.q_documents.data != nullptr;
  const IdRange ids = documents ? query_ids(call, tile, 0, tile.rows) : IdRange{};
  std::int64_t visited = 0;
  if (range.any.begin >= range.any.end) return visited;  // or the run that such a range begins in would be visited
  for (std::int64_t run = range.any.begin / kRunKeys * kRunKeys; run < range.any.end; run += kRunKeys) {
    const std::int64_t begin = std::max(run, range.any.begin);
    const std::int64_t end = std::min(run + kRunKeys, range.any.end);
    bool some = begin < range.all.begin || end > range.all.end;
    if (documents) {
      const Visibility seen = documents_of(call, tile, ids, begin, end);
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
