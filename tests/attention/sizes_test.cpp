// Sizes and strides whose products would wrap, of views that take no memory.
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <limits>
#include <manyheads/kv_cache.hpp>
#include <vector>

#include "attention/call.hpp"
#include "attention/exact.hpp"

namespace manyheads::test {
namespace {

class CallSizes : public AtEachIsa {};
MANYHEADS_AT_EACH_ISA(CallSizes);

// Keys that only their length makes few: sizes, not memory, are what could wrap.
TEST_P(CallSizes, KeysThatNoMemoryHolds) {
  for (const DType type : {DType::kF32, DType::kBF16, DType::kF16}) {
    for (const std::int64_t rows : {1, 3, 300}) {
      Call call({.q_heads = 2, .kv_heads = 1, .tq = rows, .tk = 1, .d = 7, .dv = 5}, type);
      Call many = call;
      call.run();
      const TensorView lse = many.lse.mutable_view();
      const Exact length(DType::kI64, {1}, {1});
      for (const std::int64_t tk : {std::int64_t{1} << 40, std::int64_t{1} << 58, std::int64_t{1} << 60}) {
        const ConstTensorView k(call.k.view().data(), type, {1, 1, tk, 7}, {0, 0, 0, 1});
        const ConstTensorView v(call.v.view().data(), type, {1, 1, tk, 5}, {0, 0, 0, 1});
        for (const int threads : {1, 4}) {
          AttentionOptions options;
          options.mask = mask::key_lengths(length.view());
          options.lse = lse;
          options.threads.num_threads = threads;
          attention(call.q.view(), k, v, many.out.mutable_view(), options);
          EXPECT_TRUE(same_bits(call, many)) << name_of(type) << ", " << rows << " rows, " << tk << " keys";
          explain(call.q.view(), k, v, many.out.mutable_view(), options);
        }
      }
    }
  }
}

TEST(CallSizeLimits, WiderAndLongerThanProductsCanCount) {
  const Exact some(DType::kF32, {1, 1, 1, 1});
  const auto view = [&](Dims shape) { return ConstTensorView(some.view().data(), DType::kF32, shape, {0, 0, 0, 0}); };
  constexpr std::int64_t kWide = (std::int64_t{1} << 32) + 1, kLong = (std::int64_t{1} << 60) + 1;
  const TensorView one(some.view().data(), DType::kF32, {1, 1, 1, 1}), none(nullptr, DType::kF32, {1, 1, kLong, 0});
  EXPECT_TRUE(
      contains(error_of([&] { attention(view({1, 1, 1, kWide}), view({1, 1, 1, kWide}), view({1, 1, 1, 1}), one); }),
               "head size D is more than 2^32"));
  EXPECT_TRUE(
      contains(error_of([&] { attention(view({1, 1, 1, 1}), view({1, 1, 1, 1}), view({1, 1, 1, kWide}), one); }),
               "head size Dv is more than 2^32"));
  const ConstTensorView nothing(nullptr, DType::kF32, {1, 1, 1, 0});
  EXPECT_TRUE(contains(error_of([&] { attention(view({1, 1, kLong, 1}), view({1, 1, 1, 1}), nothing, none); }),
                       "more than 2^60 queries"));
  // No output and no lse: nothing to compute, however many queries there are.
  const TensorView empty(nullptr, DType::kF32, {1, 1, kLong - 1, 0});
  attention(view({1, 1, kLong - 1, 1}), view({1, 1, 1, 1}), nothing, empty);
}

// Strides along which nothing steps.
TEST_P(CallSizes, StridesOfOne) {
  Call call({.q_heads = 1, .kv_heads = 1, .tq = 1, .tk = 70, .d = 9, .dv = 1});
  call.run();
  for (const std::int64_t wild :
       {std::numeric_limits<std::int64_t>::max(), std::numeric_limits<std::int64_t>::min(), std::int64_t{1} << 60}) {
    const auto view = [&](const ConstTensorView& of) {
      Dims strides = of.strides();
      for (int axis = 0; axis < of.rank(); ++axis) {
        if (of.size(axis) == 1) strides[axis] = wild;
      }
      return TensorView(const_cast<void*>(of.data()), of.dtype(), of.shape(), strides);
    };
    const Exact length(DType::kI64, {1}, {70}), allowed(DType::kBool, {1, 1, 1, 1}), bias(DType::kF32, {1, 1});
    *allowed.as<bool>() = true;
    *bias.as<float>() = 0;
    const Exact slopes(DType::kF32, {1}), id(DType::kI32, {1, 1}, {5});
    const Exact ids(DType::kI32, {1, 70}, std::vector<std::int64_t>(70, 5));
    *slopes.as<float>() = 0;
    Call other = call;
    const TensorView lse = view(other.lse.mutable_view()), out = view(other.out.mutable_view());
    AttentionOptions options;
    options.mask = mask::key_lengths(view(length.view())) | manyheads::mask::allowed(view(allowed.view())) |
                   manyheads::mask::bias(view(bias.view())) | mask::alibi(view(slopes.view())) |
                   mask::documents(view(id.view()), view(ids.view())) | mask::offsets(view(length.view()));
    options.lse = lse;
    attention(view(call.q.view()), view(call.k.view()), view(call.v.view()), out, options);
    EXPECT_TRUE(same_bits(call, other)) << wild;
    Exact weights(DType::kF32, {1, 1, 1, 70}), plain(DType::kF32, {1, 1, 1, 70});
    attention_weights(view(call.q.view()), view(call.k.view()), lse, view(weights.view()), options);
    attention_weights(call.q.view(), call.k.view(), call.lse.view(), plain.view(), {});
    EXPECT_EQ(std::memcmp(weights.bytes.get(), plain.bytes.get(), plain.size()), 0);
    explain(view(call.q.view()), view(call.k.view()), view(call.v.view()), out, options);
    merge_attention(out, lse, view(call.out.view()), view(call.lse.view()), out, lse);
    EXPECT_EQ(other.out_at(0, 0, 0, 0), call.out_at(0, 0, 0, 0));
    KVCache cache({.head_dim = 9, .value_dim = 1});
    const KVCache::Sequence sequence = cache.add();
    const ConstTensorView k(call.k.view().data(), DType::kF32, {1, 70, 9}, {wild, 9, 1});
    const ConstTensorView v(call.v.view().data(), DType::kF32, {1, 70, 1}, {wild, 1, wild});
    cache.append(sequence, k, v);
    const KVCache::Sequence sequences[] = {sequence};
    AttentionOptions over;
    over.lse = lse;
    attention(view(call.q.view()), cache, sequences, out, over);
    EXPECT_TRUE(same_bits(call, other)) << wild;
  }
}

}  // namespace
}  // namespace manyheads::test
