#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <limits>
#include <fstream>
#include <iterator>
#include <manyheads/error.hpp>
#include <manyheads/lens/patch.hpp>
#include <manyheads/lens/trace.hpp>
#include <manyheads/safetensors.hpp>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "lens/random_trace.hpp"
#include "lens/token_kinds.hpp"
#include "support.hpp"

namespace manyheads::lens {
namespace {

class TraceFileTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = std::filesystem::temp_directory_path() /
              (std::string("manyheads_trace_") + info->name() + "_" + std::to_string(std::random_device{}()));
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::filesystem::path path() const { return folder_ / "trace.safetensors"; }

  std::filesystem::path folder_;
};

void expect_equal(const ConstTensorView& a, const ConstTensorView& b) {
  ASSERT_EQ(a.defined(), b.defined());
  if (!a.defined()) return;
  ASSERT_EQ(a.shape(), b.shape());
  const Dims& shape = a.shape();
  const auto at = [&](const ConstTensorView& v, std::int64_t flat) {
    std::int64_t offset = 0;
    for (int axis = v.rank() - 1; axis >= 0; --axis) {
      offset += flat % shape[axis] * v.stride(axis);
      flat /= shape[axis];
    }
    return static_cast<const float*>(v.data())[offset];
  };
  for (std::int64_t i = 0; i < element_count(shape); ++i) ASSERT_EQ(at(a, i), at(b, i)) << i;
}

TEST_F(TraceFileTest, RoundTrip) {
  std::mt19937 random(5);
  Trace trace = random_trace({4, 2, 5, 5, 3}, [&](Trace& t) {
    t.causal = true;
    t.window = {3, -1};
    t.softcap = 2.5;
    t.alignment = Alignment::kTopLeft;
    t.scale = 1.0 / 3.0;
    t.key_length = 4;
    add(t.layers[0], &TraceLayer::v, random_tensor({2, 5, 6}, random));
    add(t.layers[0], &TraceLayer::bias, random_tensor({5, 5}, random));
    t.layers[0].bias = {};  // row_scores reads a bias by head; only the round trip is of interest here
    add(t.layers[1], &TraceLayer::sinks, random_tensor({4}, random));
  });
  add(trace.layers[1], &TraceLayer::bias, random_tensor({5, 5}, random));
  trace.text2 = "second";
  trace.sequences[2] = 1;
  trace.tokens[1] = "\"\xc3\xa9\"";
  save_trace(path(), trace);
  std::ifstream file(path(), std::ios::binary);
  EXPECT_EQ(trace_bytes(trace), std::string(std::istreambuf_iterator<char>(file), {}));
  const Trace back = load_trace(path());
  EXPECT_EQ(back.model, trace.model);
  EXPECT_EQ(back.text, trace.text);
  EXPECT_EQ(back.text2, trace.text2);
  EXPECT_EQ(back.tokens, trace.tokens);
  EXPECT_EQ(back.token_ids, trace.token_ids);
  EXPECT_EQ(back.offsets, trace.offsets);
  EXPECT_EQ(back.words, trace.words);
  EXPECT_EQ(back.sequences, trace.sequences);
  EXPECT_EQ(back.scale, trace.scale);  // to the last bit
  EXPECT_EQ(back.causal, trace.causal);
  EXPECT_EQ(back.window, trace.window);
  EXPECT_EQ(back.alignment, trace.alignment);
  EXPECT_EQ(back.softcap, trace.softcap);
  EXPECT_EQ(back.key_length, trace.key_length);
  ASSERT_EQ(back.layers.size(), 2u);
  for (std::size_t l = 0; l < 2; ++l) {
    for (const auto part : {&TraceLayer::q, &TraceLayer::k, &TraceLayer::lse, &TraceLayer::v, &TraceLayer::bias,
                            &TraceLayer::sinks, &TraceLayer::row_sum}) {
      expect_equal(back.layers[l].*part, trace.layers[l].*part);
    }
  }
}

TEST_F(TraceFileTest, StridedViewsAreWrittenDense) {
  Trace trace = random_trace({2, 2, 5, 5, 4});
  // The same numbers as [T,H,D] seen as [H,T,D].
  Tensor turned(DType::kF32, {5, 2, 4});
  const float* q = static_cast<const float*>(trace.layers[0].q.data());
  for (std::int64_t h = 0; h < 2; ++h) {
    for (std::int64_t t = 0; t < 5; ++t) std::copy_n(q + (h * 5 + t) * 4, 4, turned.as<float>() + (t * 2 + h) * 4);
  }
  trace.layers[0].q = ConstTensorView(turned.as<float>(), Dims{2, 5, 4}, Dims{4, 8, 1});
  trace.layers[0].storage.push_back(turned);
  save_trace(path(), trace);
  expect_equal(load_trace(path()).layers[0].q, trace.layers[0].q);
  EXPECT_EQ(load_safetensors(path()).at("layers.0.q").shape(), Dims({2, 5, 4}));
}

TEST_F(TraceFileTest, OnlyTokensAndScaleAreNeeded) {
  save_trace(path(), random_trace({}));
  const SafetensorsFile file = load_safetensors(path());
  const auto other = folder_ / "other.safetensors";
  save_safetensors(other, file.tensors,
                   {{"manyheads_trace", "1"}, {"tokens", R"(["a","b","b",".","e"])"}, {"scale", "0.5"}});
  const Trace trace = load_trace(other);
  EXPECT_EQ(trace.key_length, 5);
  EXPECT_FALSE(trace.causal);
  expect_weights(trace);
  const TokenKinds kinds = token_kinds(trace);
  EXPECT_EQ(kinds.ids[1], kinds.ids[2]);
  EXPECT_NE(kinds.ids[0], kinds.ids[1]);
  EXPECT_TRUE(kinds.punctuation[3]);
}

TEST_F(TraceFileTest, AForeignLseNamesTheFile) {
  Trace trace = random_trace({});
  trace.layers[0].storage[2].as<float>()[6] = 0;
  save_trace(path(), trace);
  const std::string error = weights_error(load_trace(path()), 0, 1);
  EXPECT_EQ(error.find("\"" + path().string() + "\": layers.0.lse of head 1, row 1 is 0; q and k give "), 0u) << error;
  EXPECT_NE(error.find("would add up to "), std::string::npos) << error;
}

TEST_F(TraceFileTest, EachMalformationIsItsOwnError) {
  save_trace(path(), random_trace({}));
  const SafetensorsFile good = load_safetensors(path());
  struct Case {
    const char* says;
    std::function<void(StateDict&, std::map<std::string, std::string>&)> change;
  };
  using Tensors = StateDict;
  using Metadata = std::map<std::string, std::string>;
  const std::vector<Case> cases = {
      {"no manyheads_trace", [](Tensors&, Metadata& m) { m.erase("manyheads_trace"); }},
      {"manyheads_trace is", [](Tensors&, Metadata& m) { m["manyheads_trace"] = "2"; }},
      {"no tokens", [](Tensors&, Metadata& m) { m.erase("tokens"); }},
      {"no scale", [](Tensors&, Metadata& m) { m.erase("scale"); }},
      {"tokens is", [](Tensors&, Metadata& m) { m["tokens"] = "[1,2,3,4,5]"; }},
      {"tokens is", [](Tensors&, Metadata& m) { m["tokens"] = "{}"; }},
      {"tokens has 4 entries", [](Tensors&, Metadata& m) { m["tokens"] = R"(["a","b","c","d"])"; }},
      {"metadata tokens", [](Tensors&, Metadata& m) { m["tokens"] = R"(["a")"; }},
      {"scale is", [](Tensors&, Metadata& m) { m["scale"] = "\"x\""; }},
      {"metadata scale", [](Tensors&, Metadata& m) { m["scale"] = "1e999"; }},
      {"token_ids has 1 entries", [](Tensors&, Metadata& m) { m["token_ids"] = "[1]"; }},
      {"token_ids is", [](Tensors&, Metadata& m) { m["token_ids"] = "[1.5,2,3,4,5]"; }},
      {"token_ids is", [](Tensors&, Metadata& m) { m["token_ids"] = "[18446744073709551615,2,3,4,5]"; }},
      {"offsets is", [](Tensors&, Metadata& m) { m["offsets"] = "[[1,2,3]]"; }},
      {"offsets of token 4", [](Tensors&, Metadata& m) { m["offsets"] = "[[0,1],[1,2],[2,3],[3,4],[4,999]]"; }},
      {"offsets of token 0", [](Tensors&, Metadata& m) { m["offsets"] = "[[1,0],[1,2],[2,3],[3,4],[4,5]]"; }},
      {"offsets of token 0", [](Tensors&, Metadata& m) { m["offsets"] = "[[-1,0],[1,2],[2,3],[3,4],[4,5]]"; }},
      {"words has -2", [](Tensors&, Metadata& m) { m["words"] = "[-2,0,0,0,0]"; }},
      {"sequences has 1", [](Tensors&, Metadata& m) { m["sequences"] = "[0,0,1,0,0]"; }},
      {"causal is", [](Tensors&, Metadata& m) { m["causal"] = "1"; }},
      {"metadata causal", [](Tensors&, Metadata& m) { m["causal"] = "True"; }},
      {"window is", [](Tensors&, Metadata& m) { m["window"] = "[1]"; }},
      {"window needs", [](Tensors&, Metadata& m) { m["window"] = "[-2,1]"; }},
      {"alignment is", [](Tensors&, Metadata& m) { m["alignment"] = "middle"; }},
      {"softcap must", [](Tensors&, Metadata& m) { m["softcap"] = "-1"; }},
      {"key_length is 6", [](Tensors&, Metadata& m) { m["key_length"] = "6"; }},
      {"key_length is -1", [](Tensors&, Metadata& m) { m["key_length"] = "-1"; }},
      {"at least one layer", [](Tensors& t, Metadata&) { t = {{"other", t.at("layers.0.q")}}; }},
      {"layers.1.lse", [](Tensors& t, Metadata&) { t.erase("layers.1.lse"); }},
      {"layers.0.k", [](Tensors& t, Metadata&) { t.erase("layers.0.k"); }},
      {"belongs to no layer", [](Tensors& t, Metadata&) { t.erase("layers.0.q"); }},
      {"belongs to no layer", [](Tensors& t, Metadata&) { t["layers.x.q"] = t.at("layers.0.q"); }},
      {"belongs to no layer", [](Tensors& t, Metadata&) { t["layers.3.q"] = t.at("layers.0.q"); }},
      {"belongs to no layer", [](Tensors& t, Metadata&) { t["layers.00.q"] = t.at("layers.0.q"); }},
      {"belongs to no layer", [](Tensors& t, Metadata&) { t["layers.0x.q"] = t.at("layers.0.q"); }},
      {"needs alignment",
       [](Tensors& t, Metadata& m) {
         m["causal"] = "true";
         for (const char* layer : {"layers.0.", "layers.1."}) {
           t[layer + std::string("q")] = Tensor(DType::kF32, {2, 3, 4});
           t[layer + std::string("lse")] = Tensor(DType::kF32, {2, 3});
         }
       }},
      {"offsets give 2500 bytes to tokens of texts of 25",
       [](Tensors& t, Metadata& m) {
         std::string tokens = "[\"a\"", offsets = "[[0,25]";
         for (int i = 1; i < 100; ++i) tokens += ",\"a\"", offsets += ",[0,25]";
         m = {{"manyheads_trace", "1"},
              {"text", std::string(25, 'x')},
              {"tokens", tokens + "]"},
              {"offsets", offsets + "]"},
              {"scale", "1"}};
         t = {{"layers.0.q", Tensor(DType::kF32, {1, 100, 1})},
              {"layers.0.k", Tensor(DType::kF32, {1, 100, 1})},
              {"layers.0.lse", Tensor(DType::kF32, {1, 100})}};
       }},
      {"layers.0.q is F64", [](Tensors& t, Metadata&) { t["layers.0.q"] = Tensor(DType::kF64, {2, 5, 4}); }},
      {"3 axes", [](Tensors& t, Metadata&) { t["layers.0.q"] = Tensor(DType::kF32, {2, 5}); }},
      {"3 axes", [](Tensors& t, Metadata&) { t["layers.0.k"] = Tensor(DType::kF32, {5}); }},
      {"one head size", [](Tensors& t, Metadata&) { t["layers.0.k"] = Tensor(DType::kF32, {2, 5, 3}); }},
      {"multiple", [](Tensors& t, Metadata&) { t["layers.0.k"] = Tensor(DType::kF32, {3, 5, 4}); }},
      {"heads and a head size", [](Tensors& t, Metadata&) { t["layers.0.k"] = Tensor(DType::kF32, {0, 5, 4}); }},
      {"as layer 0", [](Tensors& t, Metadata&) { t["layers.1.k"] = Tensor(DType::kF32, {2, 6, 4}); }},
      {"layers.1.lse is", [](Tensors& t, Metadata&) { t["layers.1.lse"] = Tensor(DType::kF32, {2, 6}); }},
      {"layers.0.v is", [](Tensors& t, Metadata&) { t["layers.0.v"] = Tensor(DType::kF32, {2, 6, 4}); }},
      {"layers.0.sinks is", [](Tensors& t, Metadata&) { t["layers.0.sinks"] = Tensor(DType::kF32, {3}); }},
      {"layers.0.row_sum is [2,6]", [](Tensors& t, Metadata&) { t["layers.0.row_sum"] = Tensor(DType::kF32, {2, 6}); }},
      {"layers.0.row_sum is F64", [](Tensors& t, Metadata&) { t["layers.0.row_sum"] = Tensor(DType::kF64, {2, 5}); }},
      {"layers.0.bias is", [](Tensors& t, Metadata&) { t["layers.0.bias"] = Tensor(DType::kF32, {3, 5}); }},
      {"layers.0.bias is", [](Tensors& t, Metadata&) { t["layers.0.bias"] = Tensor(DType::kF32, {1, 1, 5, 5}); }},
  };
  for (const Case& test : cases) {
    StateDict tensors = good.tensors;
    std::map<std::string, std::string> metadata = good.metadata;
    test.change(tensors, metadata);
    const auto bad = folder_ / "bad.safetensors";
    save_safetensors(bad, tensors, metadata);
    try {
      load_trace(bad);
      ADD_FAILURE() << "loaded: " << test.says;
    } catch (const Error& error) {
      const std::string message = error.what();
      EXPECT_NE(message.find(test.says), std::string::npos) << message << "\nexpected: " << test.says;
      EXPECT_NE(message.find("bad.safetensors"), std::string::npos) << message;
    }
  }
}

// 200 sums that no row of a trace has, and 200 shapes of v and row_sum that belong to no q and k.
TEST_F(TraceFileTest, SumsAndValuesThatDoNotBelongAreErrors) {
  save_trace(path(), random_trace({4, 2, 6, 6, 4}));
  const SafetensorsFile good = load_safetensors(path());
  const auto bad = folder_ / "bad.safetensors";
  const auto error = [&](const std::string& name, const Tensor& tensor) -> std::string {
    StateDict tensors = good.tensors;
    tensors[name] = tensor;
    save_safetensors(bad, tensors, good.metadata);
    try {
      load_trace(bad);
    } catch (const Error& problem) {
      EXPECT_EQ(problem.code(), ErrorCode::kMalformedFile);
      return problem.what();
    }
    return "";
  };
  std::mt19937 random(11);
  const float inf = std::numeric_limits<float>::infinity();
  const float special[] = {-1.0f, -0.5f, 0.2499f, 4.001f, 1e-30f, 1e30f, inf, -inf, std::nanf(""), -1e-40f, 1e-40f};
  int errors = 0;
  for (int i = 0; i < 200; ++i) {
    Tensor sums(DType::kF32, {4, 6});
    for (int at = 0; at < 24; ++at) sums.as<float>()[at] = at % 5 == 0 ? 0.0f : 1.0f;
    EXPECT_EQ(i == 0 ? error("layers.1.row_sum", sums) : "", "");
    const int head = static_cast<int>(random() % 4), row = static_cast<int>(random() % 6);
    sums.as<float>()[head * 6 + row] =
        i < 11 ? special[i] : (i % 2 == 0 ? 4.1f : -0.01f) * static_cast<float>(1 + random() % 1000);
    const std::string said = error("layers.1.row_sum", sums);
    const std::string place = "layers.1.row_sum of head " + std::to_string(head) + ", row " + std::to_string(row);
    EXPECT_NE(said.find(place), std::string::npos) << said << "\nexpected: " << place;
    errors += said.empty() ? 0 : 1;
  }
  for (int i = 0; i < 200; ++i) {
    const bool values = i % 2 == 0;
    Dims shape = values ? Dims{2, 6, 5} : Dims{4, 6};
    const int axis = i / 2 % 2;
    shape[axis] = i % 7 == 0 ? 0 : shape[axis] + 1 + i % 5;
    if (i % 9 == 0) shape = values ? Dims{2, 6} : Dims{4, 6, 1};
    const std::string name = values ? "layers.1.v" : "layers.1.row_sum";
    Tensor tensor(i % 10 == 3 ? DType::kF16 : DType::kF32, shape);
    const std::string said = error(name, tensor);
    EXPECT_NE(said.find(name + " is "), std::string::npos) << said << " for " << shape.to_string();
    errors += said.empty() ? 0 : 1;
  }
  EXPECT_EQ(errors, 400);
}

// What examples/trace_from_pytorch.py wrote, with the weights that PyTorch itself gives.
TEST_F(TraceFileTest, ReadsWhatPyTorchWrote) {
  const auto file = test::source_dir() / "tests/golden/lens/pytorch.safetensors";
  const Trace trace = load_trace(file);
  EXPECT_EQ(trace.tokens, (std::vector<std::string>{"the", "black", "cat", "sat", "on", "the", "mat"}));
  const Tensor expected = load_safetensors(file).at("weights");
  ASSERT_EQ(expected.shape(), Dims({4, 7, 7}));
  for (std::int64_t head = 0; head < 4; ++head) {
    Tensor whole(DType::kF32, {7, 7}), part(DType::kF32, {3, 4});
    trace_weights(trace, 0, head, whole.view());
    patch(trace, 0, head, {2, 5}, {1, 5}, part.view());
    for (std::int64_t i = 0; i < 49; ++i) EXPECT_NEAR(whole.as<float>()[i], expected.as<float>()[head * 49 + i], 1e-6);
    for (std::int64_t i = 0; i < 12; ++i) {
      EXPECT_NEAR(part.as<float>()[i], expected.as<float>()[head * 49 + (2 + i / 4) * 7 + 1 + i % 4], 1e-6);
    }
  }
}

TEST_F(TraceFileTest, FieldsThatDoNotBelongTogetherAreNotWritten) {
  Trace trace = random_trace({});
  trace.tokens.pop_back();
  EXPECT_THROW(save_trace(path(), trace), Error);
  EXPECT_FALSE(std::filesystem::exists(path()));
  EXPECT_THROW(save_trace(path(), Trace{}), Error);
}

}  // namespace
}  // namespace manyheads::lens
