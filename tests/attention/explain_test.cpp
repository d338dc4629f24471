#include <gtest/gtest.h>

#include <string>

#include "attention/call.hpp"

namespace manyheads::test {
namespace {

class Explain : public AtEachIsa {};
MANYHEADS_AT_EACH_ISA(Explain);

TEST_P(Explain, NamesTheInstructionSetAndThePath) {
  Call call({.tq = 10, .tk = 10});
  EXPECT_EQ(call.explanation().isa, GetParam());
  EXPECT_TRUE(contains(call.explanation().path, "fused")) << call.explanation().path;
  Call half({.tq = 10, .tk = 10}, DType::kBF16);
  EXPECT_NE(half.explanation().path, call.explanation().path);
  EXPECT_TRUE(contains(half.explanation().path, "BF16")) << half.explanation().path;
  const std::string text = call.explanation().to_string();
  EXPECT_TRUE(contains(text, GetParam()) && contains(text, "fused")) << text;
}

// No memory of the size of the scores: a head of 65,536 tokens takes less than 2 MB a thread, of which eight tiles that
// pass over the keys together hold a quarter of a megabyte each.
TEST_P(Explain, TheWorkspaceOfALongSequenceIsSmall) {
  const Dims shape{1, 1, 65536, 64};
  for (const DType type : {DType::kF32, DType::kBF16}) {
    const Tensor q(type, shape);
    Tensor out(type, shape);
    for (const int threads : {1, 2}) {
      const std::size_t bytes =
          attention_workspace_size(q.cview(), q.cview(), q.cview(), out.view(), {.threads = {.num_threads = threads}});
      EXPECT_LT(bytes, static_cast<std::size_t>(threads) * 2'000'000u);
      EXPECT_GT(bytes, 0u);
    }
  }
}

TEST_P(Explain, CountsBlocksAndThoseTheMaskRulesOut) {
  const Sizes s{.batch = 2, .q_heads = 4, .kv_heads = 2, .tq = 640, .tk = 640, .d = 32, .dv = 16};
  Call full(s);
  const Explanation all = full.explanation();
  EXPECT_EQ(all.run_keys, 64);
  EXPECT_EQ(all.chunk_keys, 512);
  EXPECT_EQ(all.skipped_runs, 0);
  EXPECT_EQ(all.runs, all.tasks * 10);
  EXPECT_DOUBLE_EQ(all.flop, 2.0 * (32 + 16) * 2 * 4 * 640 * 640);
  EXPECT_DOUBLE_EQ(all.bytes, 4.0 * (2 * 4 * 640 * (32 + 16) + 2 * 2 * 640 * (32 + 16)));
  EXPECT_GE(all.tasks * all.query_block_rows, 2 * 4 * 640);

  Call lower(s);
  lower.options.mask = mask::causal();
  const Explanation half = lower.explanation();
  EXPECT_EQ(half.runs, all.runs);
  EXPECT_GT(half.skipped_runs, all.runs * 2 / 5);
  EXPECT_LT(half.flop, all.flop * 0.6);

  const Strided lengths = integers({0, 64});
  Call short_keys(s);
  short_keys.options.mask = mask::key_lengths(lengths.view());
  EXPECT_EQ(short_keys.explanation().skipped_runs, all.runs - all.runs / 20);

  const Strided mask = filled(DType::kBool, {640}, [](const Index& at) { return at[0] >= 128 && at[0] < 192; });
  Call masked(s);
  masked.options.mask = mask::allowed(mask.view());
  EXPECT_EQ(masked.explanation().runs - masked.explanation().skipped_runs, all.runs / 10);

  const auto id = [](const Index& at) { return static_cast<double>(at[1] / 64); };
  const Strided q_ids = filled(DType::kI32, {2, 640}, id);
  Call packed(s);
  packed.options.mask = mask::documents(q_ids.view(), q_ids.view());
  EXPECT_GT(packed.explanation().skipped_runs, all.runs * 3 / 4);
}

TEST_P(Explain, ThreadsAreNoMoreThanAskedForOrUseful) {
  Call call({.q_heads = 8, .kv_heads = 8, .tq = 512, .tk = 512, .d = 64, .dv = 64});
  for (const int threads : {1, 2, 5}) {
    call.options.threads.num_threads = threads;
    EXPECT_EQ(call.explanation().threads, threads);
  }
  Call tiny({.tq = 1, .tk = 4});
  tiny.options.threads.num_threads = 64;
  EXPECT_EQ(tiny.explanation().threads, 1);
}

TEST_P(Explain, TheWorkspaceDoesNotGrowWithTheScores) {
  std::int64_t together = 1;
  const auto bytes = [&](std::int64_t t) {
    Call call({.tq = t, .tk = t, .d = 64, .dv = 64});
    call.options.threads.num_threads = 1;
    EXPECT_EQ(call.explanation().workspace_bytes, attention_workspace_size(call.q.view(), call.k.view(), call.v.view(),
                                                                           call.out.mutable_view(), call.options));
    together = call.explanation().query_blocks_together;
    return call.explanation().workspace_bytes;
  };
  // Query blocks that are taken together have a row state each.
  const std::size_t longer = bytes(4096), states = static_cast<std::size_t>(together);
  EXPECT_LT(longer, (1 + states) * bytes(1024));
  EXPECT_LT(bytes(65536), 2 * bytes(16384));
  EXPECT_LT(bytes(65536), 2'000'000u);
}

TEST_P(Explain, AnEmptyCallTakesNothing) {
  Call call({.batch = 0, .tq = 5, .tk = 5});
  const Explanation e = call.explanation();
  EXPECT_EQ(e.tasks, 0);
  EXPECT_EQ(e.runs, 0);
  EXPECT_EQ(e.flop, 0);
}

}  // namespace
}  // namespace manyheads::test
