// The backward of attention through C has the bits that it has through C++.
#include <gtest/gtest.h>

#include <cstddef>
#include <string>

#include "attention/draw.hpp"
#include "attention/gradient_call.hpp"
#include "c/door.hpp"
#include "c/refused.hpp"

namespace manyheads::test {
namespace {

// No gap that a later field could fill: it would hold an older caller's garbage.
static_assert(sizeof(mh_attention_gradients) ==
              sizeof(std::size_t) + 7 * sizeof(const mh_tensor*) + 2 * sizeof(std::int32_t));
static_assert(offsetof(mh_attention_gradients, reserved) + sizeof(std::int32_t) == sizeof(mh_attention_gradients));

class CDoorBackward : public AtEachIsa {};
MANYHEADS_AT_EACH_ISA(CDoorBackward);

// The same call twice, with a random mask, and a bias, sinks and slopes whose gradients are asked for.
struct Pair {
  explicit Pair(std::uint64_t seed)
      : draw(seed),
        sizes(random_sizes(draw)),
        mask(draw, sizes),
        type(random_type(draw)),
        cpp(sizes, type, seed),
        c(sizes, type, seed) {
    const bool accumulate = draw.chance(0.3);
    const double softcap = draw.chance(0.3) ? 2 : 0;
    for (GradientCall* call : {&cpp, &c}) {
      call->options.mask = mask.mask;
      call->options.mask.bias = bias.view();
      call->options.mask.alibi_slopes = slopes.view();
      call->options.sinks = sinks.view();
      call->options.softcap = softcap;
      call->dbias = dense(DType::kF32, bias.shape);
      call->dsinks = dense(DType::kF32, sinks.shape);
      call->dalibi = dense(DType::kF32, slopes.shape);
      call->accumulate = accumulate;
      for (Strided* gradient : {&call->dq, &call->dk, &call->dv, &call->dbias, &call->dsinks, &call->dalibi}) {
        gradient->fill([n = 0](const Index&) mutable { return ++n % 7; });
      }
    }
  }

