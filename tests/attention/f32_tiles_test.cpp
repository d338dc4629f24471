#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

#include <manyheads/cpu.hpp>
#include <manyheads/error.hpp>
#include <manyheads/kv_cache.hpp>
#include <manyheads/multi_head_attention.hpp>

#include "attention/call.hpp"
#include "attention/gradient_call.hpp"
#include "support.hpp"

namespace manyheads::test {
namespace {

constexpr const char* kFamily = "f32-tiles-1";

// Tests of each instruction set with tiles.
class F32TilesAt : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override { set_isa(GetParam()); }
  void TearDown() override { set_isa(""); }
};

TEST_P(F32TilesAt, ExplainSaysSo) {
  Call call({.tq = 40, .tk = 70, .d = 64, .dv = 64});
  EXPECT_EQ(call.explanation().bits, "f32-fma-1");
  call.options.bits = kFamily;
  EXPECT_EQ(call.explanation().bits, kFamily);
  EXPECT_NE(call.explanation().path.find("F32 by tiles"), std::string::npos) << call.explanation().path;
}

TEST_P(F32TilesAt, EachTypeThatIsReadAsF32) {
  for (const DType type : {DType::kF32, DType::kF16}) {
    Call call({.batch = 2, .q_heads = 4, .kv_heads = 2, .tq = 75, .tk = 200, .d = 40, .dv = 24}, type);
    call.options.bits = kFamily;
    EXPECT_EQ(call.wrong(), "") << name_of(type);
  }
}

// A row has the same bits alone, among others, and for any number of threads.
TEST_P(F32TilesAt, ARowDependsOnItselfAlone) {
  const Sizes sizes{.batch = 2, .q_heads = 2, .kv_heads = 1, .tq = 70, .tk = 1100, .d = 64, .dv = 48};
  Call call(sizes);
  call.options.bits = kFamily;
  call.options.mask = mask::causal(Alignment::kBottomRight);
  call.run();
  const Strided all = call.out;
  for (const int threads : {1, 2, 3}) {
    call.options.threads.num_threads = threads;
    call.run();
    EXPECT_EQ(call.out.memory, all.memory) << threads;
  }
  for (const std::int64_t row : {0, 17, 69}) {
    Call one({.tq = 1, .tk = sizes.tk - (sizes.tq - 1 - row), .d = 64, .dv = 48});
    one.q.fill([&](const Index& at) { return element(call.q.view(), {1, 1, row, at[3]}); });
    one.k.fill([&](const Index& at) { return element(call.k.view(), {1, 0, at[2], at[3]}); });
    one.v.fill([&](const Index& at) { return element(call.v.view(), {1, 0, at[2], at[3]}); });
    one.options.bits = kFamily;
    one.run();
    for (std::int64_t e = 0; e < sizes.dv; ++e) EXPECT_EQ(one.out_at(0, 0, 0, e), element(all.view(), {1, 1, row, e}));
  }
}

// Pieces of BF16 hold no infinity and nothing beyond 2^-96 to 2^63: such terms are multiplied as F32.
TEST_P(F32TilesAt, WhatPiecesCannotHold) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  for (const double x : {1e-44, 1e-37, 1e-30, 1e18, 1e19, 1e31, 3.4e38, kInfinity, -kInfinity, std::nan("")}) {
    for (const int where : {0, 1, 2}) {
      Call call({.tq = 37, .tk = 90, .d = 48, .dv = 33});
      call.options.bits = kFamily;
      Strided& tensor = where == 0 ? call.q : where == 1 ? call.k : call.v;
      const std::int64_t last = tensor.shape[3] - 1;
      tensor.set(tensor.origin + 11 * tensor.strides[2] + last * tensor.strides[3], x);
      // Beside it what makes its product a usual one.
      if (std::fabs(x) < 1 && where < 2) {
        Strided& other = where == 0 ? call.k : call.q;
        other.set(other.origin + 5 * other.strides[2] + last * other.strides[3], 1 / std::fmax(x, 1e-37));
      }
      if (where == 2 && std::isinf(x)) {  // every row sees it
        call.run();
        for (std::int64_t i = 0; i < 37; ++i) EXPECT_EQ(call.out_at(0, 0, i, last), x) << i;
        continue;
      }
      EXPECT_EQ(call.wrong(), "") << x << " in " << "qkv"[where];
    }
  }
}

