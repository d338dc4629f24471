#include <gtest/gtest.h>

#include <cmath>
#include <utility>
#include <vector>

#include "attention/gradient_call.hpp"

// A sequence's gradients are its own: in batches of up to 64 at any place, and beside sequences that hold NaN.
namespace manyheads::test {
namespace {

class GradientPlaces : public AtEachIsa {};
MANYHEADS_AT_EACH_ISA(GradientPlaces);

using Tensors = std::vector<Strided*>;
Tensors inputs(GradientCall& c) { return {&c.q, &c.k, &c.v, &c.dout, &c.dlse}; }
Tensors results(GradientCall& c) { return {&c.dq, &c.dk, &c.dv, &c.dbias}; }

const float* entry(const Strided& tensor, std::int64_t b) {
  return static_cast<const float*>(tensor.view().data()) + b * tensor.view().stride(0);
}
std::size_t bytes_of_entry(const Strided& tensor) {
  return static_cast<std::size_t>(tensor.view().stride(0)) * sizeof(float);
}

// With a bias of each sequence's own, which learns.
GradientCall call_of(const Sizes& s, Strided& bias, std::uint64_t seed = 1) {
  GradientCall c(s, DType::kF32, seed);
  std::mt19937_64 engine(seed + 2);
  std::normal_distribution<double> normal;
  bias = filled(DType::kF32, {s.batch, 1, s.tq, s.tk}, [&](const Index&) { return normal(engine); });
  c.dbias = dense(DType::kF32, bias.shape);
  c.options.mask.bias = bias.view();
  c.options.mask.causal = true;
  c.options.mask.alignment = Alignment::kBottomRight;
  return c;
}

TEST_P(GradientPlaces, InBatchesOfUpTo64) {
  const Sizes alone{1, 4, 2, 40, 70, 16, 24};
  Strided of_one;
  GradientCall one = call_of(alone, of_one);
  one.options.threads.num_threads = 1;
  one.run_backward();
  for (const std::int64_t batch : {2, 3, 8, 64}) {
    Sizes together = alone;
    together.batch = batch;
    Strided of_many;
    GradientCall many = call_of(together, of_many, 7);
    const std::vector<std::int64_t> places{0, batch / 2, batch - 1};
    for (const std::int64_t b : places) {
      Tensors from = inputs(one), to = inputs(many);
      from.push_back(&of_one);
      to.push_back(&of_many);
      for (std::size_t t = 0; t < from.size(); ++t) {
        for (std::int64_t e = 0; e < element_count(from[t]->shape); ++e) {
          to[t]->set(b * to[t]->view().stride(0) + e, static_cast<double>(entry(*from[t], 0)[e]));
        }
      }
    }
    for (const int threads : {1, 3}) {
      many.options.threads.num_threads = threads;
      many.run_backward();
      for (const std::int64_t b : places) {
        for (std::size_t t = 0; t < results(one).size(); ++t) {
          const Strided &from = *results(one)[t], &to = *results(many)[t];
          EXPECT_EQ(std::memcmp(entry(from, 0), entry(to, b), bytes_of_entry(from)), 0)
              << "gradient " << t << ", place " << b << " of " << batch << ", " << threads << " threads";
        }
      }
    }
  }
}

TEST_P(GradientPlaces, BesideASequenceOfNaN) {
  Strided of_clean, of_spoilt;
  const Sizes s{3, 2, 1, 70, 130, 16, 8};
  GradientCall clean = call_of(s, of_clean), spoilt = call_of(s, of_spoilt);
  for (Strided* tensor : inputs(spoilt)) {
    for (std::int64_t e = 0; e < tensor->view().stride(0); ++e) tensor->set(tensor->view().stride(0) + e, kNaN);
  }
  clean.run_backward();
  spoilt.options.threads.num_threads = 2;
  spoilt.run_backward();
  for (std::size_t t = 0; t < results(clean).size(); ++t) {
    const Strided &a = *results(clean)[t], &b = *results(spoilt)[t];
    for (const std::int64_t i : {0, 2}) {
      EXPECT_EQ(std::memcmp(entry(a, i), entry(b, i), bytes_of_entry(a)), 0) << "gradient " << t << ", sequence " << i;
    }
    EXPECT_TRUE(std::isnan(entry(b, 1)[0])) << t;
  }
}

TEST_P(GradientPlaces, BesideAPackedSequenceOfNaN) {
  const Strided starts = integers({0, 70, 135, 200});
  const auto run = [&](bool spoil) {
    std::mt19937_64 engine(5);
    std::normal_distribution<double> normal;
    const auto rows = [&](std::int64_t heads, std::int64_t width) {
      return filled(DType::kF32, {200, heads, width}, [&](const Index& at) {
        const double x = normal(engine);
        return spoil && at[0] >= 70 && at[0] < 135 ? kNaN : x;
      });
    };
    const Strided q = rows(4, 16), k = rows(2, 16), v = rows(2, 16), dout = rows(4, 16);
    Strided out = dense(DType::kF32, q.shape), lse = dense(DType::kF32, {4, 200});
    std::vector<Strided> found{dense(DType::kF32, q.shape), dense(DType::kF32, k.shape), dense(DType::kF32, v.shape)};
    AttentionOptions options;
    options.cu_seqlens_q = options.cu_seqlens_k = starts.view();
    options.threads.num_threads = 2;
    options.lse = lse.mutable_view();
    attention(q.view(), k.view(), v.view(), out.mutable_view(), options);
    AttentionGradients gradients;
    gradients.dq = found[0].mutable_view();
    gradients.dk = found[1].mutable_view();
    gradients.dv = found[2].mutable_view();
    options.lse = {};
    attention_backward(q.view(), k.view(), v.view(), out.view(), dout.view(), lse.view(), gradients, options);
    return found;
  };
  const std::vector<Strided> clean = run(false), spoilt = run(true);
  for (std::size_t t = 0; t < 3; ++t) {
    const std::size_t row = bytes_of_entry(clean[t]);
    EXPECT_EQ(std::memcmp(entry(clean[t], 0), entry(spoilt[t], 0), 70 * row), 0) << t;
    EXPECT_EQ(std::memcmp(entry(clean[t], 135), entry(spoilt[t], 135), 65 * row), 0) << t;
    EXPECT_TRUE(std::isnan(entry(spoilt[t], 70)[0])) << t;
  }
}

// A row of which a score leaves F32's range: NaN in its dq and in what it adds to. The forward has it from float64.
TEST_P(GradientPlaces, RowsBeyondF32AreNaN) {
  const auto run = [](double large) {
    GradientCall c({1, 1, 1, 66, 66, 8, 8});
    c.options.mask.causal = true;  // row 0 sees key 0 alone
    for (std::int64_t e = 0; e < 8; ++e) c.q.set(e, large), c.k.set(e, 1e3);
    c.run_backward();
    EXPECT_EQ(c.out_at(0, 0, 0, 5), element(c.v.view(), {0, 0, 0, 5}));
    return c;
  };
  const GradientCall within = run(1e30), beyond = run(1e37);
  for (const auto& [a, b] : {std::pair{&within.dq, &beyond.dq}, {&within.dk, &beyond.dk}, {&within.dv, &beyond.dv}}) {
    EXPECT_TRUE(std::isfinite(entry(*a, 0)[0]));
    for (std::int64_t e = 0; e < 8; ++e) EXPECT_TRUE(std::isnan(element(b->view(), {0, 0, 0, e}))) << e;
    const auto skip = [](const Strided& x) { return static_cast<const float*>(x.view().data()) + 8; };
    EXPECT_EQ(std::memcmp(skip(*a), skip(*b), 65 * 8 * sizeof(float)), 0);
  }
}

}  // namespace
}  // namespace manyheads::test
