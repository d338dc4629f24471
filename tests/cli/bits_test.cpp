// Families of bits on the command line.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <manyheads/cpu.hpp>
#include <manyheads/multi_head_attention.hpp>
#include <manyheads/safetensors.hpp>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tensors.hpp"
#include "tiny_model.hpp"

namespace manyheads::cli_test {
namespace {

using nlohmann::json;

class CliBits : public TinyModel {
 protected:
  void TearDown() override {
    set_isa("");
    TinyModel::TearDown();
  }

  std::string bytes(const std::string& name) const {
    std::ifstream file(path(name), std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  void save_qkv(DType type) {
    std::mt19937 random(5);
    save_safetensors(path("in"), {{"q", normal(type, {1, 4, 70, 72}, random)},
                                  {"k", normal(type, {1, 2, 300, 72}, random)},
                                  {"v", normal(type, {1, 2, 300, 40}, random)}});
  }
};

TEST_F(CliBits, ATraceIsTheSameByteForByteAtEveryInstructionSetOfAFamily) {
  std::map<std::string, std::string> first;  // by family
  for (const std::string& isa : available_isas()) {
    set_isa(isa);
    const Result result =
        program({"trace", many_words(37), "-o", path("t.safetensors")}, {.environment = {{"MANYHEADS_ISA", isa}}});
    ASSERT_EQ(result.code, 0) << result.err;
    const auto [at, is_new] = first.try_emplace(active_bits(), bytes("t.safetensors"));
    EXPECT_FALSE(at->second.empty());
    EXPECT_TRUE(at->second == bytes("t.safetensors")) << isa << " " << active_bits();
  }
}

TEST_F(CliBits, BF16TensorsTakeTheFamilyOfF32WhereAsked) {
  save_qkv(DType::kBF16);
  std::string first;
  for (const std::string& isa : available_isas()) {
    set_isa(isa);
    if (active_bits() != "f32-fma-1") continue;
    const Result result =
        run({"attend", path("in"), "-o", path("out"), "--bits", "f32-fma-1", "--weights", "--explain", "--json"},
            {.environment = {{"MANYHEADS_ISA", isa}}});
    ASSERT_EQ(result.code, 0) << result.err;
    EXPECT_EQ(json::parse(result.out).at("bits"), "f32-fma-1");
    if (first.empty()) first = bytes("out");
    EXPECT_TRUE(first == bytes("out")) << isa;
  }
}

TEST_F(CliBits, F32ThroughTilesIsAskedForByName) {
  save_qkv(DType::kF32);
  save_safetensors(path("weights"), MultiHeadAttention({.d_model = 64, .num_heads = 4}).state_dict());
  std::mt19937 random(6);
  save_safetensors(path("query"), {{"query", normal(DType::kF32, {1, 5, 64}, random)}});
  const auto with = [&](std::vector<std::string> call, const std::string& isa) {
    call.insert(call.end(), {"--bits", "f32-tiles-1"});
    return run(call, {.in = "the cat\n", .environment = {{"MANYHEADS_ISA", isa}}});
  };
  const std::vector<std::string> attend = {"attend", path("in"), "-o", path("out"), "--explain", "--json"};
  std::map<std::string, std::string> first;
  for (const std::string& isa : available_isas()) {
    if (!isa.starts_with("amx")) continue;
    const Result explained = with(attend, isa);
    ASSERT_EQ(explained.code, 0) << explained.err;
    EXPECT_EQ(json::parse(explained.out).at("bits"), "f32-tiles-1");
    EXPECT_TRUE(json::parse(explained.out).at("path").get<std::string>().starts_with("fused forward, F32 by tiles"));
    const std::vector<std::vector<std::string>> calls = {
        attend,
        {"layer", path("weights"), path("query"), "-o", path("out"), "--heads", "4"},
        {"trace", "the cat", "-o", path("out"), "--model", model()}};
    for (const std::vector<std::string>& call : calls) {
      const Result result = with(call, isa);
      ASSERT_EQ(result.code, 0) << result.err;
      const auto [at, is_new] = first.try_emplace(call.front(), bytes("out"));
      EXPECT_TRUE(at->second == bytes("out")) << call.front() << " " << isa;
    }
    for (std::vector<std::string> call : calls) {
      const Result plain = run(call, {.environment = {{"MANYHEADS_ISA", isa}}});
      ASSERT_EQ(plain.code, 0) << plain.err;
      EXPECT_FALSE(first.at(call.front()) == bytes("out")) << call.front() << " " << isa;
    }
  }
  const Result refused = with(attend, "portable");
  EXPECT_EQ(refused.code, 1);
  EXPECT_TRUE(
      is_one_line(refused, "bits \"f32-tiles-1\" cannot be had of F32 products at portable, which gives f32-fma-1"));
}

TEST_F(CliBits, WhatCannotBeHadIsOneLineAndNoFile) {
  save_qkv(DType::kF32);
  save_safetensors(path("weights"), MultiHeadAttention({.d_model = 64, .num_heads = 4}).state_dict());
  std::mt19937 random(6);
  save_safetensors(path("query"), {{"query", normal(DType::kF32, {1, 5, 64}, random)}});
  const std::string says = "bits \"f32-fma-9\" cannot be had of F32 products at portable, which gives f32-fma-1";
  const std::vector<std::vector<std::string>> calls = {
      {"attend", path("in"), "-o", path("out")},
      {"layer", path("weights"), path("query"), "-o", path("out"), "--heads", "4"},
      {"trace", "the cat", "-o", path("out"), "--model", model()},
      {"look", "the cat", "--model", model()},
      {"embed", "--model", model()}};
  for (std::vector<std::string> call : calls) {
    call.insert(call.end(), {"--bits", "f32-fma-9"});
    const Result result = run(call, {.in = "the cat\n", .environment = {{"MANYHEADS_ISA", "portable"}}});
    EXPECT_EQ(result.code, 1) << call.front();
    EXPECT_TRUE(is_one_line(result, says)) << call.front();
    EXPECT_EQ(result.out, "") << call.front();
    EXPECT_FALSE(std::filesystem::exists(path("out"))) << call.front();
  }
}

}  // namespace
}  // namespace manyheads::cli_test
