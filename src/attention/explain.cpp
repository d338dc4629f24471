#include <limits>

#include <manyheads/attention.hpp>

#include "attention/forward.hpp"
#include "attention/query_blocks.hpp"
#include "base/aligned_buffer.hpp"
#include "base/checked.hpp"
#include "base/format.hpp"
#include "kernels/isa/processor.hpp"
#include "kernels/mask.hpp"
#include "kernels/tuning.hpp"

namespace manyheads {

Explanation explain(ConstTensorView q, ConstTensorView k, ConstTensorView v, TensorView out,
                    const AttentionOptions& options) {
  const attention_detail::PreparedForward call("explain", q, k, v, out, options);
  const kernels::ForwardParams& params = call.params();
  const kernels::KernelTable& table = call.table();
  const attention_detail::Plan& plan = call.plan();
  Explanation e;
  e.isa = table.name;
  e.bits = table.bits_of(params.products());
  if (params.int8_products) {
    e.path = "fused forward, I8 products";
  } else if (params.bf16_pairs() && table.bf16_products) {
    e.path = "fused forward, BF16 products";
  } else if (params.kv_type == DType::kF32) {
    e.path = "fused forward, F32";
  } else {
    e.path = base::format("fused forward, {} read as F32", name_of(params.kv_type));
  }
  if (params.products() == kernels::Products::kF32 && table.splits_f32()) e.path += " by tiles";
  if ((params.bf16_pairs() || table.splits_f32()) && !kernels::why_no_tiles().empty()) {
    e.path += base::format(", not by tiles ({})", kernels::why_no_tiles());
  }
  if (plan.packed_kv_floats > 0) e.path += ", K and V of each head packed";
  if (params.page_size > 0) e.path += base::format(", pages of {}", params.page_size);
  if (params.q_starts.defined() || params.k_starts.defined()) e.path += ", packed sequences";
  e.threads = plan.workers;
  e.query_block_rows = table.attention(params).query_block_rows;
  e.run_keys = kernels::kRunKeys;
  e.chunk_keys = kernels::kChunkKeys;
  e.query_blocks_together = plan.group;
  e.keys_together = plan.keys_together;
  e.kv_splits = plan.splits.count;
  e.tasks = plan.tasks();
  e.tuning = kernels::tuning().to_string();
  e.workspace_bytes = plan.workspace_floats() * sizeof(float);
  base::AlignedBuffer<float> index(plan.entry_floats);
  const attention_detail::QueryBlocks q_blocks(params, plan, table, index.data());
  const kernels::AttentionMask mask(params);
  for (std::int64_t i = 0; params.dv > 0 && i < plan.q_blocks; ++i) {
    const kernels::QueryBlock q_block = q_blocks(i);
    const std::int64_t keys_there = params.k_starts.defined() ? params.key_length(q_block.batch) : params.tk;
    const std::int64_t runs = kernels::runs_of(keys_there);
    std::int64_t keys = 0;
    const std::int64_t read = mask.each_run(q_block, mask.keys_of(q_block),
                                            [&](std::int64_t begin, std::int64_t end, bool) { keys += end - begin; });
    if (!base::add(e.runs, runs, &e.runs)) e.runs = std::numeric_limits<std::int64_t>::max();
    if (!base::add(e.skipped_runs, runs - read, &e.skipped_runs)) e.skipped_runs = e.runs;
    e.flop +=
        2.0 * static_cast<double>(params.d + params.dv) * static_cast<double>(q_block.rows) * static_cast<double>(keys);
  }
  double q_rows = 0;
  double kv_rows = 0;
  for (std::int64_t b = 0; b < params.batch; ++b) {
    q_rows += static_cast<double>(params.q_heads * params.queries(b));
    kv_rows += static_cast<double>(params.kv_heads * params.key_length(b));
  }
  const double scale_bytes = params.k_scales != nullptr ? 2.0 * sizeof(float) : 0.0;
  e.bytes = kv_rows * (static_cast<double>(params.d + params.dv) * static_cast<double>(size_of(params.kv_type)) +
                       scale_bytes) +
            q_rows * static_cast<double>(params.d) * static_cast<double>(size_of(params.type)) +
            q_rows * static_cast<double>(params.dv) * static_cast<double>(size_of(params.out_type));
  return e;
}

std::string Explanation::to_string() const {
  const std::string together = query_blocks_together > 1
                                   ? base::format("groups of {} blocks of up to {} queries, together over each {} keys",
                                                  query_blocks_together, query_block_rows, keys_together)
                                   : base::format("blocks of up to {} queries", query_block_rows);
  return base::format(
      "{} on {}, bits {}, {} threads: {} {}, keys in runs of {} and chunks of {}, {} KV "
      "splits; {} of {} runs skipped; {:.3g} FLOP, {:.3g} bytes, workspace {} bytes; tuning {}",
      path, isa, bits, threads, tasks, together, run_keys, chunk_keys, kv_splits, skipped_runs, runs, flop, bytes,
      workspace_bytes, tuning);
}

}  // namespace manyheads
