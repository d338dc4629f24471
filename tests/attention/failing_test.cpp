// Allocations and threads that are made to fail, each in turn: a call ends in an error, what it changed is as it was, and the
// next one has the bits it would have had. That nothing leaks is the address sanitizer's to say.
#include <gtest/gtest.h>

#include <cstdlib>
#include <functional>
#include <manyheads/kv_cache.hpp>
#include <manyheads/multi_head_attention.hpp>
#include <new>
#include <string>
#include <system_error>

#include "attention/child.hpp"

namespace {
thread_local long g_allocations_left = -1;  // of this thread until one fails; -1: none does
long g_threads_left = -1;

bool fails() { return g_allocations_left >= 0 && g_allocations_left-- == 0; }
}  // namespace

// The linker hands us the library's and the tests' own calls of operator new, aligned_alloc and std::thread's start
// (tests/CMakeLists.txt).
extern "C" {
#define MANYHEADS_START_THREAD(prefix) \
  prefix##_ZNSt6thread15_M_start_threadESt10unique_ptrINS_6_StateESt14default_deleteIS1_EEPFvvE
void* __real__Znwm(std::size_t size);
void* __real_aligned_alloc(std::size_t alignment, std::size_t size);
void* __wrap__Znwm(std::size_t size) {
  if (fails()) throw std::bad_alloc();
  return __real__Znwm(size);
}
void* __wrap_aligned_alloc(std::size_t alignment, std::size_t size) {
  return fails() ? nullptr : __real_aligned_alloc(alignment, size);
}
void MANYHEADS_START_THREAD(__real_)(void* thread, void* state, void (*depend)());
void MANYHEADS_START_THREAD(__wrap_)(void* thread, void* state, void (*depend)()) {
  if (g_threads_left == 0) throw std::system_error(std::make_error_code(std::errc::resource_unavailable_try_again));
  if (g_threads_left > 0) --g_threads_left;
  MANYHEADS_START_THREAD(__real_)(thread, state, depend);
}
}

