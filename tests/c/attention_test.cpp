// Attention through C has the bits that it has through C++.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "attention/call.hpp"
#include "attention/draw.hpp"
#include "c/door.hpp"

namespace manyheads::test {
namespace {

// Runs `work` through C; its text where it fails.
#define EXPECT_OK(call) EXPECT_EQ(call, MH_OK) << mh_last_error()

class CDoor : public AtEachIsa {};
MANYHEADS_AT_EACH_ISA(CDoor);

TEST_P(CDoor, RandomCallsHaveTheBitsOfCpp) {
  for (std::uint64_t seed = 1; seed <= 400; ++seed) {
    RandomCase cpp(seed), c(seed);
    cpp.run();
    Door door;
    const TensorView out = c.out.mutable_view(), lse = c.lse.mutable_view();
    c.options.lse = lse;
    EXPECT_OK(mh_attention(door.tensor(c.q.view()), door.tensor(c.k.view()), door.tensor(c.v.view()), door.tensor(out),
                           door.options(c.options)));
    ASSERT_TRUE(cpp.out.memory == c.out.memory && cpp.lse.memory == c.lse.memory) << c.describe();
    // Probabilities of the same call.
    const ConstTensorView of_lse = c.lse.view();
    Strided from_cpp = dense(DType::kF32, {c.batch, c.q_heads, c.tq, c.tk}), from_c = from_cpp;
    attention_weights(c.q.view(), c.k.view(), of_lse, from_cpp.mutable_view(), cpp.options);
    EXPECT_OK(mh_attention_weights(door.tensor(c.q.view()), door.tensor(c.k.view()), door.tensor(of_lse),
                                   door.tensor(from_c.mutable_view()), door.options(cpp.options)));
    ASSERT_TRUE(from_cpp.memory == from_c.memory) << c.describe();
  }
}

// Packed queries and keys; pages; I8 with and without integer products.
TEST_P(CDoor, PackedPagedAndI8HaveTheBitsOfCpp) {
  const Strided q = filled(DType::kF32, {9, 4, 16}, [n = 0](const Index&) mutable { return std::sin(++n); });
  const Strided k = filled(DType::kF32, {40, 2, 16}, [n = 0](const Index&) mutable { return std::cos(++n); });
  auto byte = [n = 0](const Index&) mutable { return static_cast<double>(n++ * 37 % 255 - 127); };
  const Strided k8 = filled(DType::kI8, {3, 2, 16, 16}, byte);
  const Strided scales = filled(DType::kF32, {3, 2, 16}, [n = 0](const Index&) mutable { return 0.01 + n++ * 1e-4; });
  const Strided q_starts = integers({0, 2, 9}), k_starts = integers({0, 25, 40}, DType::kI32);
  const Strided lengths = integers({20, 16});
  const Strided pages = filled(DType::kI32, {2, 2}, [](const Index& at) {
    return at[0] == 0 ? static_cast<double>(2 - at[1] * 2) : 1.0;  // 2, 0 and 1, 1
  });
  for (const int kind : {0, 1, 2}) {
    AttentionOptions options;
    options.mask = mask::causal(Alignment::kBottomRight);
    options.cu_seqlens_q = q_starts.view();
    ConstTensorView keys = k8.view();
    if (kind == 0) {
      options.cu_seqlens_k = k_starts.view();
      keys = k.view();
    } else {
      options.page_table = pages.view();
      options.mask.key_lengths = lengths.view();
      options.k_scales = options.v_scales = scales.view();
      options.int8_products = kind == 2;
    }
    Strided from_cpp = dense(DType::kF32, {9, 4, 16}), from_c = from_cpp;
    Strided lse_cpp = dense(DType::kF32, {4, 9}), lse_c = lse_cpp;
    const TensorView of_cpp = lse_cpp.mutable_view(), of_c = lse_c.mutable_view();
    options.lse = of_cpp;
    attention(q.view(), keys, keys, from_cpp.mutable_view(), options);
    options.lse = of_c;
    Door door;
    EXPECT_OK(mh_attention(door.tensor(q.view()), door.tensor(keys), door.tensor(keys),
                           door.tensor(from_c.mutable_view()), door.options(options)));
    EXPECT_TRUE(from_cpp.memory == from_c.memory && lse_cpp.memory == lse_c.memory) << kind;
  }
}

TEST_P(CDoor, RowStatesOfPartsMergeToTheBitsOfOneCall) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    Draw draw(seed);
    Sizes s = random_sizes(draw);
    s.tk = 512 + draw.between(1, 900);
    Call whole(s, random_type(draw), DType::kF32, seed);
    whole.run();
    mh_row_states* parts[2] = {};
    Door door;
    std::int64_t begin = 0;
    for (int p = 0; p < 2; ++p) {
      const std::int64_t keys = p == 0 ? 512 : s.tk - 512;
      EXPECT_OK(mh_row_states_create(begin, keys, s.batch, s.q_heads, s.tq, s.dv, &parts[p]));
      const auto part = [&](const Strided& of) {
        mh_tensor* tensor = door.changed(of.view());
        tensor->strides = of.strides.begin();
        tensor->shape[2] = keys;
        tensor->data =
            static_cast<char*>(tensor->data) + begin * of.strides[2] * static_cast<std::int64_t>(size_of(of.type));
        return tensor;
      };
      mh_attention_options* options = door.options(whole.options);
      options->row_states = parts[p];
      Strided ignored = dense(DType::kF32, whole.out.shape);
      EXPECT_OK(mh_attention(door.tensor(whole.q.view()), part(whole.k), part(whole.v),
                             door.tensor(ignored.mutable_view()), options));
      begin += keys;
    }
    Call merged(s, whole.q.type, DType::kF32, seed);
    EXPECT_OK(mh_merge_row_states(parts, 2, door.tensor(merged.out.mutable_view()),
                                  door.tensor(merged.lse.mutable_view()), nullptr, 2, nullptr));
    EXPECT_TRUE(same_bits(whole, merged)) << "seed " << seed;
    for (mh_row_states* part : parts) mh_row_states_destroy(part);
  }
}

