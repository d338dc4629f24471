// I8 keys and values with a scale for each key and head.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "attention/call.hpp"

namespace manyheads::test {
namespace {

class Int8 : public AtEachIsa {};
MANYHEADS_AT_EACH_ISA(Int8);

// I8 keys and values with their scales, and what they stand for in F32.
struct Quantised {
  Quantised(const Sizes& s, std::uint64_t seed) : sizes(s) {
    std::mt19937_64 engine(seed);
    std::uniform_int_distribution<int> byte(-127, 127);
    std::uniform_real_distribution<double> scale(0.002, 0.02);
    const auto make = [&](Strided& data, Strided& scales, Strided& exact, std::int64_t width) {
      data = filled(DType::kI8, {s.batch, s.kv_heads, s.tk, width},
                    [&](const Index&) { return static_cast<double>(byte(engine)); });
      scales = filled(DType::kF32, {s.batch, s.kv_heads, s.tk}, [&](const Index&) { return scale(engine); });
      exact = filled(DType::kF32, {s.batch, s.kv_heads, s.tk, width}, [&](const Index& at) {
        return element(data.view(), {at[0], at[1], at[2], at[3]}) * element(scales.view(), {at[0], at[1], at[2]});
      });
    };
    make(k, k_scales, k_exact, s.d);
    make(v, v_scales, v_exact, s.dv);
  }
  void apply(AttentionOptions& options) const {
    options.k_scales = k_scales.view();
    options.v_scales = v_scales.view();
  }
  Sizes sizes;
  Strided k, v, k_scales, v_scales, k_exact, v_exact;
};

TEST_P(Int8, KeysStayWithinTheBoundsOfTheQueriesType) {
  for (std::uint64_t seed = 1; seed <= 30; ++seed) {
    std::mt19937_64 engine(seed);
    Sizes s;
    s.kv_heads = between(engine, 1, 2);
    s.q_heads = s.kv_heads * between(engine, 1, 4);
    s.tq = seed % 3 == 0 ? 1 : between(engine, 1, 80);
    s.tk = between(engine, 1, 1200);
    s.d = between(engine, 1, 80);
    s.dv = between(engine, 1, 80);
    const DType type = seed % 2 == 0 ? DType::kF32 : DType::kBF16;
    Call call(s, type, DType::kF32, seed);
    const Quantised q8(s, seed);
    AttentionOptions options;
    if (seed % 4 == 0) options.mask = mask::causal(Alignment::kBottomRight);
    const Oracle oracle = evaluate(call.q.view(), q8.k_exact.view(), q8.v_exact.view(), options);
    q8.apply(options);
    const TensorView lse = call.lse.mutable_view();
    options.lse = lse;
    attention(call.q.view(), q8.k.view(), q8.v.view(), call.out.mutable_view(), options);
    EXPECT_EQ(compare(oracle, call.out.view(), call.lse.view(), s.d, type, false), "") << "seed " << seed;
    attention_reference(call.q.view(), q8.k.view(), q8.v.view(), call.out.mutable_view(), options);
    EXPECT_EQ(compare(oracle, call.out.view(), call.lse.view(), s.d, DType::kF32, false), "") << "seed " << seed;
  }
}

// Queries of bytes, the weights of each run too: the scores are those of the rounded queries, and a weight is off by
// half a step of its run's largest.
TEST_P(Int8, ProductsStayWithinTheirBounds) {
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    std::mt19937_64 engine(seed);
    Sizes s;
    s.kv_heads = between(engine, 1, 2);
    s.q_heads = s.kv_heads * between(engine, 1, 9);
    s.tq = seed % 3 == 0 ? 1 : between(engine, 1, 30);
    s.tk = seed % 5 == 0 ? between(engine, 1, 9) : between(engine, 1, 1200);
    s.d = seed % 2 == 0 ? 32 * between(engine, 1, 4) : between(engine, 1, 140);
    s.dv = seed % 4 == 0 ? 16 * between(engine, 1, 8) : between(engine, 1, 140);
    Call call(s, static_cast<DType>(seed % 3), DType::kF32, seed);
    Quantised q8(s, seed);
    if (seed % 7 == 0) {  // signs of their own for some values
      for (std::int64_t j = 0; j < s.tk; j += 3) q8.v_scales.set(j, -element(q8.v_scales.view(), {0, 0, j}));
      q8.v_exact.fill([&](const Index& at) {
        return element(q8.v.view(), {at[0], at[1], at[2], at[3]}) * element(q8.v_scales.view(), {at[0], at[1], at[2]});
      });
    }
    AttentionOptions options;
    if (seed % 4 == 0) options.mask = mask::causal(Alignment::kBottomRight);
    if (seed % 6 == 0) options.mask.window_left = 77;
    if (seed % 6 == 0) options.mask.alignment = Alignment::kBottomRight;
    Strided rounded = dense(DType::kF32, call.q.shape);
    for (std::int64_t h = 0; h < s.q_heads; ++h) {
      for (std::int64_t i = 0; i < s.tq; ++i) {
        float most = 0;
        const auto at = [&](std::int64_t e) { return static_cast<float>(element(call.q.view(), {0, h, i, e})); };
        for (std::int64_t e = 0; e < s.d; ++e) most = std::max(most, std::fabs(at(e)));
        const float step = most / 127.0f;
        for (std::int64_t e = 0; e < s.d; ++e) {
          const float whole = std::nearbyint(at(e) * (1.0f / step));
          rounded.set(((h * s.tq) + i) * s.d + e, static_cast<double>(whole) * static_cast<double>(step));
        }
      }
    }
    const Oracle oracle = evaluate(rounded.view(), q8.k_exact.view(), q8.v_exact.view(), options);
    q8.apply(options);
    options.int8_products = true;
    const TensorView lse = call.lse.mutable_view();
    options.lse = lse;
    attention(call.q.view(), q8.k.view(), q8.v.view(), call.out.mutable_view(), options);
    for (std::int64_t h = 0; h < s.q_heads; ++h) {
      const std::int64_t kv = h / (s.q_heads / s.kv_heads);
      for (std::int64_t i = 0; i < s.tq; ++i) {
        const std::size_t row = static_cast<std::size_t>(h * s.tq + i);
        const auto weight = [&](std::int64_t j) {
          return oracle.weights[row * static_cast<std::size_t>(s.tk) + static_cast<std::size_t>(j)];
        };
        if (!oracle.forbidden[row]) {
          EXPECT_NEAR(call.lse_at(0, h, i), oracle.lse[row], lse_bound(oracle, row, s.d, DType::kF32, false)) << seed;
        }
        std::vector<double> steps;  // of each run's weights
        for (std::int64_t j = 0; j < s.tk; ++j) {
          if (j % 64 == 0) steps.push_back(0);
          const double scale = std::fabs(element(q8.v_scales.view(), {0, kv, j}));
          steps.back() = std::max(steps.back(), weight(j) * scale / 255);
        }
        for (std::int64_t e = 0; e < s.dv; ++e) {
          const std::size_t at = row * static_cast<std::size_t>(s.dv) + static_cast<std::size_t>(e);
          double bound = oracle.forbidden[row] ? 0 : out_bound(oracle, at, s.d, DType::kF32, DType::kF32, false);
          for (std::int64_t j = 0; j < s.tk; ++j) {
            if (weight(j) > 0) {
              bound +=
                  0.5001 * steps[static_cast<std::size_t>(j / 64)] * std::fabs(element(q8.v.view(), {0, kv, j, e}));
            }
          }
          ASSERT_NEAR(call.out_at(0, h, i, e), oracle.out[at], bound)
              << "seed " << seed << " " << h << "," << i << "," << e;
        }
      }
    }
  }
}

TEST_P(Int8, ProductsOfQueriesThatAreZeroOrNotFinite) {
  const Sizes s{.q_heads = 3, .kv_heads = 1, .tq = 2, .tk = 100, .d = 24, .dv = 16};
  const Quantised q8(s, 3);
  Call call(s, DType::kF32, 3);
  call.q.fill([](const Index& at) { return at[1] == 0 ? 0.0 : at[1] == 1 ? 1e-42 : at[3] == 5 ? kNaN : 1.0; });
  q8.apply(call.options);
  call.options.int8_products = true;
  const TensorView lse = call.lse.mutable_view();
  call.options.lse = lse;
  attention(call.q.view(), q8.k.view(), q8.v.view(), call.out.mutable_view(), call.options);
  for (std::int64_t i = 0; i < 2; ++i) {
    for (const std::int64_t h : {0, 1}) EXPECT_NEAR(call.lse_at(0, h, i), std::log(100.0), 1e-6);
    EXPECT_TRUE(std::isnan(call.lse_at(0, 2, i)));
    for (std::int64_t e = 0; e < 16; ++e) {
      EXPECT_EQ(bits(call.out.view(), {0, 0, i, e}), bits(call.out.view(), {0, 1, i, e}));
      EXPECT_TRUE(std::isnan(call.out_at(0, 2, i, e)));
    }
  }
}

// Whether steps of one query or a few have the bits of the prefill over all.
void expect_steps_of_prefill(const Sizes& s, DType type, bool int8_products) {
  const std::string what = std::string(name_of(type)) + " queries, D " + std::to_string(s.d) + ", I8 products " +
                           std::to_string(int8_products);
  Quantised q8(s, 5);
  for (const std::int64_t j : {3, 200, 650}) q8.v_scales.set(j, -0.5);
  const auto run = [](Call& call, const Strided& k, const Strided& v) {
    const TensorView lse = call.lse.mutable_view();
    call.options.lse = lse;
    attention(call.q.view(), k.view(), v.view(), call.out.mutable_view(), call.options);
  };
  Call prefill(s, type, DType::kF32, 5);  // rounded to half types, two results would seldom differ
  prefill.options.mask = mask::causal();
  q8.apply(prefill.options);
  prefill.options.int8_products = int8_products;
  prefill.options.threads.num_threads = 2;  // more would have too few tiles each for a copy to pay
  const std::string path =
      explain(prefill.q.view(), q8.k.view(), q8.v.view(), prefill.out.mutable_view(), prefill.options).path;
  EXPECT_EQ(contains(path, "packed"), !int8_products) << path;
  run(prefill, q8.k, q8.v);

  // Pages of 16 in reverse, whose heads lie apart.
  const std::int64_t pages = (s.tk + 15) / 16;
  const auto paged = [&](const Strided& all, Dims shape) {
    const auto key = [&](const Index& at) { return std::min((pages - 1 - at[0]) * 16 + at[2], s.tk - 1); };
    return filled(all.type, shape, [&](const Index& at) {
      return shape.rank() == 3 ? element(all.view(), {0, at[1], key(at)})
                               : element(all.view(), {0, at[1], key(at), at[3]});
    });
  };
  const Strided k_pages = paged(q8.k, {pages, s.kv_heads, 16, s.d}),
                v_pages = paged(q8.v, {pages, s.kv_heads, 16, s.dv});
  const Strided k_scales = paged(q8.k_scales, {pages, s.kv_heads, 16});
  const Strided v_scales = paged(q8.v_scales, {pages, s.kv_heads, 16});
  const Strided table =
      filled(DType::kI32, {1, pages}, [&](const Index& at) { return static_cast<double>(pages - 1 - at[1]); });

  for (const auto& [t, rows] : {std::pair{1, 1}, {15, 2}, {16, 1}, {64, 5}, {65, 1}, {511, 3}, {513, 1}, {700, 5}}) {
    for (const bool in_pages : {false, true}) {
      Sizes few = s;
      few.tq = rows;
      Call step(few, type, DType::kF32, 1);
      step.q.fill([&](const Index& at) { return element(prefill.q.view(), {at[0], at[1], t - rows + at[2], at[3]}); });
      const Strided length = integers({t});
      step.options.mask = mask::causal(Alignment::kBottomRight) | mask::key_lengths(length.view());
      q8.apply(step.options);
      step.options.int8_products = int8_products;
      if (in_pages) {
        step.options.page_table = table.view();
        step.options.k_scales = k_scales.view();
        step.options.v_scales = v_scales.view();
        run(step, k_pages, v_pages);
      } else {
        run(step, q8.k, q8.v);
      }
      for (std::int64_t h = 0; h < s.q_heads; ++h) {
        for (std::int64_t i = 0; i < rows; ++i) {
          ASSERT_TRUE(same_row(prefill, {0, h, t - rows + i}, step, {0, h, i}))
              << what << ", " << rows << " rows to " << t << ", paged " << in_pages << ", head " << h << ", row " << i;
        }
      }
    }
  }
}

TEST_P(Int8, DecodingHasTheBitsOfPrefill) {
  // Whole vectors of values, an even number of them or an odd one; and not.
  for (const auto& [d, dv] : {std::pair{40, 24}, {64, 64}, {80, 48}, {33, 17}}) {
    const Sizes s{.q_heads = 6, .kv_heads = 2, .tq = 700, .tk = 700, .d = d, .dv = dv};
    for (const DType type : {DType::kF32, DType::kBF16}) {
      for (const bool int8_products : {false, true}) expect_steps_of_prefill(s, type, int8_products);
    }
  }
}

// Prefill leaves a few rows at its end, which read the packed keys and values of the others.
TEST_P(Int8, AFewLastRowsOnPackedKeysHaveTheBitsOfTheirOwnCall) {
  const Sizes s{.q_heads = 6, .kv_heads = 2, .tq = 197, .tk = 300, .d = 64, .dv = 64};
  const Quantised q8(s, 7);
  Call all(s, DType::kBF16, DType::kF32, 7);
  q8.apply(all.options);
  all.options.threads.num_threads = 1;
  const std::string path =
      explain(all.q.view(), q8.k.view(), q8.v.view(), all.out.mutable_view(), all.options).path;
  EXPECT_TRUE(contains(path, "packed")) << path;
  attention(all.q.view(), q8.k.view(), q8.v.view(), all.out.mutable_view(), all.options);
  Sizes few = s;
  few.tq = 5;
  Call last(few, DType::kBF16, DType::kF32, 1);
  last.q.fill([&](const Index& at) { return element(all.q.view(), {at[0], at[1], 192 + at[2], at[3]}); });
  q8.apply(last.options);
  attention(last.q.view(), q8.k.view(), q8.v.view(), last.out.mutable_view(), last.options);
  for (std::int64_t h = 0; h < s.q_heads; ++h) {
    for (std::int64_t i = 0; i < few.tq; ++i) {
      ASSERT_TRUE(same_row(all, {0, h, 192 + i}, last, {0, h, i})) << "head " << h << ", row " << i;
    }
  }
}

TEST_P(Int8, ScalesOfMaskedKeysAreNeverRead) {
  const Sizes s{.q_heads = 2, .kv_heads = 1, .tq = 20, .tk = 100, .d = 16, .dv = 16};
  Quantised q8(s, 3);
  for (const auto& [tq, int8_products] : {std::pair{1, false}, {1, true}, {20, false}, {20, true}}) {
    Sizes rows = s;
    rows.tq = tq;
    const auto run = [&] {
      Call call(rows, DType::kF32, 3);
      const Strided mask = filled(DType::kBool, {100}, [](const Index& at) { return at[0] % 7 != 3; });
      call.options.mask = mask::allowed(mask.view());
      q8.apply(call.options);
      call.options.int8_products = int8_products;
      const TensorView lse = call.lse.mutable_view();
      call.options.lse = lse;
      attention(call.q.view(), q8.k.view(), q8.v.view(), call.out.mutable_view(), call.options);
      call.options = {};
      return call;
    };
    Quantised clean(s, 3);
    q8 = clean;
    const Call plain = run();
    for (std::int64_t j = 3; j < 100; j += 7) {
      q8.k_scales.set(j, kNaN);
      q8.v_scales.set(j, j % 2 == 0 ? kNaN : kInf);
    }
    EXPECT_TRUE(same_bits(plain, run())) << tq << " queries";
  }
}

}  // namespace
}  // namespace manyheads::test
