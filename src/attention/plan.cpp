#include "attention/plan.hpp"

#include <algorithm>
#include <bit>

#include "attention/query_blocks.hpp"
#include "base/parallel.hpp"
#include "kernels/mask.hpp"
#include "kernels/tuning.hpp"

namespace manyheads::attention_detail {
namespace {

using kernels::AttentionKernels;
using kernels::AttentionMask;
using kernels::KernelTable;
using kernels::QkvMask;
using kernels::Tuning;

// The number of values in a head's keys and values. Views of stride 0 hold more than an integer counts.
double numbers_of_head(const QkvMask& params) {
  return static_cast<double>(params.tk) * static_cast<double>(params.d + params.dv);
}

// Whether a head has enough query blocks to read packed K and V. What packing saves them:
// - F16, BF16 and I8 are converted once, or their values joined to pairs once;
// - rows a power of two apart do not fall on the same few lines of a cache.
bool packs_kv(const QkvMask& params, const KernelTable& table, const Tuning& tuning, int workers) {
  const bool dense =
      params.int8_products || (params.kv_type == DType::kF32 && params.k_stride[2] == params.d &&
                               params.k_stride[3] == 1 && params.v_stride[2] == params.dv && params.v_stride[3] == 1);
  const bool elsewhere = params.page_size > 0 || params.k_starts.defined() || params.q_starts.defined();
  const AttentionMask mask(params);
  // Joining pairs is cheap: few blocks that read a key do not pay for a copy of it.
  const bool pairs = params.bf16_pairs() && table.bf16_products;
  const AttentionKernels& kernel = table.attention(params);
  const std::int64_t q_blocks = params.group() * params.tq / kernel.query_block_rows;
  const auto most = static_cast<std::size_t>(tuning.packed_kv_bytes) / sizeof(float);
  // Windows of a few queries leave most keys unread.
  return !dense && !elsewhere && !(pairs && mask.narrow()) && (!mask.by_place() || params.tq >= params.tk / 2) &&
         q_blocks >= tuning.blocks_per_packed_head * workers &&
         numbers_of_head(params) <= 2.0 * static_cast<double>(most) && kernel.packed_kv_floats(params) <= most;
}

// Groups query blocks where a head's keys and values leave L2 before the next block comes.
void group_blocks(const QkvMask& params, const KernelTable& table, const Tuning& tuning, Plan& plan) {
  if (plan.row_state_floats > 0 || AttentionMask(params).narrow() || params.q_starts.defined() || plan.q_blocks == 0)
    return;
  const DType packed = params.bf16_pairs() && table.bf16_products ? DType::kBF16 : DType::kF32;
  const auto size = static_cast<std::int64_t>(size_of(plan.packed_kv_floats > 0 ? packed : params.kv_type));
  const std::int64_t keys_together =
      tuning.keys_together_bytes / ((params.d + params.dv) * size) / kernels::kRunKeys * kernels::kRunKeys;
  const double head_bytes = numbers_of_head(params) * static_cast<double>(size);
  const auto alone = static_cast<double>(tuning.alone_bytes);
  if (keys_together == 0 || head_bytes <= alone) return;
  const std::int64_t most = head_bytes <= 2 * alone ? 2 : tuning.blocks_together;
  plan.blocks_per_head = plan.q_blocks / (params.batch * params.kv_heads);
  plan.group = std::min({most, plan.blocks_per_head, plan.q_blocks / (tuning.groups_per_worker * plan.workers)});
  plan.group = std::max<std::int64_t>(plan.group, 1);
  if (plan.group > 1) plan.keys_together = keys_together;
}

std::size_t integer_floats(std::int64_t count) {
  return (static_cast<std::size_t>(count) * sizeof(std::int64_t) / sizeof(float) + 15) / 16 * 16;
}

}  // namespace

Plan plan(const QkvMask& params, const KernelTable& table, const Threads& threads, Split split) {
  Plan plan;
  if (params.batch == 0 || params.q_heads == 0 || params.tq == 0) return plan;
  const Tuning& tuning = kernels::tuning();
  const AttentionKernels& kernel = table.attention(params);
  const std::int64_t most_rows = kernel.query_block_rows;
  const bool packed = params.q_starts.defined();
  // No block has more rows than the largest part of an entry.
  for (std::int64_t b = 0; b < (packed ? params.batch : 1); ++b) {
    plan.block_rows =
        std::min(most_rows, std::max(plan.block_rows, EntryBlocks(params, 1, most_rows, b).rows_per_part));
  }
  plan.cut = cuts_documents(params, most_rows);
  double pairs = 0;  // of a query and a key
  double keys = 0;
  std::int64_t begins = 0;
  for (std::int64_t b = 0; b < params.batch; ++b) {
    const EntryBlocks entry(params, plan.block_rows, most_rows, b);
    const double length = static_cast<double>(params.key_length(b));
    if (plan.cut) {
      std::int64_t q_blocks = 0;
      each_cut(params, b, plan.block_rows, tuning.long_document, [&](std::int64_t) { ++q_blocks; });
      plan.q_blocks += q_blocks * params.q_heads;
      begins += q_blocks + 1;
    } else {
      plan.q_blocks += entry.count;
    }
    pairs += static_cast<double>(params.queries(b)) * length;
    keys += entry.count > 0 ? length : 0;
  }
  if (packed || plan.cut) plan.entry_floats = integer_floats(params.batch + 1 + begins);
  if (params.documents()) plan.document_floats = integer_floats(2 * params.batch * kernels::runs_of(params.tk));

  const double width = static_cast<double>(params.d + params.dv);
  const double flop = 2.0 * static_cast<double>(params.q_heads) * pairs * width;
  const double bytes =
      static_cast<double>(params.kv_heads) * keys * width * static_cast<double>(size_of(params.kv_type));
  const bool may_split = split != Split::kNone;
  const std::int64_t chunks = kernels::chunks_of(params.tk);
  const double most =
      static_cast<double>(plan.q_blocks) * static_cast<double>(may_split ? std::max<std::int64_t>(chunks, 1) : 1);
  constexpr double kMany = 1e6;  // more threads than any machine has
  const double useful = std::min({std::max(flop / static_cast<double>(tuning.flop_per_worker),
                                           bytes / static_cast<double>(tuning.key_bytes_per_worker)),
                                  most, kMany});
  plan.workers = base::worker_count(std::max<std::int64_t>(1, static_cast<std::int64_t>(useful)), threads);
  const std::int64_t wanted = tuning.tasks_per_worker * plan.workers;
  if (split == Split::kBranches) {
    plan.splits = {.count = std::max<std::int64_t>(1, kernels::Branches{params.first_chunk, chunks}.size()),
                   .chunks = 0,
                   .branches = {params.first_chunk, chunks}};
  } else if (may_split && plan.workers > 1 && plan.q_blocks > 0 && plan.q_blocks < wanted && chunks > 1) {
    const std::int64_t splits = (wanted + plan.q_blocks - 1) / plan.q_blocks;
    plan.splits.chunks = static_cast<std::int64_t>(
        std::bit_ceil(static_cast<std::uint64_t>(std::max<std::int64_t>(1, chunks / splits))));
    plan.splits.count = (chunks + plan.splits.chunks - 1) / plan.splits.chunks;
  }
  const bool keeps_states = split == Split::kBranches || plan.splits.count > 1;
  // The few rows of a last block take decode, with a workspace of its own size.
  for (const std::int64_t rows : {plan.block_rows, std::int64_t{1}}) {
    plan.block_floats = std::max(plan.block_floats, kernel.workspace_floats(params, rows));
    if (keeps_states) {
      plan.row_state_floats = std::max(plan.row_state_floats, kernel.row_state_floats(params, rows));
    }
  }
  if (may_split && !keeps_states && packs_kv(params, table, tuning, plan.workers)) {
    plan.packed_kv_floats = (16 + kernel.packed_kv_floats(params) + 15) / 16 * 16;
  }
  if (may_split) group_blocks(params, table, tuning, plan);
  plan.worker_floats = static_cast<std::size_t>(plan.group) * plan.block_floats + plan.packed_kv_floats;
  return plan;
}

}  // namespace manyheads::attention_detail
