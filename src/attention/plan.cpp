#include "attention/plan.hpp"

#include <algorithm>
#include <bit>

#include "base/parallel.hpp"

namespace manyheads::attention_detail {
namespace {

// FLOP below which a further thread costs more than it brings.
constexpr double kFlopPerWorker = 2e6;
// Keys read below which it does so too.
constexpr double kBytesPerWorker = 1e5;
// Fewer tiles than this many a worker leave some without work at the end: their keys are cut too.
constexpr std::int64_t kTasksPerWorker = 4;

}  // namespace

kernels::Tile Plan::tile(std::int64_t i) const noexcept {
  const std::int64_t t = tiles_per_part - 1 - i % tiles_per_part;
  const std::int64_t part = i / tiles_per_part % parts;
  const std::int64_t group = i / tiles_per_part / parts;
  const std::int64_t begin = std::min(t * tile_rows, rows_per_part);
  return {.batch = group / kv_heads,
          .kv_head = group % kv_heads,
          .row = part * rows_per_part + begin,
          .rows = std::min(tile_rows, rows_per_part - begin)};
}

Plan plan(const kernels::AttentionCall& call, const kernels::KernelTable& table, const AttentionOptions& options,
          bool split) {
  Plan plan;
  if (call.batch == 0 || call.q_heads == 0 || call.tq == 0) return plan;
  const std::int64_t group = call.q_heads / call.kv_heads;
  const bool fold = call.tq < table.tile_queries;
  plan.kv_heads = call.kv_heads;
  plan.parts = fold ? 1 : group;
  plan.rows_per_part = fold ? group * call.tq : call.tq;
  plan.tile_rows = std::min(table.tile_queries, plan.rows_per_part);
  plan.tiles_per_part = (plan.rows_per_part + plan.tile_rows - 1) / plan.tile_rows;
  plan.tiles = call.batch * call.kv_heads * plan.parts * plan.tiles_per_part;

  const double pairs = static_cast<double>(call.tk) * static_cast<double>(call.d + call.dv);
  const double flop = 2.0 * static_cast<double>(call.batch * call.q_heads) * static_cast<double>(call.tq) * pairs;
  const double bytes = static_cast<double>(call.batch * call.kv_heads) * pairs * static_cast<double>(size_of(call.type));
  const std::int64_t chunks = (call.tk + kernels::kChunkKeys - 1) / kernels::kChunkKeys;
  const std::int64_t most = plan.tiles * (split ? std::max<std::int64_t>(chunks, 1) : 1);
  const double useful = std::min(std::max(flop / kFlopPerWorker, bytes / kBytesPerWorker), static_cast<double>(most));
  plan.workers = base::worker_count(std::max<std::int64_t>(1, static_cast<std::int64_t>(useful)), options.num_threads);
  if (split && plan.workers > 1 && plan.tiles < kTasksPerWorker * plan.workers && chunks > 1) {
    const std::int64_t wanted = (kTasksPerWorker * plan.workers + plan.tiles - 1) / plan.tiles;
    plan.block_chunks = static_cast<std::int64_t>(
        std::bit_ceil(static_cast<std::uint64_t>(std::max<std::int64_t>(1, chunks / wanted))));
    plan.blocks = (chunks + plan.block_chunks - 1) / plan.block_chunks;
  }
  // The few rows of a last tile take another form.
  for (const std::int64_t rows : {plan.tile_rows, std::int64_t{1}}) {
    const kernels::Tile tile{.rows = rows};
    plan.scratch_floats = std::max(plan.scratch_floats, table.scratch_floats(call, tile));
    if (plan.blocks > 1) plan.node_floats = std::max(plan.node_floats, table.node_floats(call, tile));
  }
  return plan;
}

}  // namespace manyheads::attention_detail
