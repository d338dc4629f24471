#include "attention/backward.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <thread>

#include "attention/check.hpp"
#include "attention/key_tasks.hpp"
#include "attention/sum_tree.hpp"
#include "base/aligned_buffer.hpp"
#include "base/element.hpp"
#include "base/format.hpp"
#include "base/math.hpp"
#include "base/parallel.hpp"
#include "base/two_sum.hpp"
#include "base/workspace_layout.hpp"
#include "kernels/mask.hpp"
#include "kernels/tuning.hpp"

namespace manyheads::attention_detail {
namespace {

using kernels::BackwardKernels;
using kernels::BackwardParams;
using kernels::Gradient;
using kernels::kChunkKeys;
using kernels::KeyChunk;
using kernels::kGradRows;
using kernels::QueryBlock;

// Parts of dq that wait for those of earlier chunks. So many blocks may a thread run ahead of the one before it.
constexpr std::int64_t kWaiting = 12;
constexpr std::int64_t kPreparedRows = 256;

// Tasks for each thread, below which chunks of keys are cut into parts: the last to end leaves others idle.
constexpr std::int64_t kTasksPerWorker = 2;

std::int64_t bit_ceil(std::int64_t n) {
  return static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(std::max<std::int64_t>(1, n))));
}
// Chunks of queries of a head's group, by their numbers in the tree of sums.
std::int64_t numbers_of(const BackwardParams& params, std::int64_t queries) {
  return (params.kv_heads == 0 ? 1 : params.group()) * bit_ceil(kernels::chunks_of(queries));
}

std::int64_t blocks_of(std::int64_t queries) { return (queries + kGradRows - 1) / kGradRows; }