TEST_P(CDoor, MergesHaveTheBitsOfCpp) {
  Call a({.batch = 2, .q_heads = 3, .tq = 5, .tk = 9}, DType::kBF16, 1), b(a.sizes, DType::kBF16, 2);
  a.run();
  b.run();
  Call cpp(a.sizes, DType::kF32, 3), c(a.sizes, DType::kF32, 3);
  merge_attention(a.out.view(), a.lse.view(), b.out.view(), b.lse.view(), cpp.out.mutable_view(),
                  cpp.lse.mutable_view());
  Door door;
  EXPECT_OK(mh_merge_attention(door.tensor(a.out.view()), door.tensor(a.lse.view()), door.tensor(b.out.view()),
                               door.tensor(b.lse.view()), door.tensor(c.out.mutable_view()),
                               door.tensor(c.lse.mutable_view()), 2, nullptr));
  EXPECT_TRUE(same_bits(cpp, c));
}

TEST_P(CDoor, ExplainsAndMeasuresAsCpp) {
  Call call({.batch = 2, .q_heads = 4, .kv_heads = 2, .tq = 300, .tk = 900, .d = 32, .dv = 48}, DType::kBF16);
  call.options.mask = mask::causal(Alignment::kBottomRight) | mask::window(200, -1);
  call.options.threads.num_threads = 3;
  const Explanation e = call.explanation();
  Door door;
  const mh_tensor *q = door.tensor(call.q.view()), *k = door.tensor(call.k.view()), *v = door.tensor(call.v.view());
  const mh_tensor* out = door.tensor(call.out.mutable_view());
  mh_explanation c = MH_DEFAULT(mh_explanation);
  ASSERT_EQ(mh_explain(q, k, v, out, door.options(call.options), &c), MH_OK);
  EXPECT_EQ(c.text, e.to_string());
  EXPECT_EQ(c.isa, e.isa);
  EXPECT_EQ(c.bits, e.bits);
  EXPECT_EQ(c.path, e.path);
  EXPECT_EQ(c.tuning, e.tuning);
  EXPECT_EQ(c.threads, e.threads);
  EXPECT_EQ(c.query_block_rows, e.query_block_rows);
  EXPECT_EQ(c.run_keys, e.run_keys);
  EXPECT_EQ(c.chunk_keys, e.chunk_keys);
  EXPECT_EQ(c.tasks, e.tasks);
  EXPECT_EQ(c.query_blocks_together, e.query_blocks_together);
  EXPECT_EQ(c.keys_together, e.keys_together);
  EXPECT_EQ(c.kv_splits, e.kv_splits);
  EXPECT_EQ(c.runs, e.runs);
  EXPECT_EQ(c.skipped_runs, e.skipped_runs);
  EXPECT_EQ(c.flop, e.flop);
  EXPECT_EQ(c.bytes, e.bytes);
  EXPECT_EQ(c.workspace_bytes, e.workspace_bytes);
  std::size_t bytes = 0;
  EXPECT_OK(mh_attention_workspace_size(q, k, v, out, door.options(call.options), &bytes));
  EXPECT_EQ(bytes, e.workspace_bytes);
}

