#include <gtest/gtest.h>

#include <string>

#include "attention/gradient_case.hpp"
#include "attention/sweep.hpp"

namespace manyheads::test {
namespace {

struct SweptGradients {
  explicit SweptGradients(std::uint64_t seed) : of(seed), oracle(of.oracle()), expected(of.expected(oracle)) {}
  std::string run(double* largest) {
    of.call.run();
    of.fill(777.0);
    of.run_backward();
    const std::string wrong = of.compare(expected, largest);
    return wrong.empty() ? of.compare_means(expected, of.plain(oracle)) : wrong;
  }
  std::string describe() const { return of.call.describe(); }

  GradientCase of;
  Oracle oracle;
  ExpectedGradients expected;
};

// Each at one instruction set.
TEST(BackwardSweep, RandomCases1) { sweep<SweptGradients>(0, true); }
TEST(BackwardSweep, RandomCases2) { sweep<SweptGradients>(1, true); }
TEST(BackwardSweep, RandomCases3) { sweep<SweptGradients>(2, true); }
TEST(BackwardSweep, RandomCases4) { sweep<SweptGradients>(3, true); }

}  // namespace
}  // namespace manyheads::test