TEST_P(F32TilesAt, WhatARowMayNotSeeChangesNoBit) {
  Call call({.tq = 50, .tk = 130, .d = 64, .dv = 40});
  call.options.bits = kFamily;
  call.options.mask = mask::causal(Alignment::kTopLeft);
  call.run();
  const Strided before = call.out;
  for (const double x : {std::nan(""), std::numeric_limits<double>::infinity(), 1e37, 1e-40}) {
    for (Strided* tensor : {&call.k, &call.v}) {
      for (std::int64_t e = 0; e < tensor->shape[3]; ++e) tensor->set(tensor->origin + 30 * tensor->strides[2] + e, x);
    }
    call.run();
    for (std::int64_t i = 0; i < 30; ++i) {
      for (std::int64_t e = 0; e < 40; ++e)
        EXPECT_EQ(call.out_at(0, 0, i, e), element(before.view(), {0, 0, i, e})) << x;
    }
  }
}

// Of results by tiles multiply-adds make the weights and the gradients.
TEST_P(F32TilesAt, WeightsAreMultiplyAdds) {
  Call call({.q_heads = 4, .kv_heads = 2, .tq = 70, .tk = 90, .d = 64, .dv = 32});
  call.options.bits = kFamily;
  call.run();
  Strided by_tiles = dense(DType::kF32, {1, 4, 70, 90}), plain = by_tiles;
  attention_weights(call.q.view(), call.k.view(), call.lse.view(), by_tiles.mutable_view(), call.options);
  call.options.bits = "f32-fma-1";
  attention_weights(call.q.view(), call.k.view(), call.lse.view(), plain.mutable_view(), call.options);
  EXPECT_EQ(by_tiles.memory, plain.memory);
}

TEST_P(F32TilesAt, GradientsThroughThemAreAnError) {
  GradientCall call({.tq = 5, .tk = 6, .d = 8, .dv = 8});
  call.options.bits = kFamily;
  EXPECT_EQ(error_of([&] { call.run_backward(); }, ErrorCode::kUnsupported),
            "attention_backward: bits \"f32-tiles-1\" are those of forward calls: gradients are not multiplied through "
            "tiles; \"f32-fma-1\" can be had of them here");
  EXPECT_TRUE(contains(error_of([&] { call.backward_explanation(); }, ErrorCode::kUnsupported),
                       "explain_backward: bits \"f32-tiles-1\""));
  MultiHeadAttention layer({.d_model = 8, .num_heads = 2});
  Tensor x(DType::kF32, {1, 3, 8}), y(DType::kF32, {1, 3, 8});
  std::fill_n(x.as<float>(), x.elements(), 0.5f);
  MultiHeadAttentionActivations kept;
  layer.forward(x.cview(), y.view(), {.bits = kFamily, .activations = &kept});
  EXPECT_TRUE(contains(
      error_of([&] { layer.backward(x.cview(), kept, y.cview(), {}, {.bits = kFamily}); }, ErrorCode::kUnsupported),
      "backward: bits \"f32-tiles-1\" are those of forward calls"));
  EXPECT_NO_THROW(layer.backward(x.cview(), kept, y.cview(), {}));
}

TEST_P(F32TilesAt, TensorsAndWeightsOfBf16AreAnError) {
  Call call({.tq = 5, .tk = 6, .d = 8, .dv = 8}, DType::kBF16);
  call.options.bits = kFamily;
  EXPECT_EQ(
      error_of([&] { call.run(); }, ErrorCode::kUnsupported),
      "attention: bits \"f32-tiles-1\" cannot be had of BF16 tensors at " + GetParam() + ", which gives bf16-tiles-1");
  MultiHeadAttention layer({.d_model = 8, .num_heads = 2, .dtype = DType::kBF16});
  Tensor x(DType::kF32, {1, 3, 8});
  EXPECT_TRUE(
      contains(error_of([&] { layer.forward(x.cview(), x.view(), {.bits = kFamily}); }, ErrorCode::kUnsupported),
               "bits \"f32-tiles-1\" cannot be had of BF16 tensors at " + GetParam()));
}

// Asked for on vectors whose tiles are no more than an emulation, it is that one.
TEST(F32Tiles, RunOnTheEmulationOfTheVectorsInUse) {
  for (const std::string& isa : available_isas()) {
    if (isa != "avx512" && isa != "avx2" && isa != "neon") continue;
    set_isa(isa);
    Call call({.tq = 20, .tk = 30, .d = 16, .dv = 16});
    call.options.bits = kFamily;
    EXPECT_EQ(call.wrong(), "") << isa;
    EXPECT_TRUE(call.explanation().isa.starts_with("amx")) << isa;
    EXPECT_EQ(active_bits(), "f32-fma-1");
  }
  set_isa("");
}

