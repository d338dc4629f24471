#include <manyheads/attention.hpp>

#include <algorithm>
#include <limits>

#include "attention/check.hpp"
#include "attention/plan.hpp"
#include "attention/weights.hpp"
#include "base/aligned_buffer.hpp"
#include "base/checked.hpp"
#include "base/format.hpp"
#include "base/parallel.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/mask.hpp"
#include "kernels/reference.hpp"

namespace manyheads {
namespace {

using attention_detail::check;
using attention_detail::plan;
using attention_detail::Plan;
using attention_detail::TileIndex;

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
  float* scratch(int worker, const Plan& plan) const noexcept {
    return data_ + plan.entry_floats + plan.document_floats + static_cast<std::size_t>(worker) * plan.scratch_floats;
  }

 private:
  base::AlignedBuffer<float> own_;
  float* data_ = nullptr;
};

// A worker's copy of a head's keys and values, behind the numbers of the batch entry and the head.
class HeadCopy {
 public:
  explicit HeadCopy(float* memory) : head_(reinterpret_cast<std::int64_t*>(memory)), rows_(memory + 16) {}
  void forget() noexcept { head_[0] = -1; }
  // The call on the copy of the tile's head, which is made where it is another's.
  kernels::AttentionCall of(const kernels::AttentionCall& call, const kernels::Tile& tile,
                            const kernels::KernelTable& table) {
    const std::int64_t keys = kernels::QueryKeys(call, tile.batch).end(call.tq - 1);
    if (head_[0] != tile.batch || head_[1] != tile.kv_head) {
      table.gather(call, tile, keys, rows_);
      head_[0] = tile.batch;
      head_[1] = tile.kv_head;
    }
    kernels::AttentionCall copied = table.gathered(call, rows_);
    copied.source = &call;
    return copied;
  }

 private:
  std::int64_t* head_;
  float* rows_;
};

void forward(kernels::AttentionCall call, const kernels::KernelTable& table, const AttentionOptions& options) {
  const Plan p = plan(call, table, options);
  const Memory memory(p, options.workspace);
  const TileIndex tiles(call, p, table, memory.data());
  if (p.document_floats > 0) {
    auto* const documents = reinterpret_cast<std::int64_t*>(memory.data() + p.entry_floats);
    kernels::tabulate_documents(call, documents);
    call.run_documents = documents;
  }
  float* const nodes = memory.scratch(p.workers, p);
  const auto copy_of = [&](int worker) {
    return HeadCopy(memory.scratch(worker, p) + p.scratch_floats - p.head_floats);
  };
  for (int worker = 0; p.head_floats > 0 && worker < p.workers; ++worker) copy_of(worker).forget();
  const auto nodes_of = [&](std::int64_t tile) { return nodes + static_cast<std::size_t>(tile * p.blocks) * p.node_floats; };
  const auto run = [&](const kernels::Tile& tile, const kernels::KeyPart& part, const kernels::Tile& next, float* node,
                       int worker, float* scratch) {
    if (p.head_floats > 0) {
      table.forward(copy_of(worker).of(call, tile, table), tile, part, next, node, scratch);
    } else {
      table.forward(call, tile, part, next, node, scratch);
    }
  };
  if (p.group > 1) {
    base::parallel_for(p.tasks(), p.workers, options.executor, [&](std::int64_t task, int worker) {
      const std::int64_t begin = task / p.groups_per_head() * p.tiles_per_head;
      const std::int64_t first = begin + task % p.groups_per_head() * p.group;
      const std::int64_t last = std::min(first + p.group, begin + p.tiles_per_head);
      // To the last key that any query of the entry sees; once where there is none.
      const std::int64_t keys = std::max<std::int64_t>(1, kernels::QueryKeys(call, tiles(first).batch).end(call.tq - 1));
      for (std::int64_t key = 0; key < keys; key += p.part_keys) {
        const bool ends = key + p.part_keys >= keys;
        const kernels::KeyPart part{key, ends ? -1 : key + p.part_keys, key == 0, ends};
        for (std::int64_t i = first; i < last; ++i) {
          run(tiles(i), part, {}, nullptr, worker,
              memory.scratch(worker, p) + static_cast<std::size_t>(i - first) * p.tile_floats);
        }
      }
    });
    return;
  }
  base::parallel_for(p.tasks(), p.workers, options.executor, [&](std::int64_t task, int worker) {
    const kernels::Tile tile = tiles(task / p.blocks);
    const std::int64_t block = task % p.blocks;
    float* node = nullptr;
    kernels::Tile next;  // other workers take those between
    if (p.blocks == 1 && task + p.workers < p.tiles) next = tiles(task + p.workers);
    if (p.blocks > 1) node = nodes_of(task / p.blocks) + static_cast<std::size_t>(block) * table.node_floats(call, tile);
    run(tile, p.block(block), next, node, worker, memory.scratch(worker, p));
  });
  if (p.blocks == 1) return;
  base::parallel_for(p.tiles, p.workers, options.executor,
                     [&](std::int64_t i, int) { table.merge(call, tiles(i), nodes_of(i), p.blocks); });
}

}  // namespace