  Draw draw;
  Sizes sizes;
  RandomMask mask;
  DType type;
  GradientCall cpp, c;
  Strided bias = filled(DType::kF32, {sizes.q_heads, 1, sizes.tk},
                        [](const Index& at) { return 0.01 * static_cast<double>(at[2] % 5 - at[0]); });
  Strided sinks =
      filled(DType::kF32, {sizes.q_heads}, [](const Index& at) { return 0.5 * static_cast<double>(at[0]); });
  Strided slopes = filled(DType::kF32, {sizes.q_heads}, [](const Index&) { return 0.125; });
};

TEST_P(CDoorBackward, RandomCallsHaveTheBitsOfCpp) {
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    Pair pair(seed);
    pair.cpp.run_backward();
    GradientCall& c = pair.c;
    c.run();
    Door door;
    const mh_attention_gradients* gradients = door.gradients(c.gradients());
    EXPECT_EQ(mh_attention_backward(door.tensor(c.q.view()), door.tensor(c.k.view()), door.tensor(c.v.view()),
                                    door.tensor(c.out.view()), door.tensor(c.dout.view()), door.tensor(c.lse.view()),
                                    gradients, door.options(c.options)),
              MH_OK)
        << mh_last_error();
    ASSERT_TRUE(same_gradients(pair.cpp, c)) << "seed " << seed;
  }
}

TEST_P(CDoorBackward, PackedSequencesHaveTheBitsOfCpp) {
  const Strided q = filled(DType::kF32, {9, 4, 16}, [n = 0](const Index&) mutable { return std::sin(++n); });
  const Strided k = filled(DType::kF32, {40, 2, 16}, [n = 0](const Index&) mutable { return std::cos(++n); });
  const Strided starts = integers({0, 2, 9}), k_starts = integers({0, 25, 40}, DType::kI32);
  AttentionOptions options;
  options.mask = mask::causal(Alignment::kBottomRight);
  options.cu_seqlens_q = starts.view();
  options.cu_seqlens_k = k_starts.view();
  Strided out = dense(DType::kF32, q.shape), lse = dense(DType::kF32, {4, 9});
  const TensorView of_lse = lse.mutable_view();
  options.lse = of_lse;
  attention(q.view(), k.view(), k.view(), out.mutable_view(), options);
  options.lse = {};
  Strided dq_cpp = dense(DType::kF32, q.shape), dk_cpp = dense(DType::kF32, k.shape);
  Strided dq_c = dq_cpp, dk_c = dk_cpp;
  AttentionGradients gradients;
  gradients.dq = dq_cpp.mutable_view();
  gradients.dk = dk_cpp.mutable_view();
  attention_backward(q.view(), k.view(), k.view(), out.view(), q.view(), lse.view(), gradients, options);
  gradients.dq = dq_c.mutable_view();
  gradients.dk = dk_c.mutable_view();
  Door door;
  const mh_tensor *of_q = door.tensor(q.view()), *of_k = door.tensor(k.view());
  EXPECT_EQ(mh_attention_backward(of_q, of_k, of_k, door.tensor(out.view()), of_q, door.tensor(lse.view()),
                                  door.gradients(gradients), door.options(options)),
            MH_OK)
      << mh_last_error();
  EXPECT_TRUE(dq_cpp.memory == dq_c.memory && dk_cpp.memory == dk_c.memory);
}

TEST_P(CDoorBackward, ExplainsAndMeasuresAsCpp) {
  GradientCall call({.batch = 2, .q_heads = 4, .kv_heads = 2, .tq = 300, .tk = 900, .d = 32, .dv = 48}, DType::kBF16);
  call.options.mask = mask::causal(Alignment::kBottomRight) | mask::window(200, -1);
  call.options.threads.num_threads = 3;
  const Explanation e = call.backward_explanation();
  Door door;
  const mh_tensor *q = door.tensor(call.q.view()), *k = door.tensor(call.k.view()), *v = door.tensor(call.v.view());
  const mh_tensor *out = door.tensor(call.out.view()), *dout = door.tensor(call.dout.view());
  const mh_tensor* lse = door.tensor(call.lse.view());
  const mh_attention_gradients* gradients = door.gradients(call.gradients());
  mh_attention_options* options = door.options(call.options);
  mh_explanation forward = MH_DEFAULT(mh_explanation), c = MH_DEFAULT(mh_explanation);
  ASSERT_EQ(mh_explain(q, k, v, out, options, &forward), MH_OK) << mh_last_error();
  const std::string of_forward = forward.text;
  ASSERT_EQ(mh_explain_backward(q, k, v, out, dout, lse, gradients, options, &c), MH_OK) << mh_last_error();
  EXPECT_EQ(forward.text, of_forward);  // each function keeps its own texts
  EXPECT_EQ(c.text, e.to_string());
  EXPECT_EQ(c.path, e.path);
  EXPECT_EQ(c.isa, e.isa);
  EXPECT_EQ(c.bits, e.bits);
  EXPECT_EQ(c.tasks, e.tasks);
  EXPECT_EQ(c.runs, e.runs);
  EXPECT_EQ(c.skipped_runs, e.skipped_runs);
  EXPECT_EQ(c.flop, e.flop);
  EXPECT_EQ(c.workspace_bytes, e.workspace_bytes);
  std::size_t bytes = 0;
  EXPECT_EQ(mh_attention_backward_workspace_size(q, k, v, out, dout, lse, gradients, options, &bytes), MH_OK);
  EXPECT_EQ(bytes, e.workspace_bytes);
}

// A workspace of that size takes all that a call needs.
TEST(CDoorBackwardWorkspace, HoldsTheCall) {
  GradientCall call({.tq = 70, .tk = 600});
  call.run();
  Door door;
  const mh_tensor *q = door.tensor(call.q.view()), *k = door.tensor(call.k.view()), *v = door.tensor(call.v.view());
  const mh_tensor *out = door.tensor(call.out.view()), *dout = door.tensor(call.dout.view());
  const mh_tensor* lse = door.tensor(call.lse.view());
  const mh_attention_gradients* gradients = door.gradients(call.gradients());
  mh_attention_options* options = door.options(call.options);
  mh_workspace* workspace = nullptr;
  ASSERT_EQ(mh_workspace_create(&workspace), MH_OK);
  std::size_t needed = 0, before = 0, after = 0;
  ASSERT_EQ(mh_attention_backward_workspace_size(q, k, v, out, dout, lse, gradients, options, &needed), MH_OK);
  ASSERT_EQ(mh_workspace_reserve(workspace, needed), MH_OK);
  ASSERT_EQ(mh_workspace_bytes(workspace, &before), MH_OK);
  EXPECT_GE(before, needed);
  options->workspace = workspace;
  EXPECT_EQ(mh_attention_backward(q, k, v, out, dout, lse, gradients, options), MH_OK) << mh_last_error();
  ASSERT_EQ(mh_workspace_bytes(workspace, &after), MH_OK);
  EXPECT_EQ(after, before);
  mh_workspace_destroy(workspace);
}

// What a later header has behind the fields of today, and an earlier one lacks.
TEST(CDoorBackwardSizes, LaterAndEarlierGradients) {
  Attempt a;
  struct {
    mh_attention_gradients known;
    std::uint64_t more[2];
  } later{};
  later.known = a.gradients;
  later.known.size = sizeof later;
  const auto run = [&](const mh_attention_gradients* gradients) {
    return mh_attention_backward(&a.q, &a.k, &a.v, &a.out, &a.dout, &a.lse, gradients, nullptr);
  };
  EXPECT_EQ(run(&later.known), MH_OK) << mh_last_error();
  later.more[1] = 1;
  EXPECT_EQ(run(&later.known), MH_UNSUPPORTED);
  EXPECT_EQ(mh_last_error(), "mh_attention_backward: gradients has " + std::to_string(sizeof later) +
                                 " bytes, this library knows " + std::to_string(sizeof(mh_attention_gradients)) +
                                 " of them, and the rest is not 0");
  mh_attention_gradients earlier = a.gradients;
  earlier.size = offsetof(mh_attention_gradients, dk);
  earlier.dk = &a.weights;  // of no such shape, and behind the end
  EXPECT_EQ(run(&earlier), MH_OK) << mh_last_error();
}

TEST(CDoorBackwardRefused, AttemptsAreGood) {
  Attempt a;
  EXPECT_EQ(a.backward(), MH_OK) << mh_last_error();
  EXPECT_FALSE(a.written() == a.before);
}

TEST(CDoorBackwardRefused, EachArgument) {
  expect_refused({
      {"mh_attention_backward: gradients is NULL", "",
       [](Attempt& a) {
         return mh_attention_backward(&a.q, &a.k, &a.v, &a.out, &a.dout, &a.lse, nullptr, &a.options);
       }},
      {"mh_attention_backward: q is undefined, expected [B,Hq,Tq,D]", "",
       [](Attempt& a) {
         return mh_attention_backward(nullptr, &a.k, &a.v, &a.out, &a.dout, &a.lse, &a.gradients, nullptr);
       }},
      {"mh_attention_backward: dout is undefined, expected [B,Hq,Tq,Dv]", "",
       [](Attempt& a) {
         return mh_attention_backward(&a.q, &a.k, &a.v, &a.out, nullptr, &a.lse, &a.gradients, nullptr);
       }},
      {"mh_attention_backward: out is undefined, expected [B,Hq,Tq,Dv]", "",
       [](Attempt& a) {
         return mh_attention_backward(&a.q, &a.k, &a.v, nullptr, &a.dout, &a.lse, &a.gradients, nullptr);
       }},
      {"mh_attention_backward: lse is undefined, expected F32 [B,Hq,Tq] = [2,4,3]", "q F32 [2,4,3,8]",
       [](Attempt& a) {
         return mh_attention_backward(&a.q, &a.k, &a.v, &a.out, &a.dout, nullptr, &a.gradients, nullptr);
       }},
      {"mh_attention_backward: dout is F32 [2,4,3,5], expected [B,Hq,Tq,Dv] = [2,4,3,6]", "k F32 [2,2,5,8]",
       [](Attempt& a) { return a.dout.shape[3] = 5, a.backward(); }},
      {"mh_attention_backward: gradients->size is 0, expected sizeof *gradients (", "",
       [](Attempt& a) { return a.gradients.size = 0, a.backward(); }},
      {"mh_attention_backward: gradients->reserved is 7, expected 0", "",
       [](Attempt& a) { return a.gradients.reserved = 7, a.backward(); }},
      {"mh_attention_backward: dq has rank 9, expected 0 to 8", "",
       [](Attempt& a) { return a.dq.rank = 9, a.backward(); }},
      {"mh_attention_backward: dq is F32 [2,4,3,7], expected the shape of q F32 [2,4,3,8]", "",
       [](Attempt& a) { return a.dq.shape[3] = 7, a.backward(); }},
      {"mh_attention_backward: dq F32 [2,4,3,8] overlaps q F32 [2,4,3,8]", "",
       [](Attempt& a) { return a.dq.data = a.q.data, a.backward(); }},
      {"mh_attention_backward: dlse is I64 [2], expected F32 [B,Hq,Tq] = [2,4,3]", "",
       [](Attempt& a) { return a.gradients.dlse = &a.ids, a.backward(); }},
      {"mh_attention_backward: dbias without mask.bias", "",
       [](Attempt& a) { return a.gradients.dbias = &a.weights, a.backward(); }},
      {"mh_attention_backward: dsinks without sinks", "",
       [](Attempt& a) { return a.gradients.dsinks = &a.weights, a.backward(); }},
      {"mh_attention_backward: dalibi_slopes without mask.alibi_slopes", "",
       [](Attempt& a) { return a.gradients.dalibi_slopes = &a.weights, a.backward(); }},
      {"mh_attention_backward: page_table: keys in pages have no gradient", "",
       [](Attempt& a) { return a.options.page_table = &a.ids, a.backward(); }},
      {"mh_attention_backward: k is I8 [2,2,5,8]: I8 has no gradient", "",
       [](Attempt& a) { return a.k.dtype = a.v.dtype = MH_I8, a.backward(); }},
      {"mh_attention_backward: num_threads is -3, expected 0 or more", "",
       [](Attempt& a) { return a.options.num_threads = -3, a.backward(); }},
      {"mh_attention_backward_workspace_size: bytes is NULL", "",
       [](Attempt& a) {
         return mh_attention_backward_workspace_size(&a.q, &a.k, &a.v, &a.out, &a.dout, &a.lse, &a.gradients, nullptr,
                                                     nullptr);
       }},
      {"mh_explain_backward: explanation is NULL", "",
       [](Attempt& a) {
         return mh_explain_backward(&a.q, &a.k, &a.v, &a.out, &a.dout, &a.lse, &a.gradients, nullptr, nullptr);
       }},
      {"mh_explain_backward: v has 6 keys, k has 5", "v F32 [2,2,6,6]",
       [](Attempt& a) {
         a.v.shape[2] = 6;
         return mh_explain_backward(&a.q, &a.k, &a.v, &a.out, &a.dout, &a.lse, &a.gradients, nullptr, &a.explanation);
       }},
  });
}

}  // namespace
}  // namespace manyheads::test
