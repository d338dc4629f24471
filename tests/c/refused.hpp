#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "attention/call.hpp"
#include "c/door.hpp"

// Bad calls of each kind: a code, a text that names function, argument and shapes, and nothing written.
namespace manyheads::test {

inline constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
inline constexpr std::int64_t kLeast = std::numeric_limits<std::int64_t>::min();

inline int two(void*) { return 2; }
inline void run_in_order(void*, std::int64_t count, mh_task task, void* context) {
  for (std::int64_t i = 0; i < count; ++i) task(context, i);
}

// Good arguments of every function, of which a test spoils one.
struct Attempt {
  Attempt() : call({.batch = 2, .q_heads = 4, .kv_heads = 2, .tq = 3, .tk = 5, .d = 8, .dv = 6}) {
    q = *door.tensor(call.q.view());
    k = *door.tensor(call.k.view());
    v = *door.tensor(call.v.view());
    out = *door.tensor(call.out.mutable_view());
    lse = *door.tensor(call.lse.mutable_view());
    weights = *door.tensor(probs.mutable_view());
    dout = *door.tensor(of_out.view());
    dq = *door.tensor(of_q.mutable_view());
    x = *door.tensor(ConstTensorView(call.q.view().data(), DType::kF32, {2, 3, 8}));
    gradients.dq = &dq;
    ids = *door.tensor(numbers.view());
    options.mask = &mask;
    options.lse = &lse;
    EXPECT_EQ(mh_kv_cache_create(&cache_options, &cache), MH_OK);
    EXPECT_EQ(mh_kv_cache_add(cache, &sequence), MH_OK);
    EXPECT_EQ(mh_layer_create(&config, &layer), MH_OK);
    EXPECT_EQ(mh_row_states_create(0, 5, 2, 4, 3, 6, &states), MH_OK);
    EXPECT_EQ(mh_workspace_create(&workspace), MH_OK);
    EXPECT_EQ(mh_layer_activations_create(&activations), MH_OK);
    before = written();
  }
  ~Attempt() {
    mh_kv_cache_destroy(cache);
    mh_layer_destroy(layer);
    mh_row_states_destroy(states);
    mh_workspace_destroy(workspace);
    mh_layer_activations_destroy(activations);
  }
  static mh_kv_cache_options make_cache() {
    mh_kv_cache_options how = MH_DEFAULT(mh_kv_cache_options);
    how.num_kv_heads = 2;
    how.head_dim = 8;
    how.value_dim = 6;
    how.max_tokens = 64;
    return how;
  }
  static mh_layer_config make_config() {
    mh_layer_config sizes = MH_DEFAULT(mh_layer_config);
    sizes.d_model = 8;
    sizes.num_heads = 2;
    return sizes;
  }
  static mh_executor make_executor() {
    mh_executor made = MH_DEFAULT(mh_executor);
    made.concurrency = two;
    made.run = run_in_order;
    return made;
  }

  // All that a call may write.
  std::vector<std::vector<unsigned char>> written() const {
    std::vector<std::vector<unsigned char>> all{call.out.memory, call.lse.memory, probs.memory, of_q.memory};
    const auto add = [&](const auto& value) {
      const auto* begin = reinterpret_cast<const unsigned char*>(&value);
      all.emplace_back(begin, begin + sizeof(value));
    };
    add(bytes);
    add(number);
    add(new_cache);
    add(new_layer);
    add(new_states);
    add(text);
    add(explanation);
    add(limits.fma_gflops);
    std::int64_t tokens = -1;
    EXPECT_EQ(mh_kv_cache_length(cache, sequence, &tokens), MH_OK);
    add(tokens);
    return all;
  }
  int attend() { return mh_attention(&q, &k, &v, &out, &options); }
  int backward() { return mh_attention_backward(&q, &k, &v, &out, &dout, &lse, &gradients, &options); }
  int over_cache(const std::int64_t* sequences, std::size_t count) {
    return mh_kv_cache_attention(&q, cache, sequences, count, &out, &options);
  }
  int append() { return mh_kv_cache_append(cache, sequence, &k, &v, num_threads, nullptr); }
  int layer_backward() {
    return mh_layer_backward(layer, &x, nullptr, nullptr, activations, &x, &layer_gradients, &layer_options);
  }
  int forward() { return mh_layer_forward(layer, &q, &k, &v, &out, &layer_options); }

  Door door;
  Call call;
  Strided probs = filled(DType::kF32, {2, 4, 3, 5}, [](const Index&) { return 777.0; });
  Strided of_out = filled(DType::kF32, {2, 4, 3, 6}, [](const Index&) { return 0.5; });
  Strided of_q = filled(DType::kF32, {2, 4, 3, 8}, [](const Index&) { return 777.0; });
  Strided numbers = integers({1, 2});
  mh_tensor q, k, v, out, lse, weights, ids, dout, dq, x;
  mh_mask mask = MH_DEFAULT(mh_mask);
  mh_attention_options options = MH_DEFAULT(mh_attention_options);
  mh_attention_gradients gradients = MH_DEFAULT(mh_attention_gradients);
  mh_executor executor = make_executor();
  mh_kv_cache_options cache_options = make_cache();
  mh_layer_config config = make_config();
  mh_layer_options layer_options = MH_DEFAULT(mh_layer_options);
  mh_layer_gradients layer_gradients = MH_DEFAULT(mh_layer_gradients);
  mh_explanation explanation = MH_DEFAULT(mh_explanation);
  mh_machine_limits limits = MH_DEFAULT(mh_machine_limits);
  double scale = 1;
  std::int64_t window[2] = {-1, -1};
  std::int64_t strides[4] = {};
  std::int32_t num_threads = 0;
  mh_kv_cache* cache = nullptr;
  mh_layer* layer = nullptr;
  mh_row_states* states = nullptr;
  mh_workspace* workspace = nullptr;
  mh_layer_activations* activations = nullptr;
  std::int64_t sequence = -1;
  // Outputs.
  std::size_t bytes = 77;
  std::int64_t number = 77;
  mh_kv_cache* new_cache = nullptr;
  mh_layer* new_layer = nullptr;
  mh_row_states* new_states = nullptr;
  const char* text = nullptr;
  std::vector<std::vector<unsigned char>> before;
};

struct Refused {
  std::string text;  // how mh_last_error() begins
  std::string shapes;
  std::function<int(Attempt&)> call;
  int code = MH_INVALID_ARGUMENT;
};

inline void expect_refused(const std::vector<Refused>& all) {
  for (const Refused& one : all) {
    Attempt a;
    EXPECT_EQ(one.call(a), one.code) << one.text << "\n" << mh_last_error();
    EXPECT_EQ(std::string(mh_last_error()).substr(0, one.text.size()), one.text);
    EXPECT_TRUE(contains(mh_last_error(), one.shapes)) << one.shapes << "\n" << mh_last_error();
    EXPECT_TRUE(a.written() == a.before) << one.text;
  }
}

}  // namespace manyheads::test
