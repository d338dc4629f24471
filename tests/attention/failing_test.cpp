// Allocations and threads that are made to fail, each in turn: a call ends in an error, what it changed is as it was, and the
// next one has the bits it would have had. That nothing leaks is the address sanitizer's to say.
#include <gtest/gtest.h>

#include <cstdlib>
#include <functional>
#include <initializer_list>
#include <manyheads/kv_cache.hpp>
#include <manyheads/multi_head_attention.hpp>
#include <memory>
#include <new>
#include <string>
#include <system_error>
#include <vector>

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

// Runs `work` with its first allocation failing, then its second, until none does; returns how many failed. `before` comes ahead
// of each; `after` says what is wrong behind a failure, "" for nothing.
int fail_each(const std::function<void()>& work, const std::function<std::string()>& after,
              const std::function<void()>& before = [] {}) {
  for (int failed = 0; failed < 1000; ++failed) {
    before();
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

// A cache with one sequence of 40 tokens, and others made from it.
class FailingCache : public testing::Test {
 protected:
  void begin(DType type, std::int64_t page_size) {
    cache = std::make_unique<KVCache>(KVCacheOptions{.head_dim = 8, .dtype = type, .page_size = page_size});
    kept = cache->add();
    append(kept, 0, 40);
    if (expected.empty()) expected = attend();
  }
  void append(KVCache::Sequence sequence, std::int64_t first, std::int64_t last) {
    const auto tokens = [&](const Strided& tensor) {
      return ConstTensorView(static_cast<const float*>(tensor.view().data()) + first * 8, Dims{1, last - first, 8});
    };
    cache->append(sequence, tokens(from.k), tokens(from.v));
  }
  std::vector<unsigned char> attend() const {
    Call call({.tq = 1, .d = 8, .dv = 8});
    const KVCache::Sequence sequences[] = {kept};
    attention(call.q.view(), *cache, sequences, call.out.mutable_view());
    return call.out.memory;
  }
  // What is wrong with the sequence, and with the number of pages once all sequences but it are gone.
  std::string as_it_was(std::initializer_list<KVCache::Sequence> others = {}) {
    if (cache->length(kept) != 40) return "another length";
    if (attend() != expected) return "other bits";
    for (const KVCache::Sequence sequence : others) cache->remove(sequence);
    cache->remove(kept);
    return cache->pages_in_use() == 0 ? "" : "pages are lost";
  }
  void at_each(const std::function<void(DType, std::int64_t)>& test) {
    for (const DType type : {DType::kF32, DType::kI8}) {
      expected.clear();
      for (const std::int64_t page_size : {0, 16}) test(type, page_size);
    }
  }

  const Call from{Sizes{.kv_heads = 1, .tk = 200, .d = 8, .dv = 8}};
  std::unique_ptr<KVCache> cache;
  KVCache::Sequence kept = 0, other = 0;
  std::vector<unsigned char> expected;
};

TEST_F(FailingCache, AppendingToASharedPage) {
  at_each([&](DType type, std::int64_t page_size) {
    const int failed = fail_each([&] { append(other, 40, 200); },
                                 [&] {
                                   const bool same = cache->length(other) == 40;
                                   return same ? as_it_was({other}) : "another length";
                                 },
                                 [&] {
                                   begin(type, page_size);
                                   other = cache->fork(kept);
                                 });
    EXPECT_GE(failed, 1);
    EXPECT_EQ(cache->length(other), 200);
  });
}

TEST_F(FailingCache, Forking) {
  at_each([&](DType type, std::int64_t page_size) {
    const int failed = fail_each([&] { other = cache->fork(kept); }, [&] { return as_it_was(); },
                                 [&] { begin(type, page_size); });
    EXPECT_GE(failed, 1);
    EXPECT_EQ(cache->length(other), 40);
  });
}

TEST_F(FailingCache, AppendingToAnEmptySequence) {
  at_each([&](DType type, std::int64_t page_size) {
    const int failed = fail_each([&] { append(other, 0, 100); }, [&] { return as_it_was({other}); },
                                 [&] {
                                   begin(type, page_size);
                                   other = cache->add();
                                 });
    EXPECT_GE(failed, 1);
    EXPECT_EQ(cache->length(other), 100);
  });
}

TEST_F(FailingCache, Gathering) {
  at_each([&](DType type, std::int64_t page_size) {
    KVBatch batch;
    const int failed = fail_each(
        [&] {
          const KVCache::Sequence both[] = {kept, kept};
          cache->gather(both, batch);
        },
        [&] { return as_it_was(); },
        [&] {
          batch = {};
          begin(type, page_size);
        });
    EXPECT_GE(failed, 1);
    EXPECT_GE(fail_each([&] { KVCache({.head_dim = 8, .dtype = type}); }, [] { return ""; }), 1);
  });
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
