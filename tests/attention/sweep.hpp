#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <iostream>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <manyheads/cpu.hpp>

#include "support.hpp"

namespace manyheads::test {

// A quarter of the random calls that are compared with float64. Case(seed) draws one and evaluates it;
// run(&largest) computes it at the instruction set in use and says what is wrong, "" where nothing is.
// - MANYHEADS_SWEEP_CASES sets how many there are, MANYHEADS_SWEEP_SEED where the seeds begin. A failing case's seed is
//   printed; alone it is run by MANYHEADS_SWEEP_CASES=1 and that seed.
// - MANYHEADS_SWEEP_SPLIT: 1 runs each call at one instruction set, in turn, 0 at all of them.
// Quarters lie in different shards where the tests are sharded.
template <class Case>
void sweep(std::int64_t quarter, bool usually_split, const std::vector<std::string>& isas = available_isas()) {
  const std::int64_t all = from_environment("MANYHEADS_SWEEP_CASES", 20000);
  const std::int64_t first = from_environment("MANYHEADS_SWEEP_SEED", 1) + all * quarter / 4;
  const std::int64_t cases = all * (quarter + 1) / 4 - all * quarter / 4;
  const bool split = from_environment("MANYHEADS_SWEEP_SPLIT", usually_split ? 1 : 0) != 0;
  std::int64_t calls = 0;
  std::map<std::string, double> largest;
  for (std::int64_t seed = first; seed < first + cases; ++seed) {
    Case c(static_cast<std::uint64_t>(seed));
    for (std::size_t i = 0; i < isas.size(); ++i) {
      if (split && i != static_cast<std::size_t>(seed) % isas.size()) continue;
      set_isa(isas[i]);
      EXPECT_EQ(c.run(&largest[isas[i]]), "") << isas[i] << ", " << c.describe();
      ++calls;
    }
  }
  set_isa("");
  std::cout << "sweep: " << cases << " cases, " << calls << " calls, from seed " << first << " on\n";
  for (const auto& [isa, fraction] : largest) {
    std::cout << "sweep: largest error on " << isa << " as a fraction of its bound: " << fraction << "\n";
  }
}

}  // namespace manyheads::test
