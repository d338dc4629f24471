// Allocations and threads that are made to fail, each in turn: a call ends in an error, what it changed is as it was,
// and the next one has the bits it would have had. That nothing leaks is the address sanitizer's to say.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstdarg>
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
#include "c/door.hpp"

namespace {
thread_local long g_allocations_left = -1;  // of this thread until one fails; -1: none does
long g_threads_left = -1;

bool fails() { return g_allocations_left >= 0 && g_allocations_left-- == 0; }
}  // namespace

// The linker hands us the library's and the tests' own calls of operator new, aligned_alloc, the system's memory and
// std::thread's start (tests/CMakeLists.txt).
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
void* __real_mmap(void* at, std::size_t size, int protection, int flags, int file, off_t offset);
void* __wrap_mmap(void* at, std::size_t size, int protection, int flags, int file, off_t offset) {
  return fails() ? MAP_FAILED : __real_mmap(at, size, protection, flags, file, offset);
}
int __real_mprotect(void* at, std::size_t size, int protection);
int __wrap_mprotect(void* at, std::size_t size, int protection) {
  return fails() ? -1 : __real_mprotect(at, size, protection);
}
// Where it lies memory never grows here, so that it moves each time; and then it may fail.
void* __real_mremap(void* at, std::size_t size, std::size_t new_size, int flags, ...);
void* __wrap_mremap(void* at, std::size_t size, std::size_t new_size, int flags, ...) {
  if ((flags & MREMAP_FIXED) == 0) return MAP_FAILED;
  std::va_list rest;
  va_start(rest, flags);
  void* const to = va_arg(rest, void*);
  va_end(rest);
  if (!fails()) return __real_mremap(at, size, new_size, flags, to);
  ::munmap(to, new_size);  // as the system does before it fails
  return MAP_FAILED;
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

// Runs `work` with its first allocation failing, then its second, until none does; returns how many failed. `before`
// comes ahead of each; `after` says what is wrong behind a failure, "" for nothing.
int fail_each(
    const std::function<void()>& work, const std::function<std::string()>& after,
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
      call.options.threads.num_threads = threads;
      const TensorView lse = call.lse.mutable_view();
      call.options.lse = lse;
      const int failed = fail_each(
          [&] { attention(call.q.view(), call.k.view(), call.v.view(), call.out.mutable_view(), call.options); },
          [&] {
            Call again(s);
            again.options.threads.num_threads = threads;
            again.run();
            return same_bits(plain, again) ? "" : "other bits";
          });
      EXPECT_GE(failed, 1);
      EXPECT_TRUE(same_bits(plain, call));
    }
  }
}

// The calls whose fixed cost counts: no allocation of any kind is left to fail.
TEST(FailingMemory, ASmallCallWithAWorkspaceAllocatesNothing) {
  const Strided lengths = integers({1});
  for (const Sizes& s : {Sizes{.q_heads = 4, .kv_heads = 4, .tq = 1, .tk = 1, .d = 16, .dv = 16},
                         Sizes{.q_heads = 8, .kv_heads = 8, .tq = 7, .tk = 7, .d = 64, .dv = 64},
                         Sizes{.q_heads = 8, .kv_heads = 2, .tq = 1, .tk = 64, .d = 64, .dv = 64}}) {
    for (const Mask& mask : {Mask{}, mask::causal(Alignment::kBottomRight), mask::key_lengths(lengths.view())}) {
      Call call(s);
      Workspace workspace;
      call.options.workspace = &workspace;
      call.options.mask = mask;
      const auto run = [&] {
        attention(call.q.view(), call.k.view(), call.v.view(), call.out.mutable_view(), call.options);
      };
      run();
      EXPECT_EQ(fail_each(run, [] { return ""; }), 0);
      call.options.workspace = nullptr;
      EXPECT_EQ(fail_each(run, [] { return ""; }), 1);  // the workspace
    }
  }
}

