#include "lens/trace.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <functional>
#include <limits>
#include <manyheads/error.hpp>
#include <manyheads/safetensors.hpp>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "lens/read_heads.hpp"

namespace manyheads::lens {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

struct Shape {
  std::int64_t heads = 2, kv_heads = 2, queries = 5, keys = 5, head_dim = 4;
};

Tensor random_tensor(const Dims& shape, std::mt19937& random) {
  std::normal_distribution<float> normal(0.0f, 1.0f);
  Tensor tensor(DType::kF32, shape);
  for (std::int64_t i = 0; i < tensor.elements(); ++i) tensor.as<float>()[i] = normal(random);
  return tensor;
}

// The scores of one row by the definition: -inf where the mask forbids.
std::vector<double> row_scores(const Trace& trace, std::size_t l, std::int64_t h, std::int64_t i) {
  const TraceLayer& layer = trace.layers[l];
  const std::int64_t d = layer.q.size(2);
  const std::int64_t group = layer.q.size(0) / layer.k.size(0);
  const std::int64_t offset = trace.alignment == Alignment::kBottomRight ? trace.key_length - layer.q.size(1) : 0;
  const auto at = [](const ConstTensorView& v, std::int64_t a, std::int64_t b, std::int64_t c) {
    return static_cast<double>(
        static_cast<const float*>(v.data())[a * v.stride(0) + b * v.stride(1) + c * v.stride(2)]);
  };
  std::vector<double> scores;
  for (std::int64_t j = 0; j < layer.k.size(1); ++j) {
    double s = 0;
    for (std::int64_t x = 0; x < d; ++x) s += at(layer.q, h, i, x) * at(layer.k, h / group, j, x);
    s *= trace.scale;
    if (trace.softcap > 0) s = trace.softcap * std::tanh(s / trace.softcap);
    if (layer.bias.defined()) s += at(layer.bias, layer.bias.size(0) == 1 ? 0 : h, i, j);
    const std::int64_t diagonal = i + offset;
    const bool allowed = j < trace.key_length && (!trace.causal || j <= diagonal) &&
                         (trace.window[0] < 0 || j >= diagonal - trace.window[0]) &&
                         (trace.window[1] < 0 || j <= diagonal + trace.window[1]);
    scores.push_back(allowed ? s : -kInf);
  }
  return scores;
}

double row_lse(const Trace& trace, std::size_t l, std::int64_t h, std::vector<double> scores) {
  const ConstTensorView& sinks = trace.layers[l].sinks;
  if (sinks.defined()) scores.push_back(static_cast<double>(static_cast<const float*>(sinks.data())[h]));
  const double largest = scores.empty() ? -kInf : *std::max_element(scores.begin(), scores.end());
  if (largest == -kInf) return -kInf;
  double sum = 0;
  for (const double s : scores) sum += std::exp(s - largest);
  return largest + std::log(sum);
}

// `change` sets the mask; lse follows from it.
Trace random_trace(const Shape& shape, const std::function<void(Trace&)>& change = {}) {
  std::mt19937 random(7);
  Trace trace;
  trace.model = "tiny";
  trace.text = "abcdefghijklmnop";
  trace.scale = 0.5;
  trace.key_length = shape.keys;
  for (std::int64_t t = 0; t < shape.keys; ++t) {
    trace.tokens.push_back(std::string(1, static_cast<char>('a' + t)));
    trace.token_ids.push_back(10 + t);
    trace.offsets.push_back({t, t + 1});
    trace.words.push_back(t == 0 || t == shape.keys - 1 ? -1 : t - 1);
    trace.sequences.push_back(trace.words.back() < 0 ? -1 : 0);
  }
  for (int l = 0; l < 2; ++l) {
    Tensor q = random_tensor({shape.heads, shape.queries, shape.head_dim}, random);
    Tensor k = random_tensor({shape.kv_heads, shape.keys, shape.head_dim}, random);
    Tensor lse(DType::kF32, {shape.heads, shape.queries});
    trace.layers.push_back({q.cview(), k.cview(), lse.cview(), {}, {}, {}, {q, k, lse}});
  }
  if (change) change(trace);
  for (std::size_t l = 0; l < trace.layers.size(); ++l) {
    for (std::int64_t h = 0; h < shape.heads; ++h) {
      for (std::int64_t i = 0; i < shape.queries; ++i) {
        trace.layers[l].storage[2].as<float>()[h * shape.queries + i] =
            static_cast<float>(row_lse(trace, l, h, row_scores(trace, l, h, i)));
      }
    }
  }
  return trace;
}

void add(TraceLayer& layer, ConstTensorView TraceLayer::*part, const Tensor& tensor) {
  layer.*part = tensor.cview();
  layer.storage.push_back(tensor);
}

// Every weight of every head against the definition in double.
void expect_weights(const Trace& trace) {
  for (std::size_t l = 0; l < trace.layers.size(); ++l) {
    for (std::int64_t h = 0; h < trace.num_heads(l); ++h) {
      Tensor weights(DType::kF32, {trace.num_queries(), trace.num_keys()});
      trace_weights(trace, l, h, weights.view(), 1);
      for (std::int64_t first = 0; first < trace.num_queries(); first += 2) {  // two rows at a time: the same bits
        Tensor rows(DType::kF32, {std::min<std::int64_t>(2, trace.num_queries() - first), trace.num_keys()});
        trace_rows(trace, l, h, first, rows.view(), 1);
        const auto bytes = static_cast<std::size_t>(rows.elements()) * sizeof(float);
        EXPECT_EQ(std::memcmp(rows.as<float>(), weights.as<float>() + first * trace.num_keys(), bytes), 0) << first;
      }
      for (std::int64_t i = 0; i < trace.num_queries(); ++i) {
        const std::vector<double> scores = row_scores(trace, l, h, i);
        const double lse = row_lse(trace, l, h, scores);
        double sum = 0;
        for (std::int64_t j = 0; j < trace.num_keys(); ++j) {
          const double expected = lse == -kInf ? 0 : std::exp(scores[static_cast<std::size_t>(j)] - lse);
          const double found = static_cast<double>(weights.as<float>()[i * trace.num_keys() + j]);
          EXPECT_NEAR(found, expected, 1e-6) << "layer " << l << " head " << h << " " << i << "," << j;
          sum += found;
        }
        if (!trace.layers[l].sinks.defined() && lse != -kInf) {
          EXPECT_NEAR(sum, 1, 1e-6);
        }
      }
    }
  }
}

TEST(TraceWeightsTest, Plain) { expect_weights(random_trace({})); }
TEST(TraceWeightsTest, GroupedKeys) { expect_weights(random_trace({6, 2, 5, 5, 4})); }
TEST(TraceWeightsTest, Causal) {
  expect_weights(random_trace({}, [](Trace& trace) { trace.causal = true; }));
}
TEST(TraceWeightsTest, CausalBottomRight) {
  expect_weights(random_trace({2, 1, 3, 7, 4}, [](Trace& trace) {
    trace.causal = true;
    trace.alignment = Alignment::kBottomRight;
  }));
}
TEST(TraceWeightsTest, WindowAndSoftcap) {
  expect_weights(random_trace({}, [](Trace& trace) {
    trace.window = {1, 2};
    trace.softcap = 0.7;
  }));
}
TEST(TraceWeightsTest, KeyLength) {
  expect_weights(random_trace({}, [](Trace& trace) { trace.key_length = 3; }));
  expect_weights(random_trace({}, [](Trace& trace) { trace.key_length = 0; }));  // rows without a key are 0
}
TEST(TraceWeightsTest, BiasAndSinks) {
  std::mt19937 random(3);
  for (const std::int64_t bias_heads : {1, 2}) {
    expect_weights(random_trace({}, [&](Trace& trace) {
      for (TraceLayer& layer : trace.layers) {
        add(layer, &TraceLayer::bias, random_tensor({bias_heads, 5, 5}, random));
        add(layer, &TraceLayer::sinks, random_tensor({2}, random));
      }
    }));
  }
}

// What trace_weights says of a head, empty where it gives weights.
std::string weights_error(const Trace& trace, std::size_t layer = 0, std::int64_t head = 0) {
  Tensor weights(DType::kF32, {trace.num_queries(), trace.num_keys()});
  try {
    trace_weights(trace, layer, head, weights.view(), 1);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), trace.place.empty() ? ErrorCode::kInvalidArgument : ErrorCode::kMalformedFile);
    return error.what();
  }
  return "";
}

