#include "base/parallel.hpp"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cctype>
#include <cerrno>
#include <cfenv>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <string>
#include <thread>

#include <manyheads/error.hpp>


namespace manyheads {

namespace {

constexpr int kMaxThreads = 1024;

const char* variable(const char* name) {
  const char* text = std::getenv(name);
  return text == nullptr ? "" : text;
}

// The first count of a list, one a nesting level, with blanks wherever OpenMP takes them. 0 where it is no such list.
int first_count(const char* text) {
  const auto skip_blanks = [&text] {
    while (std::isspace(static_cast<unsigned char>(*text)) != 0) ++text;
  };
  int first = 0;
  for (;;) {
    skip_blanks();
    char* end = nullptr;
    errno = 0;
    const long value = std::strtol(text, &end, 10);
    if (end == text || errno != 0 || value < 1) return 0;
    if (first == 0) first = static_cast<int>(std::min<long>(value, kMaxThreads));
    text = end;
    skip_blanks();
    if (*text == '\0') return first;
    if (*text++ != ',') return 0;
  }
}

constexpr const char* kOwn = "MANYHEADS_NUM_THREADS";
constexpr const char* kOpenMp = "OMP_NUM_THREADS";

}  // namespace

int default_num_threads() {
  if (const char* text = variable(kOwn); *text != '\0') {
    if (const int n = first_count(text)) return n;
    throw Error(ErrorCode::kInvalidArgument,
                std::string(kOwn) + "=" + text + ": the number of threads must be a whole number, 1 or more");
  }
  if (const int n = first_count(variable(kOpenMp))) return n;
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
  return static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

namespace base {

std::string ignored_thread_variable() {
  const char* text = variable(kOpenMp);
  if (*variable(kOwn) != '\0' || *text == '\0' || first_count(text) != 0) return "";
  return std::string(kOpenMp) + "=\"" + text + "\"";
}

namespace {

// Threads that sleep between jobs, one job at a time. Never destroyed, so that no thread outlives it.
class Pool {
 public:
  // Calls task(context, w) for w in [0, workers), w = 0 on the calling thread. Fewer w where threads cannot be had.
  void run(int workers, Executor::Task task, void* context) {
    // Busy: another call, or a body that calls this library, has the threads. No mutex: its holder may be this very
    // thread.
    const Turn turn(busy_);
    const int helpers = turn.taken ? grow(workers - 1) : 0;
    if (helpers == 0) {
      task(context, 0);
      return;
    }
    {
      std::lock_guard<std::mutex> lock(mutex_);
      task_ = task;
      context_ = context;
      helpers_ = helpers;
      pending_.store(helpers, std::memory_order_relaxed);
      generation_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    task(context, 0);
    for (int spin = 0; spin < kSpins && pending_.load(std::memory_order_acquire) != 0; ++spin) pause();
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [&] { return pending_.load(std::memory_order_acquire) == 0; });
  }

 private:
  // The threads belong to one call at a time.
  struct Turn {
    explicit Turn(std::atomic_flag& flag) : busy(flag), taken(!flag.test_and_set(std::memory_order_acquire)) {}
    ~Turn() {
      if (taken) busy.clear(std::memory_order_release);
    }
    std::atomic_flag& busy;
    const bool taken;
  };

  static constexpr int kSpins = 2000;  // about 20 us: the pieces of one job end at nearly the same time

  static void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }

  int grow(int wanted) {
    wanted = std::min(wanted, kMaxThreads - 1);
    while (threads_ < wanted) {
      try {
        std::thread([this, id = threads_ + 1, seen = generation_.load()] { serve(id, seen); }).detach();
      } catch (const std::exception&) {  // no thread, or no memory for one
        break;
      }
      ++threads_;
    }
    return std::min(wanted, threads_);
  }

  void serve(int id, std::uint64_t seen) {
    for (;;) {
      for (int spin = 0; spin < kSpins && generation_.load(std::memory_order_acquire) == seen; ++spin) pause();
      Executor::Task task;
      void* context;
      bool mine;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return generation_.load(std::memory_order_relaxed) != seen; });
        seen = generation_.load(std::memory_order_relaxed);
        task = task_;
        context = context_;
        mine = id <= helpers_;
      }
      if (!mine) continue;
      task(context, id);
      if (pending_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
        std::lock_guard<std::mutex> lock(mutex_);
        done_.notify_one();
      }
    }
  }

