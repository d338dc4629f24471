#pragma once

#include <cstdint>
#include <type_traits>

#include <manyheads/parallel.hpp>

namespace manyheads::base {

// Runs body(i) for each i in [0, count) on up to num_threads threads (0: default_num_threads()) of the executor, or of
// the library's pool where it is null. The first exception thrown by a body is thrown again here.
void parallel_for(std::int64_t count, int num_threads, Executor* executor, Executor::Task task, void* context);

template <class Body>
void parallel_for(std::int64_t count, int num_threads, Executor* executor, Body&& body) {
  using B = std::remove_reference_t<Body>;
  parallel_for(
      count, num_threads, executor, [](void* context, std::int64_t i) { (*static_cast<B*>(context))(i); },
      const_cast<void*>(static_cast<const void*>(&body)));
}

// The same, and each body learns which of the threads it runs on, 0 to threads - 1: an index for scratch memory.
// At most `threads` bodies run at once, with an executor too.
int thread_count(std::int64_t count, int num_threads);

}  // namespace manyheads::base