BackwardPlan plan_backward(const char* function, const BackwardParams& params, const BackwardKernels& kernels,
                           const Threads& threads) {
  BackwardPlan plan;
  const std::int64_t q_blocks = blocks_of(params.tq);
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
  plan.ring = worker.take({plan.most_chunks > 1 ? kWaiting : 1, size(plan.query_floats)}, sizeof(float));
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

// One run of a backward.
class BackwardRun {
 public:
  BackwardRun(const BackwardParams& params, const BackwardKernels& kernels, const BackwardPlan& plan,
              const Threads& threads, std::byte* memory)
      : params_(params), kernels_(kernels), plan_(plan), threads_(threads), memory_(memory) {
    params_.shift = at<float>(plan.shift);
    params_.factor = at<float>(plan.factor);
    params_.delta = at<float>(plan.delta);
  }

  void operator()() {
    if (params_.documents()) {
      kernels::tabulate_documents(params_, at<std::int64_t>(plan_.documents));
      params_.run_documents = at<std::int64_t>(plan_.documents);
    }
    prepare();
    if (params_.dq.defined() || params_.dk.defined() || params_.dvalue.defined() || params_.dalibi.defined()) {
      if (params_.dalibi.defined()) {
        std::fill_n(at<double>(plan_.alibi), params_.batch * params_.q_heads * plan_.most_chunks, 0.0);
      }
      KeyTasks tasks(params_, plan_.slots, plan_.parts, at<std::int64_t>(plan_.tasks_at));
      base::parallel_for(plan_.workers, plan_.workers, threads_.executor, [&](std::int64_t, int worker) {
        HeadWork head;
        std::int64_t chunk = 0, part = 0;
        while (tasks.next(head, chunk, part, [&](int slot) { begin_head(slot); })) {
          run_part(head, chunk, part, worker);
          if (!tasks.done(head)) continue;
          if (plan_.parts > 1) store_keys(head, worker);
          if (head.chunks > 1) store_queries(head, worker);
          store_missing_keys(head, worker);
          tasks.release(head);
        }
      });
    }
    if (params_.dbias.defined()) bias();
    for (std::int64_t h = 0; params_.dsinks.defined() && h < params_.q_heads; ++h) sink(h);
    for (std::int64_t h = 0; params_.dalibi.defined() && h < params_.q_heads; ++h) slope(h);
  }

 private:
  template <class T>
  T* at(std::size_t offset) const {
    return reinterpret_cast<T*>(memory_ + offset);
  }
  std::byte* worker_memory(int worker) const {
    return memory_ + plan_.worker + static_cast<std::size_t>(worker) * plan_.worker_bytes;
  }
  float* workspace(int worker) const { return reinterpret_cast<float*>(worker_memory(worker)); }

  // The sums of dq of a head under way.
  struct Sums {
    float* high;
    float* low;
    ChunkBits bits;
    std::uint8_t* begun;  // whether a chunk has given a block anything
  };
  Sums sums_of(int slot) const {
    std::byte* const memory = memory_ + plan_.slot + static_cast<std::size_t>(slot) * plan_.slot_bytes;
    return {reinterpret_cast<float*>(memory + plan_.high), reinterpret_cast<float*>(memory + plan_.low),
            ChunkBits(reinterpret_cast<std::uint64_t*>(memory + plan_.bits), ChunkBits::words(plan_.most_chunks)),
            reinterpret_cast<std::uint8_t*>(memory + plan_.begun)};
  }
  void begin_head(int slot) const {
    if (plan_.most_chunks <= 1 || !params_.dq.defined()) return;
    std::byte* const memory = memory_ + plan_.slot + static_cast<std::size_t>(slot) * plan_.slot_bytes;
    std::fill_n(memory + plan_.bits, plan_.slot_bytes - plan_.bits, std::byte{0});
  }

  void prepare() {
    const std::int64_t per_head = (params_.tq + kPreparedRows - 1) / kPreparedRows;
    const std::int64_t tasks = params_.batch * params_.q_heads * per_head;
    const int workers = std::min(plan_.workers, base::worker_count(tasks, threads_));
    base::parallel_for(tasks, workers, threads_.executor, [&](std::int64_t task, int worker) {
      const std::int64_t b = task / per_head / params_.q_heads, h = task / per_head % params_.q_heads;
      const std::int64_t begin = task % per_head * kPreparedRows;
      const std::int64_t end = std::min(begin + kPreparedRows, params_.queries(b));
      if (begin < end) kernels_.prepare(params_, {b, h / params_.group(), 0, 0, workspace(worker)}, h, begin, end);
    });
  }

  QueryBlock block_of(const HeadWork& head, std::int64_t queries, std::int64_t block) const {
    const std::int64_t per_head = blocks_of(queries);
    const std::int64_t first = block % per_head * kGradRows;
    return {head.batch, head.kv_head, block / per_head * queries + first, std::min(kGradRows, queries - first)};
  }

  // Parts of dq on their way to the sums, in order.
  class Waiting {
   public:
    Waiting(float* memory, std::size_t floats, const Sums& sums, std::int64_t chunk)
        : memory_(memory), floats_(floats), sums_(sums), chunk_(chunk) {}
    float* next() {
      if (count_ == kWaiting) wait();
      return at(first_ + count_);
    }
    void push(std::int64_t block) {
      blocks_[(first_ + count_++) % kWaiting] = block;
      while (count_ > 0 && sums_.bits.all_before(blocks_[first_ % kWaiting], chunk_)) add();
    }
    void finish() {
      while (count_ > 0) wait();
    }

   private:
    float* at(std::int64_t i) const { return memory_ + static_cast<std::size_t>(i % kWaiting) * floats_; }
    void wait() {
      for (int spins = 0; !sums_.bits.all_before(blocks_[first_ % kWaiting], chunk_); ++spins) {
        if (spins > 64) std::this_thread::yield();
      }
      add();
    }
    void add() {
      const std::int64_t block = blocks_[first_ % kWaiting];
      const std::size_t offset = static_cast<std::size_t>(block) * floats_;
      const float* const part = at(first_);
      if (sums_.begun[block] != 0) {
        base::add_exactly(part, floats_, sums_.high + offset, sums_.low + offset);
      } else {
        std::copy_n(part, floats_, sums_.high + offset);
        std::fill_n(sums_.low + offset, floats_, 0.0f);
        sums_.begun[block] = 1;
      }
      sums_.bits.set(block, chunk_);
      ++first_;
      --count_;
    }

    float* memory_;
    std::size_t floats_;
    const Sums& sums_;
    std::int64_t chunk_, first_ = 0, count_ = 0;
    std::int64_t blocks_[kWaiting];
  };

  KeyChunk keys_of(const HeadWork& head, std::int64_t chunk, int worker) const {
    return {head.batch, head.kv_head, chunk * kChunkKeys,
            std::min((chunk + 1) * kChunkKeys, params_.key_length(head.batch)), workspace(worker)};
  }

  // One part of the queries for a chunk of keys.
  void run_part(const HeadWork& head, std::int64_t chunk, std::int64_t part, int worker) {
    const std::int64_t b = head.batch, queries = params_.queries(b);
    const KeyChunk keys = keys_of(head, chunk, worker);
    const std::int64_t per_head = blocks_of(queries), blocks = params_.group() * per_head;
    const std::int64_t q_chunks = bit_ceil(kernels::chunks_of(queries));
    // The part's chunks of queries: a whole branch of the tree.
    const std::int64_t branch = std::max<std::int64_t>(1, bit_ceil(numbers_of(params_, queries)) / plan_.parts);
    const auto number_of = [&](std::int64_t block) {
      return block / per_head * q_chunks + block % per_head * kGradRows / kChunkKeys;
    };
    const auto in_part = [&](std::int64_t block) { return number_of(block) / branch == part; };
    const bool ordered = head.chunks > 1 && params_.dq.defined();
    const kernels::QueryRange seen = kernels::Band(params_, b).queries_of({keys.begin, keys.end});
    const auto may_see = [&](std::int64_t block) {
      const std::int64_t first = block % per_head * kGradRows;
      return first < seen.end && first + kGradRows > seen.begin;
    };
    const Sums sums = ordered ? sums_of(head.slot) : Sums{nullptr, nullptr, ChunkBits(nullptr, 0), nullptr};
    float* const ring = reinterpret_cast<float*>(worker_memory(worker) + plan_.ring);
    Waiting waiting(ring, plan_.query_floats, sums, chunk);
    for (std::int64_t i = 0; ordered && i < blocks; ++i) {
      if (in_part(i) && !may_see(i)) sums.bits.set(i, chunk);
    }
    if (keys.begin < keys.end) kernels_.load(params_, keys);
    const std::size_t key_floats = static_cast<std::size_t>(keys.end - keys.begin) * plan_.key_floats;
    SumTree tree(reinterpret_cast<float*>(worker_memory(worker) + plan_.tree), key_floats);
    for (std::int64_t i = 0; i < blocks; ++i) {
      if (!in_part(i)) continue;
      const QueryBlock q_block = block_of(head, queries, i);
      const std::int64_t h = i / per_head;
      kernels::BlockGradients to;
      std::int64_t read = 0;
      to.queries = ordered ? nullptr : ring;
      if (may_see(i)) {
        to.keys = tree.open(number_of(i));
        if (ordered) to.queries = waiting.next();
        if (params_.dalibi.defined()) to.alibi = alibi_of(b, head.kv_head * params_.group() + h) + chunk;
        read = kernels_.block(params_, keys, q_block, to);
        if (ordered && read > 0) waiting.push(i);
        if (ordered && read == 0) sums.bits.set(i, chunk);
      }
      if (head.chunks == 1 && params_.dq.defined()) {
        kernels_.store_queries(params_, q_block, read > 0 ? ring : nullptr, nullptr, keys.workspace);
      }
    }
    float* const of_keys = tree.close();
    if (plan_.parts == 1) {
      if (keys.begin < keys.end) kernels_.store_keys(params_, keys, of_keys);
    } else {
      const PartSums to = part_sums(head, chunk, part);
      *to.read = of_keys != nullptr;
      if (of_keys != nullptr) std::copy_n(of_keys, key_floats, to.sums);
    }
    if (ordered) waiting.finish();
  }

  // What a part's queries add to the gradients of a chunk of keys.
  struct PartSums {
    float* sums;
    std::uint8_t* read;  // whether any query read the keys
  };
  PartSums part_sums(const HeadWork& head, std::int64_t chunk, std::int64_t part) const {
    std::byte* const memory = memory_ + plan_.slot + static_cast<std::size_t>(head.slot) * plan_.slot_bytes;
    const std::size_t i = static_cast<std::size_t>(chunk * plan_.parts + part);
    return {reinterpret_cast<float*>(memory + plan_.part_sums) + i * plan_.chunk_floats,
            reinterpret_cast<std::uint8_t*>(memory + plan_.part_read) + i};
  }

  // Writes dk and dv of a head of which all parts are done: their branches combine as one tree would.
  void store_keys(const HeadWork& head, int worker) const {
    for (std::int64_t chunk = 0; chunk < head.chunks; ++chunk) {
      const KeyChunk keys = keys_of(head, chunk, worker);
      if (keys.begin >= keys.end) continue;
      const std::size_t key_floats = static_cast<std::size_t>(keys.end - keys.begin) * plan_.key_floats;
      SumTree tree(reinterpret_cast<float*>(worker_memory(worker) + plan_.tree), key_floats);
      for (std::int64_t part = 0; part < plan_.parts; ++part) {
        const PartSums from = part_sums(head, chunk, part);
        if (*from.read != 0) std::copy_n(from.sums, key_floats, tree.open(part));
      }
      kernels_.store_keys(params_, keys, tree.close());
    }
  }

  // Writes dq of a head of which all chunks are done.
  void store_queries(const HeadWork& head, int worker) {
    if (!params_.dq.defined()) return;
    const std::int64_t queries = params_.queries(head.batch);
    const Sums sums = sums_of(head.slot);
    for (std::int64_t i = 0; i < params_.group() * blocks_of(queries); ++i) {
      const std::size_t offset = static_cast<std::size_t>(i) * plan_.query_floats;
      const bool begun = sums.begun[i] != 0;
      kernels_.store_queries(params_, block_of(head, queries, i), begun ? sums.high + offset : nullptr,
                             begun ? sums.low + offset : nullptr, workspace(worker));
    }
  }

  // Keys before the first and behind the last that exist have gradients of 0.
  void store_missing_keys(const HeadWork& head, int worker) {
    if (params_.k_starts.defined() || params_.accumulate) return;
    const std::int64_t start = params_.key_start(head.batch);
    for (const auto& [begin, end] :
         {std::pair{-start, std::int64_t{0}}, std::pair{params_.key_length(head.batch), params_.tk - start}}) {
      if (begin < end) kernels_.store_keys(params_, {head.batch, head.kv_head, begin, end, workspace(worker)}, nullptr);
    }
  }

  // dbias: each cell of the bias is one task's, 512 keys by 64 queries.
  void bias() {
    const Gradient& gradient = params_.dbias;
    const std::int64_t row_tasks = gradient.size[2] == 1 ? 1 : blocks_of(params_.tq);
    const std::int64_t key_tasks =
        gradient.size[3] == 1 ? 1 : std::max<std::int64_t>(1, kernels::chunks_of(params_.tk));
    const std::int64_t tasks = gradient.size[0] * gradient.size[1] * row_tasks * key_tasks;
    const int workers = std::min(plan_.workers, base::worker_count(tasks, threads_));
    base::parallel_for(tasks, workers, threads_.executor, [&](std::int64_t task, int worker) {
      const std::int64_t key_task = task % key_tasks, row_task = task / key_tasks % row_tasks;
      const std::int64_t head = task / key_tasks / row_tasks % gradient.size[1];
      const std::int64_t entry = task / key_tasks / row_tasks / gradient.size[1];
      double* const sums = reinterpret_cast<double*>(worker_memory(worker) + plan_.bias);
      std::fill_n(sums, kChunkKeys * kGradRows, 0.0);
      const auto each = [](std::int64_t size, std::int64_t one, std::int64_t all, auto&& visit) {
        if (size != 1) return visit(one);
        for (std::int64_t i = 0; i < all; ++i) visit(i);
      };
      each(gradient.size[0], entry, params_.batch, [&](std::int64_t b) {
        each(gradient.size[1], head, params_.q_heads, [&](std::int64_t h) {
          each(gradient.size[3], key_task, kernels::chunks_of(params_.tk), [&](std::int64_t chunk) {
            // The bias counts keys from their first place, kernels from the first that exists.
            const std::int64_t start = params_.key_start(b), place = chunk * kChunkKeys;
            const KeyChunk keys{b, h / params_.group(), std::max<std::int64_t>(0, place - start),
                                std::min(place + kChunkKeys - start, params_.key_length(b)), workspace(worker)};
            if (keys.begin >= keys.end) return;
            kernels_.load(params_, keys);
            each(gradient.size[2], row_task, blocks_of(params_.tq), [&](std::int64_t block) {
              const std::int64_t first = block * kGradRows;
              if (first >= params_.queries(b)) return;
              const QueryBlock q_block{b, keys.kv_head, h % params_.group() * params_.queries(b) + first,
                                       std::min(kGradRows, params_.queries(b) - first)};
              kernels_.bias(params_, keys, q_block, sums + (keys.begin + start - place) * kGradRows);
            });
          });
        });
      });
      store_bias(entry, head, row_task, key_task, sums);
    });
  }
  void store_bias(std::int64_t b, std::int64_t h, std::int64_t row_task, std::int64_t key_task, double* sums) const {
    const Gradient& gradient = params_.dbias;
    if (gradient.size[2] == 1) {
      for (std::int64_t key = 0; key < kChunkKeys; ++key) {
        for (std::int64_t r = 1; r < kGradRows; ++r) sums[key * kGradRows] += sums[key * kGradRows + r];
      }
    }
    if (gradient.size[3] == 1) {
      for (std::int64_t key = 1; key < kChunkKeys; ++key) {
        for (std::int64_t r = 0; r < kGradRows; ++r) sums[r] += sums[key * kGradRows + r];
      }
    }
    const std::int64_t rows = gradient.size[2] == 1 ? 1 : std::min(kGradRows, params_.tq - row_task * kGradRows);
    const std::int64_t keys = gradient.size[3] == 1 ? 1 : std::min(kChunkKeys, params_.tk - key_task * kChunkKeys);
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t key = 0; key < keys; ++key) {
        add_to(gradient,
               b * gradient.stride[0] + h * gradient.stride[1] + (row_task * kGradRows + r) * gradient.stride[2] +
                   (key_task * kChunkKeys + key) * gradient.stride[3],
               sums[key * kGradRows + r]);
      }
    }
  }
  void add_to(const Gradient& gradient, std::int64_t at, double sum) const {
    if (params_.accumulate) sum += base::load_element(gradient.data, gradient.type, at);
    base::store_element(gradient.data, gradient.type, at, sum);
  }

  // A sink has the probability exp(sink - lse) and the value 0.
  void sink(std::int64_t h) const {
    const double logit = static_cast<double>(params_.sinks[h * params_.sinks_stride]);
    double sum = 0;
    for (std::int64_t b = 0; b < params_.batch; ++b) {
      for (std::int64_t i = 0; i < params_.queries(b); ++i) {
        const double lse = static_cast<double>(params_.lse[params_.lse_at(b, h, i)]);
        sum -= base::exp(logit - lse) * static_cast<double>(params_.delta[params_.grad_row(b, h, i)]);
      }
    }
    add_to(params_.dsinks, h * params_.dsinks.stride[1], sum);
  }

  double* alibi_of(std::int64_t b, std::int64_t h) const {
    return at<double>(plan_.alibi) + (b * params_.q_heads + h) * plan_.most_chunks;
  }
  void slope(std::int64_t h) const {
    double sum = 0;
    for (std::int64_t b = 0; b < params_.batch; ++b) {
      for (std::int64_t c = 0; c < plan_.most_chunks; ++c) sum += alibi_of(b, h)[c];
    }
    add_to(params_.dalibi, h * params_.dalibi.stride[1], sum);
  }

  BackwardParams params_;
  const BackwardKernels& kernels_;
  const BackwardPlan& plan_;
  const Threads& threads_;
  std::byte* memory_;
};

}  // namespace

