#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <type_traits>

#include <manyheads/parallel.hpp>

namespace manyheads::base {

// The workers that parallel_for uses for `count` pieces: threads.num_threads (0: the executor's concurrency, or
// default_num_threads()), at most as many as there are pieces or the executor runs at once. One piece asks for no
// number: it costs neither a look at the environment nor a call of the system.
int worker_count(std::int64_t count, const Threads& threads);

// OMP_NUM_THREADS="..." where default_num_threads() passes over it; else empty.
std::string ignored_thread_variable();

// Runs body(i, worker) once for each i in [0, count), handed out in ascending order.
// - `worker` is below `workers`. No two bodies that run at once share it: it may index a workspace.
// - Uses the executor, or where it is null the library's pool. A busy pool, or threads that cannot be started, mean
//   fewer threads and nothing else.
// - The first exception of a body is thrown again here. Pieces not yet begun are dropped.
using Body = void (*)(void* context, std::int64_t index, int worker);
void parallel_for(std::int64_t count, int workers, Executor* executor, Body body, void* context);

template <class F>
void parallel_for(std::int64_t count, int workers, Executor* executor, F&& body) {
  using Function = std::remove_reference_t<F>;
  parallel_for(
      count, workers, executor,
      [](void* context, std::int64_t i, int worker) { (*static_cast<Function*>(context))(i, worker); },
      const_cast<void*>(static_cast<const void*>(&body)));
}

// Runs body(begin, end) in parallel over blocks of rows of `width` floats, about 64 KiB each.
template <class F>
void parallel_for_rows(std::int64_t rows, std::int64_t width, const Threads& threads, F&& body) {
  const std::int64_t block = std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(1, width));
  const std::int64_t count = (rows + block - 1) / block;
  if (count == 0) return;
  parallel_for(count, worker_count(count, threads), threads.executor,
               [&](std::int64_t i, int) { body(i * block, std::min(rows, (i + 1) * block)); });
}

}  // namespace manyheads::base
