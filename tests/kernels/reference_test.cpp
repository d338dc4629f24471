#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "attention/call.hpp"

// The definition against the tests' own evaluation, which shares no code with it.
namespace manyheads::test {
namespace {

double spacing(DType type) { return type == DType::kF32 ? 0x1p-24 : type == DType::kF16 ? 0x1p-11 : 0x1p-8; }

TEST(Reference, RandomCallsAreExactToTheRounding) {
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    RandomCase c(seed);
    Strided weights = dense(DType::kF32, {c.batch, c.q_heads, c.tq, c.tk});
    const TensorView lse = c.lse.mutable_view();
    const Oracle oracle = evaluate(c.q.view(), c.k.view(), c.v.view(), c.options);
    c.options.lse = lse;
    attention_reference(c.q.view(), c.k.view(), c.v.view(), c.out.mutable_view(), c.options, weights.mutable_view());
    std::int64_t bad = 0;
    const auto check = [&](double got, double want, double unit, double floor) {
      bad += got == want || std::fabs(got - want) <= unit * std::fabs(want) + floor ? 0 : 1;
    };
    std::size_t at = 0, row = 0, weight = 0;
    for (std::int64_t b = 0; b < oracle.batch; ++b) {
      for (std::int64_t h = 0; h < oracle.heads; ++h) {
        for (std::int64_t i = 0; i < oracle.tq; ++i, ++row) {
          check(element(c.lse.view(), {b, h, i}), oracle.lse[row], 0x1p-24, 1e-12 * (1 + oracle.kappa[row]));
          for (std::int64_t e = 0; e < oracle.dv; ++e, ++at) {
            // Half a unit of the type, and what float64 itself loses.
            check(element(c.out.view(), {b, h, i, e}), oracle.out[at], spacing(c.out_type) * (1 + 1e-6),
                  1e-13 * (1 + oracle.kappa[row]) * oracle.magnitude[at] +
                      (c.out_type == DType::kF16 ? 0x1p-25 : 0x1p-134));
          }
          for (std::int64_t j = 0; j < oracle.tk; ++j, ++weight) {
            check(element(weights.view(), {b, h, i, j}), oracle.weights[weight],
                  0x1p-24 + 1e-13 * (1 + oracle.kappa[row]), 0x1p-149);
          }
        }
      }
    }
    EXPECT_EQ(bad, 0) << c.describe();
  }
}

TEST(Reference, HalfOutputsAreRoundedOnce) {
  // One key of weight 1: out is the value. 1 + 2^-11 + 2^-30 lies just above a tie of float16, which rounding to
  // float first would hide.
  Call call({.tq = 1, .tk = 2, .d = 1, .dv = 1}, DType::kF32, DType::kF16, 1);
  call.q.fill([](const Index&) { return 0.0; });
  // The mean of 2 and 2^-10 + 2^-29 is the number above.
  call.v.fill([](const Index& at) { return at[2] == 0 ? 2.0 : 0x1p-10 + 0x1p-29; });
  attention_reference(call.q.view(), call.k.view(), call.v.view(), call.out.mutable_view());
  EXPECT_EQ(call.out_at(0, 0, 0, 0), 1 + 0x1p-10);
  call.v.fill([](const Index& at) { return at[2] == 0 ? 2.0 : 0x1p-10 - 0x1p-29; });
  attention_reference(call.q.view(), call.k.view(), call.v.view(), call.out.mutable_view());
  EXPECT_EQ(call.out_at(0, 0, 0, 0), 1.0);
  // The same for bfloat16: the mean of 2 and 2^-7 + 2^-26 lies just above 1 + 2^-8.
  Call brain({.tq = 1, .tk = 2, .d = 1, .dv = 1}, DType::kF32, DType::kBF16, 1);
  brain.q.fill([](const Index&) { return 0.0; });
  brain.v.fill([](const Index& at) { return at[2] == 0 ? 2.0 : 0x1p-7 + 0x1p-26; });
  attention_reference(brain.q.view(), brain.k.view(), brain.v.view(), brain.out.mutable_view());
  EXPECT_EQ(brain.out_at(0, 0, 0, 0), 1 + 0x1p-7);
}

TEST(Reference, ForbiddenRowsNaNAndEmptyCalls) {
  Call call({.tq = 4, .tk = 6, .d = 3, .dv = 2});
  const Strided mask = filled(DType::kBool, {4, 6}, [](const Index& at) { return at[0] != 1 && at[1] != 5; });
  const TensorView lse = call.lse.mutable_view();
  call.options.lse = lse;
  call.options.mask = mask::allowed(mask.view());
  call.k.set(5 * 3, kNaN);
  call.v.set(5 * 2, kInf);
  call.q.set(2 * 3, kNaN);
  attention_reference(call.q.view(), call.k.view(), call.v.view(), call.out.mutable_view(), call.options);
  EXPECT_EQ(call.out_at(0, 0, 1, 0), 0);
  EXPECT_EQ(call.lse_at(0, 0, 1), -kInf);
  EXPECT_TRUE(std::isnan(call.out_at(0, 0, 2, 0)) && std::isnan(call.lse_at(0, 0, 2)));
  EXPECT_TRUE(std::isfinite(call.out_at(0, 0, 0, 0)) && std::isfinite(call.out_at(0, 0, 3, 1)));
  for (const Sizes& s : {Sizes{.batch = 0}, Sizes{.tq = 0}, Sizes{.tk = 0}, Sizes{.q_heads = 0, .kv_heads = 0}}) {
    Call empty(s);
    EXPECT_NO_THROW(attention_reference(empty.q.view(), empty.k.view(), empty.v.view(), empty.out.mutable_view(), {}));
  }
}

TEST(Reference, AgreesWithTheFusedPath) {
  Call call({.batch = 2, .q_heads = 4, .kv_heads = 2, .tq = 20, .tk = 130, .d = 16, .dv = 8});
  call.options.mask = mask::causal(Alignment::kBottomRight);
  call.run();
  Strided out = dense(DType::kF32, call.out.shape);
  attention_reference(call.q.view(), call.k.view(), call.v.view(), out.mutable_view(), call.options);
  out.fill([&](const Index& at) {
    const double got = element(out.view(), {at[0], at[1], at[2], at[3]});
    EXPECT_NEAR(call.out_at(at[0], at[1], at[2], at[3]), got, 1e-5);
    return got;
  });
}

}  // namespace
}  // namespace manyheads::test
