#include <gtest/gtest.h>
#include <sys/mman.h>

#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "attention/call.hpp"
#include "attention/draw.hpp"

// The schedule never changes the arithmetic: threads, copies, groups of tiles, executors and workspaces keep the bits.
// Outputs are F32 beside half types too: rounded to those, two results would seldom differ.
namespace manyheads::test {
namespace {

class ScheduleBits : public AtEachIsa {};
MANYHEADS_AT_EACH_ISA(ScheduleBits);

class Backwards : public Executor {
 public:
  int concurrency() const noexcept override { return 64; }
  void run(std::int64_t count, Task task, void* context) override {
    for (std::int64_t i = count; i-- > 0;) task(context, i);
  }
};

class OwnThreads : public Executor {
 public:
  int concurrency() const noexcept override { return 64; }
  void run(std::int64_t count, Task task, void* context) override {
    std::vector<std::thread> threads;
    for (std::int64_t i = 0; i < count; ++i) threads.emplace_back([=] { task(context, i); });
    for (std::thread& thread : threads) thread.join();
  }
};

TEST_P(ScheduleBits, AnyNumberOfThreads) {
  for (std::uint64_t seed = 1; seed <= 12; ++seed) {
    Draw draw(seed);
    Sizes s = random_sizes(draw);
    s.q_heads = s.kv_heads * 4;  // enough work for several threads
    s.tq = draw.between(40, 150);
    s.tk = draw.between(300, 1500);
    const RandomMask mask(draw, s);
    const DType type = random_type(draw);
    Call one(s, type, DType::kF32, seed);
    one.options.mask = mask.mask;
    one.options.threads.num_threads = 1;
    one.run();
    for (const int threads : {2, 3, 8, 64}) {
      Call many(s, type, DType::kF32, seed);
      many.options.mask = mask.mask;
      many.options.threads.num_threads = threads;
      many.run();
      EXPECT_TRUE(same_bits(one, many)) << "seed " << seed << ", " << threads << " threads";
    }
  }
}

// Many queries read a copy of each head, a few the caller's rows.
TEST_P(ScheduleBits, CopiesOfHeads) {
  for (const DType type : {DType::kF32, DType::kBF16, DType::kF16}) {
    for (const int threads : {1, 2}) {
      const Sizes s{.batch = 2, .q_heads = 4, .kv_heads = threads, .tq = 300, .tk = 311, .d = 24, .dv = 16};
      Call whole(s, type, DType::kF32, 3);
      const Strided lengths = integers({311, 171});
      // [B,T,H,D] with gaps, and NaN behind the keys. Values are infinite behind the keys of some first tiles, in the
      // middle of a pair: those tiles must not see them.
      const auto apart = [&](Strided& rows, bool values) {
        Strided moved(type, rows.shape, {0, 2, 1, 3}, 3, 1, -1, 0);
        moved.fill([&](const Index& at) {
          if (values && (at[2] == 43 || at[2] == 59 || at[2] == 75)) return std::numeric_limits<double>::infinity();
          return at[0] == 1 && at[2] >= 171 ? kNaN : element(rows.view(), {at[0], at[1], at[2], at[3]});
        });
        rows = moved;
      };
      apart(whole.k, false);
      apart(whole.v, true);
      whole.options.mask = mask::causal(Alignment::kBottomRight) | mask::key_lengths(lengths.view());
      whole.options.threads.num_threads = threads;
      const std::string path = whole.explanation().path;
      EXPECT_TRUE(contains(path, "K and V of each head packed")) << path;
      Workspace workspace;  // that holds the copies of other keys
      Call before = whole;
      before.k.fill([](const Index& at) { return static_cast<double>(at[3]); });
      before.options.workspace = &workspace;
      before.run();
      for (Workspace* w : {static_cast<Workspace*>(nullptr), &workspace}) {
        whole.options.workspace = w;
        whole.run();
        for (std::int64_t first = 0; first < s.tq; first += 20) {
          Sizes few = s;
          few.tq = 20;
          Call part(few, type, DType::kF32, 1);
          part.q.fill([&](const Index& at) { return element(whole.q.view(), {at[0], at[1], first + at[2], at[3]}); });
          part.k = whole.k;
          part.v = whole.v;
          const Strided places = integers({311 - s.tq + first, 171 - s.tq + first});
          part.options.mask = mask::causal() | mask::key_lengths(lengths.view()) | mask::offsets(places.view());
          part.options.threads.num_threads = threads;
          part.run();
          for (std::int64_t b = 0; b < 2; ++b) {
            for (std::int64_t h = 0; h < 4; ++h) {
              for (std::int64_t i = 0; i < 20; ++i) {
                ASSERT_TRUE(same_row(whole, {b, h, first + i}, part, {b, h, i}))
                    << name_of(type) << ", query " << first + i << ", " << threads << " threads";
              }
            }
          }
        }
      }
    }
  }
}

// Tiles that pass over parts of the keys together, and one by itself.
TEST_P(ScheduleBits, GroupsOfTiles) {
  for (const DType type : {DType::kF32, DType::kBF16}) {
    const Sizes s{.q_heads = 8, .tq = 130, .tk = 16451, .d = 64, .dv = 64};
    Call whole(s, type, DType::kF32, 5);
    whole.options.mask = mask::causal(Alignment::kBottomRight);
    whole.options.threads.num_threads = 1;
    const auto together = [](Call& call) { return call.explanation().query_blocks_together; };
    EXPECT_GT(together(whole), 1);
    whole.run();
    Sizes few = s;
    few.q_heads = 1;
    few.tq = 13;
    Call alone(few, type, DType::kF32, 1);
    alone.k = whole.k;
    alone.v = whole.v;
    alone.options.threads.num_threads = 1;
    for (const std::int64_t head : {0, 7}) {
      for (const std::int64_t first : {0, 57, 117}) {
        alone.q.fill([&](const Index& at) { return element(whole.q.view(), {0, head, first + at[2], at[3]}); });
        const Strided place = integers({s.tk - s.tq + first});
        alone.options.mask = mask::causal() | mask::offsets(place.view());
        EXPECT_EQ(together(alone), 1);
        alone.run();
        for (std::int64_t i = 0; i < few.tq; ++i) {
          ASSERT_TRUE(same_row(whole, {0, head, first + i}, alone, {0, 0, i}))
              << name_of(type) << ", query " << first + i;
        }
      }
    }
  }
}

TEST_P(ScheduleBits, KeysThatNoQueryMaySeeAreNotCopied) {
  constexpr std::int64_t kSeen = 256, kKeys = 1024, kWidth = 64;
  constexpr std::size_t kBytes = kKeys * kWidth * 2;
  void* memory = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  ASSERT_EQ(mprotect(static_cast<char*>(memory) + kBytes / kKeys * kSeen, kBytes / kKeys * (kKeys - kSeen), PROT_NONE),
            0);
  const ConstTensorView keys(memory, DType::kF16, {1, 1, kKeys, kWidth});
  Call call({.tq = kSeen, .tk = 1, .d = kWidth, .dv = kWidth}, DType::kF16);
  AttentionOptions options{.mask = mask::causal(Alignment::kTopLeft), .threads = {.num_threads = 1}};
  EXPECT_TRUE(contains(explain(call.q.view(), keys, keys, call.out.mutable_view(), options).path,
                       "K and V of each head packed"));
  attention(call.q.view(), keys, keys, call.out.mutable_view(), options);
  EXPECT_EQ(call.out_at(0, 0, kSeen - 1, 0), 0.0);
  munmap(memory, kBytes);
}

TEST_P(ScheduleBits, AnyExecutorAndWorkspace) {
  Backwards backwards;
  OwnThreads threads;
  Workspace workspace;
  for (std::uint64_t seed = 1; seed <= 6; ++seed) {
    Draw draw(seed);
    Sizes s = random_sizes(draw);
    s.q_heads = s.kv_heads * 4;
    s.tq = 90;
    s.tk = 700;
    const RandomMask mask(draw, s);
    Call plain(s, DType::kF32, seed);
    plain.options.mask = mask.mask;
    plain.run();
    for (Executor* executor :
         {static_cast<Executor*>(nullptr), static_cast<Executor*>(&backwards), static_cast<Executor*>(&threads)}) {
      for (Workspace* w : {static_cast<Workspace*>(nullptr), &workspace}) {
        Call other(s, DType::kF32, seed);
        other.options = plain.options;
        other.options.threads.num_threads = 5;
        other.options.threads.executor = executor;
        other.options.workspace = w;
        other.run();
        EXPECT_TRUE(same_bits(plain, other)) << "seed " << seed;
      }
    }
  }
  EXPECT_GT(workspace.capacity(), 0u);
}

// A run of a few keys leaves most of its arrays as they were.
TEST_P(ScheduleBits, WhatLiesInTheWorkspaceReachesNoResult) {
  Workspace workspace;
  for (const DType type : {DType::kF32, DType::kBF16}) {
    for (const std::int64_t d : {8, 40}) {
      for (const std::int64_t tq : {1, 2, 5, 8, 9}) {
        for (const std::int64_t tk : {1, 7, 16, 33, 63, 65, 71}) {
          const Sizes s{.q_heads = 2, .kv_heads = 2, .tq = tq, .tk = tk, .d = d, .dv = d};
          const Strided bias =
              filled(DType::kF32, {tq, tk}, [](const Index& at) { return at[1] % 3 == 2 ? -kInf : 0.5; });
          for (const Mask& mask : {Mask{}, mask::causal(Alignment::kBottomRight), mask::bias(bias.view())}) {
            Call clean(s, type), dirty(s, type);
            for (Call* call : {&clean, &dirty}) {
              call->options.mask = mask;
              call->options.threads.num_threads = 1;
              call->options.workspace = &workspace;
              const std::size_t bytes = attention_workspace_size(call->q.view(), call->k.view(), call->v.view(),
                                                                 call->out.mutable_view(), call->options);
              std::memset(workspace.reserve(bytes), call == &dirty ? 0xff : 0, bytes);  // 0xff..: NaN in each type
              call->run();
            }
            EXPECT_TRUE(same_bits(clean, dirty)) << tq << " queries, " << tk << " keys, D " << d;
          }
        }
      }
    }
  }
}

TEST_P(ScheduleBits, AWorkspaceOfTheSizeAskedForNeverGrows) {
  Call call({.q_heads = 4, .kv_heads = 2, .tq = 100, .tk = 700, .d = 32, .dv = 32});
  Workspace workspace;
  call.options.workspace = &workspace;
  call.options.threads.num_threads = 3;
  const std::size_t bytes =
      attention_workspace_size(call.q.view(), call.k.view(), call.v.view(), call.out.mutable_view(), call.options);
  workspace.reserve(bytes);
  const std::size_t before = workspace.capacity();
  EXPECT_EQ(call.wrong(), "");
  EXPECT_EQ(workspace.capacity(), before);
}

}  // namespace
}  // namespace manyheads::test
