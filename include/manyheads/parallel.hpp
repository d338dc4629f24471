#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include <manyheads/export.hpp>

namespace manyheads {

// Runs the library's parallel loops on the caller's threads; the default is a small pool of the library's own. The
// thread that runs a task never changes a result: the task rounds and treats denormals as the thread that made the call
// does (its MXCSR or FPCR), and leaves its own thread as it was.
class MANYHEADS_API Executor {
 public:
  using Task = void (*)(void* context, std::int64_t index);

  virtual ~Executor() = default;
  // The most tasks that run at once, 1 or more. A call with num_threads 0 asks for as many.
  virtual int concurrency() const noexcept = 0;
  // Calls task(context, i) once for each i in [0, count), in any order, on any threads. Returns when all are done.
  virtual void run(std::int64_t count, Task task, void* context) = 0;
};

// The threads of a call: how many, and whose. Fewer than asked for is never an error. Work that a second thread would
// not make faster runs on the caller's own and wakes none.
struct Threads {
  int num_threads = 0;           // 0: the executor's concurrency, or default_num_threads() where there is none
  Executor* executor = nullptr;  // the caller's threads; null: the library's pool
};

// Threads of a call whose options leave num_threads at 0 and whose work is worth more than one, the first of these that
// is set:
// - MANYHEADS_NUM_THREADS. Throws Error where it is not counts >= 1.
// - OMP_NUM_THREADS. One that is not counts >= 1 is passed over, as OpenMP does.
// - The processors that this process may run on.
// Of a list of counts, one a nesting level, the first counts.
MANYHEADS_API int default_num_threads();

// Memory that calls reuse. A call allocates nothing once the workspace has grown to what the call needs. Not for two
// calls at once.
class MANYHEADS_API Workspace {
 public:
  Workspace();
  ~Workspace();
  Workspace(Workspace&&) noexcept;
  Workspace& operator=(Workspace&&) noexcept;

  // Returns 64-byte aligned memory and keeps the largest block asked for. Throws Error (kOutOfMemory); the earlier
  // block stays then.
  void* reserve(std::size_t bytes);
  std::size_t capacity() const noexcept;

 private:
  struct Block;
  std::unique_ptr<Block> block_;
};

}  // namespace manyheads
