#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "allocations.hpp"
#include "attention/draw.hpp"
#include "attention/gradient_call.hpp"
#include "attention/gradient_oracle.hpp"

// What the backward means: its definition, special rows, what is never read, errors.
namespace manyheads::test {
namespace {

class Backward : public AtEachIsa {};
MANYHEADS_AT_EACH_ISA(Backward);

double sum_of(const Strided& tensor, const std::function<double(const Index&, double)>& term) {
  double sum = 0;
  Strided walk = tensor;
  const ConstTensorView view = tensor.view();
  walk.fill([&](const Index& at) {
    std::int64_t place = 0;
    for (std::size_t axis = 0; axis < at.size(); ++axis) place += at[axis] * view.stride(static_cast<int>(axis));
    sum += term(at, element_at(view, place));
    return 0.0;
  });
  return sum;
}
bool all_are(const Strided& tensor, double value) {
  return sum_of(tensor, [value](const Index&, double x) { return x == value ? 0.0 : 1.0; }) == 0;
}
bool finite(const Strided& tensor) {
  return std::isfinite(sum_of(tensor, [](const Index&, double x) { return x; }));
}

// The definition against central differences of the loss sum(out dout) + sum(lse dlse), with both in float64 from the
// oracle. Steps of 2^-8 in values of about 1: the third derivative leaves some 1e-5.
TEST(BackwardReference, IsTheDerivative) {
  const Sizes s{1, 4, 2, 5, 7, 3, 2};
  GradientCall c(s);
  Strided bias =
      filled(DType::kF32, {1, 4, 1, 7}, [](const Index& at) { return 0.25 * static_cast<double>(at[3] - at[1]); });
  Strided sinks = filled(DType::kF32, {4}, [](const Index& at) { return 0.5 * static_cast<double>(at[0]) - 1; });
  Strided slopes = filled(DType::kF32, {4}, [](const Index& at) { return 0.125 * static_cast<double>(at[0] + 1); });
  c.options.mask.causal = true;
  c.options.mask.alignment = Alignment::kBottomRight;
  c.options.mask.window_left = 4;
  c.options.mask.bias = bias.view();
  c.options.mask.alibi_slopes = slopes.view();
  c.options.sinks = sinks.view();
  c.options.softcap = 2;
  c.options.scale = 0.75;
  c.dbias = dense(DType::kF32, bias.shape);
  c.dsinks = dense(DType::kF32, sinks.shape);
  c.dalibi = dense(DType::kF32, slopes.shape);
  attention_backward_reference(c.q.view(), c.k.view(), c.v.view(), c.dout.view(), c.gradients(), c.options);
  const auto loss = [&] {
    const Oracle o = c.oracle();
    double sum = 0;
    std::size_t at = 0;
    for (std::int64_t h = 0; h < s.q_heads; ++h) {
      for (std::int64_t i = 0; i < s.tq; ++i) {
        sum += o.lse[at / static_cast<std::size_t>(s.dv)] * element(c.dlse.view(), {0, h, i});
        for (std::int64_t e = 0; e < s.dv; ++e) sum += o.out[at++] * element(c.dout.view(), {0, h, i, e});
      }
    }
    return sum;
  };
  constexpr double kStep = 0x1p-8;
  const auto check = [&](const char* name, Strided& input, const Strided& gradient) {
    const ConstTensorView view = input.view();
    Strided walk = gradient;
    walk.fill([&](const Index& at) {
      std::int64_t place = input.origin, of_gradient = 0;
      for (std::size_t axis = 0; axis < at.size(); ++axis) {
        place += at[axis] * input.strides[static_cast<int>(axis)];
        of_gradient += at[axis] * gradient.strides[static_cast<int>(axis)];
      }
      const double before = static_cast<double>(static_cast<const float*>(view.data())[place - input.origin]);
      input.set(place, before + kStep);
      const double more = loss();
      input.set(place, before - kStep);
      const double less = loss();
      input.set(place, before);
      const double got = static_cast<double>(static_cast<const float*>(gradient.view().data())[of_gradient]);
      // F32 holds before + step to 2^-24 of a value below 4.
      EXPECT_NEAR(got, (more - less) / (2 * kStep), 2e-4) << name << " " << testing::PrintToString(at);
      return 0.0;
    });
  };
  check("dq", c.q, c.dq);
  check("dk", c.k, c.dk);
  check("dv", c.v, c.dv);
  check("dbias", bias, c.dbias);
  check("dsinks", sinks, c.dsinks);
  check("dalibi_slopes", slopes, c.dalibi);
}

// The reference's F32 results lie within the bounds of the oracle, which shares no code with it.
TEST(BackwardReference, AgreesWithTheOracle) {
  GradientCall c({2, 2, 1, 9, 12, 5, 4});
  c.options.softcap = 3;
  attention_backward_reference(c.q.view(), c.k.view(), c.v.view(), c.dout.view(), c.gradients(), c.options);
  const ExpectedGradients expected = expect_gradients(c.q.view(), c.k.view(), c.v.view(), c.dout.view(), c.dlse.view(),
                                                      DType::kF32, c.options, c.oracle());
  EXPECT_EQ(compare_gradient("dq", expected.dq, c.dq.view()), "");
  EXPECT_EQ(compare_gradient("dk", expected.dk, c.dk.view()), "");
  EXPECT_EQ(compare_gradient("dv", expected.dv, c.dv.view()), "");
}

std::string compare_all(GradientCall& c) {
  const bool pairs = std::string(c.backward_explanation().bits) == "bf16-pairs-1";
  const ExpectedGradients expected = expect_gradients(c.q.view(), c.k.view(), c.v.view(), c.dout.view(), c.dlse.view(),
                                                      c.out.type, c.options, c.oracle());
  std::string wrong = compare_gradient("dq", expected.dq, c.dq.view(), pairs);
  if (wrong.empty()) wrong = compare_gradient("dk", expected.dk, c.dk.view(), pairs);
  if (wrong.empty()) wrong = compare_gradient("dv", expected.dv, c.dv.view(), pairs);
  return wrong;
}

// Many chunks of keys and of queries, so that trees and ordered sums take part.
TEST_P(Backward, ManyChunks) {
  for (const DType type : {DType::kF32, DType::kBF16}) {
    for (const bool causal : {false, true}) {
      if (type == DType::kBF16 && !causal) continue;
      GradientCall c({1, 2, 1, 1100, 1700, 16, 16}, type, 3);
      c.options.mask.causal = causal;
      c.options.mask.alignment = Alignment::kBottomRight;
      c.options.threads.num_threads = 2;
      c.run_backward();
      EXPECT_EQ(compare_all(c), "") << static_cast<int>(type);
    }
  }
}

// Rows and keys that no word of pairs holds alone: odd numbers of them, and windows that begin and end anywhere. What
// lies beside is NaN.
TEST_P(Backward, OddEdges) {
  for (const DType type : {DType::kF32, DType::kBF16}) {
    for (const std::int64_t left : {std::int64_t{5}, std::int64_t{20}}) {
      GradientCall c({1, 1, 1, 33, 101, 16, 18}, type, 4);
      c.options.mask.window_left = left;
      c.options.mask.window_right = 2;
      c.options.mask.alignment = Alignment::kTopLeft;
      c.k.fill(
          [](const Index& at) { return at[2] > 34 ? kNaN : 0.25 * static_cast<double>((at[2] + at[3]) % 5) - 0.5; });
      c.v.fill(
          [](const Index& at) { return at[2] > 34 ? kInf : 0.5 * static_cast<double>((at[2] * at[3]) % 3) - 0.5; });
      c.run_backward();
      EXPECT_TRUE(finite(c.dq)) << left;
      EXPECT_TRUE(finite(c.dk)) << left;
      EXPECT_TRUE(finite(c.dv)) << left;
      c.k.fill([](const Index& at) { return at[2] > 34 ? 0 : 0.25 * static_cast<double>((at[2] + at[3]) % 5) - 0.5; });
      c.v.fill([](const Index& at) { return at[2] > 34 ? 0 : 0.5 * static_cast<double>((at[2] * at[3]) % 3) - 0.5; });
      EXPECT_EQ(compare_all(c), "") << left;
    }
  }
}

// dq over 256 chunks of equal terms. dS is P or -P, with keys of the same sign: dq is the key's size times the scale
// and times the sum of P, each of which dv holds. Within a chunk such a sum errs by less than 6.8 u
// (canonical_order.hpp), the two floats add 1, the scale and the result 2. One float would drift by up to a quarter u a
// chunk.
TEST_P(Backward, ManyChunksOfEqualTerms) {
  GradientCall c({1, 1, 1, 1, 131072, 64, 1});
  std::mt19937_64 engine(9);
  std::uniform_real_distribution<double> size(1, 2);
  std::vector<double> sizes;
  for (int e = 0; e < 64; ++e) sizes.push_back(static_cast<double>(static_cast<float>(size(engine))));
  const auto sign = [](std::int64_t j) { return j % 2 == 0 ? 1.0 : -1.0; };
  c.q.fill([](const Index&) { return 0.0; });
  c.k.fill([&](const Index& at) { return sign(at[2]) * sizes[static_cast<std::size_t>(at[3])]; });
  c.v.fill([&](const Index& at) { return sign(at[2]); });
  c.dout.fill([](const Index&) { return 1.0; });
  c.dlse.fill([](const Index&) { return 0.0; });
  c.run_backward();
  for (std::int64_t e = 0; e < 64; ++e) {
    const double expected =
        0.125 * sizes[static_cast<std::size_t>(e)] * 131072 * std::fabs(element(c.dv.view(), {0, 0, 0, 0}));
    EXPECT_NEAR(element(c.dq.view(), {0, 0, 0, e}), expected, 9.8 * 0x1p-24 * expected) << e;
  }
}

// Keys 30 and 100 times larger: one key of each row takes nearly all.
TEST_P(Backward, SharpHeads) {
  for (const double factor : {30.0, 100.0}) {
    GradientCall c({1, 2, 2, 70, 90, 64, 64});
    std::mt19937_64 engine(5);
    std::normal_distribution<double> normal;
    c.k.fill([&](const Index&) { return normal(engine) * factor; });
    c.run_backward();
    EXPECT_EQ(compare_all(c), "");
  }
}

void forbidden_rows_give_nothing(DType type) {
  GradientCall c({1, 1, 1, 6, 9, 8, 8}, type);
  Strided allowed = filled(DType::kBool, {6, 9}, [](const Index& at) { return at[0] == 2 || at[1] == 4 ? 0.0 : 1.0; });
  c.options.mask.allowed = allowed.view();
  // What no row may read is NaN.
  c.k.fill([](const Index& at) { return at[2] == 4 ? kNaN : 0.25 * static_cast<double>(at[2] % 3) - 0.125; });
  c.v.fill([](const Index& at) { return at[2] == 4 ? kInf : 0.5 * static_cast<double>(at[3]) - 1; });
  c.q.fill([](const Index& at) { return at[2] == 2 ? kNaN : 1.0 / static_cast<double>(at[2] + 2); });
  Strided& dout = c.dout;
  dout.fill([](const Index& at) { return at[2] == 2 ? kNaN : static_cast<double>(at[3] % 2); });
  c.run_backward();
  for (std::int64_t e = 0; e < 8; ++e) {
    EXPECT_EQ(element(c.dq.view(), {0, 0, 2, e}), 0);
    EXPECT_EQ(element(c.dk.view(), {0, 0, 4, e}), 0);
    EXPECT_EQ(element(c.dv.view(), {0, 0, 4, e}), 0);
  }
  EXPECT_TRUE(finite(c.dq));
  EXPECT_TRUE(finite(c.dk));
  EXPECT_TRUE(finite(c.dv));
}

TEST_P(Backward, ForbiddenRowsGiveNothing) {
  forbidden_rows_give_nothing(DType::kF32);
  forbidden_rows_give_nothing(DType::kBF16);
}

void nan_stays_in_its_document(DType type, std::int64_t border) {
  GradientCall c({1, 1, 1, 130, 130, 16, 16}, type);
  std::vector<std::int64_t> documents(130);
  for (std::size_t i = 0; i < 130; ++i) documents[i] = static_cast<std::int64_t>(i) < border ? 1 : 2;
  const Strided of_rows = ids(1, documents);
  c.options.mask.q_documents = of_rows.view();
  c.options.mask.k_documents = of_rows.view();
  for (std::int64_t e = 0; e < 16; ++e) {
    c.q.set(20 * 16 + e, kNaN);
    c.v.set(33 * 16 + e, kInf);
    c.dout.set(44 * 16 + e, kNaN);
  }
  c.run_backward();
  for (const Strided* gradient : {&c.dq, &c.dk, &c.dv}) {
    for (std::int64_t i = 0; i < 130; ++i) {
      const bool number = std::isfinite(element(gradient->view(), {0, 0, i, 3}));
      if (i >= border) {
        EXPECT_TRUE(number) << i;
      }
    }
  }
  EXPECT_TRUE(std::isnan(element(c.dq.view(), {0, 0, 20, 3})));
  EXPECT_TRUE(std::isnan(element(c.dk.view(), {0, 0, 7, 3})));
}

// A NaN reaches what sees it, and nothing else.
TEST_P(Backward, NaNStaysInItsDocument) {
  for (const std::int64_t border : {70, 71}) {
    nan_stays_in_its_document(DType::kF32, border);
    nan_stays_in_its_document(DType::kBF16, border);
  }
}

// Padding rows: a uniform mean, and its gradient, whether their bias is the lowest float or a large negative number.
TEST_P(Backward, RowsOfALowBias) {
  for (const double low : {-static_cast<double>(std::numeric_limits<float>::max()), -1e9}) {
    GradientCall c({1, 1, 1, 3, 10, 8, 8});
    Strided bias = filled(DType::kF32, {3, 10}, [&](const Index& at) { return at[0] == 1 ? low : 0.0; });
    c.options.mask.bias = bias.view();
    c.dout.fill([](const Index& at) { return at[2] == 1 ? 1.0 : 0.0; });
    c.run_backward();
    for (std::int64_t j = 0; j < 10; ++j) EXPECT_NEAR(element(c.dv.view(), {0, 0, j, 2}), 0.1, 1e-7) << low;
  }
}

// With dout 1 the sum of dv over keys is that of all P: 1 for each row, however large the scores are.
TEST_P(Backward, ProbabilitiesOfLargeScoresAddUpToOne) {
  for (const double factor : {1e2, 1e4, 1e6}) {
    GradientCall c({1, 2, 1, 70, 90, 16, 4});
    Strided sinks = filled(DType::kF32, {2}, [](const Index& at) { return at[0] == 0 ? -kInf : -1e30; });
    c.options.sinks = sinks.view();
    std::mt19937_64 engine(7);
    std::normal_distribution<double> normal;
    c.k.fill([&](const Index&) { return normal(engine) * factor; });
    c.dout.fill([](const Index&) { return 1.0; });
    c.run_backward();
    double sum = 0;
    for (std::int64_t j = 0; j < 90; ++j) sum += element(c.dv.view(), {0, 0, j, 1});
    EXPECT_NEAR(sum, 140, 140 * 16 * 0x1p-24) << factor;
  }
}

TEST_P(Backward, NoKeysNoQueries) {
  GradientCall no_keys({1, 2, 1, 3, 0, 8, 8});
  no_keys.run_backward();
  EXPECT_TRUE(all_are(no_keys.dq, 0));
  GradientCall no_queries({1, 2, 1, 0, 5, 8, 4});
  no_queries.run_backward();
  EXPECT_TRUE(all_are(no_queries.dk, 0));
  EXPECT_TRUE(all_are(no_queries.dv, 0));
  GradientCall no_batch({0, 2, 1, 4, 5, 8, 4});
  no_batch.run_backward();
  GradientCall no_heads({1, 0, 0, 4, 5, 8, 4});
  no_heads.run_backward();
}

// Keys behind the length and before the start exist for nobody: 0.
TEST_P(Backward, KeysThatDoNotExist) {
  GradientCall c({2, 1, 1, 4, 80, 8, 8});
  const Strided lengths = integers({70, 0}), starts = integers({3, 0});
  c.options.mask.key_lengths = lengths.view();
  c.options.mask.key_starts = starts.view();
  c.run_backward();
  for (const std::int64_t j : {0, 2, 70, 79}) EXPECT_EQ(element(c.dk.view(), {0, 0, j, 1}), 0) << j;
  for (const std::int64_t j : {3, 69}) EXPECT_NE(element(c.dv.view(), {0, 0, j, 1}), 0) << j;
  for (const std::int64_t j : {0, 79}) EXPECT_EQ(element(c.dv.view(), {1, 0, j, 1}), 0) << j;
  EXPECT_EQ(element(c.dq.view(), {1, 0, 3, 1}), 0);
}

TEST_P(Backward, Accumulates) {
  GradientCall c({1, 2, 1, 9, 11, 8, 8}), more({1, 2, 1, 9, 11, 8, 8});
  Strided bias =
      filled(DType::kF32, {9, 11}, [](const Index& at) { return 0.01 * static_cast<double>(at[0] * at[1]); });
  Strided sinks = filled(DType::kF32, {2}, [](const Index&) { return 0.5; });
  for (GradientCall* call : {&c, &more}) {
    call->options.mask.bias = bias.view();
    call->options.sinks = sinks.view();
    call->dbias = dense(DType::kF32, bias.shape);
    call->dsinks = dense(DType::kF32, sinks.shape);
  }
  c.run_backward();
  more.accumulate = true;
  for (Strided* gradient : {&more.dq, &more.dk, &more.dv, &more.dbias, &more.dsinks}) {
    gradient->fill([](const Index&) { return 4.0; });
  }
  more.run_backward();
  EXPECT_EQ(element(more.dq.view(), {0, 1, 3, 2}),
            static_cast<double>(static_cast<float>(element(c.dq.view(), {0, 1, 3, 2})) + 4.0f));
  EXPECT_EQ(element(more.dk.view(), {0, 0, 3, 2}),
            static_cast<double>(static_cast<float>(element(c.dk.view(), {0, 0, 3, 2})) + 4.0f));
  EXPECT_EQ(element(more.dv.view(), {0, 0, 3, 2}),
            static_cast<double>(static_cast<float>(element(c.dv.view(), {0, 0, 3, 2})) + 4.0f));
  EXPECT_NEAR(element(more.dbias.view(), {3, 2}), element(c.dbias.view(), {3, 2}) + 4.0, 5e-7);
  EXPECT_NEAR(element(more.dsinks.view(), {1}), element(c.dsinks.view(), {1}) + 4.0, 5e-7);
}

// Any gradients may be left out; the others keep their bits.
TEST_P(Backward, EachGradientAlone) {
  const Sizes s{1, 2, 1, 70, 600, 16, 16};
  GradientCall all(s);
  all.run_backward();
  for (int which = 0; which < 3; ++which) {
    GradientCall one(s);
    one.run();
    AttentionGradients gradients;
    gradients.dlse = one.dlse.view();
    Strided* const of[] = {&one.dq, &one.dk, &one.dv};
    (which == 0 ? gradients.dq : which == 1 ? gradients.dk : gradients.dv) = of[which]->mutable_view();
    attention_backward(one.q.view(), one.k.view(), one.v.view(), one.out.view(), one.dout.view(), one.lse.view(),
                       gradients, one.options);
    const Strided* const expected[] = {&all.dq, &all.dk, &all.dv};
    EXPECT_TRUE(same_tensor(*of[which], *expected[which])) << which;
  }
}

TEST_P(Backward, AGrownWorkspaceMeansNoAllocation) {
  GradientCall c({2, 4, 2, 130, 700, 16, 16});
  c.run();
  Workspace workspace;
  c.options.workspace = &workspace;
  c.options.threads.num_threads = 1;
  const AttentionGradients gradients = c.gradients();
  const ConstTensorView q = c.q.view(), k = c.k.view(), v = c.v.view(), out = c.out.view(), dout = c.dout.view();
  const ConstTensorView lse = c.lse.view();
  attention_backward(q, k, v, out, dout, lse, gradients, c.options);
  const std::int64_t before = allocations();
  attention_backward(q, k, v, out, dout, lse, gradients, c.options);
  EXPECT_EQ(allocations(), before);
}

TEST(BackwardErrors, NameTheArgument) {
  GradientCall c({1, 4, 2, 3, 5, 8, 6});
  c.run();
  const auto error =
      [&](const std::function<void(GradientCall&, AttentionGradients&, ConstTensorView&, ConstTensorView&)>& spoil) {
        GradientCall call({1, 4, 2, 3, 5, 8, 6});
        call.run();
        AttentionGradients gradients = call.gradients();
        ConstTensorView out = call.out.view(), lse = call.lse.view();
        spoil(call, gradients, out, lse);
        return error_of([&] {
          attention_backward(call.q.view(), call.k.view(), call.v.view(), out, call.dout.view(), lse, gradients,
                             call.options);
        });
      };
  Strided other = dense(DType::kF32, {1, 4, 3, 8});
  EXPECT_EQ(error([&](auto&, auto&, auto& out, auto&) { out = other.view(); }),
            "attention_backward: out is F32 [1,4,3,8], expected [B,Hq,Tq,Dv] = [1,4,3,6] (q F32 [1,4,3,8], k F32 "
            "[1,2,5,8], v F32 [1,2,5,6])");
  EXPECT_EQ(error([&](auto&, auto&, auto&, auto& lse) { lse = other.view(); }),
            "attention_backward: lse is F32 [1,4,3,8], expected F32 [B,Hq,Tq] = [1,4,3] (q F32 [1,4,3,8], k F32 "
            "[1,2,5,8], v F32 [1,2,5,6])");
  EXPECT_EQ(error([&](auto&, auto& gradients, auto&, auto&) { gradients.dk = other.mutable_view(); }),
            "attention_backward: dk is F32 [1,4,3,8], expected the shape of k F32 [1,2,5,8]");
  EXPECT_EQ(error([&](auto&, auto& gradients, auto&, auto&) { gradients.dbias = other.mutable_view(); }),
            "attention_backward: dbias without mask.bias");
  EXPECT_EQ(error([&](auto& call, auto& gradients, auto&, auto&) { gradients.dq = call.q.mutable_view(); }),
            "attention_backward: dq F32 [1,4,3,8] overlaps q F32 [1,4,3,8]");
  Strided table = integers({0, 1});
  EXPECT_EQ(error([&](auto& call, auto&, auto&, auto&) {
              call.options.page_table = ConstTensorView(table.view().data(), DType::kI64, Dims{1, 2});
            }),
            "attention_backward: page_table: keys in pages have no gradient");
}

TEST(BackwardExplanation, CountsTheWork) {
  GradientCall c({1, 1, 1, 1024, 1024, 64, 64});
  c.options.threads.num_threads = 1;
  const Explanation full = c.backward_explanation();
  EXPECT_EQ(full.path, "fused backward, F32");
  EXPECT_EQ(full.tasks, 2);
  EXPECT_EQ(full.flop, 2.0 * 5 * 64 * 1024 * 1024);
  EXPECT_EQ(full.workspace_bytes,
            attention_backward_workspace_size(c.q.view(), c.k.view(), c.v.view(), c.out.view(), c.dout.view(),
                                              c.lse.view(), c.gradients(), c.options));
  c.options.mask.causal = true;
  EXPECT_EQ(c.backward_explanation().skipped_runs, 120);  // of 16 x 16, half but the diagonal
}

// BF16 is multiplied in pairs where the family of bits says so, and all that is multiplied is BF16.
TEST_P(Backward, NamesItsProducts) {
  GradientCall c({1, 2, 2, 70, 80, 16, 16}, DType::kBF16);
  c.run();
  const bool pairs = std::string(active_bits(DType::kBF16)) == "bf16-pairs-1";
  EXPECT_EQ(c.backward_explanation().path, pairs ? "fused backward, BF16 pairs" : "fused backward, BF16 read as F32");
  EXPECT_EQ(c.backward_explanation().bits, std::string(active_bits(pairs ? DType::kBF16 : DType::kF32)));
  const std::string f32 = active_bits();
  c.options.bits = f32;
  EXPECT_EQ(c.backward_explanation().path, "fused backward, BF16 read as F32");
  c.options.bits = "";
  c.dout = filled(DType::kF32, c.out.shape, [](const Index&) { return 1.0; });
  EXPECT_EQ(c.backward_explanation().path, "fused backward, BF16 read as F32");
}

// Few chunks of keys are cut into parts of the queries, so that all threads work.
TEST(BackwardExplanation, CutsFewChunksIntoParts) {
  GradientCall c({1, 1, 1, 4096, 300, 64, 64});
  c.options.threads.num_threads = 4;
  EXPECT_EQ(c.backward_explanation().tasks, 8);
  EXPECT_EQ(c.backward_explanation().threads, 4);
}

// Beyond inputs, outputs and gradients: 40 MB for one head of 65,536 tokens, D 64.
TEST(BackwardExplanation, MemoryIsLinear) {
  const std::int64_t t = 65536;
  std::vector<float> memory(static_cast<std::size_t>(7 * t * 64 + t));
  const Dims shape{1, 1, t, 64};
  float* at = memory.data();
  const auto next = [&] { return TensorView(at += t * 64, shape); };
  AttentionGradients gradients;
  const TensorView q(at, shape), k = next(), v = next(), out = next();
  gradients.dq = next();
  gradients.dk = next();
  gradients.dv = next();
  AttentionOptions options;
  options.threads.num_threads = 1;
  const ConstTensorView lse(memory.data() + 7 * t * 64, Dims{1, 1, t});
  EXPECT_LT(attention_backward_workspace_size(q, k, v, out, out, lse, gradients, options), 40e6);
}

}  // namespace
}  // namespace manyheads::test
