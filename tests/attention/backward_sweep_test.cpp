#include <gtest/gtest.h>

#include <iostream>
#include <map>
#include <string>

#include <manyheads/cpu.hpp>

#include "attention/gradient_case.hpp"
#include "support.hpp"

namespace manyheads::test {
namespace {

// MANYHEADS_SWEEP_CASES and MANYHEADS_SWEEP_SEED as in sweep_test.cpp; each call is run at one instruction set, in
// turn, or with MANYHEADS_SWEEP_SPLIT=0 at all of them.
void sweep(std::int64_t quarter) {
  const std::int64_t all = from_environment("MANYHEADS_SWEEP_CASES", 20000);
  const std::int64_t first = from_environment("MANYHEADS_SWEEP_SEED", 1) + all * quarter / 4;
  const std::int64_t cases = all * (quarter + 1) / 4 - all * quarter / 4;
  const bool split = from_environment("MANYHEADS_SWEEP_SPLIT", 1) != 0;
  const std::vector<std::string> isas = available_isas();
  std::int64_t calls = 0;
  std::map<std::string, double> largest;
  for (std::int64_t seed = first; seed < first + cases; ++seed) {
    GradientCase c(static_cast<std::uint64_t>(seed));
    const ExpectedGradients expected = c.expected();
    for (std::size_t i = 0; i < isas.size(); ++i) {
      if (split && i != static_cast<std::size_t>(seed) % isas.size()) continue;
      set_isa(isas[i]);
      c.call.run();
      c.fill(777.0);
      c.run_backward();
      EXPECT_EQ(c.compare(expected, &largest[isas[i]]), "") << isas[i] << ", " << c.call.describe();
      ++calls;
    }
  }
  set_isa("");
  std::cout << "sweep: " << cases << " cases, " << calls << " calls, from seed " << first << " on\n";
  for (const auto& [isa, fraction] : largest) {
    std::cout << "sweep: largest error on " << isa << " as a fraction of its bound: " << fraction << "\n";
  }
}

// In quarters, which lie in different shards where the tests are sharded.
TEST(BackwardSweep, RandomCases1) { sweep(0); }
TEST(BackwardSweep, RandomCases2) { sweep(1); }
TEST(BackwardSweep, RandomCases3) { sweep(2); }
TEST(BackwardSweep, RandomCases4) { sweep(3); }

}  // namespace
}  // namespace manyheads::test
