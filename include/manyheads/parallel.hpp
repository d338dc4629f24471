#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include <manyheads/export.hpp>

namespace manyheads {

// Runs the library's parallel loops on threads of the caller's. The default is a small pool of the library's own.
// Which thread runs a task never changes a result: a task rounds and treats denormals as the thread that made the call
// does (its MXCSR or FPCR), and leaves the thread it runs on as it was.
class MANYHEADS_API Executor {
 public:
  using Task = void (*)(void* context, std::int64_t index);

  virtual ~Executor() = default;
  // How many tasks run at once at most; 1 or more. A call that leaves num_threads at 0 asks for as many.
  virtual int concurrency() const noexcept = 0;
  // Calls task(context, i) once for each i in [0, count), in any order, on any threads, and returns when all are done.
  virtual void run(std::int64_t count, Task task, void* context) = 0;
};

// The threads of a call: how many, and whose. Fewer than asked for is never an error.
struct Threads {
  int num_threads = 0;           // 0: the executor's concurrency, or default_num_threads() where there is none
  Executor* executor = nullptr;  // the caller's threads; null: the library's pool
};

// The threads a call uses when its options leave num_threads at 0: MANYHEADS_NUM_THREADS, else OMP_NUM_THREADS, else
// the processors this process may run on. Of a list of counts, one a nesting level, the first. Throws Error when
// MANYHEADS_NUM_THREADS is set to something other than counts >= 1; passes over an OMP_NUM_THREADS that is, as OpenMP
// does.
MANYHEADS_API int default_num_threads();

// Memory that calls reuse: with one, a call allocates nothing once the workspace has grown to what the call needs.
// Not for two calls at once.
class MANYHEADS_API Workspace {
 public:
  Workspace();
  ~Workspace();
  Workspace(Workspace&&) noexcept;
  Workspace& operator=(Workspace&&) noexcept;

  // 64-byte aligned; keeps the largest block asked for. Throws Error (kOutOfMemory), and the block that it had stays.
  void* reserve(std::size_t bytes);
  std::size_t capacity() const noexcept;

 private:
  struct Block;
  std::unique_ptr<Block> block_;
};

}  // namespace manyheads
