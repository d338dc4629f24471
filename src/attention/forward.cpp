#include "attention/forward.hpp"

#include <algorithm>

#include "attention/check.hpp"
#include "attention/query_blocks.hpp"
#include "base/aligned_buffer.hpp"
#include "base/parallel.hpp"
#include "kernels/documents.hpp"
#include "kernels/mask.hpp"

namespace manyheads::attention_detail {
namespace {

using kernels::AttentionKernels;
using kernels::ForwardParams;
using kernels::KernelTable;
using kernels::KvSplit;
using kernels::QueryBlock;

// The workspace of a run: the index of query blocks, the document table, a part for each worker, and the row states of
// all splits.
struct Layout {
  Layout(const Plan& plan, float* memory) noexcept
      : entries(memory),
        documents(reinterpret_cast<std::int64_t*>(memory + plan.entry_floats)),
        workers(memory + plan.entry_floats + plan.document_floats),
        states(workers + static_cast<std::size_t>(plan.workers) * plan.worker_floats),
        plan_(plan) {}
  float* worker(int w) const noexcept { return workers + static_cast<std::size_t>(w) * plan_.worker_floats; }
  float* packed_kv(int w) const noexcept { return worker(w) + plan_.worker_floats - plan_.packed_kv_floats; }
  float* states_of(std::int64_t q_block) const noexcept {
    return states + static_cast<std::size_t>(q_block * plan_.splits.count) * plan_.row_state_floats;
  }
  float* entries;
  std::int64_t* documents;
  float* workers;
  float* states;

 private:
  const Plan& plan_;
};

// Calls use(floats) with memory for a plan: the caller's workspace, or a block of its own.
template <class Use>
void with_workspace(const Plan& plan, Workspace* workspace, Use&& use) {
  if (workspace != nullptr) {
    use(static_cast<float*>(workspace->reserve(plan.workspace_floats() * sizeof(float))));
  } else {
    base::AlignedBuffer<float> own(plan.workspace_floats());
    use(own.data());
  }
}

// A worker's packed K and V of one head. The numbers of the batch entry and the head lie before them.
class PackedKv {
 public:
  explicit PackedKv(float* memory) : head_(reinterpret_cast<std::int64_t*>(memory)), rows_(memory + 16) {}
  void forget() noexcept { head_[0] = -1; }
  // The call that reads the packed head of a query block. Packs the head first where another one lies there.
  ForwardParams of(const ForwardParams& params, const QueryBlock& q_block, const AttentionKernels& kernels) {
    if (head_[0] != q_block.batch || head_[1] != q_block.kv_head) {
      kernels.pack_kv(params, q_block, kernels::Band(params, q_block.batch).keys_end(params.tq - 1), rows_);
      head_[0] = q_block.batch;
      head_[1] = q_block.kv_head;
    }
    return kernels.on_packed_kv(params, rows_);
  }

 private:
  std::int64_t* head_;
  float* rows_;
};

// One run of a forward.
class ForwardRun {
 public:
  ForwardRun(const ForwardParams& params, const KernelTable& table, const Plan& plan, const Threads& threads,
             float* memory)
      : params_(params),
        table_(table),
        kernels_(table.attention(params)),
        plan_(plan),
        threads_(threads),
        layout_(plan, memory),
        q_blocks_(params_, plan, table, layout_.entries) {
    for (int w = 0; plan.packed_kv_floats > 0 && w < plan.workers; ++w) PackedKv(layout_.packed_kv(w)).forget();
  }

  void operator()() {
    if (plan_.group > 1) return by_groups();
    base::parallel_for(plan_.tasks(), plan_.workers, threads_.executor, [&](std::int64_t task, int worker) {
      const std::int64_t i = task / plan_.splits.count;
      const std::int64_t split = task % plan_.splits.count;
      const QueryBlock q_block = q_blocks_(i);
      QueryBlock next;  // other workers take those between
      if (plan_.row_state_floats == 0 && task + plan_.workers < plan_.q_blocks) next = q_blocks_(task + plan_.workers);
      float* states = nullptr;
      if (plan_.row_state_floats > 0) {
        states =
            layout_.states_of(i) + static_cast<std::size_t>(split) * kernels_.row_state_floats(params_, q_block.rows);
      }
      run_block(q_block, plan_.split(split), next, states, worker, layout_.worker(worker));
    });
    if (plan_.row_state_floats == 0) return;
    base::parallel_for(plan_.q_blocks, plan_.workers, threads_.executor, [&](std::int64_t i, int) {
      kernels_.combine(params_, q_blocks_(i), plan_.splits, layout_.states_of(i));
    });
  }

 private:
  // Each group of query blocks of a head takes its keys part by part, together.
  void by_groups() {
    base::parallel_for(plan_.tasks(), plan_.workers, threads_.executor, [&](std::int64_t task, int worker) {
      const std::int64_t begin = task / plan_.groups_per_head() * plan_.blocks_per_head;
      const std::int64_t first = begin + task % plan_.groups_per_head() * plan_.group;
      const std::int64_t last = std::min(first + plan_.group, begin + plan_.blocks_per_head);
      // Up to the last key that any query of the entry sees; one pass where there is none.
      const kernels::Band band(params_, q_blocks_(first).batch);
      const std::int64_t keys = std::max<std::int64_t>(1, band.keys_end(params_.tq - 1));
      for (std::int64_t key = 0; key < keys; key += plan_.keys_together) {
        const bool ends = key + plan_.keys_together >= keys;
        const KvSplit split{key, ends ? -1 : key + plan_.keys_together, key == 0, ends};
        for (std::int64_t i = first; i < last; ++i) {
          run_block(q_blocks_(i), split, {}, nullptr, worker,
                    layout_.worker(worker) + static_cast<std::size_t>(i - first) * plan_.block_floats);
        }
      }
    });
  }

