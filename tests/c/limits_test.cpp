#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <manyheads/cpu.hpp>
#include <manyheads/limits.hpp>

#include "c/door.hpp"
#include "c/refused.hpp"

namespace manyheads::test {
namespace {

// No gap that a later field could fill: it would hold an older caller's garbage.
static_assert(sizeof(mh_machine_limits) == sizeof(std::size_t) + sizeof(const char*) + 10 * sizeof(std::int64_t));
static_assert(offsetof(mh_machine_limits, l3_bytes) + sizeof(std::int64_t) == sizeof(mh_machine_limits));

TEST(CDoorLimits, AreThoseOfCpp) {
  // Rates of two runs differ by what else the machine does. Their best of many tries do not.
  using Rates = std::array<double, 5>;
  Rates of_c{}, of_cpp{};
  bool alike = false;
  for (int tries = 0; tries < 40 && !alike; ++tries) {
    mh_machine_limits c = MH_DEFAULT(mh_machine_limits);
    ASSERT_EQ(mh_limits(1, nullptr, &c), MH_OK) << mh_last_error();
    const Limits cpp = limits({.num_threads = 1});
    EXPECT_EQ(c.isa, active_isa());
    EXPECT_EQ(c.threads, 1);
    EXPECT_EQ(c.l1_bytes, cpp.l1_bytes);
    EXPECT_EQ(c.l2_bytes, cpp.l2_bytes);
    EXPECT_EQ(c.l3_bytes, cpp.l3_bytes);
    EXPECT_EQ(c.memory_gbs, c.memory_gbs_one_thread);
    const auto keep = [](Rates& best, const Rates& rates) {
      for (std::size_t i = 0; i < rates.size(); ++i) best[i] = std::max(best[i], rates[i]);
    };
    keep(of_c, {c.fma_gflops, c.bf16_dot_gflops, c.bf16_tile_gflops, c.int8_dot_gflops, c.memory_gbs});
    keep(of_cpp, {cpp.fma_gflops, cpp.bf16_dot_gflops, cpp.bf16_tile_gflops, cpp.int8_dot_gflops, cpp.memory_gbs});
    alike = true;
    for (std::size_t i = 0; i < of_c.size(); ++i) {
      alike = alike && of_c[i] <= 1.5 * of_cpp[i] && of_cpp[i] <= 1.5 * of_c[i];
    }
  }
  EXPECT_TRUE(alike) << ::testing::PrintToString(of_c) << " and " << ::testing::PrintToString(of_cpp);
}

TEST(CDoorLimits, OnAnExecutorAndForAnEarlierCaller) {
  mh_executor executor = Attempt::make_executor();
  mh_machine_limits c = MH_DEFAULT(mh_machine_limits);
  c.size = offsetof(mh_machine_limits, l1_bytes);
  c.l1_bytes = 777;
  ASSERT_EQ(mh_limits(0, &executor, &c), MH_OK) << mh_last_error();
  EXPECT_EQ(c.size, offsetof(mh_machine_limits, l1_bytes));
  EXPECT_EQ(c.threads, 2);
  EXPECT_GT(c.memory_gbs, 0);
  EXPECT_EQ(c.l1_bytes, 777);
  executor.run = [](void*, std::int64_t, mh_task, void*) {};
  EXPECT_EQ(mh_limits(0, &executor, &c), MH_FAILED);
  EXPECT_STREQ(mh_last_error(), "mh_limits: executor->run ran 0 of 2 tasks");
}

}  // namespace
}  // namespace manyheads::test
