// Attention against an evaluation in float64 that shares no code with it. The input: the instruction set (a byte), and
// the seed of a random call with its shapes, types, strides, masks and edge values (eight bytes).
#include <cmath>
#include <cstring>
#include <manyheads/cpu.hpp>

#include "attention/oracle.hpp"
#include "attention/random_case.hpp"
#include "harness.hpp"

using namespace manyheads;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  static const std::vector<std::string> isas = available_isas();
  if (size != 9) return -1;
  set_isa(isas[bytes[0] % isas.size()]);
  std::uint64_t seed = 0;
  std::memcpy(&seed, bytes + 1, sizeof seed);
  test::RandomCase c(seed);
  const test::Oracle oracle = test::evaluate(c.q.view(), c.k.view(), c.v.view(), c.options);
  c.out.fill([](const auto&) { return 777.0; });
  c.run();
  const bool softcap = c.options.softcap > 0;
  const std::string wrong = test::compare(oracle, c.out.view(), c.lse.view(), c.d, c.type, softcap);
  if (!wrong.empty()) fuzz::fail(wrong + ", " + c.describe());

  // The weights, from the lse that it gave and from one that is foreign.
  if (c.batch * c.q_heads * c.tq * c.tk > 50000) return 0;
  const Dims shape{c.batch, c.q_heads, c.tq, c.tk};
  test::Strided weights(DType::kF32, shape, {0, 1, 2, 3}, 0, 1, -1, 0);
  for (const bool foreign : {false, true}) {
    if (foreign) c.lse.fill([&](const auto& at) { return at[2] % 2 == 0 ? 1e4 : -3.0; });
    attention_weights(c.q.view(), c.k.view(), c.lse.view(), weights.mutable_view(), c.options);
    std::size_t at = 0;
    weights.fill([&](const std::vector<std::int64_t>& index) {
      const double got = test::element(weights.view(), {index[0], index[1], index[2], index[3]});
      // A foreign lse may stand for any number of the keys and yet be taken: what is smallest underflows sooner by
      // that.
      const double smallest = foreign ? 4 * static_cast<double>(c.tk + 1) : 1;
      const double bound = test::weight_bound(oracle, at, c.d, softcap, smallest);
      if (!(std::fabs(got - oracle.weights[at]) <= bound)) {
        char text[128];
        std::snprintf(text, sizeof text, "weight %zu is %.9g, expected %.9g%s, ", at, got, oracle.weights[at],
                      foreign ? ", by a foreign lse" : "");
        fuzz::fail(text + c.describe());
      }
      ++at;
      return got;
    });
  }
  return 0;
}