PreparedBackward::PreparedBackward(const char* function, const ConstTensorView& q, const ConstTensorView& k,
                                   const ConstTensorView& v, const ConstTensorView& out, const ConstTensorView& dout,
                                   const ConstTensorView& lse, const AttentionGradients& gradients,
                                   const AttentionOptions& options)
    : params_(check_backward(function, q, k, v, &out, dout, &lse, gradients, options)),
      products_(kernels::backward_products(params_, options.bits)),
      table_(&kernels::backward_table(function, options.bits, products_)),
      plan_(plan_backward(function, params_, kernels::backward_kernels(*table_, products_), options.threads)),
      threads_(options.threads) {}

Explanation explain(const PreparedBackward& prepared) {
  const BackwardParams& params = prepared.params();
  const BackwardPlan& plan = prepared.plan();
  Explanation e;
  e.isa = prepared.table().name;
  e.bits = prepared.table().bits_of(prepared.products());
  e.path = prepared.products() == kernels::Products::kBF16 ? "fused backward, BF16 pairs"
           : params.type == DType::kF32                    ? "fused backward, F32"
                                        : base::format("fused backward, {} read as F32", name_of(params.type));
  if (params.q_starts.defined() || params.k_starts.defined()) e.path += ", packed sequences";
  e.threads = plan.workers;
  e.query_block_rows = kGradRows;
  e.run_keys = kernels::kRunKeys;
  e.chunk_keys = kChunkKeys;
  e.tasks = plan.tasks;
  e.tuning = kernels::tuning().to_string();
  e.workspace_bytes = plan.bytes;
  const kernels::AttentionMask mask(params);
  double q_rows = 0, kv_rows = 0;
  for (std::int64_t b = 0; b < params.batch; ++b) {
    q_rows += static_cast<double>(params.q_heads * params.queries(b));
    kv_rows += static_cast<double>(params.kv_heads * params.key_length(b));
    for (std::int64_t h = 0; h < params.q_heads; ++h) {
      for (std::int64_t i = 0; i < params.queries(b); i += kGradRows) {
        const QueryBlock q_block{b, h / params.group(), h % params.group() * params.queries(b) + i,
                                 std::min(kGradRows, params.queries(b) - i)};
        std::int64_t keys = 0;
        const std::int64_t read = mask.each_run(
            q_block, mask.keys_of(q_block), [&](std::int64_t begin, std::int64_t end, bool) { keys += end - begin; });
        const std::int64_t runs = kernels::runs_of(params.key_length(b));
        e.runs += runs;
        e.skipped_runs += runs - read;
        e.flop += 2.0 * static_cast<double>(3 * params.d + 2 * params.dv) * static_cast<double>(q_block.rows) *
                  static_cast<double>(keys);
      }
    }
  }
  const auto size = [](DType type) { return static_cast<double>(size_of(type)); };
  const double d = static_cast<double>(params.d), dv = static_cast<double>(params.dv);
  e.bytes = kv_rows * 2 * (d + dv) * size(params.kv_type) + q_rows * 2 * d * size(params.type) +
            q_rows * dv * (size(params.out_type) + size(params.dout_type));
  return e;
}

