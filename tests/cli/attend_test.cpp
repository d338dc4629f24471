#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <manyheads/attention.hpp>
#include <manyheads/safetensors.hpp>
#include <nlohmann/json.hpp>

#include "base/format.hpp"
#include "program.hpp"
#include "tensors.hpp"

namespace manyheads::cli_test {
namespace {

using nlohmann::json;

class CliAttend : public Folder {
 protected:
  std::mt19937 random_{20240229};

  StateDict qkv(DType type = DType::kF32) {
    return {{"q", normal(type, {2, 4, 5, 16}, random_)},
            {"k", normal(type, {2, 2, 9, 16}, random_)},
            {"v", normal(type, {2, 2, 9, 8}, random_)}};
  }

  Result attend(const StateDict& in, std::vector<std::string> options) {
    save_safetensors(path("in"), in);
    options.insert(options.begin(), {"attend", path("in"), "-o", path("out")});
    return run(options);
  }

  // Runs the program and compares out, lse and, where written, weights with the definition.
  void expect_definition(const StateDict& in, std::vector<std::string> arguments, AttentionOptions options) {
    const Result result = attend(in, std::move(arguments));
    ASSERT_EQ(result.code, 0) << result.err;
    EXPECT_EQ(result.err, "");
    const SafetensorsFile got = load_safetensors(path("out"));
    const Tensor &q = in.at("q"), &k = in.at("k"), &v = in.at("v");
    Tensor out(DType::kF32, {q.size(0), q.size(1), q.size(2), v.size(3)});
    Tensor lse(DType::kF32, {q.size(0), q.size(1), q.size(2)});
    Tensor weights(DType::kF32, {q.size(0), q.size(1), q.size(2), k.size(2)});
    const TensorView lse_view = lse.view();
    options.lse = lse_view;
    attention_reference(q.cview(), k.cview(), v.cview(), out.view(), options, weights.view());
    // Weights may be rounded to BF16 beside values of it, whatever the type of out.
    const bool rounded = q.dtype() == DType::kBF16 || got.at("out").dtype() != DType::kF32;
    EXPECT_LT(difference(got.at("out"), out), rounded ? 2e-2 : 1e-5);
    EXPECT_LT(difference(got.at("lse"), lse), q.dtype() == DType::kF32 ? 1e-5 : 1e-3);
    if (got.tensors.count("weights") != 0) {
      EXPECT_LT(difference(got.at("weights"), weights), 1e-4);
    }
  }
};

TEST_F(CliAttend, Plain) { expect_definition(qkv(), {}, {}); }

// Entries of 3 and 2 queries on 4 and 5 keys, packed, and the same in pages of 16.
TEST_F(CliAttend, PackedSequencesAndPages) {
  StateDict in{{"q", normal(DType::kF32, {5, 4, 16}, random_)},
               {"k", normal(DType::kF32, {9, 2, 16}, random_)},
               {"v", normal(DType::kF32, {9, 2, 8}, random_)}};
  const auto starts = [](std::vector<std::int64_t> values) {
    Tensor tensor(DType::kI64, {static_cast<std::int64_t>(values.size())});
    std::copy(values.begin(), values.end(), tensor.as<std::int64_t>());
    return tensor;
  };
  in.emplace("cu_seqlens_q", starts({0, 3, 5}));
  in.emplace("cu_seqlens_k", starts({0, 4, 9}));
  const Result packed = attend(in, {"--cu-seqlens", "--causal", "bottom-right", "--explain"});
  ASSERT_EQ(packed.code, 0) << packed.err;
  EXPECT_NE(packed.out.find("packed sequences"), std::string::npos);
  const SafetensorsFile got = load_safetensors(path("out"));
  EXPECT_EQ(got.at("out").shape(), (Dims{5, 4, 8}));
  EXPECT_EQ(got.at("lse").shape(), (Dims{4, 5}));

  Tensor out(DType::kF32, {5, 4, 8});
  AttentionOptions options{.mask = mask::causal(Alignment::kBottomRight)};
  options.cu_seqlens_q = in.at("cu_seqlens_q").cview();
  options.cu_seqlens_k = in.at("cu_seqlens_k").cview();
  attention_reference(in.at("q").cview(), in.at("k").cview(), in.at("v").cview(), out.view(), options);
  EXPECT_LT(difference(got.at("out"), out), 1e-5);

  StateDict paged{{"q", in.at("q")}, {"cu_seqlens_q", in.at("cu_seqlens_q")}, {"key_lengths", starts({4, 5})}};
  for (const auto& [name, width] : {std::pair{"k", 16}, {"v", 8}}) {
    Tensor pages(DType::kF32, {2, 2, 16, width});  // entry 0 lies in page 1
    for (std::int64_t row = 0; row < 9; ++row) {
      const std::int64_t page = row < 4 ? 1 : 0;
      const std::int64_t place = row < 4 ? row : row - 4;
      for (std::int64_t h = 0; h < 2; ++h) {
        std::copy_n(in.at(name).as<float>() + (row * 2 + h) * width, width,
                    pages.as<float>() + ((page * 2 + h) * 16 + place) * width);
      }
    }
    paged.emplace(name, pages);
  }
  Tensor table(DType::kI32, {2, 1});
  table.as<std::int32_t>()[0] = 1;
  paged.emplace("page_table", table);
  const Result from_pages = attend(paged, {"--cu-seqlens", "--causal", "bottom-right"});
  ASSERT_EQ(from_pages.code, 0) << from_pages.err;
  EXPECT_EQ(difference(load_safetensors(path("out")).at("out"), got.at("out")), 0.0);

  EXPECT_NE(attend(in, {}).err.find("say --cu-seqlens"), std::string::npos);
  EXPECT_NE(attend(in, {"--cu-seqlens", "--weights"}).err.find("--weights takes plain tensors"), std::string::npos);
}

TEST_F(CliAttend, TakesI8WithIntegerProductsOnRequest) {
  StateDict in = qkv();
  for (const char* name : {"k", "v"}) {
    const Tensor wide = in.at(name);
    Tensor narrow(DType::kI8, wide.shape());
    Tensor scales(DType::kF32, {wide.size(0), wide.size(1), wide.size(2)});
    std::fill_n(scales.as<float>(), scales.elements(), 0.05f);
    for (std::int64_t i = 0; i < wide.elements(); ++i) {
      narrow.as<std::int8_t>()[i] =
          static_cast<std::int8_t>(std::clamp(std::lround(wide.as<float>()[i] / 0.05f), -127L, 127L));
    }
    in.insert_or_assign(name, narrow);
    in.insert_or_assign(base::format("{}_scales", name), scales);
  }
  const auto out_of = [&](const std::vector<std::string>& flags, const std::string& path_says) {
    const Result result = attend(in, flags);
    EXPECT_EQ(result.code, 0) << result.err;
    EXPECT_NE(result.out.find(path_says), std::string::npos) << result.out;
    return load_safetensors(path("out")).at("out");
  };
  const Tensor exact = out_of({"--reference"}, "float64");
  EXPECT_LT(difference(out_of({}, "I8 read as F32"), exact), 1e-5);
  const double coarse = difference(out_of({"--int8-products"}, "I8 products"), exact);
  EXPECT_LT(coarse, 0.05);
  EXPECT_GT(coarse, 1e-5);
  EXPECT_EQ(attend(in, {"--int8-products", "--reference"}).code, 2);
  EXPECT_NE(attend(qkv(), {"--int8-products"}).err.find("int8_products takes I8 keys and values"), std::string::npos);
}

TEST_F(CliAttend, WritesWeightsOnRequest) {
  expect_definition(qkv(), {"--weights"}, {});
  EXPECT_EQ(load_safetensors(path("out")).tensors.size(), 3u);
}

TEST_F(CliAttend, HalfTypesAndTheTypeOfOut) {
  for (const DType type : {DType::kBF16, DType::kF16}) {
    expect_definition(qkv(type), {}, {});
    EXPECT_EQ(load_safetensors(path("out")).at("out").dtype(), type);
    expect_definition(qkv(type), {"--out-dtype", "f32"}, {});
    EXPECT_EQ(load_safetensors(path("out")).at("out").dtype(), DType::kF32);
  }
  expect_definition(qkv(), {"--out-dtype", "bf16"}, {});
  EXPECT_EQ(load_safetensors(path("out")).at("out").dtype(), DType::kBF16);
}

TEST_F(CliAttend, CausalNamesItsCorner) {
  expect_definition(qkv(), {"--causal", "top-left", "--weights"}, {.mask = mask::causal(Alignment::kTopLeft)});
  expect_definition(qkv(), {"--causal", "bottom-right", "--weights"}, {.mask = mask::causal(Alignment::kBottomRight)});
}

TEST_F(CliAttend, WindowCountsFromTheDiagonalOfCausal) {
  expect_definition(qkv(), {"--window", "2,1"}, {.mask = mask::window(2, 1, Alignment::kTopLeft)});
  expect_definition(qkv(), {"--window", "-1,1"}, {.mask = mask::window(-1, 1, Alignment::kTopLeft)});
  expect_definition(qkv(), {"--window", "-1,-1"}, {});
  expect_definition(qkv(), {"--window=0,0", "--causal", "bottom-right"},
                    {.mask = mask::causal(Alignment::kBottomRight) | mask::window(0, 0, Alignment::kBottomRight)});
}

TEST_F(CliAttend, AlignNamesTheCornerWithoutCausal) {
  for (const auto& [corner, alignment] :
       {std::pair{"top-left", Alignment::kTopLeft}, {"bottom-right", Alignment::kBottomRight}}) {
    expect_definition(qkv(), {"--window", "2,1", "--align", corner, "--weights"},
                      {.mask = mask::window(2, 1, alignment)});
    StateDict in = qkv();
    in["alibi_slopes"] = normal(DType::kF32, {4}, random_);
    expect_definition(in, {"--align", corner, "--weights"},
                      {.mask = mask::alibi(in["alibi_slopes"].cview()) | mask::align(alignment)});
    in["key_lengths"] = uniform<std::int32_t>({2}, 6, 8, random_);
    expect_definition(in, {"--align", corner, "--window", "1,0", "--weights"},
                      {.mask = mask::alibi(in["alibi_slopes"].cview()) | mask::key_lengths(in["key_lengths"].cview()) |
                               mask::window(1, 0, alignment)});
    expect_definition(qkv(), {"--causal", corner, "--align", corner}, {.mask = mask::causal(alignment)});
  }
  const Result both = attend(qkv(), {"--causal", "top-left", "--align", "bottom-right"});
  EXPECT_EQ(both.code, 2);
  EXPECT_TRUE(is_one_line(both, "--causal top-left and --align bottom-right"));
}

TEST_F(CliAttend, ScaleAndSoftcap) {
  expect_definition(qkv(), {"--scale", "-0.5"}, {.scale = -0.5});
  expect_definition(qkv(), {"--scale", "0"}, {.scale = 0.0});
  expect_definition(qkv(), {"--scale=-.5", "--softcap", "3.5"}, {.scale = -0.5, .softcap = 3.5});
}

TEST_F(CliAttend, EveryTensorOfMasks) {
  StateDict in = qkv();
  in["allowed"] = uniform<bool>({5, 9}, 0, 1, random_);
  in["bias"] = normal(DType::kF32, {4, 1, 9}, random_);
  in["key_lengths"] = uniform<std::int32_t>({2}, 0, 9, random_);
  in["offsets"] = uniform<std::int64_t>({2}, -2, 4, random_);
  in["q_documents"] = uniform<std::int64_t>({2, 5}, 0, 1, random_);
  in["k_documents"] = uniform<std::int32_t>({2, 9}, 0, 1, random_);
  in["alibi_slopes"] = normal(DType::kF32, {4}, random_);
  in["sinks"] = normal(DType::kF32, {4}, random_);
  AttentionOptions options;
  options.mask = mask::allowed(in["allowed"].cview()) | mask::bias(in["bias"].cview()) |
                 mask::key_lengths(in["key_lengths"].cview()) | mask::offsets(in["offsets"].cview()) |
                 mask::documents(in["q_documents"].cview(), in["k_documents"].cview()) |
                 mask::alibi(in["alibi_slopes"].cview()) | mask::causal(Alignment::kTopLeft);
  options.sinks = in["sinks"].cview();
  expect_definition(in, {"--causal", "top-left", "--weights"}, options);
}

// Any subset of the masks, any flags: the file's names reach the engine as what they are.
TEST_F(CliAttend, RandomSubsetsOfMasks) {
  for (unsigned seed = 0; seed < 40; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    random_.seed(seed);
    const auto coin = [&] { return random_() % 2 == 0; };
    StateDict in = qkv();
    AttentionOptions options;
    std::vector<std::string> arguments{"--weights"};
    const bool bottom = coin(), is_causal = coin();
    const Alignment alignment = is_causal && bottom ? Alignment::kBottomRight : Alignment::kTopLeft;
    Mask mask = mask::align(alignment);
    if (is_causal) {
      mask.causal = true;
      arguments.insert(arguments.end(), {"--causal", bottom ? "bottom-right" : "top-left"});
    }
    if (coin()) {
      mask.window_left = static_cast<std::int64_t>(random_() % 6) - 1;
      mask.window_right = static_cast<std::int64_t>(random_() % 6) - 1;
      arguments.insert(arguments.end(),
                       {"--window", std::to_string(mask.window_left) + "," + std::to_string(mask.window_right)});
    }
    const auto put = [&](const char* name, Tensor tensor) { return (in[name] = std::move(tensor)).cview(); };
    const Tensor bools = uniform<bool>({2, 1, 5, 9}, 0, 1, random_);
    if (coin()) mask.allowed = put("allowed", bools);
    if (coin()) mask.bias = put("bias", normal(DType::kF32, {1, 4, 1, 9}, random_));
    if (coin()) mask.key_lengths = put("key_lengths", uniform<std::int64_t>({2}, 0, 9, random_));
    if (!mask.allowed.defined() && !mask.key_lengths.defined()) {
      mask.ignored = put("ignored", bools);
      mask.key_starts = put("key_starts", uniform<std::int32_t>({2}, 0, 9, random_));
    }
    if (coin()) mask.offsets = put("offsets", uniform<std::int32_t>({2}, -3, 6, random_));
    if (coin()) {
      mask.q_documents = put("q_documents", uniform<std::int32_t>({2, 5}, 0, 1, random_));
      mask.k_documents = put("k_documents", uniform<std::int32_t>({2, 9}, 0, 1, random_));
    }
    if (coin()) mask.alibi_slopes = put("alibi_slopes", normal(DType::kF32, {4}, random_));
    if (coin()) options.sinks = put("sinks", normal(DType::kF32, {4}, random_));
    options.mask = mask;
    if (coin()) {
      options.softcap = 2;
      arguments.insert(arguments.end(), {"--softcap", "2"});
    }
    if (coin()) arguments.push_back("--reference");
    expect_definition(in, arguments, options);
  }
}

TEST_F(CliAttend, LayoutBthd) {
  const auto swapped = [](const Tensor& t) {
    Tensor to(t.dtype(), {t.size(0), t.size(2), t.size(1), t.size(3)});
    for (std::int64_t b = 0; b < t.size(0); ++b) {
      for (std::int64_t i = 0; i < t.size(1); ++i) {
        for (std::int64_t j = 0; j < t.size(2); ++j) {
          const float* row = t.as<float>() + ((b * t.size(1) + i) * t.size(2) + j) * t.size(3);
          std::copy(row, row + t.size(3), to.as<float>() + ((b * t.size(2) + j) * t.size(1) + i) * t.size(3));
        }
      }
    }
    return to;
  };
  const StateDict in = qkv();
  ASSERT_EQ(attend(in, {}).code, 0);
  const SafetensorsFile plain = load_safetensors(path("out"));
  const StateDict turned{{"q", swapped(in.at("q"))}, {"k", swapped(in.at("k"))}, {"v", swapped(in.at("v"))}};
  ASSERT_EQ(attend(turned, {"--layout", "bthd"}).code, 0);
  const SafetensorsFile got = load_safetensors(path("out"));
  EXPECT_EQ(difference(swapped(got.at("out")), plain.at("out")), 0);
  EXPECT_EQ(difference(got.at("lse"), plain.at("lse")), 0);
}

TEST_F(CliAttend, ForbiddenRowsAreZeroAndMinusInfinity) {
  StateDict in = qkv();
  in["key_lengths"] = uniform<std::int32_t>({2}, 0, 0, random_);
  ASSERT_EQ(attend(in, {}).code, 0);
  const SafetensorsFile got = load_safetensors(path("out"));
  EXPECT_EQ(number(got.at("out"), 0), 0);
  EXPECT_EQ(number(got.at("lse"), 0), -HUGE_VAL);
}

TEST_F(CliAttend, JsonSaysWhatRan) {
  const Result result = attend(qkv(), {"--json", "--weights"});
  ASSERT_EQ(result.code, 0) << result.err;
  const json summary = json::parse(result.out);
  EXPECT_EQ(summary.at("out"), path("out"));
  EXPECT_FALSE(summary.at("isa").get<std::string>().empty());
  EXPECT_EQ(summary.at("tensors").at("out").at("shape"), json({2, 4, 5, 8}));
  EXPECT_EQ(summary.at("tensors").at("weights").at("dtype"), "F32");
  const json reference = json::parse(attend(qkv(), {"--json", "--reference"}).out);
  EXPECT_EQ(reference.at("path"), "reference, float64");
  EXPECT_EQ(reference.at("isa"), nullptr);
}

TEST_F(CliAttend, ThreadsDoNotChangeTheFile) {
  const StateDict in = qkv();
  const auto bytes = [&] {
    std::ifstream file(path("out"), std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), {});
  };
  ASSERT_EQ(attend(in, {"--threads", "1"}).code, 0);
  const std::string one = bytes();
  ASSERT_EQ(attend(in, {"--threads", "64"}).code, 0);
  EXPECT_EQ(bytes(), one);
}

TEST_F(CliAttend, MayReplaceItsOwnInput) {
  const StateDict in = qkv();
  ASSERT_EQ(attend(in, {}).code, 0);
  const SafetensorsFile apart = load_safetensors(path("out"));
  ASSERT_EQ(run({"attend", path("in"), "-o", path("in")}).code, 0);
  const SafetensorsFile same = load_safetensors(path("in"));
  EXPECT_EQ(difference(same.at("out"), apart.at("out")), 0);
  EXPECT_EQ(names(), (std::vector<std::string>{"in", "out"}));
}

TEST_F(CliAttend, BadTensorsAreOneLineAndNoFile) {
  using namespace std::string_literals;
  const auto with = [&](const std::string& name, Tensor tensor) {
    StateDict in = qkv();
    in[name] = std::move(tensor);
    return in;
  };
  const auto without = [&](const char* name) {
    StateDict in = qkv();
    in.erase(name);
    return in;
  };
  const std::vector<std::tuple<StateDict, std::vector<std::string>, std::string>> cases = {
      {without("q"), {}, "no tensor \"q\""},
      {without("v"), {}, "no tensor \"v\""},
      {with("extra", normal(DType::kF32, {1}, random_)), {}, "\"extra\""},
      {with("lse", normal(DType::kF32, {2, 4, 5}, random_)), {}, "\"lse\""},
      {with("a\0b"s, normal(DType::kF32, {1}, random_)), {}, "\"a\\u0000b\", which is none of q, k, v"},
      {with("c\u009b31m", normal(DType::kF32, {1}, random_)), {}, "\"c\\u009b31m\", which is none of"},
      {with("c\u202e", normal(DType::kF32, {1}, random_)), {}, "\"c\\u202e\", which is none of"},
      {with("q", normal(DType::kF32, {4, 5, 16}, random_)), {}, "in\" needs the axes [B,H,T,D], has [4,5,16]"},
      {with("page_table", uniform<std::int32_t>({2}, 0, 1, random_)),
       {},
       "page_table is I32 [2], expected I32 or I64 [B,N]"},
      {with("k", normal(DType::kF32, {2, 2, 9, 15}, random_)), {}, "[2,2,9,15]"},
      {with("k", normal(DType::kF32, {2, 3, 9, 16}, random_)), {}, "[2,3,9,16]"},
      {with("v", normal(DType::kF32, {2, 2, 8, 16}, random_)), {}, "[2,2,8,16]"},
      {with("v", normal(DType::kBF16, {2, 2, 9, 8}, random_)), {}, "BF16"},
      {with("q", uniform<std::int32_t>({2, 4, 5, 16}, 0, 9, random_)), {}, "I32"},
      {with("q_documents", uniform<std::int32_t>({2, 5}, 0, 9, random_)), {}, "only one of q_documents"},
      {with("allowed", normal(DType::kF32, {5, 9}, random_)), {}, "allowed"},
      {with("allowed", uniform<bool>({5, 8}, 0, 1, random_)), {}, "[5,8]"},
      {with("key_lengths", uniform<std::int32_t>({2}, 10, 10, random_)), {}, "key_lengths"},
      {with("key_lengths", uniform<std::int32_t>({2}, -1, -1, random_)), {}, "key_lengths"},
      {with("sinks", normal(DType::kF32, {3}, random_)), {}, "sinks"},
      {with("alibi_slopes", normal(DType::kF32, {2}, random_)), {}, "alibi_slopes"},
      {qkv(), {"--softcap", "-1"}, "softcap"},
  };
  for (const auto& [in, arguments, contains] : cases) {
    const Result result = attend(in, arguments);
    EXPECT_EQ(result.code, 1) << contains;
    EXPECT_EQ(result.out, "");
    EXPECT_TRUE(is_one_line(result, contains));
    EXPECT_EQ(names(), std::vector<std::string>{"in"}) << contains;
  }
}

TEST_F(CliAttend, BadFlagsAreUsage) {
  const std::vector<std::vector<std::string>> cases = {
      {"--window", "1"}, {"--window", "1,2,3"}, {"--window", "-2,0"},   {"--window", "a,b"}, {"--causal", "diagonal"},
      {"--causal"},      {"--layout", "hbtd"},  {"--out-dtype", "F64"}, {"--scale", "half"}, {"--softcap", "1e9999x"},
  };
  for (const std::vector<std::string>& arguments : cases) {
    const Result result = attend(qkv(), arguments);
    EXPECT_EQ(result.code, 2) << result.err;
    EXPECT_TRUE(is_one_line(result, arguments[0]));
    EXPECT_EQ(names(), std::vector<std::string>{"in"});
  }
}

TEST_F(CliAttend, BadPathsAreOneLineAndNoFile) {
  save_safetensors(path("in"), qkv());
  std::ofstream(path("text")) << "not a tensor";
  const std::vector<std::array<std::string, 3>> cases = {
      {path("none"), path("out"), "none"},        {path(""), path("out"), ""},
      {path("text"), path("out"), "text"},        {path("in"), path("no/such/folder/out"), "no/such/folder"},
      {path("in"), path("in/out"), "in/out"},     {path("in"), path(""), ""},
      {path("in"), "/dev/full", "No space left"},
  };
  for (const auto& [in, out, contains] : cases) {
    const Result result = run({"attend", in, "-o", out});
    EXPECT_EQ(result.code, 1) << in << " " << out;
    EXPECT_TRUE(is_one_line(result, contains));
    EXPECT_EQ(names(), (std::vector<std::string>{"in", "text"})) << in << " " << out;
  }
}

TEST_F(CliAttend, InterruptLeavesNoFile) {
#if defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "the thread sanitizer holds a signal back until the program calls the system";
#endif
  const Dims shape{1, 1, 8192, 64};
  save_safetensors(path("in"), {{"q", normal(DType::kF32, shape, random_)},
                                {"k", normal(DType::kF32, shape, random_)},
                                {"v", normal(DType::kF32, shape, random_)}});
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    const Result result =
        run({"attend", path("in"), "-o", path("out"), "--reference"}, {.interrupt_after = 0.3, .interrupt = signal});
    EXPECT_EQ(result.signal, signal);
    EXPECT_EQ(result.err, "");
    EXPECT_EQ(names(), std::vector<std::string>{"in"});
  }
}

}  // namespace
}  // namespace manyheads::cli_test
