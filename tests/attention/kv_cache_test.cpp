#include <gtest/gtest.h>

#include <manyheads/kv_cache.hpp>
#include <random>
#include <string>
#include <vector>

#include "attention/call.hpp"

namespace manyheads::test {
namespace {

class Cache : public AtEachIsa {};
MANYHEADS_AT_EACH_ISA(Cache);

// Tokens [begin, end) of [1,Hkv,T,D] as [Hkv,T,D].
ConstTensorView tokens(const Strided& tensor, std::int64_t begin, std::int64_t end) {
  const ConstTensorView all = tensor.view();
  return ConstTensorView(
      static_cast<const char*>(all.data()) + begin * all.stride(2) * static_cast<std::int64_t>(size_of(all.dtype())),
      all.dtype(), {all.size(1), end - begin, all.size(3)}, {all.stride(1), all.stride(2), all.stride(3)});
}

// Queries [begin, end) of `of` over the cache's sequence.
Call over_cache(const Call& of, const KVCache& cache, KVCache::Sequence sequence, std::int64_t begin, std::int64_t end,
                const Mask& mask, bool int8_products = false) {
  Sizes sizes = of.sizes;
  sizes.tq = end - begin;
  Call part(sizes, of.q.type, of.out.type, 1);
  part.q.fill([&](const Index& at) { return element(of.q.view(), {at[0], at[1], begin + at[2], at[3]}); });
  const TensorView lse = part.lse.mutable_view();
  AttentionOptions options;
  options.mask = mask;
  options.lse = lse;
  options.int8_products = int8_products;
  const KVCache::Sequence sequences[] = {sequence};
  attention(part.q.view(), cache, sequences, part.out.mutable_view(), options);
  return part;
}

TEST_P(Cache, DecodingAndChunkedPrefillHaveTheBitsOfOneCall) {
  std::mt19937_64 engine(1);
  for (const DType type : {DType::kF32, DType::kBF16, DType::kF16}) {
    for (const std::int64_t page_size : {0, 16, 64, 256}) {
      const Sizes s{.q_heads = 4, .kv_heads = 2, .tq = 600, .tk = 600, .d = 24, .dv = 20};
      Call whole(s, type, type == DType::kBF16 ? DType::kF32 : type, 7);
      whole.options.mask = mask::causal();
      whole.run();
      KVCache cache({.num_kv_heads = 2, .head_dim = 24, .value_dim = 20, .dtype = type, .page_size = page_size});
      cache.add();
      const KVCache::Sequence sequence = cache.add();
      std::int64_t done = 0;
      while (done < 600) {
        const std::int64_t count =
            std::min(600 - done, done < 500 ? std::uniform_int_distribution<std::int64_t>(1, 200)(engine) : 1);
        cache.append(sequence, tokens(whole.k, done, done + count), tokens(whole.v, done, done + count));
        EXPECT_EQ(cache.length(sequence), done + count);
        const Call part = over_cache(whole, cache, sequence, done, done + count, mask::causal(Alignment::kBottomRight));
        for (std::int64_t h = 0; h < 4; ++h) {
          for (std::int64_t i = 0; i < count; ++i) {
            ASSERT_TRUE(same_row(whole, {0, h, done + i}, part, {0, h, i}))
                << name_of(type) << ", pages of " << page_size << ", query " << done + i;
          }
        }
        done += count;
      }
    }
  }
}

TEST_P(Cache, ForksShareUntilOneSideWrites) {
  for (const std::int64_t page_size : {0, 16, 32}) {
    const Sizes s{.q_heads = 2, .kv_heads = 1, .tq = 100, .tk = 100, .d = 8, .dv = 8};
    Call a(s, DType::kF32, 1);
    Call b(s, DType::kF32, 2);
    // b begins as a does.
    for (auto [to, from] : {std::pair{&b.k, &a.k}, {&b.v, &a.v}}) {
      to->fill([&, to = to, from = from](const Index& at) {
        return element(at[2] < 40 ? from->view() : Strided(*to).view(), {at[0], at[1], at[2], at[3]});
      });
    }
    KVCache cache({.head_dim = 8, .page_size = page_size});
    const KVCache::Sequence first = cache.add();
    cache.append(first, tokens(a.k, 0, 40), tokens(a.v, 0, 40));
    const std::int64_t pages = cache.pages_in_use();
    const KVCache::Sequence second = cache.fork(first);
    if (page_size > 0) {
      EXPECT_EQ(cache.pages_in_use(), pages);
    }
    cache.append(second, tokens(b.k, 40, 100), tokens(b.v, 40, 100));
    cache.append(first, tokens(a.k, 40, 100), tokens(a.v, 40, 100));
    if (page_size == 16) {
      EXPECT_EQ(cache.pages_in_use(), 2 + 5 + 5);  // 32 tokens shared
    }
    a.run();
    b.run();
    EXPECT_TRUE(same_bits(a, over_cache(a, cache, first, 0, 100, {}))) << page_size;
    EXPECT_TRUE(same_bits(b, over_cache(b, cache, second, 0, 100, {}))) << page_size;
    cache.remove(first);
    EXPECT_TRUE(same_bits(b, over_cache(b, cache, second, 0, 100, {}))) << page_size;
    cache.truncate(second, 50);
    cache.append(second, tokens(b.k, 50, 100), tokens(b.v, 50, 100));
    EXPECT_TRUE(same_bits(b, over_cache(b, cache, second, 0, 100, {}))) << page_size;
    cache.remove(second);
    EXPECT_EQ(cache.pages_in_use(), 0);
  }
}

TEST_P(Cache, I8IsTheTypeItSaysWithAScaleForEachTokenAndHead) {
  const Sizes s{.q_heads = 4, .kv_heads = 2, .tq = 3, .tk = 150, .d = 32, .dv = 32};
  Call call(s, DType::kF32, 4);
  KVCache cache({.num_kv_heads = 2, .head_dim = 32, .dtype = DType::kI8, .page_size = 32});
  const KVCache::Sequence sequence = cache.add();
  cache.append(sequence, tokens(call.k, 0, 150), tokens(call.v, 0, 150));
  // What the cache stands for lies within half a step of what went in.
  KVBatch batch;
  const KVCache::Sequence sequences[] = {sequence};
  cache.gather(sequences, batch);
  const auto stored = [&](const ConstTensorView& data, const ConstTensorView& scales, const Index& at) {
    const std::int64_t page = batch.page_table.as<std::int64_t>()[at[2] / 32];
    return element(data, {page, at[1], at[2] % 32, at[3]}) * element(scales, {page, at[1], at[2] % 32});
  };
  Strided k = dense(DType::kF32, {1, 2, 150, 32});
  Strided v = dense(DType::kF32, {1, 2, 150, 32});
  k.fill([&](const Index& at) { return stored(batch.k, batch.k_scales, at); });
  v.fill([&](const Index& at) { return stored(batch.v, batch.v_scales, at); });
  for (std::int64_t h = 0; h < 2; ++h) {
    for (std::int64_t t = 0; t < 150; ++t) {
      double largest = 0;
      for (std::int64_t e = 0; e < 32; ++e)
        largest = std::max(largest, std::fabs(element(call.k.view(), {0, h, t, e})));
      for (std::int64_t e = 0; e < 32; ++e) {
        EXPECT_LE(std::fabs(element(call.k.view(), {0, h, t, e}) - element(k.view(), {0, h, t, e})),
                  largest / 127 * 0.5001);
      }
    }
  }
  const Oracle oracle = evaluate(call.q.view(), k.view(), v.view(), {});
  const Call got = over_cache(call, cache, sequence, 0, 3, {});
  EXPECT_EQ(compare(oracle, got.out.view(), got.lse.view(), 32, DType::kBF16, false), "");
}

TEST_P(Cache, I8ProductsHaveTheBitsOfOneCall) {
  const Sizes s{.q_heads = 6, .kv_heads = 2, .tq = 300, .tk = 300, .d = 40, .dv = 32};
  const Call call(s, DType::kF32, 9);
  const auto cache_of = [&](std::int64_t page_size) {
    return KVCache({.num_kv_heads = 2, .head_dim = 40, .value_dim = 32, .dtype = DType::kI8, .page_size = page_size});
  };
  KVCache all = cache_of(0);
  const KVCache::Sequence at_once = all.add();
  all.append(at_once, tokens(call.k, 0, 300), tokens(call.v, 0, 300));
  const Call whole = over_cache(call, all, at_once, 0, 300, mask::causal(Alignment::kBottomRight), true);
  for (const std::int64_t page_size : {0, 16, 48}) {
    KVCache cache = cache_of(page_size);
    const KVCache::Sequence sequence = cache.add();
    for (std::int64_t done = 0, count = 1; done < 300; done += count) {
      count = std::min<std::int64_t>(done % 5 == 0 ? 1 : done % 37 + 2, 300 - done);
      cache.append(sequence, tokens(call.k, done, done + count), tokens(call.v, done, done + count));
      const Call part =
          over_cache(call, cache, sequence, done, done + count, mask::causal(Alignment::kBottomRight), true);
      for (std::int64_t h = 0; h < 6; ++h) {
        for (std::int64_t i = 0; i < count; ++i) {
          ASSERT_TRUE(same_row(whole, {0, h, done + i}, part, {0, h, i}))
              << "pages of " << page_size << ", query " << done + i;
        }
      }
    }
  }
}

TEST(CacheErrors, NothingIsLost) {
  EXPECT_EQ(error_of([] { KVCache({.head_dim = 0}); }),
            "KVCache::KVCache: num_kv_heads is 1, head_dim 0, value_dim 0: expected 1 or more");
  EXPECT_EQ(error_of([] { KVCache({.head_dim = 8, .page_size = 24}); }),
            "KVCache::KVCache: page_size is 24, expected 0 or a multiple of 16");
  EXPECT_EQ(error_of([] { KVCache({.head_dim = 8, .dtype = DType::kF64}); }),
            "KVCache::KVCache: dtype is F64, expected F32, BF16, F16 or I8");
  const Sizes s{.tk = 100, .d = 8, .dv = 8};
  const Call call(s, DType::kF32, 1);
  for (const std::int64_t page_size : {0, 16}) {
    KVCache cache({.head_dim = 8, .page_size = page_size, .max_tokens = 64});
    const KVCache::Sequence sequence = cache.add();
    EXPECT_EQ(error_of([&] { cache.append(sequence + 1, tokens(call.k, 0, 1), tokens(call.v, 0, 1)); }),
              "KVCache::append: there is no sequence 1");
    EXPECT_EQ(error_of([&] { cache.append(sequence, tokens(call.k, 0, 3), tokens(call.v, 0, 2)); }),
              "KVCache::append: v is F32 [1,2,8], expected F32, BF16 or F16 [Hkv,T,Dv] = [1,3,8]");
    cache.append(sequence, tokens(call.k, 0, 60), tokens(call.v, 0, 60));
    const std::string full = error_of([&] { cache.append(sequence, tokens(call.k, 60, 100), tokens(call.v, 60, 100)); },
                                      ErrorCode::kOutOfMemory);
    EXPECT_TRUE(contains(full, "exceed max_tokens = 64")) << full;
    EXPECT_EQ(cache.length(sequence), 60);
    cache.append(sequence, tokens(call.k, 60, 64), tokens(call.v, 60, 64));
    EXPECT_EQ(cache.length(sequence), 64);
    EXPECT_EQ(error_of([&] { cache.truncate(sequence, 65); }),
              "KVCache::truncate: length is 65, sequence 0 has 64 tokens");
    cache.remove(sequence);
    EXPECT_EQ(error_of([&] { cache.length(sequence); }), "KVCache::length: there is no sequence 0");
  }
}

TEST_P(Cache, MergingTwoPartsGivesTheWhole) {
  const Sizes s{.q_heads = 4, .kv_heads = 2, .tq = 9, .tk = 300, .d = 16, .dv = 12};
  Call whole(s, DType::kF32, 6);
  whole.run();
  const auto part = [&](std::int64_t begin, std::int64_t end) {
    Sizes sizes = s;
    sizes.tk = end - begin;
    Call call(sizes, DType::kF32);
    call.q = whole.q;
    for (auto [to, from] : {std::pair{&call.k, &whole.k}, {&call.v, &whole.v}}) {
      to->fill(
          [&, from = from](const Index& at) { return element(from->view(), {at[0], at[1], begin + at[2], at[3]}); });
    }
    call.run();
    return call;
  };
  for (const std::int64_t cut : {0, 1, 64, 150, 300}) {
    Call a = part(0, cut);
    const Call b = part(cut, 300);
    // In place.
    merge_attention(a.out.view(), a.lse.view(), b.out.view(), b.lse.view(), a.out.mutable_view(), a.lse.mutable_view());
    const Oracle oracle = whole.oracle();
    EXPECT_EQ(compare(oracle, a.out.view(), a.lse.view(), s.d, DType::kF32, false), "") << "cut at " << cut;
    if (cut == 0 || cut == 300) {
      EXPECT_TRUE(same_bits(a, whole));
    }
  }
}

TEST_P(Cache, AnyNumberOfThreadsAppendsTheSame) {
  const Sizes s{.q_heads = 4, .kv_heads = 4, .tq = 1, .tk = 700, .d = 72, .dv = 64};
  for (const DType type : {DType::kF32, DType::kBF16, DType::kF16, DType::kI8}) {
    const Call whole(s, type == DType::kI8 ? DType::kF32 : type, 3);
    std::vector<Call> calls;
    for (const int threads : {1, 3}) {
      KVCache cache({.num_kv_heads = 4, .head_dim = 72, .value_dim = 64, .dtype = type, .page_size = 64});
      const KVCache::Sequence sequence = cache.add();
      cache.append(sequence, tokens(whole.k, 0, 700), tokens(whole.v, 0, 700), {.num_threads = threads});
      calls.push_back(over_cache(whole, cache, sequence, 0, 1, {}));
    }
    EXPECT_TRUE(same_bits(calls[0], calls[1])) << name_of(type);
  }
}

TEST_P(Cache, AnyNumberOfThreadsMergesTheSame) {
  const Sizes s{.q_heads = 8, .kv_heads = 8, .tq = 300, .tk = 40, .d = 16, .dv = 64};
  Call a(s, DType::kF32, 4), b(s, DType::kF32, 5);
  a.run();
  b.run();
  Call one = a, three = a;
  for (auto [call, threads] : {std::pair{&one, 1}, {&three, 3}}) {
    merge_attention(a.out.view(), a.lse.view(), b.out.view(), b.lse.view(), call->out.mutable_view(),
                    call->lse.mutable_view(), {.num_threads = threads});
  }
  EXPECT_TRUE(same_bits(one, three));
}

TEST(Merge, RowsWithoutKeysAndErrors) {
  const double kMinusInf = -kInf;
  Strided out_a = filled(DType::kF32, {3, 2}, [](const Index& at) { return at[0] == 1 ? kNaN : 1.0; });
  const Strided out_b = filled(DType::kF32, {3, 2}, [](const Index&) { return 5.0; });
  Strided lse_a = filled(DType::kF32, {3}, [&](const Index& at) { return at[0] == 0 ? 0.0 : kMinusInf; });
  const Strided lse_b = filled(DType::kF32, {3}, [&](const Index& at) { return at[0] == 2 ? kMinusInf : 0.0; });
  Strided out = dense(DType::kF32, {3, 2});
  Strided lse = dense(DType::kF32, {3});
  merge_attention(out_a.view(), lse_a.view(), out_b.view(), lse_b.view(), out.mutable_view(), lse.mutable_view());
  EXPECT_EQ(element(out.view(), {0, 0}), 3.0);
  EXPECT_FLOAT_EQ(static_cast<float>(element(lse.view(), {0})), std::log(2.0f));
  EXPECT_EQ(element(out.view(), {1, 0}), 5.0);  // a has no keys there, and its NaN is not read
  EXPECT_EQ(element(lse.view(), {1}), 0.0);
  EXPECT_EQ(element(out.view(), {2, 1}), 0.0);
  EXPECT_EQ(element(lse.view(), {2}), kMinusInf);
  EXPECT_EQ(
      error_of([&] { merge_attention(out_a.view(), lse.view(), out_b.view(), lse_b.view(), lse.mutable_view()); }),
      "merge_attention: out is F32 [3], expected F32, BF16 or F16 [3,2]");
  const auto merged = [&](const TensorView& to, const TensorView& to_lse) {
    return error_of([&] { merge_attention(out_a.view(), lse_a.view(), out_b.view(), lse_b.view(), to, to_lse); });
  };
  EXPECT_EQ(merged(TensorView(out.mutable_view().data(), DType::kF32, {3, 2}, {1, 1}), {}),
            "merge_attention: out F32 [3,2] with strides [1,1] overlaps itself");
  EXPECT_EQ(merged(out.mutable_view(), TensorView(lse.mutable_view().data(), DType::kF32, {3}, {0})),
            "merge_attention: lse F32 [3] with strides [0] overlaps itself");
}

}  // namespace
}  // namespace manyheads::test
