#include <gtest/gtest.h>

#include <iostream>
#include <map>
#include <random>
#include <string>

#include <manyheads/attention_backward.hpp>
#include <manyheads/cpu.hpp>

#include "attention/call.hpp"
#include "attention/gradient_oracle.hpp"
#include "attention/random_case.hpp"
#include "support.hpp"

namespace manyheads::test {
namespace {

// The gradients of a RandomCase, in layouts of their own.
struct GradientCase {
  explicit GradientCase(std::uint64_t seed) : call(seed), engine(seed ^ 0x6bad1e47u) {
    const auto like = [&](DType type, const Dims& shape) {
      std::vector<int> order(static_cast<std::size_t>(shape.rank()));
      for (int i = 0; i < shape.rank(); ++i) order[static_cast<std::size_t>(i)] = i;
      if (shape.rank() == 4 && between(engine, 0, 2) == 0) std::swap(order[1], order[2]);
      return Strided(type, shape, order, between(engine, 0, 4) == 0 ? 3 : 0, between(engine, 0, 9) == 0 ? 2 : 1, -1,
                     static_cast<std::size_t>(between(engine, 0, 3)));
    };
    const auto type = [&] { return between(engine, 0, 3) == 0 ? DType::kF32 : call.type; };
    std::normal_distribution<double> normal;
    dout = like(type(), call.out.shape);
    dout.fill([&](const auto&) { return normal(engine); });
    if (between(engine, 0, 2) == 0) {
      dlse = like(DType::kF32, call.lse.shape);
      dlse.fill([&](const auto&) { return normal(engine); });
    }
    dq = like(type(), call.q.shape);
    dk = like(type(), call.k.shape);
    dv = like(type(), call.v.shape);
    if (call.options.mask.bias.defined()) dbias = like(type(), call.options.mask.bias.shape());
    if (call.options.sinks.defined()) dsinks = like(DType::kF32, call.options.sinks.shape());
    if (call.options.mask.alibi_slopes.defined()) dalibi = like(DType::kF32, call.options.mask.alibi_slopes.shape());
  }

  ConstTensorView dlse_view() const { return dlse.memory.empty() ? ConstTensorView() : dlse.view(); }
  AttentionGradients gradients() {
    AttentionGradients all;
    all.dlse = dlse_view();
    all.dq = dq.mutable_view();
    all.dk = dk.mutable_view();
    all.dv = dv.mutable_view();
    if (call.options.mask.bias.defined()) all.dbias = dbias.mutable_view();
    if (call.options.sinks.defined()) all.dsinks = dsinks.mutable_view();
    if (call.options.mask.alibi_slopes.defined()) all.dalibi_slopes = dalibi.mutable_view();
    return all;
  }
  void fill(double value) {
    for (Strided* tensor : {&dq, &dk, &dv, &dbias, &dsinks, &dalibi}) {
      if (!tensor->memory.empty()) tensor->fill([value](const auto&) { return value; });
    }
  }
  std::string compare(const ExpectedGradients& expected, double* largest) {
    std::string wrong;
    const auto check = [&](const char* name, const ExpectedGradient& of, const Strided& got) {
      if (wrong.empty() && !got.memory.empty()) wrong = compare_gradient(name, of, got.view(), largest);
    };
    check("dq", expected.dq, dq);
    check("dk", expected.dk, dk);
    check("dv", expected.dv, dv);
    check("dbias", expected.dbias, dbias);
    check("dsinks", expected.dsinks, dsinks);
    check("dalibi_slopes", expected.dalibi_slopes, dalibi);
    return wrong;
  }

  RandomCase call;
  std::mt19937_64 engine;
  Strided dout, dlse, dq, dk, dv, dbias, dsinks, dalibi;
};

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
    const Oracle oracle = evaluate(c.call.q.view(), c.call.k.view(), c.call.v.view(), c.call.options);
    const ExpectedGradients expected =
        expect_gradients(c.call.q.view(), c.call.k.view(), c.call.v.view(), c.dout.view(), c.dlse_view(),
                         c.call.out_type, c.call.options, oracle);
    for (std::size_t i = 0; i < isas.size(); ++i) {
      if (split && i != static_cast<std::size_t>(seed) % isas.size()) continue;
      set_isa(isas[i]);
      c.call.run();
      c.fill(777.0);
      attention_backward(c.call.q.view(), c.call.k.view(), c.call.v.view(), c.call.out.view(), c.dout.view(),
                         c.call.lse.view(), c.gradients(), c.call.options);
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
