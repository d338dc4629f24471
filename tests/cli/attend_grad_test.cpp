#include <gtest/gtest.h>

#include <manyheads/attention_backward.hpp>
#include <manyheads/safetensors.hpp>
#include <nlohmann/json.hpp>

#include "program.hpp"
#include "tensors.hpp"

// attend --grad: the gradients of the definition, by the names and the axes of their inputs.
namespace manyheads::cli_test {
namespace {

using nlohmann::json;

class CliAttendGrad : public Folder {
 protected:
  std::mt19937 random_{20240301};

  StateDict inputs(DType type = DType::kF32) {
    return {{"q", normal(type, {2, 4, 5, 16}, random_)},
            {"k", normal(type, {2, 2, 9, 16}, random_)},
            {"v", normal(type, {2, 2, 9, 8}, random_)},
            {"dout", normal(type, {2, 4, 5, 8}, random_)}};
  }

  Result attend(const StateDict& in, std::vector<std::string> options) {
    save_safetensors(path("in"), in);
    options.insert(options.begin(), {"attend", path("in"), "-o", path("out"), "--grad"});
    return run(options);
  }

  // Runs the program and compares every gradient that the input asks for with the definition.
  void expect_definition(const StateDict& in, std::vector<std::string> arguments, const AttentionOptions& options,
                         double bound = 1e-5) {
    const Result result = attend(in, std::move(arguments));
    ASSERT_EQ(result.code, 0) << result.err;
    EXPECT_EQ(result.err, "");
    const SafetensorsFile got = load_safetensors(path("out"));
    StateDict expected;
    AttentionGradients gradients;
    if (in.contains("dlse")) gradients.dlse = in.at("dlse").cview();
    for (const auto& [name, gradient] : {std::pair{"q", &AttentionGradients::dq},
                                         {"k", &AttentionGradients::dk},
                                         {"v", &AttentionGradients::dv},
                                         {"bias", &AttentionGradients::dbias},
                                         {"sinks", &AttentionGradients::dsinks},
                                         {"alibi_slopes", &AttentionGradients::dalibi_slopes}}) {
      if (!in.contains(name)) continue;
      gradients.*gradient =
          expected.emplace(std::string("d") + name, Tensor(DType::kF32, in.at(name).shape())).first->second.view();
    }
    attention_backward_reference(in.at("q").cview(), in.at("k").cview(), in.at("v").cview(), in.at("dout").cview(),
                                 gradients, options);
    EXPECT_EQ(got.tensors.size(), expected.size() + 2);
    for (const auto& [name, tensor] : expected) EXPECT_LT(difference(got.at(name), tensor), bound) << name;
  }
};

TEST_F(CliAttendGrad, Dropout) {
  expect_definition(inputs(), {"--dropout", "0.25", "--dropout-seed", "9223372036854775807"},
                    {.dropout = {.p = 0.25, .seed = 0x7fffffffffffffff}});
  expect_definition(inputs(), {"--dropout", "1"}, {.dropout = {.p = 1}});
  const Result result = attend(inputs(), {"--dropout", "1.5"});
  EXPECT_EQ(result.code, 1);
  EXPECT_NE(result.err.find("dropout.p is 1.5, expected 0 to 1"), std::string::npos) << result.err;
  EXPECT_EQ(attend(inputs(), {"--dropout-seed", "3"}).code, 2);
}

TEST_F(CliAttendGrad, Plain) { expect_definition(inputs(), {}, {}); }

TEST_F(CliAttendGrad, ReferenceIsTheDefinition) {
  expect_definition(inputs(), {"--reference"}, {}, 1e-12);
  expect_definition(inputs(), {"--reference", "--causal", "bottom-right", "--softcap", "2", "--scale", "0.5"},
                    {.mask = mask::causal(Alignment::kBottomRight), .scale = 0.5, .softcap = 2}, 1e-12);
}

TEST_F(CliAttendGrad, EveryTensorThatHasOne) {
  StateDict in = inputs();
  in["bias"] = normal(DType::kF32, {4, 1, 9}, random_);
  in["sinks"] = normal(DType::kF32, {4}, random_);
  in["alibi_slopes"] = normal(DType::kF32, {4}, random_);
  in["dlse"] = normal(DType::kF32, {2, 4, 5}, random_);
  in["key_lengths"] = uniform<std::int32_t>({2}, 0, 9, random_);
  in["q_documents"] = uniform<std::int64_t>({2, 5}, 0, 1, random_);
  in["k_documents"] = uniform<std::int32_t>({2, 9}, 0, 1, random_);
  AttentionOptions options;
  options.mask = mask::bias(in["bias"].cview()) | mask::alibi(in["alibi_slopes"].cview()) |
                 mask::key_lengths(in["key_lengths"].cview()) |
                 mask::documents(in["q_documents"].cview(), in["k_documents"].cview()) |
                 mask::window(4, 2, Alignment::kTopLeft);
  options.sinks = in["sinks"].cview();
  expect_definition(in, {"--window", "4,2"}, options);
  expect_definition(in, {"--window", "4,2", "--reference"}, options, 1e-12);
}

TEST_F(CliAttendGrad, TheGradientByLseCounts) {
  StateDict in = inputs();
  ASSERT_EQ(attend(in, {}).code, 0);
  const SafetensorsFile without = load_safetensors(path("out"));
  in["dlse"] = normal(DType::kF32, {2, 4, 5}, random_);
  ASSERT_EQ(attend(in, {}).code, 0);
  EXPECT_GT(difference(load_safetensors(path("out")).at("dq"), without.at("dq")), 1e-2);
}

TEST_F(CliAttendGrad, TypesFollowTheInputsOrTheFlag) {
  for (const DType type : {DType::kBF16, DType::kF16}) {
    StateDict in = inputs(type);
    in["sinks"] = normal(DType::kF32, {4}, random_);
    in["bias"] = normal(DType::kF32, {5, 9}, random_);
    AttentionOptions options{.mask = mask::bias(in["bias"].cview()), .sinks = in["sinks"].cview()};
    expect_definition(in, {}, options, 5e-2);
    const SafetensorsFile got = load_safetensors(path("out"));
    for (const char* name : {"dq", "dk", "dv"}) EXPECT_EQ(got.at(name).dtype(), type) << name;
    for (const char* name : {"dsinks", "dbias"}) EXPECT_EQ(got.at(name).dtype(), DType::kF32) << name;
    // out and lse of BF16 come from weights that are rounded to it.
    expect_definition(in, {"--out-dtype", "f32"}, options, type == DType::kBF16 ? 2e-2 : 1e-4);
    for (const char* name : {"dq", "dk", "dv"}) EXPECT_EQ(load_safetensors(path("out")).at(name).dtype(), DType::kF32);
  }
  StateDict in = inputs();
  in["bias"] = normal(DType::kF32, {5, 9}, random_);
  in["sinks"] = normal(DType::kF32, {4}, random_);
  ASSERT_EQ(attend(in, {"--out-dtype", "bf16"}).code, 0);
  const SafetensorsFile got = load_safetensors(path("out"));
  for (const char* name : {"dq", "dk", "dv", "dbias"}) EXPECT_EQ(got.at(name).dtype(), DType::kBF16) << name;
  EXPECT_EQ(got.at("dsinks").dtype(), DType::kF32);
}

Tensor swapped(const Tensor& t) {
  Tensor to(t.dtype(), {t.size(0), t.size(2), t.size(1), t.size(3)});
  for (std::int64_t b = 0; b < t.size(0); ++b) {
    for (std::int64_t i = 0; i < t.size(1); ++i) {
      for (std::int64_t j = 0; j < t.size(2); ++j) {
        std::copy_n(t.as<float>() + ((b * t.size(1) + i) * t.size(2) + j) * t.size(3), t.size(3),
                    to.as<float>() + ((b * t.size(2) + j) * t.size(1) + i) * t.size(3));
      }
    }
  }
  return to;
}

TEST_F(CliAttendGrad, LayoutBthd) {
  const StateDict in = inputs();
  ASSERT_EQ(attend(in, {}).code, 0);
  const SafetensorsFile plain = load_safetensors(path("out"));
  StateDict turned;
  for (const auto& [name, tensor] : in) turned.emplace(name, swapped(tensor));
  for (const bool reference : {false, true}) {
    std::vector<std::string> arguments{"--layout", "bthd"};
    if (reference) arguments.push_back("--reference");
    ASSERT_EQ(attend(turned, arguments).code, 0);
    const SafetensorsFile got = load_safetensors(path("out"));
    for (const char* name : {"out", "dq", "dk", "dv"}) {
      EXPECT_LE(difference(swapped(got.at(name)), plain.at(name)), reference ? 1e-5 : 0) << name;
    }
  }
}

// Entries of 3 and 2 queries on 4 and 5 keys.
TEST_F(CliAttendGrad, PackedSequences) {
  StateDict in{{"q", normal(DType::kF32, {5, 4, 16}, random_)},
               {"k", normal(DType::kF32, {9, 2, 16}, random_)},
               {"v", normal(DType::kF32, {9, 2, 8}, random_)},
               {"dout", normal(DType::kF32, {5, 4, 8}, random_)},
               {"dlse", normal(DType::kF32, {4, 5}, random_)}};
  const auto starts = [](std::vector<std::int64_t> values) {
    Tensor tensor(DType::kI64, {static_cast<std::int64_t>(values.size())});
    std::copy(values.begin(), values.end(), tensor.as<std::int64_t>());
    return tensor;
  };
  in.emplace("cu_seqlens_q", starts({0, 3, 5}));
  in.emplace("cu_seqlens_k", starts({0, 4, 9}));
  AttentionOptions options{.mask = mask::causal(Alignment::kBottomRight)};
  options.cu_seqlens_q = in.at("cu_seqlens_q").cview();
  options.cu_seqlens_k = in.at("cu_seqlens_k").cview();
  expect_definition(in, {"--cu-seqlens", "--causal", "bottom-right"}, options);
  expect_definition(in, {"--cu-seqlens", "--causal", "bottom-right", "--layout", "bthd"}, options);
}

TEST_F(CliAttendGrad, SaysWhatRan) {
  const Result text = attend(inputs(), {"--explain"});
  ASSERT_EQ(text.code, 0) << text.err;
  EXPECT_NE(text.out.find("fused forward, F32"), std::string::npos) << text.out;
  EXPECT_NE(text.out.find("; fused backward, F32"), std::string::npos) << text.out;
  EXPECT_EQ(std::count(text.out.begin(), text.out.end(), '\n'), 3) << text.out;
  EXPECT_NE(attend(inputs(), {"--reference"}).out.find("(reference, float64)"), std::string::npos);
  const json summary = json::parse(attend(inputs(), {"--json"}).out);
  EXPECT_EQ(summary.at("path"), "fused forward, F32");
  EXPECT_EQ(summary.at("backward").at("path"), "fused backward, F32");
  EXPECT_EQ(summary.at("backward").at("flop"), 2 * (3 * 16 + 2 * 8) * 2 * 4 * 5 * 9);
  EXPECT_EQ(summary.at("tensors").at("dk").at("shape"), json({2, 2, 9, 16}));
  const json reference = json::parse(attend(inputs(), {"--json", "--reference"}).out);
  EXPECT_FALSE(reference.contains("backward"));
  EXPECT_TRUE(reference.at("tensors").contains("dv"));
}

TEST_F(CliAttendGrad, ThreadsAndWeightsKeepTheGradients) {
  const StateDict in = inputs();
  ASSERT_EQ(attend(in, {"--threads", "1"}).code, 0);
  const SafetensorsFile one = load_safetensors(path("out"));
  ASSERT_EQ(attend(in, {"--threads", "64", "--weights"}).code, 0);
  const SafetensorsFile many = load_safetensors(path("out"));
  EXPECT_TRUE(many.tensors.contains("weights"));
  for (const char* name : {"dq", "dk", "dv"}) EXPECT_EQ(difference(one.at(name), many.at(name)), 0) << name;
}

TEST_F(CliAttendGrad, WhatHasNoneIsOneLineAndNoFile) {
  const auto with = [&](const std::string& name, Tensor tensor) {
    StateDict in = inputs();
    in[name] = std::move(tensor);
    return in;
  };
  StateDict no_dout = inputs();
  no_dout.erase("dout");
  StateDict paged = with("page_table", uniform<std::int32_t>({2, 1}, 0, 1, random_));
  paged["key_lengths"] = uniform<std::int32_t>({2}, 1, 9, random_);
  paged["k"] = normal(DType::kF32, {2, 2, 16, 16}, random_);
  paged["v"] = normal(DType::kF32, {2, 2, 16, 8}, random_);
  StateDict bytes = with("k", uniform<std::int8_t>({2, 2, 9, 16}, -9, 9, random_));
  bytes["v"] = uniform<std::int8_t>({2, 2, 9, 8}, -9, 9, random_);
  bytes["k_scales"] = bytes["v_scales"] = normal(DType::kF32, {2, 2, 9}, random_);
  const std::vector<std::tuple<StateDict, std::vector<std::string>, std::string>> cases = {
      {no_dout, {}, "has no tensor \"dout\""},
      {paged, {}, "keys in pages have no gradient"},
      {bytes, {}, "k is I8 [2,2,9,16]: I8 has no gradient"},
      {bytes, {"--reference"}, "k is I8 [2,2,9,16]: I8 has no gradient"},
      {with("dout", normal(DType::kF32, {2, 4, 5, 7}, random_)), {}, "dout is F32 [2,4,5,7], expected [B,Hq,Tq,Dv]"},
      {with("dout", normal(DType::kF32, {2, 4, 5}, random_)), {}, "dout in"},
      {with("dlse", normal(DType::kF32, {2, 4, 6}, random_)), {}, "dlse is F32 [2,4,6], expected F32 [B,Hq,Tq]"},
      {with("dq", normal(DType::kF32, {2, 4, 5, 16}, random_)), {}, "\"dq\", which is none of"},
  };
  for (const auto& [in, arguments, contains] : cases) {
    const Result result = attend(in, arguments);
    EXPECT_EQ(result.code, 1) << contains;
    EXPECT_EQ(result.out, "");
    EXPECT_TRUE(is_one_line(result, contains));
    EXPECT_EQ(names(), std::vector<std::string>{"in"}) << contains;
  }
  for (const char* name : {"dout", "dlse"}) {
    StateDict in = no_dout;
    in[name] = normal(DType::kF32, {2, 4, 5, 8}, random_);
    save_safetensors(path("in"), in);
    const Result result = run({"attend", path("in"), "-o", path("out")});
    EXPECT_EQ(result.code, 1);
    EXPECT_TRUE(is_one_line(result, std::string("has ") + name + ": say --grad"));
  }
}

}  // namespace
}  // namespace manyheads::cli_test
