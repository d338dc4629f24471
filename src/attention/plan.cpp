#include "attention/plan.hpp"

#include <algorithm>
#include <bit>

#include "base/parallel.hpp"
#include "kernels/mask.hpp"

namespace manyheads::attention_detail {
namespace {

// FLOP below which a further thread costs more than it brings.
constexpr double kFlopPerWorker = 2e6;
// Keys read below which it does so too.
constexpr double kBytesPerWorker = 1e5;
// Fewer tiles than this many a worker leave some without work at the end: their keys are cut too.
constexpr std::int64_t kTasksPerWorker = 4;
// Tiles of a head for each worker that pay for a copy of its keys and values, and the most floats of one.
constexpr std::int64_t kTilesPerCopy = 4;
constexpr std::size_t kMostCopied = std::size_t{1} << 21;

// Numbers of a head's keys and values. Views of stride 0 hold more than an integer counts.
double numbers_of_head(const kernels::AttentionCall& call) {
  return static_cast<double>(call.tk) * static_cast<double>(call.d + call.dv);
}

// Whether the tiles of a head are many enough to read a dense copy of its keys and values. Halves and bytes are then
// converted once, or their values joined to pairs, and rows a power of two apart do not fall on the same few lines of a
// cache.
bool copies_heads(const kernels::AttentionCall& call, const kernels::KernelTable& table, int workers) {
  const bool as_it_lies =
      call.int8_products || (call.kv_type == DType::kF32 && call.k_stride[2] == call.d && call.k_stride[3] == 1 &&
                             call.v_stride[2] == call.dv && call.v_stride[3] == 1);
  const bool elsewhere = call.page_size > 0 || call.k_starts.data != nullptr || call.q_starts.data != nullptr;
  // Windows of a few queries leave most keys unread.
  const bool windows = call.window_left >= 0 || call.window_right >= 0;
  // Pairs are soon joined: few tiles that read a key do not pay for a copy of it.
  const bool pairs = multiplies_pairs(call, table);
  const bool narrow = call.window_left >= 0 || call.q_documents.data != nullptr;
  const std::int64_t tiles = call.q_heads / call.kv_heads * call.tq / table.tile_queries(call);
  return !as_it_lies && !elsewhere && !(pairs && narrow) && (!windows || call.tq >= call.tk / 2) &&
         tiles >= kTilesPerCopy * workers && numbers_of_head(call) <= 2.0 * static_cast<double>(kMostCopied) &&
         table.head_floats(call) <= kMostCopied;
}

// The most tiles of a group, and the bytes of keys and values that they pass over together: with the tiles' own memory
// they fit the smallest second cache that is common.
constexpr std::int64_t kMostTogether = 8;
constexpr std::int64_t kPartBytes = std::int64_t{1} << 18;
// Bytes of keys and values that each tile passes over by itself: third caches hold so much for a processor. Over twice
// as many two pass together, which reads a third cache half as often; the memory of eight would push theirs out of the
// second.
constexpr std::int64_t kPassedAlone = std::int64_t{1} << 21;
// Groups a worker, below which some would be without work at the end.
constexpr std::int64_t kGroupsPerWorker = 8;

// Groups of tiles where a head's keys and values leave the second cache before the next tile comes.
void group_tiles(const kernels::AttentionCall& call, const kernels::KernelTable& table, Plan& plan) {
  const bool narrow = call.window_left >= 0 || call.q_documents.data != nullptr;
  if (plan.blocks > 1 || narrow || call.q_starts.data != nullptr || plan.tiles == 0) return;
  const DType copied = multiplies_pairs(call, table) ? DType::kBF16 : DType::kF32;
  const auto size = static_cast<std::int64_t>(size_of(plan.head_floats > 0 ? copied : call.kv_type));
  const std::int64_t part_keys = kPartBytes / ((call.d + call.dv) * size) / kernels::kRunKeys * kernels::kRunKeys;
  const double head_bytes = numbers_of_head(call) * static_cast<double>(size);
  if (part_keys == 0 || head_bytes <= static_cast<double>(kPassedAlone)) return;
  const std::int64_t most = head_bytes <= static_cast<double>(2 * kPassedAlone) ? 2 : kMostTogether;
  plan.tiles_per_head = plan.tiles / (call.batch * call.kv_heads);
  plan.group = std::min({most, plan.tiles_per_head, plan.tiles / (kGroupsPerWorker * plan.workers)});
  plan.group = std::max<std::int64_t>(plan.group, 1);
  if (plan.group > 1) plan.part_keys = part_keys;
}

// Queries of one document, one after the other, from which on tiles of its own pay: more than lie in one vector. (At 20
// 1.2 to 1.3 times as fast as tiles that several share, at 17 slower.)
constexpr std::int64_t kLongDocument = 20;

// Whether tiles end where documents do. Else rows of two documents share a vector, and each passes over the keys of
// both.
bool cuts_documents(const kernels::AttentionCall& call, const kernels::KernelTable& table) {
  return call.q_documents.data != nullptr && call.tq >= table.tile_queries(call);
}

// Calls with the query at which each tile of a part of entry b begins, in ascending order. A tile holds queries of one
// long document, or of short ones between two such.
template <class Visit>
void each_cut(const kernels::AttentionCall& call, std::int64_t b, std::int64_t tile_rows, Visit&& visit) {
  std::int64_t begin = 0;
  const auto end_at = [&](std::int64_t end) {
    for (; begin < end; begin += tile_rows) visit(begin);
    begin = end;
  };
  kernels::with_ids(call.q_documents, b, 0, [&](const auto* ids, std::int64_t step) {
    for (std::int64_t first = 0, next = 0; first < call.tq; first = next) {
      for (next = first + 1; next < call.tq && ids[next * step] == ids[first * step];) ++next;
      if (next - first < kLongDocument) continue;
      end_at(first);
      end_at(next);
    }
  });
  end_at(call.tq);
}

std::size_t integer_floats(std::int64_t count) {
  return (static_cast<std::size_t>(count) * sizeof(std::int64_t) / sizeof(float) + 15) / 16 * 16;
}

}  // namespace

bool multiplies_pairs(const kernels::AttentionCall& call, const kernels::KernelTable& table) {
  return call.pairs() && table.bf16_products;
}

TileIndex::TileIndex(const kernels::AttentionCall& call, const Plan& plan, const kernels::KernelTable& table,
                     float* memory)
    : call_(call), tile_rows_(plan.tile_rows), longest_folded_(table.tile_queries(call)) {
  if (plan.entry_floats == 0) return;
  first_ = reinterpret_cast<std::int64_t*>(memory);
  first_[0] = 0;
  if (plan.cut) begins_ = first_ + call.batch + 1;
  std::int64_t* to = begins_;
  for (std::int64_t b = 0; b < call.batch; ++b) {
    std::int64_t count = 0;
    if (plan.cut) {
      const std::int64_t* const begins = to;
      each_cut(call, b, tile_rows_, [&](std::int64_t begin) { *to++ = begin; });
      count = (to - begins) * call.q_heads;
      *to++ = call.tq;
    } else {
      count = EntryTiles(call, tile_rows_, longest_folded_, b).count;
    }
    first_[b + 1] = first_[b] + count;
  }
}

kernels::Tile TileIndex::cut_tile(std::int64_t b, std::int64_t i) const noexcept {
  const std::int64_t tiles = (first_[b + 1] - first_[b]) / call_.q_heads;
  const std::int64_t* const begin = begins_ + first_[b] / call_.q_heads + b + (tiles - 1 - i % tiles);
  const std::int64_t head = i / tiles;
  const std::int64_t group = call_.q_heads / call_.kv_heads;
  return {.batch = b, .kv_head = head / group, .row = head % group * call_.tq + begin[0], .rows = begin[1] - begin[0]};
}

kernels::Tile TileIndex::operator()(std::int64_t i) const noexcept {
  std::int64_t b = 0;
  if (first_ != nullptr) {
    b = std::upper_bound(first_, first_ + call_.batch + 1, i) - first_ - 1;
    i -= first_[b];
    if (begins_ != nullptr) return cut_tile(b, i);
  }
  const EntryTiles entry(call_, tile_rows_, longest_folded_, b);
  if (first_ == nullptr) {
    b = i / entry.count;
    i %= entry.count;
  }
  const std::int64_t begin = (entry.tiles_per_part - 1 - i % entry.tiles_per_part) * tile_rows_;
  const std::int64_t part = i / entry.tiles_per_part % entry.parts;
  return {.batch = b,
          .kv_head = i / entry.tiles_per_part / entry.parts,
          .row = part * entry.rows_per_part + begin,
          .rows = std::min(tile_rows_, entry.rows_per_part - begin)};
}

Plan plan(const kernels::AttentionCall& call, const kernels::KernelTable& table, const AttentionOptions& options,
          bool split) {
  Plan plan;
  if (call.batch == 0 || call.q_heads == 0 || call.tq == 0) return plan;
  const bool packed = call.q_starts.data != nullptr;
  // Tiles no higher than the most rows that any part has.
  for (std::int64_t b = 0; b < (packed ? call.batch : 1); ++b) {
    const EntryTiles entry(call, 1, table.tile_queries(call), b);
    plan.tile_rows = std::min(table.tile_queries(call), std::max(plan.tile_rows, entry.rows_per_part));
  }
  plan.cut = cuts_documents(call, table);
  double pairs = 0;  // of a query and a key
  double keys = 0;
  std::int64_t begins = 0;
  for (std::int64_t b = 0; b < call.batch; ++b) {
    const EntryTiles entry(call, plan.tile_rows, table.tile_queries(call), b);
    const double length = static_cast<double>(call.key_length(b));
    if (plan.cut) {
      std::int64_t tiles = 0;
      each_cut(call, b, plan.tile_rows, [&](std::int64_t) { ++tiles; });
      plan.tiles += tiles * call.q_heads;
      begins += tiles + 1;
    } else {
      plan.tiles += entry.count;
    }
    pairs += static_cast<double>(call.queries(b)) * length;
    keys += entry.count > 0 ? length : 0;
  }
  if (packed || plan.cut) plan.entry_floats = integer_floats(call.batch + 1 + begins);
  if (call.k_documents.data != nullptr) {
    plan.document_floats = integer_floats(2 * call.batch * kernels::runs_of(call.tk));
  }

  const double width = static_cast<double>(call.d + call.dv);
  const double flop = 2.0 * static_cast<double>(call.q_heads) * pairs * width;
  const double bytes = static_cast<double>(call.kv_heads) * keys * width * static_cast<double>(size_of(call.kv_type));
  const std::int64_t chunks = (call.tk + kernels::kChunkKeys - 1) / kernels::kChunkKeys;
  const double most =
      static_cast<double>(plan.tiles) * static_cast<double>(split ? std::max<std::int64_t>(chunks, 1) : 1);
  constexpr double kMany = 1e6;  // more than any machine has
  const double useful = std::min({std::max(flop / kFlopPerWorker, bytes / kBytesPerWorker), most, kMany});
  plan.workers = base::worker_count(std::max<std::int64_t>(1, static_cast<std::int64_t>(useful)), options.num_threads);
  if (split && plan.workers > 1 && plan.tiles > 0 && plan.tiles < kTasksPerWorker * plan.workers && chunks > 1) {
    const std::int64_t wanted = (kTasksPerWorker * plan.workers + plan.tiles - 1) / plan.tiles;
    plan.block_chunks = static_cast<std::int64_t>(
        std::bit_ceil(static_cast<std::uint64_t>(std::max<std::int64_t>(1, chunks / wanted))));
    plan.blocks = (chunks + plan.block_chunks - 1) / plan.block_chunks;
  }
  // The few rows of a last tile take another form.
  for (const std::int64_t rows : {plan.tile_rows, std::int64_t{1}}) {
    const kernels::Tile tile{.rows = rows};
    plan.tile_floats = std::max(plan.tile_floats, table.scratch_floats(call, tile));
    if (plan.blocks > 1) plan.node_floats = std::max(plan.node_floats, table.node_floats(call, tile));
  }
  if (split && plan.blocks == 1 && copies_heads(call, table, plan.workers)) {
    plan.head_floats = (16 + table.head_floats(call) + 15) / 16 * 16;
  }
  if (split) group_tiles(call, table, plan);
  plan.scratch_floats = static_cast<std::size_t>(plan.group) * plan.tile_floats + plan.head_floats;
  return plan;
}

}  // namespace manyheads::attention_detail
