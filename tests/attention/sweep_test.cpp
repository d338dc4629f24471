#include <gtest/gtest.h>

#include <string>

#include <manyheads/cpu.hpp>

#include "attention/call.hpp"
#include "attention/oracle.hpp"
#include "attention/random_case.hpp"
#include "attention/sweep.hpp"

namespace manyheads::test {
namespace {

struct SweptCall {
  explicit SweptCall(std::uint64_t seed) : SweptCall(RandomCase(seed)) {}
  explicit SweptCall(RandomCase drawn)
      : of(std::move(drawn)), oracle(evaluate(of.q.view(), of.k.view(), of.v.view(), of.options)) {}
  std::string run(double* largest = nullptr) {
    of.out.fill([](const auto&) { return 777.0; });
    of.run();
    return compare(oracle, of.out.view(), of.lse.view(), of.d, of.type, of.options.softcap > 0, largest);
  }
  std::string describe() const { return of.describe(); }

  RandomCase of;
  Oracle oracle;
};

// One whose products are of F32, through tiles.
struct SweptCallByTiles : SweptCall {
  explicit SweptCallByTiles(std::uint64_t seed) : SweptCall(drawn(seed)) { of.options.bits = "f32-tiles-1"; }
  static RandomCase drawn(std::uint64_t seed) {
    RandomCase c(seed);
    // Those of BF16 have others in their place.
    while (c.type == DType::kBF16) c = RandomCase(seed += std::uint64_t{1} << 40);
    return c;
  }
};

// Each at all instruction sets.
TEST(AttentionSweep, RandomCases1) { sweep<SweptCall>(0, false); }
TEST(AttentionSweep, RandomCases2) { sweep<SweptCall>(1, false); }
TEST(AttentionSweep, RandomCases3) { sweep<SweptCall>(2, false); }
TEST(AttentionSweep, RandomCases4) { sweep<SweptCall>(3, false); }

// Each at one instruction set with tiles.
TEST(AttentionSweep, RandomCasesOfF32ByTiles) {
  const std::vector<std::string> isas = isas_with_tiles();
  if (isas.empty()) GTEST_SKIP() << "no tiles here, nor their emulation";
  sweep<SweptCallByTiles>(0, true, isas);
}

// Seeds that lay outside the bounds once: large scores of short heads that a bias and ALiBi rounded again, and a sink
// so far above its keys that F32 holds their share only as a denormal.
TEST(AttentionSweep, CasesThatOnceFailed) {
  for (const std::uint64_t seed : {159589u, 200932u, 475218u, 506386u, 567381u, 616252u}) {
    SweptCall c(seed);
    for (const std::string& isa : available_isas()) {
      set_isa(isa);
      EXPECT_EQ(c.run(), "") << isa << ", " << c.describe();
    }
  }
  set_isa("");
}

}  // namespace
}  // namespace manyheads::test