void PreparedBackward::run(std::byte* workspace) const {
  BackwardRun(params_, kernels::backward_kernels(*table_, products_), plan_, threads_, workspace)();
}

void PreparedBackward::run(Workspace* workspace) const {
  if (workspace != nullptr) return run(static_cast<std::byte*>(workspace->reserve(plan_.bytes)));
  base::AlignedBuffer<std::byte> own(plan_.bytes);
  run(own.data());
}

}  // namespace manyheads::attention_detail

namespace manyheads {

using attention_detail::PreparedBackward;

void attention_backward(ConstTensorView q, ConstTensorView k, ConstTensorView v, ConstTensorView out,
                        ConstTensorView dout, ConstTensorView lse, const AttentionGradients& gradients,
                        const AttentionOptions& options) {
  PreparedBackward("attention_backward", q, k, v, out, dout, lse, gradients, options).run(options.workspace);
}

void attention_backward_reference(ConstTensorView q, ConstTensorView k, ConstTensorView v, ConstTensorView dout,
                                  const AttentionGradients& gradients, const AttentionOptions& options) {
  kernels::reference_backward(attention_detail::check_backward("attention_backward_reference", q, k, v, nullptr, dout,
                                                               nullptr, gradients, options));
}

std::size_t attention_backward_workspace_size(ConstTensorView q, ConstTensorView k, ConstTensorView v,
                                              ConstTensorView out, ConstTensorView dout, ConstTensorView lse,
                                              const AttentionGradients& gradients, const AttentionOptions& options) {
  return PreparedBackward("attention_backward_workspace_size", q, k, v, out, dout, lse, gradients, options)
      .workspace_bytes();
}

Explanation explain_backward(ConstTensorView q, ConstTensorView k, ConstTensorView v, ConstTensorView out,
                             ConstTensorView dout, ConstTensorView lse, const AttentionGradients& gradients,
                             const AttentionOptions& options) {
  const PreparedBackward prepared("explain_backward", q, k, v, out, dout, lse, gradients, options);
  return attention_detail::explain(prepared);
}

}  // namespace manyheads