// The projections of a layer go through them too.
TEST_P(F32TilesAt, ALayerHasOtherBitsThanByMultiplyAdds) {
  MultiHeadAttention layer({.d_model = 64, .num_heads = 4});
  Tensor x(DType::kF32, {1, 1, 64}), plain(DType::kF32, {1, 1, 64}), by_tiles(DType::kF32, {1, 1, 64});
  for (std::int64_t i = 0; i < 64; ++i) x.as<float>()[i] = std::sin(static_cast<float>(i));
  layer.forward(x.cview(), plain.view());
  layer.forward(x.cview(), by_tiles.view(), {.bits = kFamily});
  // One key: attention itself hands on its value, to the last bit by pieces too.
  int differ = 0;
  for (std::int64_t i = 0; i < 64; ++i) {
    EXPECT_NEAR(plain.as<float>()[i], by_tiles.as<float>()[i], 1e-5f);
    if (plain.as<float>()[i] != by_tiles.as<float>()[i]) ++differ;
  }
  EXPECT_GT(differ, 0);
}

// One query at a time over a cache has the bits of all at once.
TEST_P(F32TilesAt, DecodingOverCachesHasTheBitsOfPrefill) {
  const Sizes sizes{.q_heads = 4, .kv_heads = 2, .tq = 20, .tk = 600, .d = 40, .dv = 24};
  const Call of(sizes);
  for (const DType type : {DType::kF32, DType::kI8}) {
    KVCache cache({.num_kv_heads = 2, .head_dim = 40, .value_dim = 24, .dtype = type, .page_size = 16});
    const KVCache::Sequence sequence[] = {cache.add()};
    const auto tokens = [](const ConstTensorView& all) {
      return ConstTensorView(all.data(), all.dtype(), {all.size(1), all.size(2), all.size(3)});
    };
    cache.append(sequence[0], tokens(of.k.view()), tokens(of.v.view()));
    AttentionOptions options{.bits = kFamily};
    options.mask = mask::causal(Alignment::kBottomRight);
    Strided all = dense(DType::kF32, {1, 4, 20, 24}), one = dense(DType::kF32, {1, 4, 1, 24});
    attention(of.q.view(), cache, sequence, all.mutable_view(), options);
    for (std::int64_t i = sizes.tq - 1; i >= 0; --i) {
      cache.truncate(sequence[0], sizes.tk - (sizes.tq - 1 - i));
      const Strided q = filled(DType::kF32, {1, 4, 1, 40},
                               [&](const Index& at) { return element(of.q.view(), {0, at[1], i, at[3]}); });
      attention(q.view(), cache, sequence, one.mutable_view(), options);
      for (std::int64_t h = 0; h < 4; ++h) {
        for (std::int64_t e = 0; e < 24; ++e) {
          ASSERT_EQ(bits(one.view(), {0, h, 0, e}), bits(all.view(), {0, h, i, e})) << name_of(type) << " " << i;
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isa, F32TilesAt, testing::ValuesIn(isas_with_tiles()),
                         [](const auto& isa) { return isa.param; });
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(F32TilesAt);

TEST(F32Tiles, TheirEmulationsHaveOneSetOfBits) {
  std::vector<unsigned char> first;
  for (const std::string& isa : isas_with_tiles()) {
    set_isa(isa);
    Call call({.q_heads = 2, .tq = 90, .tk = 700, .d = 72, .dv = 56});
    call.options.bits = kFamily;
    call.run();
    if (first.empty()) first = call.out.memory;
    EXPECT_EQ(call.out.memory, first) << isa;
  }
  set_isa("");
}

TEST(F32Tiles, AnErrorWhereThereAreNone) {
  for (const std::string& isa : available_isas()) {
    if (isa != "sse4" && isa != "portable") continue;
    set_isa(isa);
    Call call({.tq = 3, .tk = 4, .d = 8, .dv = 8});
    call.options.bits = kFamily;
    try {
      call.run();
      ADD_FAILURE() << isa;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
      EXPECT_NE(std::string(error.what()).find("bits \"f32-tiles-1\" cannot be had of F32 products at " + isa),
                std::string::npos)
          << error.what();
    }
  }
  set_isa("");
}

}  // namespace
}  // namespace manyheads::test
