#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/documents.hpp"
#include "kernels/params.hpp"

// The mask of a call, both ways: the keys of a query or a query block, and the queries of a key or a key block. Kernels
// ask nothing else which keys to read. Keys count from the first that exists (QkvMask::key_start).
namespace manyheads::kernels {

struct QueryRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;  // <= begin: no query
};

// What causal, window and the number of keys leave to one batch entry. Query i sees key j where
//   i + diagonal - left <= j <= i + diagonal + right  and  0 <= j < length.
// A negative left or right bounds nothing.
struct Band {
  Band(const QkvMask& params, std::int64_t b) noexcept
      : queries(params.queries(b)),
        length(params.key_length(b)),
        diagonal(params.diagonal(b)),
        left(params.window_left),
        right(params.window_right) {
    if (params.causal) right = right < 0 ? 0 : std::min(right, std::int64_t{0});
  }
  KeyRange keys_of(std::int64_t i) const noexcept {
    const std::int64_t begin = left >= 0 ? std::max(i + diagonal - left, std::int64_t{0}) : 0;
    return {begin, std::max(keys_end(i), begin)};
  }
  // One past the last key that queries 0 to i see.
  std::int64_t keys_end(std::int64_t i) const noexcept {
    return right >= 0 ? std::max(std::min(length, i + diagonal + right + 1), std::int64_t{0}) : length;
  }
  // From the first to the last query that sees any of `keys`.
  QueryRange queries_of(KeyRange keys) const noexcept {
    keys.end = std::min(keys.end, length);
    if (keys.begin >= keys.end) return {};
    const std::int64_t begin = right >= 0 ? std::max(keys.begin - diagonal - right, std::int64_t{0}) : 0;
    const std::int64_t end = left >= 0 ? std::min(keys.end - diagonal + left, queries) : queries;
    return {begin, std::max(begin, end)};
  }
  std::int64_t queries, length, diagonal, left, right;
};

// Walks the rows of a query block: the query of each, and its head within the group. Divides once a block, not once a
// row.
struct RowCursor {
  RowCursor(const QkvMask& params, const QueryBlock& q_block) noexcept
      : tq(params.queries(q_block.batch)), head(q_block.row / tq), query(q_block.row % tq) {}
  void next() noexcept {
    if (++query == tq) {
      query = 0;
      ++head;
    }
  }
  std::int64_t tq, head, query;
};

// The keys that any row of a query block sees, and the keys that all of them see.
struct BlockKeyRange {
  explicit BlockKeyRange(const QkvMask& params) noexcept : any{params.tk, 0}, all{0, params.tk} {}
  BlockKeyRange() = default;
  void add(const KeyRange& row) noexcept {
    if (row.begin < row.end) any = {std::min(any.begin, row.begin), std::max(any.end, row.end)};
    all = {std::max(all.begin, row.begin), std::min(all.end, row.end)};
  }
  KeyRange any;
  KeyRange all;
};

class AttentionMask {
 public:
  explicit AttentionMask(const QkvMask& params) noexcept : params_(params) {}

  // Whether window or documents leave most keys unread: neighbouring blocks then read different keys.
  bool narrow() const noexcept { return params_.window_left >= 0 || params_.documents(); }
  // Whether the number of visible keys depends on the query's position.
  bool by_place() const noexcept { return params_.window_left >= 0 || params_.window_right >= 0; }

  // Whether query i of entry b and head h sees key j. Leaves biases of -inf aside.
  bool sees(std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t j) const noexcept {
    const KeyRange keys = Band(params_, b).keys_of(i);
    if (j < keys.begin || j >= keys.end) return false;
    if (params_.documents() && params_.q_documents.at(b, i) != params_.key_document(b, j)) return false;
    return params_.allowed == nullptr || params_.allows(params_.allowed[params_.allowed_at(b, h, i, j)]);
  }

  // From the first to the last key that the rows of a query block see. Leaves the bool mask aside.
  BlockKeyRange keys_of(const QueryBlock& q_block) const noexcept {
    BlockKeyRange range(params_);
    RowCursor cursor(params_, q_block);
    const Band band(params_, q_block.batch);
    for (std::int64_t r = 0; r < q_block.rows; ++r, cursor.next()) range.add(band.keys_of(cursor.query));
    if (params_.documents()) narrow_to_documents(q_block, range.any);
    return range;
  }