TEST(FailingMemory, AWorkspaceKeepsItsBlock) {
  Workspace workspace;
  auto* const block = static_cast<unsigned char*>(workspace.reserve(1000));
  block[999] = 5;
  const int failed = fail_each(
      [&] {
        Workspace more = std::move(workspace);
        try {
          more.reserve(5000000);
        } catch (...) {
          workspace = std::move(more);
          throw;
        }
      },
      [&] {
        return workspace.capacity() >= 1000 && workspace.reserve(1000) == block && block[999] == 5 ? "" : "gone";
      });
  EXPECT_GE(failed, 1);
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

// Through C it is a code, with a text whatever memory is left for one.
TEST(FailingMemory, TheCDoor) {
  Call of({.q_heads = 2, .kv_heads = 2, .tq = 20, .tk = 30});
  Door door;
  const mh_tensor *q = door.tensor(of.q.view()), *k = door.tensor(of.k.view()), *v = door.tensor(of.v.view());
  const mh_tensor* out = door.tensor(of.out.mutable_view());
  mh_explanation explanation = MH_DEFAULT(mh_explanation);
  mh_kv_cache_options cache_options = MH_DEFAULT(mh_kv_cache_options);
  cache_options.head_dim = 8;
  mh_layer_config config = MH_DEFAULT(mh_layer_config);
  config.d_model = config.num_heads = 2;
  mh_kv_cache* cache = nullptr;
  mh_layer* layer = nullptr;
  mh_row_states* states = nullptr;
  const std::function<int()> calls[] = {
      [&] { return mh_attention(q, k, v, out, nullptr); },
      [&] { return mh_attention(q, q, q, q, nullptr); },  // refused
      [&] { return mh_explain(q, k, v, out, nullptr, &explanation); },
      [&] { return mh_kv_cache_create(&cache_options, &cache); },
      [&] { return mh_row_states_create(0, 5, 1, 1, 1, 1, &states); },
      [&] { return mh_layer_create(&config, &layer); },
  };
  for (const auto& call : calls) {
    const int expected = &call == &calls[1] ? MH_INVALID_ARGUMENT : MH_OK;
    int code = MH_OK;
    const int failed = fail_each([&] { code = call(); },
                                 [&] {
                                   const bool right = code == MH_OUT_OF_MEMORY || code == expected;
                                   const std::string text = mh_last_error();
                                   return right && (contains(text, "memory") || contains(text, "allocate")) ? "" : text;
                                 });
    EXPECT_EQ(code, expected);
    EXPECT_GE(failed, 1) << &call - calls;
  }
  mh_kv_cache_destroy(cache);
  mh_row_states_destroy(states);
  mh_layer_destroy(layer);
}

// A cache with one sequence of 40 tokens, and others made from it.
class FailingCache : public testing::Test {
 protected:
  void begin(DType type, std::int64_t page_size) {
    cache = std::make_unique<KVCache>(KVCacheOptions{.head_dim = 8, .dtype = type, .page_size = page_size});
    kept = cache->add();
    append(kept, 0, 40);
    if (expected.empty()) expected = attend();
    bytes = cache->bytes();
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
    if (cache->bytes() != bytes) return "memory is lost";
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
  std::size_t bytes = 0;
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
                                   bytes = cache->bytes();
                                 });
    EXPECT_GE(failed, 1);
    EXPECT_EQ(cache->length(other), 200);
  });
}

TEST_F(FailingCache, Forking) {
  at_each([&](DType type, std::int64_t page_size) {
    const int failed =
        fail_each([&] { other = cache->fork(kept); }, [&] { return as_it_was(); }, [&] { begin(type, page_size); });
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

TEST_F(FailingCache, AddingAndRemoving) {
  at_each([&](DType type, std::int64_t page_size) {
    const int failed =
        fail_each([&] { other = cache->add(); }, [&] { return as_it_was(); }, [&] { begin(type, page_size); });
    EXPECT_GE(failed, 1);
    EXPECT_EQ(cache->length(other), 0);
    const auto fill = [&] {
      begin(type, page_size);
      other = cache->fork(kept);
      append(other, 40, 200);
      bytes = cache->bytes();
    };
    // Giving back fails nowhere.
    EXPECT_EQ(fail_each([&] { cache->truncate(other, 17); }, [] { return ""; }, fill), 0);
    EXPECT_EQ(fail_each([&] { cache->remove(other); }, [] { return ""; }, fill), 0);
    EXPECT_EQ(as_it_was(), "");
  });
}

TEST_F(FailingCache, ABatchThatCannotBeGatheredStaysAsItWas) {
  at_each([&](DType type, std::int64_t page_size) {
    KVBatch batch;
    const auto one = [&] { return std::vector<KVCache::Sequence>{kept}; };
    const int failed = fail_each(
        [&] {
          const KVCache::Sequence both[] = {kept, kept};
          cache->gather(both, batch);
        },
        [&]() -> std::string {
          if (batch.page_table.size(0) != 1 || batch.key_lengths.size(0) != 1) return "half another batch";
          return batch.key_lengths.as<std::int64_t>()[0] == 40 ? "" : "another length";
        },
        [&] {
          begin(type, page_size);
          cache->gather(one(), batch);
        });
    EXPECT_GE(failed, 2);
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
  const Strided x =
      filled(DType::kF32, {2, 5, 64}, [](const Index& at) { return static_cast<double>(at[1] + at[2] % 7); });
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

// Weights that cannot be loaded, and weights that cross-attention cannot pack, leave the layer as it was.
TEST(FailingMemory, LoadingALayersWeights) {
  const MultiHeadAttentionConfig config{.d_model = 32, .num_heads = 4, .num_kv_heads = 2, .add_bias_kv = true};
  const Strided x =
      filled(DType::kF32, {2, 5, 32}, [](const Index& at) { return static_cast<double>(at[1] + at[2] % 7); });
  const Strided other = x;
  Strided expected = dense(DType::kF32, {2, 5, 32}), y = expected;
  MultiHeadAttention layer(config);
  layer.forward(x.view(), expected.mutable_view());
  StateDict doubled;
  for (const auto& [name, tensor] : layer.state_dict()) {
    Tensor twice(DType::kF32, tensor.shape());
    for (std::int64_t i = 0; i < tensor.elements(); ++i) twice.as<float>()[i] = 2 * tensor.as<float>()[i];
    doubled[name] = twice;
  }
  const int failed = fail_each([&] { layer.load_state_dict(doubled); },
                               [&] {
                                 layer.forward(x.view(), y.mutable_view());
                                 return y.memory == expected.memory ? "" : "other bits";
                               });
  EXPECT_GE(failed, 5);
  layer.forward(x.view(), y.mutable_view());
  EXPECT_NE(y.memory, expected.memory);
  const int packing = fail_each([&] { layer.forward(x.view(), other.view(), other.view(), expected.mutable_view()); },
                                [] { return ""; });
  EXPECT_GE(packing, 3);
  EXPECT_EQ(y.memory, expected.memory);
}

}  // namespace
}  // namespace manyheads::test
