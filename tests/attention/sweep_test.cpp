#include <gtest/gtest.h>

#include <cstdlib>
#include <iostream>
#include <map>
#include <random>
#include <string>
#include <vector>

#include <manyheads/cpu.hpp>

#include "attention/oracle.hpp"
#include "attention/random_case.hpp"
#include "support.hpp"

namespace manyheads::test {
namespace {

// MANYHEADS_SWEEP_CASES sets how many random calls are compared with float64, MANYHEADS_SWEEP_SEED where the seeds
// begin; a failing case's seed is printed, and alone it is run by MANYHEADS_SWEEP_CASES=1 and that seed. With
// MANYHEADS_SWEEP_SPLIT=1 each call is run at one instruction set, in turn, and not at all of them.
void sweep(std::int64_t quarter) {
  const std::int64_t all = from_environment("MANYHEADS_SWEEP_CASES", 20000);
  const std::int64_t first = from_environment("MANYHEADS_SWEEP_SEED", 1) + all * quarter / 4;
  const std::int64_t cases = all * (quarter + 1) / 4 - all * quarter / 4;
  const bool split = from_environment("MANYHEADS_SWEEP_SPLIT", 0) != 0;
  const std::vector<std::string> isas = available_isas();
  std::int64_t calls = 0;
  std::map<std::string, double> largest;
  for (std::int64_t seed = first; seed < first + cases; ++seed) {
    RandomCase c(static_cast<std::uint64_t>(seed));
    const Oracle oracle = evaluate(c.q.view(), c.k.view(), c.v.view(), c.options);
    for (std::size_t i = 0; i < isas.size(); ++i) {
      if (split && i != static_cast<std::size_t>(seed) % isas.size()) continue;
      const std::string& isa = isas[i];
      set_isa(isa);
      c.out.fill([](const auto&) { return 777.0; });
      c.run();
      const std::string wrong = compare(oracle, c.out.view(), c.lse.view(), c.d, c.type, c.options.softcap > 0,
                                        &largest[isa]);
      EXPECT_EQ(wrong, "") << isa << ", " << c.describe();
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
TEST(AttentionSweep, RandomCases1) { sweep(0); }
TEST(AttentionSweep, RandomCases2) { sweep(1); }
TEST(AttentionSweep, RandomCases3) { sweep(2); }
TEST(AttentionSweep, RandomCases4) { sweep(3); }

// Seeds that lay outside the bounds once: large scores of short heads that a bias and ALiBi rounded again, and a sink so
// far above its keys that F32 holds their share only as a denormal.
TEST(AttentionSweep, CasesThatOnceFailed) {
  for (const std::uint64_t seed : {159589u, 200932u, 475218u, 506386u, 567381u, 616252u}) {
    RandomCase c(seed);
    const Oracle oracle = evaluate(c.q.view(), c.k.view(), c.v.view(), c.options);
    for (const std::string& isa : available_isas()) {
      set_isa(isa);
      c.run();
      EXPECT_EQ(compare(oracle, c.out.view(), c.lse.view(), c.d, c.type, c.options.softcap > 0), "")
          << isa << ", " << c.describe();
    }
  }
  set_isa("");
}

}  // namespace
}  // namespace manyheads::test