TEST_P(CDoor, AFamilyOfBitsCanBeAskedFor) {
  const std::string family = active_bits();
  const char* named = nullptr;
  EXPECT_OK(mh_active_bits(MH_F32, &named));
  EXPECT_EQ(named, family);
  Call call({.tq = 3, .tk = 5});
  call.options.bits = family;
  Door door;
  mh_attention_options* options = door.options(call.options);
  const mh_tensor* out = door.tensor(call.out.mutable_view());
  const auto run = [&] {
    return mh_attention(door.tensor(call.q.view()), door.tensor(call.k.view()), door.tensor(call.v.view()), out,
                        options);
  };
  EXPECT_OK(run());
  options->bits = family == "f32-fma-1" ? "f32-unfused-1" : "f32-fma-1";
  EXPECT_EQ(run(), MH_UNSUPPORTED);
  EXPECT_TRUE(contains(mh_last_error(), options->bits)) << mh_last_error();
}

TEST(CDoorBits, F32ThroughTilesHasTheBitsOfCpp) {
  for (const std::string& isa : isas_with_tiles()) {
    set_isa(isa);
    Call cpp({.batch = 2, .q_heads = 4, .kv_heads = 2, .tq = 50, .tk = 90, .d = 40, .dv = 24});
    cpp.options.mask = mask::causal(Alignment::kBottomRight);
    cpp.run();
    const Strided plain = cpp.out;
    cpp.options.bits = "f32-tiles-1";
    cpp.run();
    EXPECT_NE(cpp.out.memory, plain.memory) << isa;
    Strided out = dense(DType::kF32, cpp.out.shape);
    Door door;
    const mh_tensor *q = door.tensor(cpp.q.view()), *k = door.tensor(cpp.k.view()), *v = door.tensor(cpp.v.view());
    const mh_tensor* to = door.tensor(out.mutable_view());
    const mh_attention_options* options = door.options(cpp.options);
    EXPECT_OK(mh_attention(q, k, v, to, options));
    EXPECT_EQ(out.memory, cpp.out.memory) << isa;
    mh_explanation c = MH_DEFAULT(mh_explanation);
    EXPECT_OK(mh_explain(q, k, v, to, options, &c));
    EXPECT_STREQ(c.bits, "f32-tiles-1");
    EXPECT_EQ(c.text, cpp.explanation().to_string());
  }
  set_isa("");
}

}  // namespace
}  // namespace manyheads::test
