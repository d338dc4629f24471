// Rows whose scores or sums leave F32's range on the way, though inputs and results do not.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "allocations.hpp"
#include "attention/call.hpp"

namespace manyheads::test {
namespace {

constexpr double kMost = static_cast<double>(std::numeric_limits<float>::max());

class BeyondFloat : public AtEachIsa {};
MANYHEADS_AT_EACH_ISA(BeyondFloat);

// Few rows and many, one run of keys and several chunks, which threads share.
std::vector<Sizes> shapes() {
  std::vector<Sizes> all;
  for (const std::int64_t tq : {1, 3, 20, 70}) {
    for (const std::int64_t tk : {5, 100, 1300}) {
      all.push_back({.q_heads = 2, .kv_heads = 1, .tq = tq, .tk = tk, .d = 8, .dv = 5});
      all.push_back({.q_heads = 2, .kv_heads = 2, .tq = tq, .tk = tk, .d = 64, .dv = 64});
    }
  }
  return all;
}

std::string name(const Sizes& s, DType type) {
  return std::to_string(s.tq) + " queries, " + std::to_string(s.tk) + " keys, D " + std::to_string(s.d) + ", " +
         name_of(type);
}

// Something about 1/4: equal terms would round alike at each step of a sum.
double uneven(std::int64_t i) { return 0.25 + 0.013 * static_cast<double>(i * 5 % 7); }

// A row that is computed again is rounded once, from float64: kappa, which such scores make huge, has no part in its
// bound.
std::string wrong(Call& call) {
  call.run();
  Oracle oracle = call.oracle();
  for (double& kappa : oracle.kappa) kappa = kappa > 1e37 ? 1 : kappa;
  for (double& lse : oracle.lse) lse = std::isfinite(lse) ? std::min(std::max(lse, -kMost), kMost) : lse;
  return compare(oracle, call.out.view(), call.lse.view(), call.sizes.d, call.q.type, call.options.softcap > 0);
}

TEST_P(BeyondFloat, Scores) {
  for (const DType type : {DType::kF32, DType::kBF16}) {
    for (const Sizes& s : shapes()) {
      for (const double sign : {1.0, -1.0}) {
        Call call(s, type);
        // All of one sign, so that no product of a row cancels: of any key with every third query.
        call.q.fill([&](const Index& at) {
          return at[2] % 3 == 0 ? 1e20 * static_cast<double>(1 + at[3] % 4) : uneven(at[3]);
        });
        call.k.fill([&](const Index& at) {
          return sign * 1e19 * static_cast<double>(1 + (at[2] * 7) % s.tk) * uneven(at[3] * at[3]);
        });
        EXPECT_EQ(wrong(call), "") << name(s, type) << ", sign " << sign;
      }
    }
  }
}

TEST_P(BeyondFloat, ScoresOfSomeKeys) {
  for (const DType type : {DType::kF32, DType::kBF16}) {
    for (const Sizes& s : shapes()) {
      Call call(s, type);
      call.q.fill([&](const Index& at) { return at[2] % 2 == 0 ? 1e20 : 1.0; });
      call.k.fill([&](const Index& at) { return at[2] == s.tk / 2 ? 3e20 : at[2] % 4 == 0 ? -1e20 : 0.0; });
      EXPECT_EQ(wrong(call), "") << name(s, type);
    }
  }
}

TEST_P(BeyondFloat, Biases) {
  const std::vector<std::vector<double>> sets = {{kMost, 0},      {3e38, 0},   {-2.5e38, -3e38},
                                                 {-kMost, -3e38}, {-kMost, 0}, {kMost, -kMost},
                                                 {-kMost},        {-2.2e38},   {kMost}};
  for (const DType type : {DType::kF32, DType::kBF16}) {
    for (const Sizes& s : shapes()) {
      for (const std::vector<double>& set : sets) {
        Call call(s, type);
        const Strided added = filled(DType::kF32, {s.tq, s.tk}, [&](const Index& at) {
          return set[static_cast<std::size_t>(at[1] * 5 / 3 + at[0]) % set.size()];
        });
        call.options.mask = mask::bias(added.view());
        EXPECT_EQ(wrong(call), "") << name(s, type) << ", biases " << set.front() << " and " << set.back();
      }
    }
  }
}

TEST_P(BeyondFloat, BiasesUnderMasksAndSinks) {
  for (const Sizes& s : shapes()) {
    Call call(s);
    const Strided added =
        filled(DType::kF32, {s.tk}, [](const Index& at) { return at[0] % 2 == 0 ? -kMost : -2.9e38; });
    const Strided free = filled(DType::kBool, {s.tq, s.tk}, [](const Index& at) { return (at[0] + at[1]) % 3 != 0; });
    const Strided sinks = filled(DType::kF32, {2}, [](const Index& at) { return at[0] == 0 ? -kMost : -2.8e38; });
    for (const bool sink : {false, true}) {
      for (const Mask& mask : {mask::causal(Alignment::kTopLeft), mask::allowed(free.view()),
                               mask::window(4, 4) | mask::allowed(free.view())}) {
        call.options.mask = mask | mask::bias(added.view());
        if (sink) call.options.sinks = sinks.view();
        EXPECT_EQ(wrong(call), "") << name(s, DType::kF32) << (sink ? ", sinks" : "");
      }
    }
  }
}

TEST_P(BeyondFloat, SumsOfValues) {
  for (const DType type : {DType::kF32, DType::kBF16}) {
    for (const Sizes& s : shapes()) {
      for (const double size : {1e36, 1e38, 3e38}) {
        Call call(s, type);
        call.q.fill([](const Index& at) { return at[2] % 2 == 0 ? 0.0 : 0.5; });
        call.v.fill([&](const Index& at) { return at[3] == 1 ? 1.0 : at[3] == 2 && at[2] % 2 == 0 ? -size : size; });
        EXPECT_EQ(wrong(call), "") << name(s, type) << ", values " << size;
      }
    }
  }
}

TEST_P(BeyondFloat, ScalesFarOut) {
  for (const double scale : {1e30, -1e30, 1e37}) {
    Call call({.q_heads = 2, .kv_heads = 2, .tq = 40, .tk = 70, .d = 8, .dv = 5});
    call.q.fill([](const Index& at) { return at[2] % 2 == 0 ? 1e9 : 1e-3; });
    call.k.fill([](const Index& at) { return static_cast<double>(at[2] % 13) + 1; });
    call.options.scale = scale;
    EXPECT_EQ(wrong(call), "") << scale;
  }
}

// Keys and values that are read through pages, packed rows, scales, or a copy of their head.
TEST_P(BeyondFloat, WhereverKeysAndValuesLie) {
  for (const DType type : {DType::kF32, DType::kBF16, DType::kF16}) {
    const Sizes s{.q_heads = 2, .kv_heads = 1, .tq = 600, .tk = 300, .d = 16, .dv = 16};
    Call call(s, type);  // as many queries as read a copy where the type is not F32
    const Strided added = filled(
        DType::kF32, {s.tk}, [](const Index& at) { return at[0] == 77 ? kMost : static_cast<double>(at[0]) * 1e36; });
    call.options.mask = mask::bias(added.view());
    EXPECT_EQ(wrong(call), "") << name_of(type);
  }
  Call call({.q_heads = 4, .kv_heads = 2, .tq = 2, .tk = 64, .d = 16, .dv = 16}, DType::kF32);
  call.v.fill([](const Index&) { return 1e38; });
  call.k.fill([](const Index&) { return 0.25; });
  call.run();
  Call paged = call;
  // Pages of 16 keys, last page first: [4,Hkv,16,D].
  paged.k = dense(DType::kF32, {4, 2, 16, 16});
  paged.v = dense(DType::kF32, {4, 2, 16, 16});
  paged.k.fill([](const Index&) { return 0.25; });
  paged.v.fill([](const Index&) { return 1e38; });
  const Strided table = filled(DType::kI32, {1, 4}, [](const Index& at) { return static_cast<double>(3 - at[1]); });
  paged.options.page_table = table.view();
  paged.run();
  EXPECT_TRUE(same_bits(call, paged));
  EXPECT_NEAR(call.out_at(0, 3, 1, 15), 1e38, 1e31);
}

TEST_P(BeyondFloat, OtherRowsKeepTheirBits) {
  for (const std::int64_t tk : {100, 1300}) {
    const Sizes s{.batch = 2, .q_heads = 2, .kv_heads = 2, .tq = 70, .tk = tk, .d = 32, .dv = 32};
    Call plain(s);
    Call some(s);
    const auto far = [](const Index& at) { return at[2] % 5 == 1; };
    some.q.fill(
        [&](const Index& at) { return far(at) ? 1e38 : element(plain.q.view(), {at[0], at[1], at[2], at[3]}); });
    plain.run();
    some.run();
    for (std::int64_t b = 0; b < s.batch; ++b) {
      for (std::int64_t i = 0; i < s.tq; ++i) {
        if (far({b, 0, i})) {
          // The row alone, on one thread, has the bits that it has among others.
          Call alone({.q_heads = 2, .kv_heads = 2, .tq = 1, .tk = tk, .d = 32, .dv = 32});
          alone.options.threads.num_threads = 1;
          alone.q.fill([](const Index&) { return 1e38; });
          alone.k.fill([&](const Index& at) { return element(some.k.view(), {b, at[1], at[2], at[3]}); });
          alone.v.fill([&](const Index& at) { return element(some.v.view(), {b, at[1], at[2], at[3]}); });
          alone.run();
          EXPECT_TRUE(same_row(some, {b, 1, i}, alone, {0, 1, 0})) << i;
        } else {
          EXPECT_TRUE(same_row(some, {b, 1, i}, plain, {b, 1, i})) << i;
        }
      }
    }
  }
}

// What computes rows again allocates: padding, forbidden or at the lowest float, must not come to it.
TEST_P(BeyondFloat, PaddingIsNotComputedAgain) {
  const Sizes s{.q_heads = 2, .kv_heads = 2, .tq = 70, .tk = 150, .d = 16, .dv = 16};
  const auto padded = [](const Index& at) { return at[0] >= 30; };
  const Strided forbidden = filled(DType::kBool, {s.tq, s.tk}, [&](const Index& at) { return !padded(at); });
  const Strided lowest = filled(DType::kF32, {s.tq, s.tk}, [&](const Index& at) { return padded(at) ? -kMost : 0.5; });
  const Strided minus = filled(DType::kF32, {s.tq, s.tk}, [&](const Index& at) { return padded(at) ? -kInf : 0.5; });
  const Strided documents_q = ids(1, std::vector<std::int64_t>(70, 7));
  const Strided documents_k = ids(1, std::vector<std::int64_t>(150, 8));
  for (const Mask& mask :
       {mask::allowed(forbidden.view()), mask::bias(lowest.view()), mask::bias(minus.view()),
        mask::window(0, 0) | mask::causal(), mask::documents(documents_q.view(), documents_k.view())}) {
    Call call(s);
    Workspace workspace;
    call.options.workspace = &workspace;
    call.options.threads.num_threads = 1;
    call.options.mask = mask;
    call.options.mask.alignment = Alignment::kTopLeft;
    call.run();
    const TensorView lse = call.lse.mutable_view();
    call.options.lse = lse;
    const std::int64_t before = allocations();
    attention(call.q.view(), call.k.view(), call.v.view(), call.out.mutable_view(), call.options);
    EXPECT_EQ(allocations(), before);
  }
}

// An infinite score is a number of the caller's, not a mask: the definition and the kernels say NaN alike.
TEST_P(BeyondFloat, InfinitiesOfTheCallers) {
  for (const double sign : {1.0, -1.0}) {
    Call call({.tq = 3, .tk = 40, .d = 8, .dv = 4});
    call.q.fill([](const Index&) { return 1.0; });
    call.k.fill([&](const Index&) { return sign * kInf; });
    call.run();
    Call definition = call;
    const TensorView lse = definition.lse.mutable_view();
    definition.options.lse = lse;
    attention_reference(call.q.view(), call.k.view(), call.v.view(), definition.out.mutable_view(), definition.options);
    for (std::int64_t i = 0; i < 3; ++i) {
      EXPECT_TRUE(std::isnan(call.out_at(0, 0, i, 2)) && std::isnan(definition.out_at(0, 0, i, 2))) << sign;
      EXPECT_TRUE(std::isnan(call.lse_at(0, 0, i)) && std::isnan(definition.lse_at(0, 0, i))) << sign;
    }
  }
  // An infinite sink takes all of a row's attention.
  Call call({.tq = 3, .tk = 40, .d = 8, .dv = 4});
  const Strided sink = filled(DType::kF32, {1}, [](const Index&) { return kInf; });
  call.options.sinks = sink.view();
  call.run();
  EXPECT_EQ(call.out_at(0, 0, 1, 2), 0);
  EXPECT_EQ(call.lse_at(0, 0, 1), kInf);
  attention_reference(call.q.view(), call.k.view(), call.v.view(), call.out.mutable_view(), call.options);
  EXPECT_EQ(call.out_at(0, 0, 1, 2), 0);
}

TEST_P(BeyondFloat, WeightsToo) {
  const std::vector<std::vector<double>> sets = {{kMost, 0}, {-2.5e38, -3e38}, {-kMost}, {kMost, -kMost}};
  for (const std::vector<double>& set : sets) {
    Call call({.q_heads = 2, .kv_heads = 2, .tq = 20, .tk = 100, .d = 8, .dv = 3});
    const Strided added = filled(DType::kF32, {20, 100}, [&](const Index& at) {
      return at[0] % 2 == 0 ? set[static_cast<std::size_t>(at[1]) % set.size()] : 0.0;
    });
    call.options.mask = mask::bias(added.view());
    call.run();
    Strided weights = dense(DType::kF32, {1, 2, 20, 100});
    attention_weights(call.q.view(), call.k.view(), call.lse.view(), weights.mutable_view(), call.options);
    const Oracle oracle = call.oracle();
    for (std::int64_t i = 0; i < 20; ++i) {
      for (std::int64_t j = 0; j < 100; ++j) {
        const double want = oracle.weights[static_cast<std::size_t>((20 + i) * 100 + j)];
        EXPECT_NEAR(element(weights.view(), {0, 1, i, j}), want, 1e-5 * want) << set.front() << " " << i << " " << j;
      }
    }
  }
}

}  // namespace
}  // namespace manyheads::test