  std::atomic_flag busy_;
  int threads_ = 0;  // of the call whose turn it is
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable done_;
  std::atomic<std::uint64_t> generation_{0};
  std::atomic<int> pending_{0};
  int helpers_ = 0;
  Executor::Task task_ = nullptr;
  void* context_ = nullptr;
};

std::atomic<Pool*> g_pool{nullptr};

// A forked child has none of its parent's threads: it starts a pool of its own.
void forget_pool() { g_pool.store(nullptr); }

Pool& pool() {
  static const int registered = pthread_atfork(nullptr, nullptr, forget_pool);
  static_cast<void>(registered);
  Pool* current = g_pool.load();
  if (current == nullptr) {
    auto fresh = std::make_unique<Pool>();
    if (g_pool.compare_exchange_strong(current, fresh.get())) current = fresh.release();
  }
  return *current;
}

// Takes over how the calling thread rounds and whether it flushes denormals, on any thread that runs a piece of its
// job: another way would give other bits. Restores the thread's own afterwards.
class CallersArithmetic {
 public:
  CallersArithmetic(const std::fenv_t& callers, bool elsewhere) : elsewhere_(elsewhere) {
    if (!elsewhere_) return;
    std::fegetenv(&own_);
    std::fesetenv(&callers);
  }
  ~CallersArithmetic() {
    if (elsewhere_) std::fesetenv(&own_);
  }
  CallersArithmetic(const CallersArithmetic&) = delete;
  CallersArithmetic& operator=(const CallersArithmetic&) = delete;

 private:
  bool elsewhere_;
  std::fenv_t own_;
};

struct Job {
  std::int64_t count;
  Body body;
  void* context;
  pthread_t caller = pthread_self();
  std::fenv_t arithmetic{};
  std::atomic<std::int64_t> next{0};
  std::mutex mutex;
  std::exception_ptr error;
};

void work(void* context, std::int64_t worker) {
  Job& job = *static_cast<Job*>(context);
  const CallersArithmetic arithmetic(job.arithmetic, pthread_equal(job.caller, pthread_self()) == 0);
  try {
    for (;;) {
      const std::int64_t i = job.next.fetch_add(1, std::memory_order_relaxed);
      if (i >= job.count) return;
      job.body(job.context, i, static_cast<int>(worker));
    }
  } catch (...) {
    std::lock_guard<std::mutex> lock(job.mutex);
    if (!job.error) job.error = std::current_exception();
    job.next.store(job.count, std::memory_order_relaxed);
  }
}

}  // namespace

int worker_count(std::int64_t count, const Threads& threads) {
  if (count <= 1) return 1;  // small work asks neither the system nor the environment
  int most = kMaxThreads;
  if (threads.executor != nullptr) most = std::clamp(threads.executor->concurrency(), 1, kMaxThreads);
  int wanted = threads.num_threads;
  if (wanted <= 0) wanted = threads.executor != nullptr ? most : default_num_threads();
  return static_cast<int>(std::max<std::int64_t>(1, std::min<std::int64_t>({count, wanted, most})));
}

void parallel_for(std::int64_t count, int workers, Executor* executor, Body body, void* context) {
  if (workers <= 1 || count <= 1) {
    for (std::int64_t i = 0; i < count; ++i) body(context, i, 0);
    return;
  }
  Job job{.count = count, .body = body, .context = context, .next{}, .mutex{}, .error{}};
  workers = static_cast<int>(std::min<std::int64_t>(count, workers));
  std::fegetenv(&job.arithmetic);
  if (executor != nullptr) {
    executor->run(workers, work, &job);
  } else {
    pool().run(workers, work, &job);
  }
  if (job.error) std::rethrow_exception(job.error);
}

}  // namespace base
}  // namespace manyheads
