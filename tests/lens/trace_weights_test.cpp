#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <manyheads/error.hpp>
#include <manyheads/lens/trace.hpp>
#include <random>
#include <string>

#include "lens/random_trace.hpp"

namespace manyheads::lens {
namespace {

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

TEST(TraceWeightsTest, AForeignLseIsAnError) {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  const auto with = [](float lse, const std::function<void(Trace&)>& change = {}) {
    Trace trace = random_trace({}, change);
    trace.layers[1].storage[2].as<float>()[1 * 5 + 3] = lse;
    return trace;
  };
  const Trace right = random_trace({});
  const float own = right.layers[1].storage[2].as<float>()[8];
  for (const float lse :
       {0.0f, own - 0.001f, own + 0.001f, own - 90, own + 90, -4100.0f, 4100.0f, 3e38f, -3e38f, inf, -inf, nan}) {
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

}  // namespace
}  // namespace manyheads::lens