void attention(ConstTensorView q, ConstTensorView k, ConstTensorView v, TensorView out,
               const AttentionOptions& options) {
  const kernels::AttentionCall call = check("attention", q, k, &v, &out, options);
  if (element_count(out.shape()) == 0 && options.lse == nullptr) return;  // views of stride 0 may yet be endless
  forward(call, kernels::active_table(), options);
}

void attention_weights(ConstTensorView q, ConstTensorView k, ConstTensorView lse, TensorView weights,
                       const AttentionOptions& options) {
  attention_detail::weights(q, k, lse, weights, options, nullptr);
}

void attention_detail::weights(const ConstTensorView& q, const ConstTensorView& k, const ConstTensorView& lse,
                               const TensorView& weights, const AttentionOptions& options, float* row_lse) {
  static constexpr const char* kName = "attention_weights";
  kernels::AttentionCall call = check(kName, q, k, nullptr, nullptr, options);
  check_lse(kName, lse, call);
  check_weights(kName, weights, call);
  check_overlap(kName, "weights", weights, "lse", lse);
  check_inputs(kName, "weights", weights, q, k, nullptr, options);
  call.row_lse = row_lse;
  const kernels::KernelTable& table = kernels::active_table();
  const Plan p = plan(call, table, options, false);
  const Memory memory(p, options.workspace);
  const TileIndex tiles(call, p, table, memory.data());
  base::parallel_for(p.tasks(), p.workers, options.executor, [&](std::int64_t i, int worker) {
    table.weights(call, tiles(i), memory.scratch(worker, p));
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
  if (call.int8_products) {
    e.path = "fused forward, I8 products";
  } else if (attention_detail::multiplies_pairs(call, table)) {
    e.path = "fused forward, BF16 products";
  } else if (call.kv_type == DType::kF32) {
    e.path = "fused forward, F32";
  } else {
    e.path = base::format("fused forward, {} read as F32", name_of(call.kv_type));
  }
  if (plan.head_floats > 0) e.path += ", each head's keys and values copied together";
  if (call.page_size > 0) e.path += base::format(", pages of {}", call.page_size);
  if (call.q_starts.data != nullptr || call.k_starts.data != nullptr) e.path += ", packed sequences";
  e.threads = plan.workers;
  e.tile_queries = table.tile_queries(call);
  e.run_keys = kernels::kRunKeys;
  e.chunk_keys = kernels::kChunkKeys;
  e.tiles_together = plan.group;
  e.part_keys = plan.part_keys;
  e.key_blocks = plan.blocks;
  e.tasks = plan.tasks();
  e.workspace_bytes = plan.workspace_floats() * sizeof(float);
  base::AlignedBuffer<float> index(plan.entry_floats);
  const TileIndex tiles(call, plan, table, index.data());
  for (std::int64_t i = 0; call.dv > 0 && i < plan.tiles; ++i) {
    const kernels::Tile tile = tiles(i);
    const std::int64_t keys_there = call.k_starts.data != nullptr ? call.key_length(tile.batch) : call.tk;
    const std::int64_t runs = kernels::runs_of(keys_there);
    std::int64_t keys = 0;
    const std::int64_t read =
        kernels::for_each_run(call, tile, kernels::tile_range(call, tile),
                              [&](std::int64_t begin, std::int64_t end, bool) { keys += end - begin; });
    if (!base::add(e.blocks, runs, &e.blocks)) e.blocks = std::numeric_limits<std::int64_t>::max();
    if (!base::add(e.skipped_blocks, runs - read, &e.skipped_blocks)) e.skipped_blocks = e.blocks;
    e.flop +=
        2.0 * static_cast<double>(call.d + call.dv) * static_cast<double>(tile.rows) * static_cast<double>(keys);
  }
  double q_rows = 0;
  double kv_rows = 0;
  for (std::int64_t b = 0; b < call.batch; ++b) {
    q_rows += static_cast<double>(call.q_heads * call.queries(b));
    kv_rows += static_cast<double>(call.kv_heads * call.key_length(b));
  }
  const double scale_bytes = call.k_scales != nullptr ? 2.0 * sizeof(float) : 0.0;
  e.bytes = kv_rows * (static_cast<double>(call.d + call.dv) * static_cast<double>(size_of(call.kv_type)) + scale_bytes) +
            q_rows * static_cast<double>(call.d) * static_cast<double>(size_of(call.type)) +
            q_rows * static_cast<double>(call.dv) * static_cast<double>(size_of(call.out_type));
  return e;
}

std::string Explanation::to_string() const {
  const std::string together = tiles_together > 1
                                   ? base::format("groups of {} tiles of up to {} queries, together over each {} keys",
                                                  tiles_together, tile_queries, part_keys)
                                   : base::format("tiles of up to {} queries", tile_queries);
  return base::format(
      "{} on {}, {} threads: {} {}, keys in runs of {} and chunks of {}, each "
      "tile's in {} parts; {} of {} blocks skipped; {:.3g} FLOP, {:.3g} bytes, workspace {} bytes",
      path, isa, threads, tasks, together, run_keys, chunk_keys, key_blocks, skipped_blocks, blocks, flop, bytes,
      workspace_bytes);
}

}  // namespace manyheads
