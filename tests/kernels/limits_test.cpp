#include <gtest/gtest.h>

#include <algorithm>
#include <manyheads/cpu.hpp>
#include <manyheads/error.hpp>
#include <manyheads/limits.hpp>
#include <thread>
#include <vector>

#include "attention/call.hpp"
#include "kernels/isa/processor.hpp"
#include "kernels/roofline.hpp"
#include "kernels/tuning.hpp"

namespace manyheads::test {
namespace {

// Two threads of its own, and how often they were asked.
class Two final : public Executor {
 public:
  int concurrency() const noexcept override { return 2; }
  void run(std::int64_t count, Task task, void* context) override {
    ++runs;
    std::vector<std::thread> threads;
    for (std::int64_t i = 0; i < count; ++i) threads.emplace_back(task, context, i);
    for (std::thread& thread : threads) thread.join();
  }
  int runs = 0;
};

TEST(Limits, RatesOfWhatTheMachineHas) {
  const Limits found = limits({.num_threads = 1});
  EXPECT_EQ(found.isa, active_isa());
  EXPECT_EQ(found.threads, 1);
  // No machine is slower or faster by so much: a rate of another unit would be.
  EXPECT_GT(found.fma_gflops, 1e-3);
  EXPECT_LT(found.fma_gflops, 1e4);
  EXPECT_GT(found.memory_gbs, 1e-3);
  EXPECT_LT(found.memory_gbs, 1e3);
  EXPECT_EQ(found.memory_gbs, found.memory_gbs_one_thread);
  EXPECT_EQ(found.bf16_dot_gflops > 0, kernels::has_bf16_products());
  EXPECT_EQ(found.bf16_tile_gflops > 0, kernels::has_amx_bf16());
  EXPECT_EQ(found.int8_dot_gflops > 0, kernels::has_vnni());
  EXPECT_EQ(found.l1_bytes, kernels::tuning().l1_bytes);
  EXPECT_EQ(found.l2_bytes, kernels::tuning().l2_bytes);
  EXPECT_EQ(found.l3_bytes, kernels::tuning().l3_bytes);
}

TEST(Limits, ByTheInstructionSetInUse) {
  if (available_isas().back() != "portable") GTEST_SKIP() << "this build has no portable kernels";
  set_isa("portable");
  // One value at a time, where a dot product of bytes takes 64. Samples differ by what else the machine does.
  Limits best;
  for (int tries = 0; tries < 12 && best.int8_dot_gflops <= 2 * best.fma_gflops; ++tries) {
    const Limits found = limits({.num_threads = 1});
    EXPECT_EQ(found.isa, "portable");
    EXPECT_GT(found.fma_gflops, 0);
    best.fma_gflops = std::max(best.fma_gflops, found.fma_gflops);
    best.int8_dot_gflops = std::max(best.int8_dot_gflops, found.int8_dot_gflops);
    if (!kernels::has_vnni()) break;
  }
  set_isa("");
  EXPECT_TRUE(!kernels::has_vnni() || best.int8_dot_gflops > 2 * best.fma_gflops)
      << best.int8_dot_gflops << " and " << best.fma_gflops;
}

TEST(Limits, OnTheCallersThreads) {
  Two executor;
  const Limits found = limits({.executor = &executor});
  EXPECT_EQ(found.threads, 2);
  EXPECT_GT(executor.runs, 0);
  EXPECT_GT(found.memory_gbs, 0);
  EXPECT_GT(found.memory_gbs_one_thread, 0);
}

TEST(Limits, ReadMoreThanTheCachesHold) {
  EXPECT_GE(kernels::beyond_caches(), std::size_t{1} << 20);
  EXPECT_LE(kernels::beyond_caches(), std::size_t{1} << 30);
}

TEST(Limits, SayThemselves) {
  Limits limits;
  limits.isa = "avx512";
  limits.threads = 3;
  limits.fma_gflops = 123.45;
  limits.memory_gbs = 40;
  limits.memory_gbs_one_thread = 20.25;
  limits.l1_bytes = 49152;
  limits.l2_bytes = 1048576;
  limits.l3_bytes = 33554432;
  EXPECT_EQ(limits.to_string(),
            "avx512, threads 3: multiply-adds 123.5 GFLOP/s; memory 40.0 GB/s, 20.2 on one thread; caches 48 KB, 1024 "
            "KB and 32768 KB");
  limits.bf16_dot_gflops = 246;
  limits.int8_dot_gflops = 492;
  EXPECT_TRUE(contains(limits.to_string(), "GFLOP/s, BF16 dot products 246.0, INT8 dot products 492.0; memory"));
}

TEST(Limits, FewerThanNoThreadsIsAnError) {
  EXPECT_EQ(error_of([] { limits({.num_threads = -1}); }), "limits: num_threads is -1, expected 0 or more");
}

}  // namespace
}  // namespace manyheads::test
