#include "attention/plan.hpp"

#include <algorithm>

#include "base/parallel.hpp"

namespace manyheads::attention_detail {
namespace {

// FLOP below which a further thread costs more than it brings.
constexpr double kFlopPerWorker = 2e6;

}  // namespace

kernels::Tile Plan::tile(std::int64_t task) const noexcept {
  const std::int64_t t = tiles_per_part - 1 - task % tiles_per_part;
  const std::int64_t part = task / tiles_per_part % parts;
  const std::int64_t group = task / tiles_per_part / parts;
  // Nearly equal tiles: whole vectors where they fit, no lone last row.
  const std::int64_t begin = std::min(t * tile_rows, rows_per_part);
  return {.batch = group / kv_heads,
          .kv_head = group % kv_heads,
          .row = part * rows_per_part + begin,
          .rows = std::min(tile_rows, rows_per_part - begin)};
}

Plan plan(const kernels::AttentionCall& call, const kernels::KernelTable& table, const AttentionOptions& options) {
  Plan plan;
  if (call.batch == 0 || call.q_heads == 0 || call.tq == 0) return plan;
  const std::int64_t group = call.q_heads / call.kv_heads;
  const bool fold = call.tq < table.tile_queries;
  plan.kv_heads = call.kv_heads;
  plan.parts = fold ? 1 : group;
  plan.rows_per_part = fold ? group * call.tq : call.tq;
  plan.tile_rows = table.tile_queries;
  plan.tiles_per_part = (plan.rows_per_part + plan.tile_rows - 1) / plan.tile_rows;
  plan.tasks = call.batch * call.kv_heads * plan.parts * plan.tiles_per_part;
  const double flop = 2.0 * static_cast<double>(call.batch * call.q_heads) * static_cast<double>(call.tq) *
                      static_cast<double>(call.tk) * static_cast<double>(call.d + call.dv);
  const double useful = std::min(flop / kFlopPerWorker, static_cast<double>(plan.tasks));
  plan.workers = base::worker_count(std::max<std::int64_t>(1, static_cast<std::int64_t>(useful)), options.num_threads);
  plan.scratch_floats = table.scratch_floats(call);
  return plan;
}

}  // namespace manyheads::attention_detail
