// Families of bits: what gives which, asking for one, and that a family is one on every instruction set that has it.
#include <gtest/gtest.h>

#include <manyheads/multi_head_attention.hpp>
#include <map>
#include <string>

#include "attention/call.hpp"

namespace manyheads::test {
namespace {

class BitsFamily : public testing::Test {
 protected:
  void TearDown() override { set_isa(""); }
};

Call some_call(DType type, std::string_view bits = {}) {
  Call call({.batch = 2, .q_heads = 4, .kv_heads = 2, .tq = 130, .tk = 700, .d = 72, .dv = 40}, type, DType::kF32, 3);
  call.options.bits = bits;
  call.options.mask = mask::causal(Alignment::kBottomRight);
  call.options.softcap = 20;
  return call;
}

TEST_F(BitsFamily, CallsOfOneFamilyHaveTheSameBits) {
  for (const DType type : {DType::kF32, DType::kBF16, DType::kF16}) {
    std::map<std::string, Call> first;
    for (const std::string& isa : available_isas()) {
      set_isa(isa);
      Call call = some_call(type);
      call.run();
      const std::string family = call.explanation().bits;
      EXPECT_EQ(family, active_bits(type)) << isa;
      const auto [at, is_new] = first.try_emplace(family, call);
      EXPECT_TRUE(is_new || same_bits(at->second, call)) << isa << " " << family << " " << name_of(type);
    }
  }
}

TEST_F(BitsFamily, BF16IsMultipliedAsF32WhereAsked) {
  set_isa("");
  std::vector<std::string> isas;
  std::string defining;  // reads BF16 as F32 unasked
  for (const std::string& isa : available_isas()) {
    set_isa(isa);
    if (active_bits() != "f32-fma-1") continue;
    isas.push_back(isa);
    if (active_bits(DType::kBF16) == "f32-fma-1") defining = isa;
  }
  if (defining.empty()) GTEST_SKIP() << "no instruction set of this build fuses multiply-adds and reads BF16 as F32";
  set_isa(defining);
  Call expected = some_call(DType::kBF16);
  expected.run();
  for (const std::string& isa : isas) {
    set_isa(isa);
    Call call = some_call(DType::kBF16, "f32-fma-1");
    call.run();
    EXPECT_EQ(call.explanation().bits, "f32-fma-1") << isa;
    EXPECT_TRUE(same_bits(call, expected)) << isa;
  }
}

TEST_F(BitsFamily, ALayerWithBF16WeightsTakesItToo) {
  const std::string defining = available_isas().back() == "portable" ? "portable" : "neon";
  for (const std::string& isa : available_isas()) {
    set_isa(isa);
    if (active_bits() != "f32-fma-1" || active_bits(DType::kBF16) == "f32-fma-1") continue;
    const MultiHeadAttention layer({.d_model = 64, .num_heads = 4, .dtype = DType::kBF16});
    Strided x = dense(DType::kF32, {2, 50, 64});
    x.fill([](const Index& at) { return static_cast<double>((at[0] * 31 + at[1] * 17 + at[2] * 7) % 23 - 11) / 9; });
    const auto run = [&](std::string_view bits) {
      Tensor y(DType::kF32, {2, 50, 64});
      layer.forward(x.view(), y.view(), {.bits = bits});
      const float* at = std::as_const(y).as<float>();
      return std::vector<float>(at, at + 2 * 50 * 64);
    };
    const std::vector<float> asked = run("f32-fma-1");
    // Tiles serve attention alone: there both are the F32 projections.
    if (active_bits(DType::kBF16) == "bf16-pairs-1") {
      EXPECT_NE(run(""), asked) << isa;
    }
    EXPECT_EQ(run(active_bits(DType::kBF16)), run("")) << isa;
    set_isa(defining);
    const MultiHeadAttention defined({.d_model = 64, .num_heads = 4, .dtype = DType::kBF16});
    Tensor y(DType::kF32, {2, 50, 64});
    defined.forward(x.view(), y.view());
    const float* at = std::as_const(y).as<float>();
    EXPECT_EQ(asked, std::vector<float>(at, at + 2 * 50 * 64)) << isa;
  }
}

TEST_F(BitsFamily, WhatCannotBeHadIsAnError) {
  if (available_isas().back() != "portable") GTEST_SKIP() << "the texts are those of the portable target";
  set_isa("portable");
  const auto message = [](Call call) {
    try {
      call.run();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(message(some_call(DType::kF32, "f32-fma-2")),
            "attention: bits \"f32-fma-2\" cannot be had of F32 products at portable, which gives f32-fma-1");
  const std::string tiles = message(some_call(DType::kBF16, "bf16-tiles-1"));
  EXPECT_TRUE(tiles.starts_with("attention: bits \"bf16-tiles-1\" cannot be had of BF16 tensors at portable")) << tiles;
  for (const std::string& isa : available_isas()) {
    if (isa.starts_with("amx")) {
      EXPECT_TRUE(contains(tiles, isa)) << tiles;
    }
  }
  EXPECT_EQ(message(some_call(DType::kF32, "f32-fma-1")), "");
}

}  // namespace
}  // namespace manyheads::test