  void run_block(const QueryBlock& q_block, const KvSplit& split, const QueryBlock& next, float* states, int worker,
                 float* workspace) const {
    if (plan_.packed_kv_floats > 0) {
      const ForwardParams packed = PackedKv(layout_.packed_kv(worker)).of(params_, q_block, kernels_);
      // Packed I8 is BF16, which other kernels take.
      table_.attention(packed).forward(packed, q_block, split, next, states, workspace);
    } else {
      kernels_.forward(params_, q_block, split, next, states, workspace);
    }
  }

  const ForwardParams& params_;
  const KernelTable& table_;
  const AttentionKernels& kernels_;
  const Plan& plan_;
  const Threads& threads_;
  Layout layout_;
  QueryBlocks q_blocks_;
};

void put_inputs(const Operands& operands, kernels::QkvMask& params) {
  if (operands.q != nullptr) params.q = operands.q;
  if (operands.k != nullptr) params.k = operands.k;
  if (operands.allowed != nullptr) params.allowed = reinterpret_cast<const std::uint8_t*>(operands.allowed);
  if (operands.bias != nullptr) params.bias = operands.bias;
  if (operands.cu_seqlens_q != nullptr) params.q_starts.data = operands.cu_seqlens_q;
  if (operands.cu_seqlens_k != nullptr) params.k_starts.data = operands.cu_seqlens_k;
  if (operands.first_query >= 0) params.dropout.first_query = operands.first_query;
}

}  // namespace

PreparedForward::PreparedForward(const char* function, const ConstTensorView& q, const ConstTensorView& k,
                                 const ConstTensorView& v, const TensorView& out, const AttentionOptions& options)
    : params_(check_forward(function, q, k, v, out, options)),
      table_(&kernels::table_with(function, options.bits, params_.products())),
      threads_(options.threads),
      nothing_to_do_(element_count(out.shape()) == 0 && !options.lse.defined()) {
  // With nothing to write, views of stride 0 may be endless: no plan.
  if (!nothing_to_do_)
    plan_ = attention_detail::plan(params_, *table_, threads_,
                                   options.row_states != nullptr ? Split::kBranches : Split::kAllowed);
}

PreparedForward PreparedForward::on(const Operands& operands) const {
  PreparedForward other = *this;
  put_inputs(operands, other.params_);
  if (operands.v != nullptr) other.params_.v = operands.v;
  if (operands.out != nullptr) other.params_.out = operands.out;
  if (operands.lse.defined()) put_lse(operands.lse, other.params_);
  return other;
}

void PreparedForward::run(float* workspace) const {
  if (nothing_to_do_) return;
  if (plan_.document_floats == 0) return ForwardRun(params_, *table_, plan_, threads_, workspace)();
  ForwardParams tabulated = params_;
  std::int64_t* const documents = Layout(plan_, workspace).documents;
  kernels::tabulate_documents(params_, documents);
  tabulated.run_documents = documents;
  ForwardRun(tabulated, *table_, plan_, threads_, workspace)();
}

void PreparedForward::run(Workspace* workspace) const {
  if (nothing_to_do_) return;
  with_workspace(plan_, workspace, [&](float* memory) { run(memory); });
}

PreparedProbs::PreparedProbs(const char* function, const ConstTensorView& q, const ConstTensorView& k,
                             const ConstTensorView& lse, const TensorView& weights, const AttentionOptions& options,
                             float* row_lse)
    : params_(check_probs(function, q, k, &lse, weights, options)),
      table_(&kernels::unsplit(kernels::table_with(function, options.bits, kernels::Products::kF32))),
      plan_(attention_detail::plan(params_, *table_, options.threads, Split::kNone)),
      threads_(options.threads) {
  params_.row_lse = row_lse;
}

PreparedProbs PreparedProbs::on(const Operands& operands) const {
  PreparedProbs other = *this;
  put_inputs(operands, other.params_);
  if (operands.out != nullptr) other.params_.probs = static_cast<float*>(operands.out);
  if (operands.lse.defined()) put_lse(operands.lse, other.params_);
  return other;
}

void PreparedProbs::run(float* workspace) const {
  const Layout layout(plan_, workspace);
  const QueryBlocks q_blocks(params_, plan_, *table_, layout.entries);
  base::parallel_for(plan_.tasks(), plan_.workers, threads_.executor,
                     [&](std::int64_t i, int worker) { table_->probs(params_, q_blocks(i), layout.worker(worker)); });
}

void PreparedProbs::run(Workspace* workspace) const {
  with_workspace(plan_, workspace, [&](float* memory) { run(memory); });
}

}  // namespace manyheads::attention_detail
