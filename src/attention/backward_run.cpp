#include "attention/backward_run.hpp"

#include <algorithm>
#include <utility>

#include "attention/key_tasks.hpp"
#include "attention/query_sums.hpp"
#include "attention/sum_tree.hpp"
#include "base/element.hpp"
#include "base/math.hpp"
#include "base/parallel.hpp"
#include "kernels/mask.hpp"

namespace manyheads::attention_detail {
namespace {

using kernels::BackwardKernels;
using kernels::BackwardParams;
using kernels::Gradient;
using kernels::kChunkKeys;
using kernels::KeyChunk;
using kernels::kGradRows;
using kernels::QueryBlock;

constexpr std::int64_t kPreparedRows = 256;

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

  QuerySums sums_of(int slot) const {
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
    const std::int64_t per_head = query_blocks_of(queries);
    const std::int64_t first = block % per_head * kGradRows;
    return {head.batch, head.kv_head, block / per_head * queries + first, std::min(kGradRows, queries - first)};
  }

  KeyChunk keys_of(const HeadWork& head, std::int64_t chunk, int worker) const {
    return {head.batch, head.kv_head, chunk * kChunkKeys,
            std::min((chunk + 1) * kChunkKeys, params_.key_length(head.batch)), workspace(worker)};
  }

  // One part of the queries for a chunk of keys.
  void run_part(const HeadWork& head, std::int64_t chunk, std::int64_t part, int worker) {
    const std::int64_t b = head.batch, queries = params_.queries(b);
    const KeyChunk keys = keys_of(head, chunk, worker);
    const std::int64_t per_head = query_blocks_of(queries), blocks = params_.group() * per_head;
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
    const QuerySums sums = ordered ? sums_of(head.slot) : QuerySums{nullptr, nullptr, ChunkBits(nullptr, 0), nullptr};
    float* const ring = reinterpret_cast<float*>(worker_memory(worker) + plan_.ring);
    WaitingParts waiting(ring, plan_.query_floats, sums, chunk);
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
    const QuerySums sums = sums_of(head.slot);
    for (std::int64_t i = 0; i < params_.group() * query_blocks_of(queries); ++i) {
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
    const std::int64_t row_tasks = gradient.size[2] == 1 ? 1 : query_blocks_of(params_.tq);
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
            each(gradient.size[2], row_task, query_blocks_of(params_.tq), [&](std::int64_t block) {
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

void run_backward(const BackwardParams& params, const BackwardKernels& kernels, const BackwardPlan& plan,
                  const Threads& threads, std::byte* workspace) {
  BackwardRun(params, kernels, plan, threads, workspace)();
}

}  // namespace manyheads::attention_detail
