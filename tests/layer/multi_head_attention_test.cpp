#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <limits>
#include <manyheads/cpu.hpp>
#include <manyheads/error.hpp>
#include <manyheads/multi_head_attention.hpp>
#include <manyheads/safetensors.hpp>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "allocations.hpp"
#include "layer/convert.hpp"
#include "layer/layer_reference.hpp"
#include "layer/random_tensor.hpp"
#include "support.hpp"

namespace manyheads {
namespace {

namespace fs = std::filesystem;
using layer_test::random_tensor;
using test::error_of;

std::vector<unsigned char> bits(const Tensor& tensor) {
  const auto* begin = static_cast<const unsigned char*>(tensor.bytes());
  return {begin, begin + static_cast<std::size_t>(tensor.elements()) * size_of(tensor.dtype())};
}

struct Fixture {
  MultiHeadAttention layer;
  Tensor x;

  explicit Fixture(std::int64_t tokens = 70, std::int64_t batch = 3,
                   MultiHeadAttentionConfig config = {.d_model = 48, .num_heads = 4})
      : layer(config) {
    std::mt19937_64 random(7);
    StateDict state = layer.state_dict();
    for (auto& [name, tensor] : state) tensor = random_tensor(random, tensor.shape(), 0.3, config.dtype);
    layer.load_state_dict(state);
    x = random_tensor(random, {batch, tokens, config.d_model});
  }
  Tensor forward(const MultiHeadAttentionOptions& options = {}) const {
    Tensor y(DType::kF32, x.shape());
    layer.forward(x.cview(), y.view(), options);
    return y;
  }
};

TEST(MultiHeadAttention, AnyNumberOfThreadsGivesTheSameBits) {
  const Fixture f(200, 2, {.d_model = 128, .num_heads = 8, .num_kv_heads = 2});
  const std::vector<unsigned char> expected = bits(f.forward({.threads = {.num_threads = 1}}));
  for (const int threads : {2, 3, 8, 64})
    EXPECT_EQ(bits(f.forward({.threads = {.num_threads = threads}})), expected) << threads;
}

TEST(MultiHeadAttention, AnyPlaceInTheBatchGivesTheSameBits) {
  const Fixture f(33, 5);
  const std::vector<unsigned char> all = bits(f.forward());
  const std::size_t bytes = all.size() / 5;
  for (std::int64_t b = 0; b < 5; ++b) {
    Tensor y(DType::kF32, {1, 33, 48});
    f.layer.forward(ConstTensorView(f.x.as<float>() + b * 33 * 48, {1, 33, 48}), y.view());
    const std::vector<unsigned char> one = bits(y);
    EXPECT_TRUE(std::equal(one.begin(), one.end(),
                           all.begin() + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(b) * bytes)));
  }
}

TEST(MultiHeadAttention, FromAStateDictNoOtherWeightsAreMade) {
  const Fixture f(9, 3);
  const MultiHeadAttention same(f.layer.config(), f.layer.state_dict());
  Tensor y(DType::kF32, f.x.shape());
  same.forward(f.x.cview(), y.view());
  EXPECT_EQ(bits(y), bits(f.forward()));
  StateDict state = f.layer.state_dict();
  state.erase("out_proj.weight");
  EXPECT_EQ(error_of([&] { MultiHeadAttention(f.layer.config(), state); }),
            "MultiHeadAttention: missing out_proj.weight [48,48]");
}

TEST(MultiHeadAttention, StridesAndPathsGiveTheSameBits) {
  const Fixture f(9, 3);
  const Tensor expected = f.forward();
  // [T,B,E] in memory, as nn.MultiheadAttention has it without batch_first; the output every second float.
  Tensor turned(DType::kF32, {9, 3, 48}), wide(DType::kF32, {3, 9, 96});
  for (std::int64_t b = 0; b < 3; ++b) {
    for (std::int64_t t = 0; t < 9; ++t) {
      std::copy_n(f.x.as<float>() + (b * 9 + t) * 48, 48, turned.as<float>() + (t * 3 + b) * 48);
    }
  }
  const ConstTensorView x(turned.as<float>(), {3, 9, 48}, {48, 3 * 48, 1});
  f.layer.forward(x, TensorView(wide.as<float>(), {3, 9, 48}, {9 * 96, 96, 2}));
  for (std::int64_t i = 0; i < expected.elements(); ++i) EXPECT_EQ(wide.as<float>()[2 * i], expected.as<float>()[i]);

  // Three products instead of one: another view of the same numbers as key and value.
  Tensor y(DType::kF32, f.x.shape());
  f.layer.forward(f.x.cview(), x, x, y.view());
  EXPECT_EQ(bits(y), bits(expected));

  // In place, and within a caller's workspace, which stops growing.
  Workspace workspace;
  for (int round = 0; round < 3; ++round) {
    Tensor in_place = layer::converted(f.x.cview(), DType::kF32);
    const std::size_t before = workspace.capacity();
    f.layer.forward(in_place.cview(), in_place.view(), {.workspace = &workspace});
    EXPECT_EQ(bits(in_place), bits(expected));
    if (round > 0) {
      EXPECT_EQ(workspace.capacity(), before);
    }
  }
}

class CountingExecutor : public Executor {
 public:
  int concurrency() const noexcept override { return 64; }
  void run(std::int64_t count, Task task, void* context) override {
    ++calls;
    for (std::int64_t i = count - 1; i >= 0; --i) task(context, i);
  }
  int calls = 0;
};

TEST(MultiHeadAttention, RunsOnTheCallersThreads) {
  const Fixture f(200, 2, {.d_model = 128, .num_heads = 8});
  CountingExecutor executor;
  EXPECT_EQ(bits(f.forward({.threads = {.num_threads = 4, .executor = &executor}})), bits(f.forward()));
  EXPECT_GT(executor.calls, 0);
}

TEST(MultiHeadAttention, ServesManyThreadsAtOnce) {
  const Fixture f(20, 2);
  const std::vector<unsigned char> expected = bits(f.forward());
  std::vector<Tensor> results(8);
  std::vector<std::thread> callers;
  for (std::size_t i = 0; i < results.size(); ++i) {
    callers.emplace_back([&, i] {
      results[i] = Tensor(DType::kF32, f.x.shape());
      const Tensor own = layer::converted(f.x.cview(), DType::kF32);
      // Key and value of other memory: the first of these calls packs the three matrices apart.
      f.layer.forward(f.x.cview(), own.cview(), own.cview(), results[i].view());
    });
  }
  for (std::thread& caller : callers) caller.join();
  for (const Tensor& result : results) EXPECT_EQ(bits(result), expected);
}

TEST(MultiHeadAttention, HeadScaleZeroTakesAHeadOut) {
  const Fixture f(12);
  const std::vector<float> scale{1, 0, 1, 1};
  const Tensor y = f.forward({.head_scale = ConstTensorView(scale.data(), {4})});
  // The same layer with the columns of W_o that head 1 feeds set to 0.
  StateDict state = f.layer.state_dict();
  Tensor w = layer::converted(state["out_proj.weight"].cview(), DType::kF32);
  for (std::int64_t row = 0; row < 48; ++row) std::fill_n(w.as<float>() + row * 48 + 12, 12, 0.0f);
  state["out_proj.weight"] = w;
  MultiHeadAttention without(f.layer.config());
  without.load_state_dict(state);
  Tensor expected(DType::kF32, y.shape());
  without.forward(f.x.cview(), expected.view());
  for (std::int64_t i = 0; i < y.elements(); ++i) ASSERT_EQ(y.as<float>()[i], expected.as<float>()[i]);
  EXPECT_NE(bits(y), bits(f.forward()));
}

TEST(MultiHeadAttention, ForbiddenRowsGiveTheOutputBias) {
  const Fixture f(5, 2);
  Tensor padding(DType::kBool, {2, 5});
  std::fill_n(padding.as<bool>() + 5, 5, true);
  Tensor weights(DType::kF32, {2, 4, 5, 5});
  const TensorView view = weights.view();
  const Tensor y = f.forward({.key_padding_mask = padding.cview(), .weights = view});
  const StateDict state = f.layer.state_dict();
  const float* bias = state.at("out_proj.bias").as<float>();
  for (std::int64_t i = 0; i < 5 * 48; ++i) ASSERT_EQ(y.as<float>()[5 * 48 + i], bias[i % 48]);
  for (std::int64_t i = 0; i < 4 * 25; ++i) ASSERT_EQ(weights.as<float>()[4 * 25 + i], 0);
  EXPECT_EQ(std::vector<float>(y.as<float>(), y.as<float>() + 48), [&] {
    const Tensor plain = f.forward();
    return std::vector<float>(plain.as<float>(), plain.as<float>() + 48);
  }());

  // No keys at all.
  Tensor none(DType::kF32, {2, 0, 48}), out(DType::kF32, {2, 5, 48});
  f.layer.forward(f.x.cview(), none.cview(), none.cview(), out.view());
  for (std::int64_t i = 0; i < out.elements(); ++i) ASSERT_EQ(out.as<float>()[i], bias[i % 48]);
}

TEST(MultiHeadAttention, PaddingIsNeverRead) {
  const Fixture f(6, 1);
  Tensor padding(DType::kBool, {1, 6});
  padding.as<bool>()[4] = padding.as<bool>()[5] = true;
  const MultiHeadAttentionOptions options{.key_padding_mask = padding.cview()};
  const Tensor expected = f.forward(options);
  Fixture spoilt(6, 1);
  std::fill_n(spoilt.x.as<float>() + 4 * 48, 2 * 48, std::numeric_limits<float>::quiet_NaN());
  const Tensor y = spoilt.forward(options);
  EXPECT_EQ(std::memcmp(y.as<float>(), expected.as<float>(), 4 * 48 * sizeof(float)), 0);
  EXPECT_TRUE(std::isnan(y.as<float>()[5 * 48]));  // a query of NaN stays one
}

TEST(MultiHeadAttention, LargeFiniteMasksStayNumbers) {
  const Fixture f(6, 1);
  Tensor lowest(DType::kF32, {6, 6}), padding(DType::kF32, {1, 6}), weights(DType::kF32, {1, 4, 6, 6});
  std::fill_n(lowest.as<float>(), 36, std::numeric_limits<float>::lowest());
  std::fill_n(padding.as<float>(), 6, std::numeric_limits<float>::lowest());
  const TensorView view = weights.view();
  f.forward({.key_padding_mask = padding.cview(), .attn_mask = lowest.cview(), .weights = view});
  // The sum would be -inf, which forbids. What stays is a uniform mean.
  for (int i = 0; i < 4 * 36; ++i) EXPECT_FLOAT_EQ(weights.as<float>()[i], 1.0f / 6);
  // -inf forbids whatever the other mask says.
  lowest.as<float>()[0] = -std::numeric_limits<float>::infinity();
  padding.as<float>()[0] = std::numeric_limits<float>::infinity();
  f.forward({.key_padding_mask = padding.cview(), .attn_mask = lowest.cview(), .weights = view});
  EXPECT_EQ(weights.as<float>()[0], 0);
  EXPECT_FLOAT_EQ(weights.as<float>()[1], 1.0f / 5);
}

TEST(MultiHeadAttention, AForwardWithAWorkspaceAllocatesNothing) {
  for (const DType type : {DType::kF32, DType::kBF16}) {
    const MultiHeadAttention layer({.d_model = 96, .num_heads = 4, .dtype = type});
    std::mt19937_64 random(9);
    const Tensor x = random_tensor(random, {2, 30, 96});
    Tensor y(DType::kF32, x.shape());
    Workspace workspace;
    for (const int threads : {1, 2}) {
      const MultiHeadAttentionOptions options{
          .mask = mask::causal(), .threads = {.num_threads = threads}, .workspace = &workspace};
      layer.forward(x.cview(), y.view(), options);
      const std::size_t capacity = workspace.capacity();
      const std::int64_t before = test::allocations();
      layer.forward(x.cview(), y.view(), options);
      EXPECT_EQ(test::allocations(), before) << name_of(type) << ", " << threads;
      EXPECT_EQ(workspace.capacity(), capacity);
    }
  }
}

// The bits of one sequence alone, whatever shares the call with it, at each instruction set.
TEST(MultiHeadAttention, Bf16WeightsKeepTheBitsOfASequenceInAnyBatch) {
  for (const std::string& isa : available_isas()) {
    set_isa(isa);
    const MultiHeadAttention layer({.d_model = 80, .num_heads = 5, .dtype = DType::kBF16});
    std::mt19937_64 random(10);
    const Tensor x = random_tensor(random, {40, 9, 80});  // more rows than a task of a projection
    Tensor all(DType::kF32, x.shape()), one(DType::kF32, {1, 9, 80});
    for (const int threads : {1, 3}) {
      layer.forward(x.cview(), all.view(), {.threads = {.num_threads = threads}});
      for (std::int64_t b = 0; b < 40; ++b) {
        const ConstTensorView alone(x.as<float>() + b * 9 * 80, Dims{1, 9, 80});
        layer.forward(alone, one.view());
        EXPECT_EQ(std::memcmp(one.bytes(), std::as_const(all).as<float>() + b * 9 * 80, 9 * 80 * sizeof(float)), 0)
            << isa << ", entry " << b << ", " << threads << " threads";
      }
    }
  }
  set_isa("");
}

TEST(MultiHeadAttention, StateDictSurvivesAFile) {
  const fs::path path = fs::path(testing::TempDir()) / "layer_state.safetensors";
  for (const DType type : {DType::kF32, DType::kBF16, DType::kF16}) {
    for (const bool stacked : {true, false}) {
      MultiHeadAttentionConfig config{.d_model = 24, .num_heads = 4, .add_bias_kv = true, .dtype = type};
      if (!stacked) config.num_kv_heads = 2, config.vdim = 10;
      const MultiHeadAttention layer(config);
      const StateDict state = layer.state_dict();
      EXPECT_EQ(state.contains("in_proj_weight"), stacked);
      EXPECT_EQ(state.contains("k_proj_weight"), !stacked);
      save_safetensors(path, state);
      MultiHeadAttention other(config);
      other.load_state_dict(load_safetensors(path).tensors);
      const StateDict again = other.state_dict();
      ASSERT_EQ(again.size(), state.size());
      for (const auto& [name, tensor] : state) {
        EXPECT_EQ(again.at(name).dtype(), type);
        EXPECT_EQ(bits(again.at(name)), bits(tensor)) << name;
      }
    }
  }
  fs::remove(path);
}

TEST(MultiHeadAttention, LoadsTheThreeMatricesApart) {
  const Fixture f(7);
  StateDict state = f.layer.state_dict();
  const float* all = std::as_const(state.at("in_proj_weight")).as<float>();
  for (const char* name : {"q_proj_weight", "k_proj_weight", "v_proj_weight"}) {
    Tensor part(DType::kF32, {48, 48});
    std::copy_n(all, 48 * 48, part.as<float>());
    all += 48 * 48;
    state[name] = part;
  }
  state.erase("in_proj_weight");
  MultiHeadAttention layer(f.layer.config());
  layer.load_state_dict(state);
  Tensor y(DType::kF32, f.x.shape());
  layer.forward(f.x.cview(), y.view());
  EXPECT_EQ(bits(y), bits(f.forward()));
  EXPECT_TRUE(layer.state_dict().contains("in_proj_weight"));
}

TEST(MultiHeadAttention, LoadNamesWhatDoesNotFit) {
  Fixture f(7);
  const std::vector<unsigned char> before = bits(f.forward());
  const StateDict good = f.layer.state_dict();
  const auto error = [&](const std::function<void(StateDict&)>& change) {
    StateDict state = good;
    change(state);
    return error_of([&] { f.layer.load_state_dict(state); });
  };
  EXPECT_EQ(error([](StateDict& s) {
              s.erase("out_proj.bias");
              s.erase("in_proj_bias");
              s["gate"] = Tensor(DType::kF32, {1});
            }),
            "MultiHeadAttention::load_state_dict: missing in_proj_bias [144], out_proj.bias [48]; not a tensor of this "
            "layer: \"gate\"");
  EXPECT_EQ(error([](StateDict& s) { s["out_proj.weight"] = Tensor(DType::kF32, {48, 47}); }),
            "MultiHeadAttention::load_state_dict: out_proj.weight is [48,47], expected [48,48]");
  EXPECT_EQ(error([](StateDict& s) { s["out_proj.bias"] = Tensor(DType::kF64, {48}); }),
            "MultiHeadAttention::load_state_dict: out_proj.bias is F64, expected F32, BF16 or F16");
  EXPECT_EQ(error([](StateDict& s) { s["q_proj_weight"] = s["out_proj.weight"]; }),
            "MultiHeadAttention::load_state_dict: not a tensor of this layer: \"q_proj_weight\"");
  EXPECT_EQ(bits(f.forward()), before);
}

TEST(MultiHeadAttention, SaysWhichHeadCountsDivide) {
  EXPECT_EQ(head_count_problem(512, 8), "");
  EXPECT_EQ(head_count_problem(512, 7),
            "d_model 512 is not divisible by 7 heads (512 = 7 * 73 + 1); 1, 2, 4, 8, 16, 32, 64, 128, 256, 512 would "
            "divide");
  EXPECT_EQ(head_count_problem(4, 8), "d_model 4 is not divisible by 8 heads (4 = 8 * 0 + 4); 1, 2, 4 would divide");
  EXPECT_EQ(head_count_problem(512, 0), "num_heads is 0, expected at least 1");
  EXPECT_EQ(head_count_problem(-1, 2), "d_model is -1, expected at least 1");
  EXPECT_NE(head_count_problem(720720, 17).find(", ... would divide"), std::string::npos);
  EXPECT_EQ(error_of([] {
              MultiHeadAttention({.d_model = 512, .num_heads = 7});
            }).rfind("MultiHeadAttention: d_model 512", 0),
            0U);
}

TEST(MultiHeadAttention, ConstructorRefusesWhatMakesNoLayer) {
  const auto error = [](const MultiHeadAttentionConfig& config, ErrorCode code = ErrorCode::kInvalidArgument) {
    return error_of([&] { MultiHeadAttention layer(config); }, code);
  };
  EXPECT_EQ(error({.d_model = 8, .num_heads = 4, .num_kv_heads = 3}),
            "MultiHeadAttention: num_heads 4 is not a multiple of num_kv_heads 3");
  EXPECT_EQ(error({.d_model = 8, .num_heads = 4, .num_kv_heads = -1}),
            "MultiHeadAttention: num_heads 4 is not a multiple of num_kv_heads -1");
  EXPECT_EQ(error({.d_model = 8, .num_heads = 4, .kdim = -2}), "MultiHeadAttention: kdim is -2, expected a width");
  EXPECT_EQ(error({.d_model = 8, .num_heads = 4, .vdim = -2}), "MultiHeadAttention: vdim is -2, expected a width");
  EXPECT_EQ(error({.d_model = 8, .num_heads = 4, .dtype = DType::kI64}),
            "MultiHeadAttention: dtype is I64, expected F32, BF16 or F16");
  EXPECT_NE(error({.d_model = std::int64_t{1} << 62, .num_heads = 1}, ErrorCode::kOutOfMemory), "no error");
  EXPECT_NE(error({.d_model = std::int64_t{1} << 31, .num_heads = 1}), "no error");
}

TEST(MultiHeadAttention, ForwardNamesTheArgumentAndTheShapes) {
  const MultiHeadAttention layer({.d_model = 8, .num_heads = 2});
  const MultiHeadAttention cross({.d_model = 8, .num_heads = 2, .kdim = 5});
  Tensor x(DType::kF32, {2, 3, 8}), y(DType::kF32, {2, 3, 8}), other(DType::kF32, {2, 4, 8});
  Tensor half(DType::kBF16, {2, 3, 8}), ints(DType::kI32, {2, 3, 8}), flat(DType::kF32, {3, 8}),
      narrow(DType::kF32, {2, 3, 7});
  const auto error = [&](const MultiHeadAttentionOptions& options) {
    const std::string what = error_of([&] { layer.forward(x.cview(), y.view(), options); });
    EXPECT_EQ(what.rfind("MultiHeadAttention::forward: ", 0), 0U) << what;
    return what.substr(std::min(what.size(), std::strlen("MultiHeadAttention::forward: ")));
  };
  const auto call = [&](const ConstTensorView& q, const ConstTensorView& k, const ConstTensorView& v,
                        const TensorView& to) {
    const std::string what = error_of([&] { layer.forward(q, k, v, to); });
    EXPECT_EQ(what.rfind("MultiHeadAttention::forward: ", 0), 0U) << what;
    return what.substr(std::min(what.size(), std::strlen("MultiHeadAttention::forward: ")));
  };
  EXPECT_EQ(call(flat.cview(), x.cview(), x.cview(), y.view()), "query is [3,8], expected [batch, tokens, 8]");
  EXPECT_EQ(call(narrow.cview(), x.cview(), x.cview(), y.view()), "query is [2,3,7], expected a last dimension of 8");
  EXPECT_EQ(call(ints.cview(), x.cview(), x.cview(), y.view()), "query is I32, expected F32, BF16 or F16");
  EXPECT_EQ(call({}, x.cview(), x.cview(), y.view()), "query is missing");
  EXPECT_EQ(call(x.cview(), half.cview(), x.cview(), y.view()), "key is BF16, query is F32: they must be of one type");
  EXPECT_EQ(call(x.cview(), x.cview(), other.cview(), y.view()),
            "query, key and value do not fit together (query [2,3,8], key [2,3,8], value [2,4,8])");
  EXPECT_EQ(call(x.cview(), x.cview(), x.cview(), other.view()), "y is [2,4,8], expected [2,3,8] as query");
  EXPECT_EQ(call(x.cview(), x.cview(), x.cview(), ints.view()), "y is I32, expected F32, BF16 or F16");
  EXPECT_EQ(call(x.cview(), x.cview(), x.cview(), TensorView(y.as<float>(), {2, 3, 8}, {8, 8, 1})),
            "y F32 [2,3,8] with strides [8,8,1] overlaps itself");
  EXPECT_EQ(error_of([&] { cross.forward(x.cview(), y.view()); }),
            "MultiHeadAttention::forward: self-attention needs kdim and vdim equal to d_model; here kdim is 5, vdim 8, "
            "d_model 8");

  Tensor bad_padding(DType::kBool, {2, 4}), bad_mask(DType::kF32, {3, 4}), int_mask(DType::kI32, {3, 3});
  EXPECT_EQ(error({.key_padding_mask = bad_padding.cview()}), "key_padding_mask is [2,4], expected [B,S] = [2,3]");
  EXPECT_EQ(error({.attn_mask = bad_mask.cview()}),
            "attn_mask is [3,4], expected [T,S] = [3,3] or [B*H,T,S] = [4,3,3]");
  EXPECT_EQ(error({.attn_mask = int_mask.cview()}), "attn_mask is I32, expected BOOL, F32, BF16 or F16");
  EXPECT_EQ(error({.mask = mask::allowed(bad_padding.cview())}),
            "mask.allowed is [2,4], which does not broadcast to [B,H,T,S] = [2,2,3,3]");
  EXPECT_EQ(error({.mask = mask::allowed(int_mask.cview())}), "mask.allowed is I32, expected BOOL");
  EXPECT_EQ(error({.mask = mask::bias(int_mask.cview())}), "mask.bias is I32, expected F32, BF16 or F16");
  const std::vector<std::int32_t> lengths{1, 9};
  EXPECT_EQ(error({.mask = mask::key_lengths(ConstTensorView(lengths.data(), {2}))}),
            "key_lengths[1] is 9, expected 0 to Tk = 3");
  Tensor weights(DType::kF32, {2, 2, 3, 4}), scale(DType::kF32, {3});
  const TensorView bad_weights = weights.view(), over_y = TensorView(y.as<float>(), {2, 2, 3, 3});
  EXPECT_EQ(error({.weights = bad_weights}), "weights is F32 [2,2,3,4], expected F32 [2,2,3,3]");
  EXPECT_NE(error({.weights = over_y}).find("overlaps y"), std::string::npos);
  EXPECT_EQ(error({.head_scale = scale.cview()}), "head_scale is F32 [3], expected F32 [2]");

  // Causal with other lengths than equal: the reading must be said, with added keys too.
  for (const bool added : {false, true}) {
    const MultiHeadAttention any({.d_model = 8, .num_heads = 2, .add_zero_attn = added});
    const std::string what =
        error_of([&] { any.forward(x.cview(), other.cview(), other.cview(), y.view(), {.mask = mask::causal()}); });
    EXPECT_NE(what.find("say top_left or bottom_right"), std::string::npos) << what;
  }
}

TEST(MultiHeadAttention, NothingToDoIsFine) {
  const MultiHeadAttention layer({.d_model = 8, .num_heads = 2});
  Tensor no_batch(DType::kF32, {0, 3, 8}), no_tokens(DType::kF32, {2, 0, 8});
  layer.forward(no_batch.cview(), no_batch.view());
  layer.forward(no_tokens.cview(), no_tokens.view());
}

TEST(MultiHeadAttention, StartsFromXavier) {
  const MultiHeadAttention a({.d_model = 64, .num_heads = 8}), b({.d_model = 64, .num_heads = 8});
  const StateDict state = a.state_dict();
  EXPECT_EQ(bits(state.at("in_proj_weight")), bits(b.state_dict().at("in_proj_weight")));
  const double bound = std::sqrt(6.0 / 128);
  double largest = 0, sum = 0;
  for (const double w : layer_test::values(state.at("in_proj_weight"))) {
    largest = std::max(largest, std::abs(w));
    sum += w;
  }
  EXPECT_LE(largest, bound);
  EXPECT_GT(largest, 0.99 * bound);
  EXPECT_NEAR(sum / (3 * 64 * 64), 0, 0.01);
  for (const double value : layer_test::values(state.at("in_proj_bias"))) EXPECT_EQ(value, 0);
}

// The chapter's claim: h heads of d_model / h hold as much as one head of d_model.
TEST(MultiHeadAttention, AnyNumberOfHeadsHasTheParametersOfOne) {
  const MultiHeadAttention one({.d_model = 512, .num_heads = 1});
  EXPECT_EQ(one.parameter_count(), 4 * 512 * 512 + 4 * 512);
  for (const std::int64_t heads : {2, 4, 8, 16}) {
    const MultiHeadAttention many({.d_model = 512, .num_heads = heads});
    EXPECT_EQ(many.parameter_count(), one.parameter_count());
    EXPECT_EQ(many.d_k(), 512 / heads);
  }
}

}  // namespace
}  // namespace manyheads
