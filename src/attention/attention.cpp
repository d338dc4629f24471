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

void run(const kernels::AttentionCall& call, const Plan& plan, const AttentionOptions& options,
         void (*kernel)(const kernels::AttentionCall&, const kernels::Tile&, float*)) {
  base::AlignedBuffer<float> own;
  float* scratch = nullptr;
  if (options.workspace != nullptr) {
    scratch = static_cast<float*>(options.workspace->reserve(plan.workspace_bytes()));
  } else {
    own = base::AlignedBuffer<float>(plan.workspace_bytes() / sizeof(float));
    scratch = own.data();
  }
  base::parallel_for(plan.tasks, plan.workers, options.executor, [&](std::int64_t task, int worker) {
    kernel(call, plan.tile(task), scratch + static_cast<std::size_t>(worker) * plan.scratch_floats);
  });
}

}  // namespace

void attention(ConstTensorView q, ConstTensorView k, ConstTensorView v, TensorView out,
               const AttentionOptions& options) {
  const kernels::AttentionCall call = check("attention", q, k, &v, &out, options);
  const kernels::KernelTable& table = kernels::active_table();
  run(call, plan(call, table, options), options, table.forward);
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
  run(call, plan(call, table, options), options, table.weights);
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
  return plan(call, kernels::active_table(), options).workspace_bytes();
}

Explanation explain(ConstTensorView q, ConstTensorView k, ConstTensorView v, TensorView out,
                    const AttentionOptions& options) {
  const kernels::AttentionCall call = check("explain", q, k, &v, &out, options);
  const kernels::KernelTable& table = kernels::active_table();
  const Plan plan = attention_detail::plan(call, table, options);
  Explanation e;
  e.isa = table.name;
  e.path = call.type == DType::kF32 ? "fused forward, F32"
                                    : fmt::format("fused forward, {} read as F32", name_of(call.type));
  e.threads = plan.workers;
  e.tile_queries = table.tile_queries;
  e.run_keys = kernels::kRunKeys;
  e.chunk_keys = kernels::kChunkKeys;
  e.tasks = plan.tasks;
  e.workspace_bytes = plan.workspace_bytes();
  const std::int64_t runs = (call.tk + kernels::kRunKeys - 1) / kernels::kRunKeys;
  for (std::int64_t task = 0; task < plan.tasks; ++task) {
    const kernels::Tile tile = plan.tile(task);
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
