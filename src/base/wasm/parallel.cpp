// One thread: an instance of WebAssembly runs on the worker that called it.
#include "base/parallel.hpp"

namespace manyheads {

int default_num_threads() { return 1; }

namespace base {

std::string ignored_thread_variable() { return ""; }

int worker_count(std::int64_t, const Threads&) { return 1; }

void parallel_for(std::int64_t count, int, Executor*, Body body, void* context) {
  for (std::int64_t i = 0; i < count; ++i) body(context, i, 0);
}

}  // namespace base
}  // namespace manyheads
