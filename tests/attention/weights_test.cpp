#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "attention/call.hpp"

namespace manyheads::test {
namespace {

class Weights : public AtEachIsa {};
MANYHEADS_AT_EACH_ISA(Weights);

Strided weights_of(Call& call, Strided to) {
  call.run();
  to.fill([](const Index&) { return 777.0; });
  attention_weights(call.q.view(), call.k.view(), call.lse.view(), to.mutable_view(), call.options);
  return to;
}
Strided weights_of(Call& call) {
  const Sizes& s = call.sizes;
  return weights_of(call, dense(DType::kF32, {s.batch, s.q_heads, s.tq, s.tk}));
}

// A weight's relative error is that of its score's exponential: the bound of out, without the sums over values.
std::string wrong(const Call& call, const Strided& weights) {
  const Oracle oracle = call.oracle();
  std::size_t at = 0;
  for (std::int64_t b = 0; b < oracle.batch; ++b) {
    for (std::int64_t h = 0; h < oracle.heads; ++h) {
      for (std::int64_t i = 0; i < oracle.tq; ++i) {
        for (std::int64_t j = 0; j < oracle.tk; ++j, ++at) {
          const double want = oracle.weights[at];
          const double got = element(weights.view(), {b, h, i, j});
          const double bound = weight_bound(oracle, at, call.sizes.d, call.options.softcap > 0);
          if (std::fabs(got - want) <= bound) continue;
          return "weights[" + std::to_string(b) + "," + std::to_string(h) + "," + std::to_string(i) + "," +
                 std::to_string(j) + "] is " + std::to_string(got) + ", expected " + std::to_string(want) + " within " +
                 std::to_string(bound);
        }
      }
    }
  }
  return "";
}

TEST_P(Weights, AreThoseOfFloat64) {
  for (const DType type : {DType::kF32, DType::kBF16, DType::kF16}) {
    for (const std::int64_t tk : {1, 3, 64, 65, 300, 1100}) {
      for (const std::int64_t tq : {1, 5, 70}) {
        Call call({.batch = 2, .q_heads = 4, .kv_heads = 2, .tq = tq, .tk = tk, .d = 24, .dv = 4}, type);
        EXPECT_EQ(wrong(call, weights_of(call)), "") << name_of(type) << " " << tq << " " << tk;
      }
    }
  }
}

TEST_P(Weights, RandomCallsWithEveryMask) {
  for (std::uint64_t seed = 1; seed <= 150; ++seed) {
    RandomCase c(seed);
    if (c.batch * c.q_heads * c.tq * c.tk > 200000) continue;
    c.run();
    Strided weights = dense(DType::kF32, {c.batch, c.q_heads, c.tq, c.tk});
    attention_weights(c.q.view(), c.k.view(), c.lse.view(), weights.mutable_view(), c.options);
    const Oracle oracle = evaluate(c.q.view(), c.k.view(), c.v.view(), c.options);
    std::size_t at = 0;
    std::int64_t bad = 0;
    weights.fill([&](const Index& index) {
      const double got = element(weights.view(), {index[0], index[1], index[2], index[3]});
      const double bound = weight_bound(oracle, at, c.d, c.options.softcap > 0);
      bad += std::fabs(got - oracle.weights[at]) <= bound ? 0 : 1;
      ++at;
      return got;
    });
    EXPECT_EQ(bad, 0) << c.describe();
  }
}

TEST_P(Weights, RowsSumToOneWhateverTheLse) {
  for (const double size : {1.0, 100.0, 1e5, 1e12}) {
    Call call({.q_heads = 2, .kv_heads = 2, .tq = 40, .tk = 700, .d = 16, .dv = 1});
    call.k.fill([&, engine = std::mt19937_64(3), normal = std::normal_distribution<double>()](const Index&) mutable {
      return normal(engine) * size;
    });
    const Strided added = filled(DType::kF32, {1}, [&](const Index&) { return -size * 10; });
    for (const bool shifted : {false, true}) {
      call.options.mask = shifted ? mask::bias(added.view()) : Mask{};
      const Strided weights = weights_of(call);
      for (std::int64_t i = 0; i < 40; ++i) {
        double sum = 0;
        for (std::int64_t j = 0; j < 700; ++j) sum += element(weights.view(), {0, 1, i, j});
        EXPECT_NEAR(sum, 1, 4 * 0x1p-24) << size;
      }
    }
  }
}

TEST_P(Weights, AreThoseOfTheKeysWhateverTheLseHolds) {
  for (const double sink : {-kInf, 3.0, 500.0, 5000.0}) {
    for (const std::int64_t tq : {1, 40}) {
      Call call({.q_heads = 2, .kv_heads = 2, .tq = tq, .tk = 130, .d = 16, .dv = 1});
      const Strided logits = filled(DType::kF32, {2}, [&](const Index&) { return sink; });
      call.options.sinks = logits.view();
      const Strided own = weights_of(call);
      Strided weights = own;
      for (const double lse :
           {0.0, 20.0, 40.0, 70.0, -70.0, 1000.0, -1000.0, 1e5, -1e5, 3e38, -3e38, kInf, -kInf, kNaN}) {
        const Strided foreign = filled(DType::kF32, {1, 2, tq}, [&](const Index&) { return lse; });
        weights.fill([](const Index&) { return 777.0; });
        attention_weights(call.q.view(), call.k.view(), foreign.view(), weights.mutable_view(), call.options);
        for (std::int64_t j = 0; j < 130; ++j) {
          const double want = element(own.view(), {0, 1, tq - 1, j});
          EXPECT_NEAR(element(weights.view(), {0, 1, tq - 1, j}), want, 1e-6 * want + 0x1p-126) << lse << " " << sink;
        }
      }
    }
  }
}

TEST_P(Weights, ANaNScoreGivesNaN) {
  for (const std::int64_t from : {0, 1, 79}) {  // all keys, all but one, one
    Call call({.tq = 3, .tk = 80, .d = 8, .dv = 2});
    call.k.fill([&](const Index& at) { return at[2] >= from ? kNaN : 0.5; });
    const Strided weights = weights_of(call);
    const Strided foreign = filled(DType::kF32, {1, 1, 3}, [&](const Index&) { return 1.0; });
    Strided other = weights;
    attention_weights(call.q.view(), call.k.view(), foreign.view(), other.mutable_view(), call.options);
    for (std::int64_t j = 0; j < 80; ++j) {
      EXPECT_TRUE(std::isnan(element(weights.view(), {0, 0, 1, j}))) << j;
      EXPECT_TRUE(std::isnan(element(other.view(), {0, 0, 1, j}))) << j;
    }
  }
}

TEST_P(Weights, WithASinkRowsSumToTheKeysShare) {
  for (const double sink : {-kInf, -50.0, 0.0, 4.0, 90.0}) {
    Call call({.q_heads = 2, .kv_heads = 2, .tq = 20, .tk = 130, .d = 16, .dv = 1});
    const Strided logits = filled(DType::kF32, {2}, [&](const Index&) { return sink; });
    call.options.sinks = logits.view();
    const Strided weights = weights_of(call);
    EXPECT_EQ(wrong(call, weights), "") << sink;
    double sum = 0;
    for (std::int64_t j = 0; j < 130; ++j) sum += element(weights.view(), {0, 1, 3, j});
    EXPECT_NEAR(sum, 1 - std::exp(sink - call.lse_at(0, 1, 3)), 1e-5) << sink;
  }
}

TEST_P(Weights, ForbiddenRowsAndKeysAreZero) {
  Call call({.tq = 6, .tk = 80, .d = 8, .dv = 2});
  const Strided mask = filled(DType::kBool, {6, 80}, [](const Index& at) { return at[0] != 2 && at[1] % 3 != 0; });
  call.options.mask = mask::allowed(mask.view());
  call.k.fill([&](const Index& at) { return at[2] % 3 == 0 ? kNaN : 0.5; });
  for (const bool sinks : {false, true}) {
    const Strided logits = filled(DType::kF32, {1}, [](const Index&) { return 1.0; });
    if (sinks) call.options.sinks = logits.view();
    const Strided weights = weights_of(call);
    for (std::int64_t j = 0; j < 80; ++j) {
      EXPECT_EQ(bits(weights.view(), {0, 0, 2, j}), 0u) << j;
      EXPECT_EQ(bits(weights.view(), {0, 0, 1, j}) == 0u, j % 3 == 0) << j;
    }
    EXPECT_GT(element(weights.view(), {0, 0, 1, 1}), 0);
  }
}

TEST_P(Weights, AnyLayoutOfTheWeights) {
  Call call({.batch = 2, .q_heads = 2, .kv_heads = 1, .tq = 9, .tk = 70, .d = 8, .dv = 2});
  const Strided plain = weights_of(call);
  const Dims shape{2, 2, 9, 70};
  for (const Strided& layout :
       {Strided(DType::kF32, shape, {0, 1, 3, 2}, 0, 1, -1, 1), Strided(DType::kF32, shape, {0, 2, 1, 3}, 3, 2, 3, 0),
        Strided(DType::kF32, shape, {3, 2, 1, 0}, 0, 1, 2, 3)}) {
    const Strided other = weights_of(call, layout);
    for (std::int64_t j = 0; j < 70; ++j) {
      EXPECT_NEAR(element(other.view(), {1, 1, 4, j}), element(plain.view(), {1, 1, 4, j}), 1e-7);
    }
    EXPECT_EQ(wrong(call, other), "");
  }
}

TEST_P(Weights, AgreeWithTheOutput) {
  // out = weights V: the two paths tell one story.
  Call call({.q_heads = 2, .kv_heads = 1, .tq = 50, .tk = 600, .d = 32, .dv = 8});
  call.options.mask = mask::causal(Alignment::kBottomRight);
  const Strided weights = weights_of(call);
  for (std::int64_t i = 0; i < 50; ++i) {
    double value = 0;
    for (std::int64_t j = 0; j < 600; ++j)
      value += element(weights.view(), {0, 1, i, j}) * element(call.v.view(), {0, 0, j, 3});
    EXPECT_NEAR(value, call.out_at(0, 1, i, 3), 1e-5);
  }
}

TEST_P(Weights, EmptyCallsSucceed) {
  for (const Sizes& s : {Sizes{.batch = 0}, Sizes{.tq = 0}, Sizes{.tk = 0}, Sizes{.q_heads = 0, .kv_heads = 0}}) {
    Call call(s);
    EXPECT_NO_THROW(weights_of(call));
  }
}

}  // namespace
}  // namespace manyheads::test
