#include <manyheads/attention.hpp>

#include <fmt/format.h>

#include "attention/check.hpp"
#include "attention/plan.hpp"
#include "base/aligned_buffer.hpp"
#include "base/parallel.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/mask.hpp"
#include "kernels/reference.hpp"

namespace manyheads {
namespace {

using attention_detail::check;
using attention_detail::plan;
using attention_detail::Plan;

// The plan's memory: the caller's workspace, or a block of the call's own.
class Memory {
 public:
  Memory(const Plan& plan, Workspace* workspace) {
    if (workspace != nullptr) {
      data_ = static_cast<float*>(workspace->reserve(plan.workspace_floats() * sizeof(float)));
    } else {
      own_ = base::AlignedBuffer<float>(plan.workspace_floats());
      data_ = own_.data();
    }
  }
  float* data() const noexcept { return data_; }

 private:
  base::AlignedBuffer<float> own_;
  float* data_ = nullptr;
};

void forward(const kernels::AttentionCall& call, const kernels::KernelTable& table, const AttentionOptions& options) {
  const Plan p = plan(call, table, options);
  const Memory memory(p, options.workspace);
  float* const scratch = memory.data();
  float* const nodes = scratch + static_cast<std::size_t>(p.workers) * p.scratch_floats;
  const auto nodes_of = [&](std::int64_t tile) { return nodes + static_cast<std::size_t>(tile * p.blocks) * p.node_floats; };
  base::parallel_for(p.tasks(), p.workers, options.executor, [&](std::int64_t task, int worker) {
    const kernels::Tile tile = p.tile(task / p.blocks);
    const std::int64_t block = task % p.blocks;
    float* node = nullptr;
    if (p.blocks > 1) node = nodes_of(task / p.blocks) + static_cast<std::size_t>(block) * table.node_floats(call, tile);
    table.forward(call, tile, p.chunks(block), node, scratch + static_cast<std::size_t>(worker) * p.scratch_floats);
  });
  if (p.blocks == 1) return;
  base::parallel_for(p.tiles, p.workers, options.executor,
                     [&](std::int64_t i, int) { table.merge(call, p.tile(i), nodes_of(i), p.blocks); });
}

}  // namespace

void attention(ConstTensorView q, ConstTensorView k, ConstTensorView v, TensorView out,
               const AttentionOptions& options) {
  const kernels::AttentionCall call = check("attention", q, k, &v, &out, options);
  forward(call, kernels::active_table(), options);
}

void attention_weights(ConstTensorView q, ConstTensorView k, ConstTensorView lse, TensorView weights,
                       const AttentionOptions& options) {
  static constexpr const char* kName = "attention_weights";
  kernels::AttentionCall call = check(kName, q, k, nullptr, nullptr, options);
  attention_detail::check_lse(kName, lse, call);
  attention_detail::check_weights(kName, weights, call);
  attention_detail::check_overlap(kName, "weights", weights, "lse", lse);
  attention_detail::check_inputs(kName, "weights", weights, q, k, nullptr, options);
  const kernels::KernelTable& table = kernels::active_table();
  const Plan p = plan(call, table, options, false);
  const Memory memory(p, options.workspace);
  base::parallel_for(p.tasks(), p.workers, options.executor, [&](std::int64_t i, int worker) {
    table.weights(call, p.tile(i), memory.data() + static_cast<std::size_t>(worker) * p.scratch_floats);
  });
}

void attention_reference(ConstTensorView q, ConstTensorView k, ConstTensorView v, TensorView out,
                         const AttentionOptions& options, TensorView weights) {
  static constexpr const char* kName = "attention_reference";
  kernels::AttentionCall call = check(kName, q, k, &v, &out, options);
  if (weights.defined()) {
    attention_detail::check_weights(kName, weights, call);
    attention_detail::check_inputs(kName, "weights", weights, q, k, &v, options);
    attention_detail::check_overlap(kName, "weights", weights, "out", out);
    if (options.lse != nullptr) attention_detail::check_overlap(kName, "weights", weights, "lse", *options.lse);
  }
  kernels::reference(call);
}

std::size_t attention_workspace_size(ConstTensorView q, ConstTensorView k, ConstTensorView v, TensorView out,
                                     const AttentionOptions& options) {
  const kernels::AttentionCall call = check("attention_workspace_size", q, k, &v, &out, options);
  return plan(call, kernels::active_table(), options).workspace_floats() * sizeof(float);
}

Explanation explain(ConstTensorView q, ConstTensorView k, ConstTensorView v, TensorView out,
                    const AttentionOptions& options) {
  const kernels::AttentionCall call = check("explain", q, k, &v, &out, options);
  const kernels::KernelTable& table = kernels::active_table();
  const Plan plan = attention_detail::plan(call, table, options);
  Explanation e;
  e.isa = table.name;
  e.path = call.type == DType::kF32                           ? "fused forward, F32"
           : call.type == DType::kBF16 && table.bf16_products ? "fused forward, BF16 products"
                                                              : fmt::format("fused forward, {} read as F32",
                                                                            name_of(call.type));
  e.threads = plan.workers;
  e.tile_queries = table.tile_queries;
  e.run_keys = kernels::kRunKeys;
  e.chunk_keys = kernels::kChunkKeys;
  e.tasks = plan.tasks();
  e.workspace_bytes = plan.workspace_floats() * sizeof(float);
  const std::int64_t runs = (call.tk + kernels::kRunKeys - 1) / kernels::kRunKeys;
  for (std::int64_t i = 0; i < plan.tiles; ++i) {
    const kernels::Tile tile = plan.tile(i);
    std::int64_t keys = 0;
    const std::int64_t read =
        kernels::for_each_run(call, tile, kernels::tile_range(call, tile),
                              [&](std::int64_t begin, std::int64_t end, bool) { keys += end - begin; });
    e.blocks += runs;
    e.skipped_blocks += runs - read;
    e.flop += 2.0 * static_cast<double>(call.d + call.dv) * static_cast<double>(tile.rows * keys);
  }
  const double kv_rows = static_cast<double>(call.batch * call.kv_heads * call.tk);
  const double q_rows = static_cast<double>(call.batch * call.q_heads * call.tq);
  const double size = static_cast<double>(size_of(call.type));
  e.bytes = kv_rows * static_cast<double>(call.d + call.dv) * size + q_rows * static_cast<double>(call.d) * size +
            q_rows * static_cast<double>(call.dv) * static_cast<double>(size_of(call.out_type));
  return e;
}

std::string Explanation::to_string() const {
  return fmt::format(
      "{} on {}, {} threads: {} tiles of up to {} queries, keys in runs of {} and chunks of {}; {} of {} blocks "
      "skipped; {:.3g} FLOP, {:.3g} bytes, workspace {} bytes",
      path, isa, threads, tasks, tile_queries, run_keys, chunk_keys, skipped_blocks, blocks, flop, bytes,
      workspace_bytes);
}

}  // namespace manyheads
