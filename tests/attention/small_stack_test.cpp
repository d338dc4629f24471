// Calls on threads whose stack is small, as those of musl and of servers of many connections are.
#include <gtest/gtest.h>
#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <manyheads/kv_cache.hpp>
#include <manyheads/multi_head_attention.hpp>
#include <string>
#include <utility>
#include <vector>

#include "attention/call.hpp"
#include "attention/child.hpp"
#include "layer/linear.hpp"

namespace manyheads::test {
namespace {

class SmallStack : public AtEachIsa {
 protected:
  void SetUp() override {
    if (kSanitized) GTEST_SKIP() << "a sanitizer's frames are larger";
    AtEachIsa::SetUp();
  }
};
MANYHEADS_AT_EACH_ISA(SmallStack);

// Runs `work` on a thread of 64 KiB.
void on_a_small_stack(const std::function<void()>& work) {
  pthread_attr_t attributes;
  ASSERT_EQ(pthread_attr_init(&attributes), 0);
  // Where a thread's least is more, that.
  const std::size_t least = static_cast<std::size_t>(sysconf(_SC_THREAD_STACK_MIN));
  ASSERT_EQ(pthread_attr_setstacksize(&attributes, std::max(std::size_t{64} << 10, least)), 0);
  pthread_t thread;
  const auto run = [](void* context) -> void* {
    (*static_cast<const std::function<void()>*>(context))();
    return nullptr;
  };
  ASSERT_EQ(pthread_create(&thread, &attributes, run, const_cast<void*>(static_cast<const void*>(&work))), 0);
  ASSERT_EQ(pthread_join(thread, nullptr), 0);
  pthread_attr_destroy(&attributes);
}

TEST_P(SmallStack, Attention) {
  for (const DType type : {DType::kF32, DType::kBF16, DType::kF16}) {
    for (const std::int64_t tq : {1, 5, 150}) {
      Call call({.q_heads = 4, .kv_heads = 2, .tq = tq, .tk = 600, .d = 64, .dv = 64}, type);
      const Strided bias = filled(type, {1, 1, tq, 600}, [](const Index& at) { return at[3] % 7 == 0 ? -kInf : 0.5; });
      const Strided slopes = filled(DType::kF32, {4}, [](const Index&) { return 0.01; });
      call.options.mask =
          mask::causal(Alignment::kBottomRight) | manyheads::mask::bias(bias.view()) | mask::alibi(slopes.view());
      call.options.threads.num_threads = 1;
      Call small = call;
      call.run();
      on_a_small_stack([&] { small.run(); });
      EXPECT_TRUE(same_bits(call, small)) << name_of(type) << ", " << tq;
      Strided weights = dense(DType::kF32, {1, 4, tq, 600});
      on_a_small_stack([&] {
        attention_weights(call.q.view(), call.k.view(), call.lse.view(), weights.mutable_view(), call.options);
        merge_attention(call.out.view(), call.lse.view(), call.out.view(), call.lse.view(), small.out.mutable_view());
        explain(call.q.view(), call.k.view(), call.v.view(), small.out.mutable_view(), call.options).to_string();
      });
    }
  }
}

TEST_P(SmallStack, DecodingFromACacheOfI8) {
  const Call source({.q_heads = 4, .kv_heads = 2, .tq = 3, .tk = 1000, .d = 64, .dv = 64}, DType::kBF16);
  for (const bool products : {false, true}) {
    on_a_small_stack([&] {
      KVCache cache({.num_kv_heads = 2, .head_dim = 64, .dtype = DType::kI8});
      const KVCache::Sequence sequences[] = {cache.add()};
      const auto tokens = [](const ConstTensorView& all) {
        return ConstTensorView(all.data(), all.dtype(), {2, 1000, 64}, {all.stride(1), all.stride(2), 1});
      };
      cache.append(sequences[0], tokens(source.k.view()), tokens(source.v.view()));
      Call call = source;
      AttentionOptions options;
      options.int8_products = products;
      options.threads.num_threads = 1;
      attention(call.q.view(), cache, sequences, call.out.mutable_view(), options);
    });
  }
}

TEST_P(SmallStack, ProjectionsAndTheLayer) {
  for (const DType type : {DType::kF32, DType::kBF16, DType::kF16}) {
    const Strided weight =
        filled(type, {70, 300}, [](const Index& at) { return static_cast<double>((at[0] + at[1]) % 9); });
    const layer::Linear linear(weight.view(), {}, type == DType::kBF16 ? DType::kBF16 : DType::kF32);
    const std::vector<float> x(100 * 300, 0.25f);
    std::vector<float> y(100 * 70), small(y);
    linear.run(x.data(), 100, 300, y.data(), 70, layer::Activation::kGelu, {.num_threads = 1});
    on_a_small_stack(
        [&] { linear.run(x.data(), 100, 300, small.data(), 70, layer::Activation::kGelu, {.num_threads = 1}); });
    EXPECT_EQ(std::memcmp(y.data(), small.data(), y.size() * sizeof(float)), 0) << name_of(type);

    const MultiHeadAttention layer({.d_model = 96, .num_heads = 4, .add_bias_kv = true, .dtype = type});
    const Strided in =
        filled(type, {2, 60, 96}, [](const Index& at) { return 0.1 * static_cast<double>((at[1] + at[2]) % 5); });
    Strided out = dense(type, {2, 60, 96}), again = out, weights = dense(DType::kF32, {2, 4, 60, 61});
    const TensorView view = weights.mutable_view();
    layer.forward(in.view(), out.mutable_view(),
                  {.mask = mask::causal(), .weights = view, .threads = {.num_threads = 1}});
    on_a_small_stack([&] {
      layer.forward(in.view(), again.mutable_view(),
                    {.mask = mask::causal(), .weights = view, .threads = {.num_threads = 1}});
    });
    EXPECT_EQ(out.memory, again.memory) << name_of(type);
  }
}

}  // namespace
}  // namespace manyheads::test