namespace manyheads::test {
namespace {

// Runs `work` with its first allocation failing, then its second, until none does; returns how many failed. `after` says what
// is wrong behind a failure, "" for nothing.
int fail_each(const std::function<void()>& work, const std::function<std::string()>& after) {
  for (int failed = 0; failed < 1000; ++failed) {
    g_allocations_left = failed;
    try {
      work();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kOutOfMemory) << error.what();
    } catch (const std::bad_alloc&) {
    }
    const bool none_failed = g_allocations_left >= 0;
    g_allocations_left = -1;
    if (none_failed) return failed;
    EXPECT_EQ(after(), "") << "allocation " << failed;
  }
  ADD_FAILURE() << "the call allocates without end";
  return 0;
}

TEST(FailingMemory, Attention) {
  for (const int threads : {1, 4}) {
    for (const std::int64_t tq : {1, 40}) {
      const Sizes s{.q_heads = 4, .kv_heads = 2, .tq = tq, .tk = 1100, .d = 16, .dv = 16};
      Call plain(s);
      plain.run();
      Call call(s);
      call.options.num_threads = threads;
      const TensorView lse = call.lse.mutable_view();
      call.options.lse = &lse;
      const int failed = fail_each(
          [&] { attention(call.q.view(), call.k.view(), call.v.view(), call.out.mutable_view(), call.options); },
          [&] {
            Call again(s);
            again.options.num_threads = threads;
            again.run();
            return same_bits(plain, again) ? "" : "other bits";
          });
      EXPECT_GE(failed, 1);
      EXPECT_TRUE(same_bits(plain, call));
    }
  }
}

TEST(FailingMemory, AWorkspaceServesOnAfterAnError) {
  const Sizes s{.q_heads = 4, .kv_heads = 4, .tq = 40, .tk = 700, .d = 32, .dv = 32};
  Call plain(s);
  plain.run();
  Workspace workspace;
  Call call(s);
  call.options.workspace = &workspace;
  const int failed = fail_each(
      [&] {
        Workspace().reserve(100);
        attention(call.q.view(), call.k.view(), call.v.view(), call.out.mutable_view(), call.options);
      },
      [&] {
        Call again(s);
        again.options.workspace = &workspace;
        again.run();
        return same_bits(plain, again) ? "" : "other bits";
      });
  EXPECT_GE(failed, 1);
}

TEST(FailingMemory, TheCacheIsAsItWas) {
  for (const std::int64_t page_size : {0, 16}) {
    for (const DType type : {DType::kF32, DType::kI8}) {
      const Sizes s{.kv_heads = 1, .tk = 200, .d = 8, .dv = 8};
      const Call from(s);
      const auto tokens = [](const Strided& tensor, std::int64_t begin, std::int64_t end) {
        return ConstTensorView(reinterpret_cast<const float*>(tensor.view().data()) + begin * 8, Dims{1, end - begin, 8});
      };
      KVCache cache({.head_dim = 8, .dtype = type, .page_size = page_size});
      const KVCache::Sequence kept = cache.add();
      cache.append(kept, tokens(from.k, 0, 40), tokens(from.v, 0, 40));
      const auto attend = [&](KVCache::Sequence sequence) {
        Call call({.tq = 1, .d = 8, .dv = 8});
        const KVCache::Sequence sequences[] = {sequence};
        attention(call.q.view(), cache, sequences, call.out.mutable_view());
        return call.out.memory;
      };
      const auto before = attend(kept);
      std::int64_t pages = cache.pages_in_use();
      const auto as_it_was = [&]() -> std::string {
        if (cache.length(kept) != 40) return "another length";
        if (cache.pages_in_use() != pages) return "pages are lost";
        return attend(kept) == before ? "" : "other bits";
      };
      KVCache::Sequence fork = 0;
      EXPECT_GE(fail_each([&] { fork = cache.fork(kept); }, as_it_was), 1);
      pages = cache.pages_in_use();
      // Into a page that both share, and on to new ones.
      EXPECT_GE(fail_each([&] { cache.append(fork, tokens(from.k, 40, 200), tokens(from.v, 40, 200)); }, as_it_was), 1);
      EXPECT_EQ(cache.length(fork), 200);
      pages = cache.pages_in_use();
      const KVCache::Sequence fresh = cache.add();
      EXPECT_GE(fail_each([&] { cache.append(fresh, tokens(from.k, 0, 100), tokens(from.v, 0, 100)); },
                          [&] { return cache.length(fresh) == 0 ? as_it_was() : "another length"; }),
                1);
      cache.remove(fresh);
      KVBatch batch;
      const KVCache::Sequence both[] = {kept, fork};
      EXPECT_GE(fail_each([&] { cache.gather(both, batch); }, [] { return ""; }), 1);
      cache.remove(fork);
      cache.remove(kept);
      EXPECT_EQ(cache.pages_in_use(), 0);
      EXPECT_GE(fail_each([] { KVCache({.head_dim = 8}); }, [] { return ""; }), 1);
    }
  }
}

class FailingThreads : public AtEachIsa {};
MANYHEADS_AT_EACH_ISA(FailingThreads);

TEST_P(FailingThreads, GiveTheSameBits) {
  if (kSanitized) GTEST_SKIP() << "the thread sanitizer ends children that start threads";
  Call alone = split_call(1);
  alone.run();
  for (const int started : {0, 1, 5}) {
    // A child's pool begins without threads.
    EXPECT_EQ(in_a_child([&] {
                Call call = split_call(64);
                g_threads_left = started;
                call.run();
                if (own_status("Threads") != static_cast<std::size_t>(started) + 1) return 2;
                return same_bits(alone, call) ? 0 : 1;
              }),
              0)
        << started;
  }
}

TEST(FailingMemory, TheLayer) {
  const Strided x = filled(DType::kF32, {2, 5, 64}, [](const Index& at) { return static_cast<double>(at[1] + at[2] % 7); });
  Strided expected = dense(DType::kF32, {2, 5, 64});
  Strided y = dense(DType::kF32, {2, 5, 64});
  const MultiHeadAttention layer({.d_model = 64, .num_heads = 4});
  layer.forward(x.view(), expected.mutable_view());
  for (const bool cross : {false, true}) {
    const auto forward = [&] {
      if (cross) {
        layer.forward(x.view(), x.view(), x.view(), y.mutable_view());
      } else {
        layer.forward(x.view(), y.mutable_view());
      }
    };
    const int failed = fail_each(forward, [&] {
      forward();
      return y.memory == expected.memory ? "" : "other bits";
    });
    EXPECT_GE(failed, 1);
  }
  EXPECT_GE(fail_each([] { MultiHeadAttention({.d_model = 64, .num_heads = 4}); }, [] { return ""; }), 1);
}

}  // namespace
}  // namespace manyheads::test
