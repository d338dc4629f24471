#include <gtest/gtest.h>

#include <malloc.h>

#include "allocations.hpp"
#include "c/refused.hpp"

namespace manyheads::test {
namespace {

// Good calls, bad calls and handles in turn, a million in all: what they held is given back.
TEST(CDoorMemory, AMillionCallsLeaveItLevel) {
  Attempt a;
  a.options.num_threads = 1;
  const mh_tensor k3 = *a.door.tensor(ConstTensorView(a.call.k.view().data(), DType::kF32, {2, 3, 8}));
  const mh_tensor v3 = *a.door.tensor(ConstTensorView(a.call.v.view().data(), DType::kF32, {2, 3, 6}));
  const std::int64_t both[] = {a.sequence, a.sequence};
  const auto round = [&] {
    ASSERT_EQ(a.attend(), MH_OK);
    a.k.rank = 77;
    ASSERT_EQ(a.attend(), MH_INVALID_ARGUMENT);
    a.k.rank = 4;
    ASSERT_EQ(a.backward(), MH_OK);
    ASSERT_EQ(mh_attention_weights(&a.q, &a.k, &a.lse, &a.weights, nullptr), MH_OK);
    ASSERT_EQ(mh_kv_cache_append(a.cache, a.sequence, &k3, &v3, 1, nullptr), MH_OK);
    ASSERT_EQ(a.over_cache(both, 2), MH_OK);
    ASSERT_EQ(mh_kv_cache_fork(a.cache, a.sequence, &a.number), MH_OK);
    ASSERT_EQ(mh_kv_cache_remove(a.cache, a.number), MH_OK);
    ASSERT_EQ(mh_kv_cache_truncate(a.cache, a.sequence, 0), MH_OK);
    ASSERT_EQ(mh_explain(&a.q, &a.k, &a.v, &a.out, &a.options, &a.explanation), MH_OK);
    mh_row_states* states = nullptr;
    ASSERT_EQ(mh_row_states_create(0, 5, 2, 4, 3, 6, &states), MH_OK);
    ASSERT_EQ(mh_merge_row_states(&states, 1, &a.out, nullptr, nullptr, 1, nullptr), MH_OK);
    mh_row_states_destroy(states);
    mh_layer* layer = nullptr;
    ASSERT_EQ(mh_layer_create(&a.config, &layer), MH_OK);
    mh_layer_destroy(layer);
    ASSERT_EQ(mh_layer_create(&a.config, nullptr), MH_INVALID_ARGUMENT);
    ASSERT_EQ(mh_layer_tensor_name(a.layer, 0, &a.text), MH_OK);
    ASSERT_EQ(mh_set_isa("quantum"), MH_INVALID_ARGUMENT);
  };
  constexpr int kCallsOfARound = 17;
  const std::int64_t rounds = from_environment("MANYHEADS_C_CALLS", 1000000) / kCallsOfARound;
  for (int warm = 0; warm < 100; ++warm) round();
  const std::size_t before = mallinfo2().uordblks;
  std::int64_t most = 0;
  for (std::int64_t i = 0; i < rounds && !HasFatalFailure(); ++i) round();
  most = static_cast<std::int64_t>(mallinfo2().uordblks) - static_cast<std::int64_t>(before);
  EXPECT_LT(most, 4096) << "bytes more after " << rounds * kCallsOfARound << " calls";
}

}  // namespace
}  // namespace manyheads::test