  // Drops the leading and the trailing keys whose documents no row of the block has.
  void narrow_to_documents(const QueryBlock& q_block, KeyRange& keys) const noexcept {
    if (keys.begin >= keys.end) return;
    const IdRange ids = query_ids(q_block, 0, q_block.rows);
    const std::int64_t last_key = params_.tk - params_.key_start(q_block.batch);
    const auto none = [&](std::int64_t run) noexcept {
      return !ids.meets(key_ids(params_, q_block.batch, run * kRunKeys, std::min((run + 1) * kRunKeys, last_key)));
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
    keys.begin =
        keys_with_ids(params_, q_block.batch, ids, keys.begin, std::min(keys.end, (first + 1) * kRunKeys)).begin;
    const std::int64_t begin = std::max(keys.begin, last * kRunKeys);
    const KeyRange there = keys_with_ids(params_, q_block.batch, ids, begin, keys.end);
    keys.end = there.begin < there.end ? there.end : begin;
  }

  // The document ids of rows [row, row + rows) of a query block.
  IdRange query_ids(const QueryBlock& q_block, std::int64_t row, std::int64_t rows) const noexcept {
    RowCursor cursor(params_, {q_block.batch, q_block.kv_head, q_block.row + row, rows});
    if (cursor.query + rows <= cursor.tq) {
      return id_range(params_.q_documents, q_block.batch, cursor.query, cursor.query + rows);
    }
    const std::int64_t first = params_.q_documents.at(q_block.batch, cursor.query);
    IdRange ids{first, first};
    for (std::int64_t r = 1; r < rows; ++r) {
      cursor.next();
      const std::int64_t id = params_.q_documents.at(q_block.batch, cursor.query);
      ids = {std::min(ids.low, id), std::max(ids.high, id)};
    }
    return ids;
  }

  // Walks the runs of keys that a query block reads, ascending: visit(begin, end, partly_masked). [begin, end) lies in
  // one run; partly_masked says that some row may not see all of it. Returns the number of runs.
  template <class Visit>
  std::int64_t each_run(const QueryBlock& q_block, const BlockKeyRange& range, Visit&& visit) const {
    const IdRange ids = params_.documents() ? query_ids(q_block, 0, q_block.rows) : IdRange{};
    std::int64_t visited = 0;
    if (range.any.begin >= range.any.end)
      return visited;  // else the run that an empty range begins in would be visited
    for (std::int64_t run = range.any.begin / kRunKeys * kRunKeys; run < range.any.end; run += kRunKeys) {
      const std::int64_t begin = std::max(run, range.any.begin);
      const std::int64_t end = std::min(run + kRunKeys, range.any.end);
      const bool in_all = begin >= range.all.begin && end <= range.all.end;
      const Visibility seen = seen_of(q_block, ids, in_all, {begin, end});
      if (seen == Visibility::kNone) continue;
      visit(begin, end, seen == Visibility::kPartly);
      ++visited;
    }
    return visited;
  }

  // The other direction: walks the query blocks of head h of the group that read keys of one run, ascending:
  // visit(q_block, partly_masked). Each block begins at a multiple of `rows` and has at most so many. Returns the
  // number of blocks.
  template <class Visit>
  std::int64_t each_query_block(std::int64_t b, std::int64_t kv_head, std::int64_t h, KeyRange keys, std::int64_t rows,
                                Visit&& visit) const {
    const Band band(params_, b);
    const QueryRange queries = band.queries_of(keys);
    std::int64_t visited = 0;
    for (std::int64_t i = queries.begin / rows * rows; i < queries.end; i += rows) {
      const QueryBlock q_block{b, kv_head, h * band.queries + i, std::min(rows, band.queries - i)};
      BlockKeyRange range = keys_of(q_block);
      const KeyRange here{std::max(keys.begin, range.any.begin), std::min(keys.end, range.any.end)};
      if (here.begin >= here.end) continue;
      const bool whole = here.begin == keys.begin && here.end == keys.end;
      const bool in_all = whole && keys.begin >= range.all.begin && keys.end <= range.all.end;
      const IdRange ids = params_.documents() ? query_ids(q_block, 0, q_block.rows) : IdRange{};
      const Visibility seen = seen_of(q_block, ids, in_all, here);
      if (seen == Visibility::kNone) continue;
      visit(q_block, seen == Visibility::kPartly);
      ++visited;
    }
    return visited;
  }

 private:
  enum class Visibility { kNone, kPartly, kAll };

  // What all masks leave of `keys`, part of a run, to the rows of a query block. in_all: the positions leave all of
  // them to every row.
  Visibility seen_of(const QueryBlock& q_block, const IdRange& ids, bool in_all, KeyRange keys) const noexcept {
    bool partly = !in_all;
    if (params_.documents()) {
      const IdRange there = key_ids(params_, q_block.batch, keys.begin, keys.end);
      if (!ids.meets(there)) return Visibility::kNone;
      partly = partly || !(ids.one() && there.one());
    }
    if (params_.allowed != nullptr) {
      const Visibility allowed = allowed_of(q_block, keys.begin, keys.end);
      if (allowed == Visibility::kNone) return Visibility::kNone;
      partly = partly || allowed == Visibility::kPartly;
    }
    return partly ? Visibility::kPartly : Visibility::kAll;
  }

  // What the bool mask leaves of keys [begin, end) to the rows of a query block.
  Visibility allowed_of(const QueryBlock& q_block, std::int64_t begin, std::int64_t end) const noexcept {
    const std::int64_t* stride = params_.allowed_stride;
    bool any = false;
    bool all = true;
    RowCursor cursor(params_, q_block);
    for (std::int64_t r = 0; r < q_block.rows && (all || !any); ++r, cursor.next()) {
      const std::int64_t head = q_block.kv_head * params_.group() + cursor.head;
      const std::uint8_t* at = params_.allowed + params_.allowed_at(q_block.batch, head, cursor.query, begin);
      std::uint8_t seen = 0;  // keys of the run, at most 64
      if (stride[3] == 1) {   // a loop of its own, which becomes vectors
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
    if (any != all) return Visibility::kPartly;
    return all == params_.allowed_where ? Visibility::kAll : Visibility::kNone;
  }

  const QkvMask& params_;
};

}  // namespace manyheads::kernels