TEST(TraceWeightsTest, AForeignLseIsAnError) {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  const auto with = [](float lse, const std::function<void(Trace&)>& change = {}) {
    Trace trace = random_trace({}, change);
    trace.layers[1].storage[2].as<float>()[1 * 5 + 3] = lse;
    return trace;
  };
  const Trace right = random_trace({});
  const float own = right.layers[1].storage[2].as<float>()[8];
  for (const float lse : {0.0f, own - 0.001f, own + 0.001f, own - 90, own + 90, -4100.0f, 4100.0f, 3e38f, -3e38f, inf,
                          -inf, nan}) {
    const Trace trace = with(lse);
    EXPECT_NE(weights_error(trace, 1, 1).find("trace_weights: layers.1.lse of head 1, row 3 is "), std::string::npos)
        << lse << weights_error(trace, 1, 1);
    EXPECT_EQ(weights_error(trace, 1, 0), "");
  }
  for (const float lse : {0.0f, inf, nan, 3e38f}) {  // rows without a key
    EXPECT_NE(weights_error(with(lse, [](Trace& trace) { trace.key_length = 0; }), 1, 1), "") << lse;
  }
  // The same of another scale, softcap, mask, bias or sink than those that the file tells.
  for (const std::function<void(Trace&)>& change : std::vector<std::function<void(Trace&)>>{
           [](Trace& t) { t.scale = 0.51; }, [](Trace& t) { t.softcap = 1; }, [](Trace& t) { t.causal = true; },
           [](Trace& t) { t.key_length = 4; }, [](Trace& t) { t.window = {0, 0}; },
           [](Trace& t) { add(t.layers[0], &TraceLayer::sinks, Tensor(DType::kF32, {2})); }}) {
    Trace trace = random_trace({});
    EXPECT_EQ(weights_error(trace), "");
    change(trace);
    EXPECT_NE(weights_error(trace), "");
  }
}

