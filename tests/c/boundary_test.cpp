// Structs of other sizes, errors, executors and threads: what every function of the C door shares.
#include <gtest/gtest.h>

#include <cstring>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "attention/call.hpp"
#include "c/door.hpp"
#include "c/refused.hpp"

namespace manyheads::test {
namespace {

// A struct of a later header: fields that this library does not know.
template <class T>
struct Later {
  T known = MH_DEFAULT(T);
  std::uint64_t more[3] = {};
  T* operator()() {
    known.size = sizeof(Later);
    return &known;
  }
};

TEST(CDoorSizes, LaterStructsAreTakenWhereWhatIsNewIsZero) {
  Attempt a;
  Later<mh_mask> mask;
  Later<mh_attention_options> options;
  Later<mh_explanation> explanation;
  options.known.mask = mask();
  const auto run = [&] { return mh_attention(&a.q, &a.k, &a.v, &a.out, options()); };
  EXPECT_EQ(run(), MH_OK) << mh_last_error();
  EXPECT_EQ(mh_explain(&a.q, &a.k, &a.v, &a.out, options(), explanation()), MH_OK) << mh_last_error();
  EXPECT_EQ(explanation.known.size, sizeof(explanation));
  EXPECT_EQ(explanation.more[0] | explanation.more[1] | explanation.more[2], 0u);
  mask.more[2] = 1;
  EXPECT_EQ(run(), MH_UNSUPPORTED);
  EXPECT_EQ(mh_last_error(), "mh_attention: mask has " + std::to_string(sizeof mask) + " bytes, this library knows " +
                                 std::to_string(sizeof(mh_mask)) + " of them, and the rest is not 0");
  mask.more[2] = 0;
  options.more[0] = 1;
  EXPECT_EQ(run(), MH_UNSUPPORTED);

  Later<mh_layer_config> config;
  Later<mh_kv_cache_options> cache;
  Later<mh_layer_options> layer;
  Later<mh_executor> executor;
  config.known.d_model = config.known.num_heads = cache.known.head_dim = 1;
  executor.known = a.executor;
  layer.known.executor = executor();
  mh_layer* made = nullptr;
  mh_kv_cache* made_cache = nullptr;
  EXPECT_EQ(mh_layer_create(config(), &made), MH_OK) << mh_last_error();
  EXPECT_EQ(mh_kv_cache_create(cache(), &made_cache), MH_OK) << mh_last_error();
  float number = 1;
  const mh_tensor x = *a.door.tensor(ConstTensorView(&number, Dims{1, 1, 1}));
  EXPECT_EQ(mh_layer_forward(made, &x, nullptr, nullptr, &x, layer()), MH_OK) << mh_last_error();
  mh_layer_destroy(made);
  mh_kv_cache_destroy(made_cache);
  for (std::uint64_t* more : {config.more, cache.more, layer.more, executor.more}) {
    *more = 1;
    EXPECT_EQ(mh_layer_create(config(), &made), more == config.more ? MH_UNSUPPORTED : MH_OK);
    if (more != config.more) mh_layer_destroy(made);
    EXPECT_EQ(mh_kv_cache_create(cache(), &made_cache), more == cache.more ? MH_UNSUPPORTED : MH_OK);
    if (more != cache.more) mh_kv_cache_destroy(made_cache);
    EXPECT_EQ(mh_layer_create(&a.config, &made), MH_OK);
    const mh_tensor query = *a.door.tensor(ConstTensorView(a.call.q.view().data(), DType::kF32, {1, 1, 8}));
    const mh_tensor y = *a.door.tensor(TensorView(a.call.out.mutable_view().data(), DType::kF32, {1, 1, 8}));
    EXPECT_EQ(mh_layer_forward(made, &query, nullptr, nullptr, &y, layer()),
              more == layer.more || more == executor.more ? MH_UNSUPPORTED : MH_OK);
    mh_layer_destroy(made);
    *more = 0;
  }
}

// An earlier caller's struct ends where its fields ended; what lies behind is not the library's to read or to write.
TEST(CDoorSizes, EarlierStructsLackFields) {
  Attempt a;
  mh_mask mask = MH_DEFAULT(mh_mask);
  std::memset(&mask.window, 0xff, sizeof mask - offsetof(mh_mask, window));
  mask.size = offsetof(mh_mask, window);
  mask.causal = 1;
  mask.alignment = MH_TOP_LEFT;
  mh_attention_options options = MH_DEFAULT(mh_attention_options);
  std::memset(&options.scale, 0xff, sizeof options - offsetof(mh_attention_options, scale));
  options.size = offsetof(mh_attention_options, scale);
  options.mask = &mask;
  EXPECT_EQ(mh_attention(&a.q, &a.k, &a.v, &a.out, &options), MH_OK) << mh_last_error();
  Call same(a.call.sizes);
  same.options.mask = mask::causal(Alignment::kTopLeft);
  same.run();
  EXPECT_TRUE(same.out.memory == a.call.out.memory);

  mh_explanation explanation = MH_DEFAULT(mh_explanation);
  explanation.size = offsetof(mh_explanation, tasks);
  explanation.tasks = 777;
  EXPECT_EQ(mh_explain(&a.q, &a.k, &a.v, &a.out, &options, &explanation), MH_OK) << mh_last_error();
  EXPECT_GT(explanation.chunk_keys, 0);
  EXPECT_EQ(explanation.tasks, 777);
  EXPECT_EQ(explanation.size, offsetof(mh_explanation, tasks));
}

TEST(CDoorErrors, EachThreadHasItsOwn) {
  EXPECT_EQ(mh_set_isa("quantum"), MH_INVALID_ARGUMENT);
  const std::string mine = mh_last_error();
  std::thread([] {
    EXPECT_STREQ(mh_last_error(), "");
    EXPECT_EQ(mh_active_isa(nullptr), MH_INVALID_ARGUMENT);
    EXPECT_STREQ(mh_last_error(), "mh_active_isa: name is NULL");
  }).join();
  std::int32_t threads = 0;
  EXPECT_EQ(mh_default_num_threads(&threads), MH_OK);  // a call that works keeps it
  EXPECT_EQ(mh_last_error(), mine);
}

TEST(CDoorErrors, CodesAreThoseOfCpp) {
  EXPECT_EQ(mh_set_isa("quantum"), MH_INVALID_ARGUMENT);
  EXPECT_EQ(error_of([] { set_isa("quantum"); }), std::string(mh_last_error()).substr(std::strlen("mh_")));
}

// A call whose work is worth two threads.
struct Large {
  Large() : call({.q_heads = 4, .kv_heads = 4, .tq = 200, .tk = 300, .d = 32, .dv = 32}) {}
  int run(mh_executor& executor) {
    Door door;
    mh_attention_options* options = door.options(call.options);
    options->executor = &executor;
    return mh_attention(door.tensor(call.q.view()), door.tensor(call.k.view()), door.tensor(call.v.view()),
                        door.tensor(call.out.mutable_view()), options);
  }
  Call call;
};

TEST(CDoorExecutor, AnyThreadsGiveTheSameBits) {
  Large plain, large;
  plain.call.run();
  mh_executor executor = Attempt::make_executor();
  executor.concurrency = [](void*) { return 3; };
  executor.run = [](void*, std::int64_t count, mh_task task, void* context) {
    std::vector<std::thread> threads;
    for (std::int64_t i = 0; i < count; ++i) threads.emplace_back(task, context, i);
    for (std::thread& thread : threads) thread.join();
  };
  EXPECT_EQ(large.run(executor), MH_OK) << mh_last_error();
  EXPECT_TRUE(plain.call.out.memory == large.call.out.memory);
  executor.concurrency = [](void*) { return -5; };  // as one
  EXPECT_EQ(large.run(executor), MH_OK) << mh_last_error();
  EXPECT_TRUE(plain.call.out.memory == large.call.out.memory);
}

TEST(CDoorExecutor, FaultsOfItsAreErrors) {
  Large large;
  mh_executor executor = Attempt::make_executor();
  executor.run = [](void*, std::int64_t, mh_task, void*) {};
  EXPECT_EQ(large.run(executor), MH_FAILED);
  EXPECT_STREQ(mh_last_error(), "mh_attention: executor->run ran 0 of 2 tasks");
  executor.run = [](void*, std::int64_t, mh_task task, void* context) { task(context, 0); };
  EXPECT_EQ(large.run(executor), MH_FAILED);
  executor.run = [](void*, std::int64_t, mh_task task, void* context) { task(context, 0), task(context, 999); };
  EXPECT_EQ(large.run(executor), MH_FAILED);
  executor.run = [](void*, std::int64_t, mh_task, void*) { throw std::runtime_error("no threads today"); };
  EXPECT_EQ(large.run(executor), MH_FAILED);
  EXPECT_STREQ(mh_last_error(), "mh_attention: no threads today");
  executor.concurrency = [](void*) -> int { throw 7; };
  EXPECT_EQ(large.run(executor), MH_FAILED);
  EXPECT_STREQ(mh_last_error(), "mh_attention: an exception that is no std::exception");
}

TEST(CDoorThreads, CallsRunSideBySide) {
  Call plain({.q_heads = 2, .tq = 20, .tk = 60});
  plain.run();
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&plain, t] {
      for (int n = 0; n < 50; ++n) {
        Call call(plain.sizes);
        Door door;
        const TensorView lse = call.lse.mutable_view();
        call.options.lse = lse;
        const mh_tensor* out = door.tensor(call.out.mutable_view());
        mh_attention_options* options = door.options(call.options);
        EXPECT_EQ(mh_attention(door.tensor(call.q.view()), door.tensor(call.k.view()), door.tensor(call.v.view()), out,
                               options),
                  MH_OK);
        EXPECT_TRUE(same_bits(plain, call));
        options->num_threads = -1 - t;
        EXPECT_EQ(mh_attention(out, out, out, out, options), MH_INVALID_ARGUMENT);
        EXPECT_EQ(mh_last_error(), "mh_attention: num_threads is " + std::to_string(-1 - t) + ", expected 0 or more");
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace manyheads::test
