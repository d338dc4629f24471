#include "attention/backward_plan.hpp"

#include "attention/key_tasks.hpp"
#include "attention/query_sums.hpp"
#include "attention/sum_tree.hpp"
#include "base/parallel.hpp"
#include "base/workspace_layout.hpp"
#include "kernels/tuning.hpp"

namespace manyheads::attention_detail {

using kernels::BackwardKernels;
using kernels::BackwardParams;
using kernels::kChunkKeys;
using kernels::kGradRows;

// Tasks for each thread, below which chunks of keys are cut into parts: the last to end leaves others idle.
constexpr std::int64_t kTasksPerWorker = 2;

BackwardPlan plan_backward(const char* function, const BackwardParams& params, const BackwardKernels& kernels,
                           const Threads& threads) {
  BackwardPlan plan;
  const std::int64_t q_blocks = query_blocks_of(params.tq);
  double flop = 0;
  for (std::int64_t b = 0; b < params.batch; ++b) {
    const std::int64_t chunks = KeyTasks::chunks(params, b);
    flop += 2.0 * static_cast<double>(3 * params.d + 2 * params.dv) * static_cast<double>(params.q_heads) *
            static_cast<double>(params.queries(b)) * static_cast<double>(params.key_length(b));
    plan.tasks += params.kv_heads * chunks;
    plan.most_chunks = std::max(plan.most_chunks, chunks);
  }
  plan.blocks = params.kv_heads == 0 ? 0 : params.group() * q_blocks;
  const std::int64_t numbers = numbers_of(params, params.tq), heads = params.batch * params.kv_heads;
  // A small call wakes no thread.
  const double useful = std::min(flop / static_cast<double>(kernels::tuning().flop_per_worker),
                                 static_cast<double>(plan.tasks * bit_ceil(numbers)));
  plan.workers = base::worker_count(std::max<std::int64_t>(1, static_cast<std::int64_t>(useful)), threads);
  // A slope's gradient sums all queries of a chunk of keys.
  if (plan.workers > 1 && plan.tasks > 0 && !params.dalibi.defined()) {
    const std::int64_t wanted = kTasksPerWorker * plan.workers;
    plan.parts = std::min(bit_ceil(numbers), bit_ceil((wanted + plan.tasks - 1) / plan.tasks));
  }
  plan.tasks *= plan.parts;
  plan.workers = static_cast<int>(std::clamp<std::int64_t>(plan.tasks, 1, plan.workers));
  plan.slots = static_cast<int>(std::clamp<std::int64_t>(heads, 1, plan.workers));
  const std::int64_t chunk_keys = std::min(kChunkKeys, params.tk);
  plan.tree_arrays = SumTree::arrays(numbers);
  plan.task_floats = kernels.workspace_floats(params);
  plan.key_floats = kernels.key_floats(params);
  plan.chunk_floats = static_cast<std::size_t>(chunk_keys) * plan.key_floats;
  plan.query_floats = static_cast<std::size_t>(params.d * kGradRows);

  const auto size = [](std::size_t n) { return static_cast<std::int64_t>(n); };
  base::WorkspaceLayout layout(function);
  const std::int64_t rows = params.rows;
  plan.shift = layout.take({params.q_heads, rows}, sizeof(float));
  plan.factor = layout.take({params.q_heads, rows}, sizeof(float));
  plan.delta = layout.take({params.q_heads, rows}, sizeof(float));
  plan.alibi =
      layout.take({params.dalibi.defined() ? params.batch : 0, params.q_heads, plan.most_chunks}, sizeof(double));

  plan.documents =
      layout.take({params.documents() ? params.batch : 0, kernels::runs_of(params.tk), 2}, sizeof(std::int64_t));
  plan.tasks_at = layout.take({plan.slots, 2}, sizeof(std::int64_t));

  base::WorkspaceLayout worker(function);
  worker.take({size(plan.task_floats)}, sizeof(float));
  plan.tree = worker.take({plan.tree_arrays, size(plan.chunk_floats)}, sizeof(float));
  plan.ring = worker.take({plan.most_chunks > 1 ? WaitingParts::kMost : 1, size(plan.query_floats)}, sizeof(float));
  plan.bias = worker.take({params.dbias.defined() ? kChunkKeys : 0, kGradRows}, sizeof(double));
  plan.worker_bytes = worker.used();
  plan.worker = layout.take({plan.workers, size(plan.worker_bytes)}, 1);

  base::WorkspaceLayout slot(function);
  if (plan.parts > 1) {
    plan.part_sums = slot.take({plan.most_chunks, plan.parts, size(plan.chunk_floats)}, sizeof(float));
    plan.part_read = slot.take({plan.most_chunks, plan.parts}, 1);
  }
  if (plan.most_chunks > 1 && params.dq.defined()) {
    plan.high = slot.take({plan.blocks, size(plan.query_floats)}, sizeof(float));
    plan.low = slot.take({plan.blocks, size(plan.query_floats)}, sizeof(float));
    plan.bits = slot.take({plan.blocks, ChunkBits::words(plan.most_chunks)}, sizeof(std::uint64_t));
    plan.begun = slot.take({plan.blocks}, 1);
  }
  plan.slot_bytes = slot.used();
  plan.slot = layout.take({plan.slots, size(plan.slot_bytes)}, 1);
  plan.bytes = layout.used();
  return plan;
}

}  // namespace manyheads::attention_detail