// Large scores round coarsely: the bound follows them.
TEST(TraceWeightsTest, ItsOwnLseIsNone) {
  for (const double size : {1e-3, 1.0, 30.0, 1e3, 1e6, 1e12}) {
    for (const std::int64_t depth : {1, 4, 64, 300}) {
      const Trace trace = random_trace({4, 2, 9, 9, depth}, [&](Trace& t) { t.scale = size; });
      for (std::int64_t h = 0; h < 4; ++h) EXPECT_EQ(weights_error(trace, 1, h), "") << size << " " << depth;
    }
  }
  // Scores beyond F32 give NaN, and an lse that is none.
  Trace trace = random_trace({}, [&](Trace& t) {
    for (TraceLayer& layer : t.layers) std::fill_n(layer.storage[0].as<float>(), 40, std::nanf(""));
  });
  EXPECT_EQ(weights_error(trace), "");
}

TEST(TraceWeightsTest, NoSuchHeadOrShapeIsAnError) {
  const Trace trace = random_trace({});
  Tensor weights(DType::kF32, {5, 5});
  EXPECT_THROW(trace_weights(trace, 2, 0, weights.view()), Error);
  EXPECT_THROW(trace_weights(trace, 0, 2, weights.view()), Error);
  EXPECT_THROW(trace_weights(trace, 0, -1, weights.view()), Error);
  Tensor other(DType::kF32, {5, 4});
  EXPECT_THROW(trace_weights(trace, 0, 0, other.view()), Error);
  Tensor rows(DType::kF32, {2, 5});
  EXPECT_NO_THROW(trace_rows(trace, 0, 0, 3, rows.view()));
  EXPECT_THROW(trace_weights(trace, 0, 0, rows.view()), Error);
  EXPECT_THROW(trace_rows(trace, 0, 2, 3, rows.view()), Error);
  EXPECT_THROW(trace_rows(trace, 0, 0, 4, rows.view()), Error);
  EXPECT_THROW(trace_rows(trace, 0, 0, -1, rows.view()), Error);
}

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
    for (const auto part :
         {&TraceLayer::q, &TraceLayer::k, &TraceLayer::lse, &TraceLayer::v, &TraceLayer::bias, &TraceLayer::sinks}) {
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
      {"at least one layer",
       [](Tensors& t, Metadata&) {
         t = {{"other", t.at("layers.0.q")}};
       }},
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
      {"layers.0.q is F64",
       [](Tensors& t, Metadata&) {
         t["layers.0.q"] = Tensor(DType::kF64, {2, 5, 4});
       }},
      {"3 axes",
       [](Tensors& t, Metadata&) {
         t["layers.0.q"] = Tensor(DType::kF32, {2, 5});
       }},
      {"3 axes", [](Tensors& t, Metadata&) { t["layers.0.k"] = Tensor(DType::kF32, {5}); }},
      {"one head size",
       [](Tensors& t, Metadata&) {
         t["layers.0.k"] = Tensor(DType::kF32, {2, 5, 3});
       }},
      {"multiple",
       [](Tensors& t, Metadata&) {
         t["layers.0.k"] = Tensor(DType::kF32, {3, 5, 4});
       }},
      {"heads and a head size",
       [](Tensors& t, Metadata&) {
         t["layers.0.k"] = Tensor(DType::kF32, {0, 5, 4});
       }},
      {"as layer 0",
       [](Tensors& t, Metadata&) {
         t["layers.1.k"] = Tensor(DType::kF32, {2, 6, 4});
       }},
      {"layers.1.lse is",
       [](Tensors& t, Metadata&) {
         t["layers.1.lse"] = Tensor(DType::kF32, {2, 6});
       }},
      {"layers.0.v is",
       [](Tensors& t, Metadata&) {
         t["layers.0.v"] = Tensor(DType::kF32, {2, 6, 4});
       }},
      {"layers.0.sinks is", [](Tensors& t, Metadata&) { t["layers.0.sinks"] = Tensor(DType::kF32, {3}); }},
      {"layers.0.bias is",
       [](Tensors& t, Metadata&) {
         t["layers.0.bias"] = Tensor(DType::kF32, {3, 5});
       }},
      {"layers.0.bias is",
       [](Tensors& t, Metadata&) {
         t["layers.0.bias"] = Tensor(DType::kF32, {1, 1, 5, 5});
       }},
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

TEST_F(TraceFileTest, FieldsThatDoNotBelongTogetherAreNotWritten) {
  Trace trace = random_trace({});
  trace.tokens.pop_back();
  EXPECT_THROW(save_trace(path(), trace), Error);
  EXPECT_FALSE(std::filesystem::exists(path()));
  EXPECT_THROW(save_trace(path(), Trace{}), Error);
}

}  // namespace
}  // namespace manyheads::lens
