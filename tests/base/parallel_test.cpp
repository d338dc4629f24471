#include "base/parallel.hpp"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <atomic>
#include <cfenv>
#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "attention/call.hpp"
#include "attention/child.hpp"

namespace manyheads::test {
namespace {

TEST(Parallel, EachPieceOnceWithAWorkerOfItsOwn) {
  for (const std::int64_t count : {0, 1, 2, 7, 1000}) {
    for (const int workers : {1, 2, 3, 16, 64}) {
      std::vector<std::atomic<int>> done(static_cast<std::size_t>(count));
      std::vector<std::atomic<int>> busy(static_cast<std::size_t>(workers));
      std::atomic<int> shared{0};
      base::parallel_for(count, workers, nullptr, [&](std::int64_t i, int worker) {
        ASSERT_LT(worker, workers);
        if (busy[static_cast<std::size_t>(worker)].fetch_add(1) != 0) ++shared;
        ++done[static_cast<std::size_t>(i)];
        busy[static_cast<std::size_t>(worker)].fetch_sub(1);
      });
      EXPECT_EQ(shared, 0);
      for (const auto& times : done) EXPECT_EQ(times, 1);
    }
  }
}

TEST(Parallel, AnExceptionComesOutOnceAndThePoolLivesOn) {
  for (int round = 0; round < 20; ++round) {
    std::atomic<int> ran{0};
    try {
      base::parallel_for(1000, 4, nullptr, [&](std::int64_t i, int) {
        ++ran;
        if (i == 3) throw std::runtime_error("piece 3");
      });
      ADD_FAILURE() << "no exception";
    } catch (const std::runtime_error& error) {
      EXPECT_STREQ(error.what(), "piece 3");
    }
    EXPECT_LE(ran, 1000);
    std::atomic<int> after{0};
    base::parallel_for(100, 4, nullptr, [&](std::int64_t, int) { ++after; });
    EXPECT_EQ(after, 100);
  }
}

TEST(Parallel, NestedLoopsFinish) {
  std::atomic<int> done{0};
  base::parallel_for(8, 4, nullptr,
                     [&](std::int64_t, int) { base::parallel_for(8, 4, nullptr, [&](std::int64_t, int) { ++done; }); });
  EXPECT_EQ(done, 64);
}

TEST(Parallel, CallsFromManyThreadsAtOnceFinish) {
  std::atomic<int> done{0};
  std::vector<std::thread> callers;
  for (int t = 0; t < 8; ++t) {
    callers.emplace_back([&] {
      for (int round = 0; round < 50; ++round) {
        base::parallel_for(20, 4, nullptr, [&](std::int64_t, int) { ++done; });
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(done, 8 * 50 * 20);
}

TEST(Parallel, AttentionFromManyThreadsAtOnceIsRight) {
  const Sizes s{.q_heads = 4, .kv_heads = 4, .tq = 100, .tk = 300, .d = 32, .dv = 32};
  Call alone(s);
  EXPECT_EQ(alone.wrong(), "");
  std::vector<Call> calls(6, Call(s));
  std::vector<std::thread> callers;
  for (Call& call : calls) {
    callers.emplace_back([&call] {
      call.options.threads.num_threads = 4;
      for (int round = 0; round < 3; ++round) call.run();
    });
  }
  for (std::thread& caller : callers) caller.join();
  for (const Call& call : calls) EXPECT_TRUE(same_bits(alone, call));
}

TEST(Parallel, AForkedChildHasAPoolOfItsOwn) {
  if (kSanitized) GTEST_SKIP() << "the thread sanitizer ends children that start threads";
  std::atomic<int> before{0};
  base::parallel_for(100, 4, nullptr, [&](std::int64_t, int) { ++before; });  // the parent's pool has threads
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    ::alarm(20);  // a child that waits for its parent's threads would wait for ever
    std::atomic<int> done{0};
    base::parallel_for(1000, 4, nullptr, [&](std::int64_t, int) { ++done; });
    ::_exit(done == 1000 ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "status " << status;
  std::atomic<int> after{0};
  base::parallel_for(100, 4, nullptr, [&](std::int64_t, int) { ++after; });
  EXPECT_EQ(after, 100);
}

// An executor that gets fewer threads than workers asked for, one after the other.
class OneThread : public Executor {
 public:
  int concurrency() const noexcept override { return 64; }
  void run(std::int64_t count, Task task, void* context) override {
    counts.push_back(count);
    for (std::int64_t i = 0; i < count; ++i) task(context, i);
  }
  std::vector<std::int64_t> counts;
};

TEST(Parallel, AnExecutorRunsTheWorkers) {
  OneThread executor;
  std::vector<int> done(50);
  base::parallel_for(50, 4, &executor, [&](std::int64_t i, int) { ++done[static_cast<std::size_t>(i)]; });
  for (const int times : done) EXPECT_EQ(times, 1);
  EXPECT_EQ(executor.counts, (std::vector<std::int64_t>{4}));
  EXPECT_THROW(base::parallel_for(50, 4, &executor, [](std::int64_t, int) { throw std::runtime_error("x"); }),
               std::runtime_error);
}

// A body that calls us, on whichever thread it runs: the call that has the threads is this thread's own.
TEST(Parallel, ABodyMayAskForThreadsAgain) {
  std::atomic<int> done{0};
  const std::thread::id caller = std::this_thread::get_id();
  std::atomic<int> elsewhere{0};
  base::parallel_for(64, 4, nullptr, [&](std::int64_t, int) {
    const std::thread::id outer = std::this_thread::get_id();
    base::parallel_for(4, 4, nullptr, [&](std::int64_t, int worker) {
      if (std::this_thread::get_id() != outer || worker != 0) ++elsewhere;
      ++done;
    });
  });
  EXPECT_EQ(done, 256);
  EXPECT_EQ(elsewhere, 0);
  EXPECT_EQ(std::this_thread::get_id(), caller);
}

// How a thread rounds and whether it flushes denormals.
class Arithmetic {
 public:
  Arithmetic(int rounding, bool flush) {
    std::fegetenv(&before_);
    std::fesetround(rounding);
    if (!flush) return;
#if defined(__x86_64__)
    _mm_setcsr(_mm_getcsr() | 0x8040u);  // FTZ and DAZ
#elif defined(__aarch64__)
    std::uint64_t control;
    asm volatile("mrs %0, fpcr" : "=r"(control));
    asm volatile("msr fpcr, %0" : : "r"(control | std::uint64_t{1} << 24));
#endif
  }
  ~Arithmetic() { std::fesetenv(&before_); }
  Arithmetic(const Arithmetic&) = delete;
  Arithmetic& operator=(const Arithmetic&) = delete;

 private:
  std::fenv_t before_;
};
struct Way {
  int rounding;
  bool flush;
};
constexpr Way kWays[] = {
    {FE_TONEAREST, false}, {FE_TONEAREST, true}, {FE_UPWARD, false}, {FE_TOWARDZERO, true}, {FE_TONEAREST, false}};

// What the thread it runs on does with a third and with a denormal.
std::pair<float, float> ways_of_this_thread() {
  volatile float one = 1, three = 3, tiny = 1e-38f, tenth = 0.1f;
  return {one / three, tiny * tenth};
}

// Each worker's answer; they wait for each other, so that each has a thread of its own where threads can be had.
void expect_ways(Executor* executor) {
  constexpr int kWorkers = 4;
  const auto expected = ways_of_this_thread();
  std::atomic<int> begun{0}, other{0};
  base::parallel_for(kWorkers, kWorkers, executor, [&](std::int64_t, int) {
    ++begun;
    for (int spin = 0; spin < 1000 && begun < kWorkers; ++spin) std::this_thread::yield();
    if (ways_of_this_thread() != expected) ++other;
  });
  EXPECT_EQ(other, 0);
}

TEST(Parallel, PiecesRoundAndFlushAsTheirCallerDoes) {
  for (const bool born_flushing : {false, true}) {
    if (kSanitized && born_flushing) continue;  // the thread sanitizer ends children that start threads
    const auto in_turn = [&] {
      if (born_flushing) {  // a child's pool begins without threads
        const Arithmetic birth(FE_DOWNWARD, true);
        expect_ways(nullptr);
      }
      for (const Way& way : kWays) {
        const Arithmetic here(way.rounding, way.flush);
        expect_ways(nullptr);
      }
      return testing::Test::HasFailure() ? 1 : 0;
    };
    if (!born_flushing) {
      in_turn();
    } else {
      EXPECT_EQ(in_a_child(in_turn), 0);
    }
  }
}

// Threads of the caller's own, which come out as they went in.
class OwnThreads : public Executor {
 public:
  int concurrency() const noexcept override { return 64; }
  void run(std::int64_t count, Task task, void* context) override {
    std::vector<std::thread> threads;
    for (std::int64_t i = 0; i < count; ++i) {
      threads.emplace_back([&, i] {
        const Arithmetic own(FE_DOWNWARD, i % 2 == 0);
        const auto before = ways_of_this_thread();
        task(context, i);
        if (ways_of_this_thread() != before) ++changed;
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
  std::atomic<int> changed{0};
};

TEST(Parallel, AnExecutorsThreadsRoundAndFlushAsTheCallerDoes) {
  OwnThreads executor;
  for (const Way& way : kWays) {
    const Arithmetic here(way.rounding, way.flush);
    expect_ways(&executor);
  }
  EXPECT_EQ(executor.changed, 0);
}

class CallersArithmetic : public AtEachIsa {};
MANYHEADS_AT_EACH_ISA(CallersArithmetic);

// Denormal keys and values: a thread that flushes them gives other bits than one that does not.
TEST_P(CallersArithmetic, TheBitsOfAttentionDoNotDependOnThreads) {
  for (const std::int64_t tq : {1, 70}) {
    Call alone({.q_heads = 4, .kv_heads = 2, .tq = tq, .tk = 2100, .d = 32, .dv = 32});
    for (Strided* tensor : {&alone.k, &alone.v}) {
      tensor->fill(
          [&, tensor](const Index& at) { return element(tensor->view(), {at[0], at[1], at[2], at[3]}) * 1e-39; });
    }
    Call many = alone;
    alone.options.threads.num_threads = 1;
    many.options.threads.num_threads = 4;
    std::vector<Call> results;
    for (const Way& way : kWays) {
      const Arithmetic here(way.rounding, way.flush);
      alone.run();
      for (int round = 0; round < 4; ++round) {
        many.run();
        EXPECT_TRUE(same_bits(alone, many)) << tq << " queries, rounding " << way.rounding << ", flush " << way.flush;
      }
      results.push_back(alone);
    }
    EXPECT_FALSE(same_bits(results[0], results[1])) << "flushing shows in these numbers";
    EXPECT_TRUE(same_bits(results[0], results[4]));
  }
}

TEST(Parallel, ThreadsThatCannotBeStartedMeanFewerOfThem) {
  if (kSanitized) GTEST_SKIP() << "a sanitizer needs the address space that this test takes away";
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    ::alarm(20);
    // No room for a thousand stacks.
    const rlimit small{std::size_t{256} << 20, std::size_t{256} << 20};
    ::setrlimit(RLIMIT_AS, &small);
    std::atomic<int> done{0};
    std::atomic<int> last{0};
    try {
      base::parallel_for(100000, 1000, nullptr, [&](std::int64_t, int worker) {
        ++done;
        int seen = last;
        while (worker > seen && !last.compare_exchange_weak(seen, worker)) {
        }
      });
    } catch (...) {
      ::_exit(2);
    }
    ::_exit(done != 100000 ? 1 : last > 200 ? 3 : 0);  // 3: the limit did not bite
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "status " << status;
}

// Sets variables for one test.
class ThreadCount : public testing::Test {
 protected:
  void SetUp() override {
    for (const char* name : {"MANYHEADS_NUM_THREADS", "OMP_NUM_THREADS"}) {
      const char* text = std::getenv(name);
      before_.emplace_back(name, text != nullptr ? text : "");
      ::unsetenv(name);
    }
  }
  void TearDown() override {
    for (const auto& [name, text] : before_) {
      text.empty() ? ::unsetenv(name.c_str()) : ::setenv(name.c_str(), text.c_str(), 1);
    }
  }

 private:
  std::vector<std::pair<std::string, std::string>> before_;
};

TEST_F(ThreadCount, IsTheProcessorsThisProcessMayUse) {
  cpu_set_t all;
  ASSERT_EQ(::sched_getaffinity(0, sizeof(all), &all), 0);
  EXPECT_EQ(default_num_threads(), CPU_COUNT(&all));
  cpu_set_t one;
  CPU_ZERO(&one);
  for (int cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++cpu) {
    if (CPU_ISSET(cpu, &all)) CPU_SET(cpu, &one);
  }
  ASSERT_EQ(::sched_setaffinity(0, sizeof(one), &one), 0);
  EXPECT_EQ(default_num_threads(), 1);
  ::sched_setaffinity(0, sizeof(all), &all);
}

TEST_F(ThreadCount, VariablesGoFirst) {
  ::setenv("OMP_NUM_THREADS", "3", 1);
  EXPECT_EQ(default_num_threads(), 3);
  ::setenv("OMP_NUM_THREADS", "5,2", 1);
  EXPECT_EQ(default_num_threads(), 5);
  ::setenv("MANYHEADS_NUM_THREADS", "7", 1);
  EXPECT_EQ(default_num_threads(), 7);
  ::setenv("MANYHEADS_NUM_THREADS", "", 1);
  EXPECT_EQ(default_num_threads(), 5);
}

const std::vector<std::string> kNoCounts = {"0",  "-3", "two", "3x",  "1.5", " ",   "1e3",
                                            "2,", ",2", "2,0", "2,x", "2 3", "0x2", "99999999999999999999"};

TEST_F(ThreadCount, BlanksAndListsAreReadAsOpenMpReadsThem) {
  for (const char* name : {"OMP_NUM_THREADS", "MANYHEADS_NUM_THREADS"}) {
    for (const char* text : {"3", " 3 ", "\t3\n", "3 ,1", "3,1 , 2", "+3"}) {
      ::setenv(name, text, 1);
      EXPECT_EQ(default_num_threads(), 3) << name << "=" << text;
      EXPECT_EQ(base::ignored_thread_variable(), "");
    }
    ::unsetenv(name);
  }
}

TEST_F(ThreadCount, ABadVariableOfOursIsAnErrorThatNamesIt) {
  for (const std::string& text : kNoCounts) {
    ::setenv("MANYHEADS_NUM_THREADS", text.c_str(), 1);
    const std::string error = error_of([] { default_num_threads(); });
    EXPECT_TRUE(contains(error, "MANYHEADS_NUM_THREADS=" + text)) << error;
    Call call({.q_heads = 4, .kv_heads = 4, .tq = 200, .tk = 200, .d = 32, .dv = 32});
    EXPECT_TRUE(contains(error_of([&] { call.run(); }), "MANYHEADS_NUM_THREADS"));
    call.options.threads.num_threads = 2;  // a count that is said needs no variable
    EXPECT_EQ(error_of([&] { call.run(); }), "no error");
  }
}

// Below the tuning's work for one more thread nobody is woken, started or asked for a number of threads.
TEST_F(ThreadCount, SmallWorkNeedsNoThreadAndNoCount) {
  class Counting : public Executor {
   public:
    int concurrency() const noexcept override { return 8; }
    void run(std::int64_t count, Task task, void* context) override {
      ++jobs;
      for (std::int64_t i = 0; i < count; ++i) task(context, i);
    }
    int jobs = 0;
  };
  const Sizes small[] = {{.q_heads = 4, .kv_heads = 4, .tq = 1, .tk = 1, .d = 16, .dv = 16},
                         {.q_heads = 8, .kv_heads = 8, .tq = 7, .tk = 7, .d = 64, .dv = 64},
                         {.q_heads = 8, .kv_heads = 8, .tq = 1, .tk = 64, .d = 64, .dv = 64}};
  const Sizes large{.q_heads = 8, .kv_heads = 8, .tq = 100, .tk = 100, .d = 64, .dv = 64};
  Counting counting;
  for (const int threads : {0, 8}) {
    const auto run = [&](const Sizes& s, Executor* executor) {
      Call call(s);
      call.options.threads = {.num_threads = threads, .executor = executor};
      call.run();
    };
    for (const Sizes& s : small) run(s, &counting);
    EXPECT_EQ(counting.jobs, 0);
    run(large, &counting);
    EXPECT_GT(std::exchange(counting.jobs, 0), 0);
    if (kSanitized) continue;  // the thread sanitizer ends children that start threads
    EXPECT_EQ(in_a_child([&] {
                ::setenv("MANYHEADS_NUM_THREADS", "4", 1);
                for (const Sizes& s : small) run(s, nullptr);
                const std::size_t after_small = own_status("Threads");
                run(large, nullptr);
                return after_small == 1 && own_status("Threads") > 1 ? 0 : 1;
              }),
              0);
  }
  ::setenv("MANYHEADS_NUM_THREADS", "none", 1);
  for (const Sizes& s : small) EXPECT_EQ(error_of([&] { Call(s).run(); }), "no error");
  EXPECT_TRUE(contains(error_of([&] { Call(large).run(); }), "MANYHEADS_NUM_THREADS"));
}

TEST_F(ThreadCount, ABadVariableOfOpenMpsIsPassedOver) {
  const int processors = default_num_threads();
  for (const std::string& text : kNoCounts) {
    ::setenv("OMP_NUM_THREADS", text.c_str(), 1);
    EXPECT_EQ(default_num_threads(), processors) << text;
    EXPECT_EQ(base::ignored_thread_variable(), "OMP_NUM_THREADS=\"" + text + "\"");
    ::setenv("MANYHEADS_NUM_THREADS", "2", 1);
    EXPECT_EQ(base::ignored_thread_variable(), "");
    ::unsetenv("MANYHEADS_NUM_THREADS");
  }
  ::setenv("OMP_NUM_THREADS", "", 1);
  EXPECT_EQ(base::ignored_thread_variable(), "");
}

TEST_F(ThreadCount, WorkersAreNoMoreThanPieces) {
  EXPECT_EQ(base::worker_count(3, {.num_threads = 8}), 3);
  EXPECT_EQ(base::worker_count(100, {.num_threads = 8}), 8);
  EXPECT_EQ(base::worker_count(0, {.num_threads = 8}), 1);
  EXPECT_EQ(base::worker_count(std::int64_t{1} << 40, {.num_threads = 1 << 30}),
            base::worker_count(std::int64_t{1} << 40, {.num_threads = 1 << 20}));
}

TEST(Workspaces, KeepTheLargestBlock) {
  Workspace workspace;
  EXPECT_EQ(workspace.capacity(), 0u);
  void* first = workspace.reserve(1000);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(first) % 64, 0u);
  EXPECT_EQ(workspace.reserve(10), first);
  EXPECT_GE(workspace.capacity(), 1000u);
  workspace.reserve(5000);
  EXPECT_GE(workspace.capacity(), 5000u);
  Workspace moved = std::move(workspace);
  EXPECT_GE(moved.capacity(), 5000u);
  void* const block = moved.reserve(5000);
  if (kSanitized) GTEST_SKIP() << "a sanitizer ends the program where memory runs out";
  EXPECT_NE(error_of([&] { moved.reserve(std::size_t{1} << 62); }, ErrorCode::kOutOfMemory), "no error");
  EXPECT_NE(error_of([&] { moved.reserve(~std::size_t{0}); }, ErrorCode::kOutOfMemory), "no error");
  EXPECT_GE(moved.capacity(), 5000u);  // what it had is still there
  static_cast<unsigned char*>(block)[4999] = 7;
  EXPECT_EQ(moved.reserve(5000), block);
}

}  // namespace
}  // namespace manyheads::test
