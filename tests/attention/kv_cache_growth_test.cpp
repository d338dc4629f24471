// A cache that grows, or is refused to: what it holds, what it takes, and appends from its own memory.
#include <gtest/gtest.h>

#include <cstdint>
#include <manyheads/kv_cache.hpp>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "attention/call.hpp"
#include "attention/child.hpp"

namespace manyheads::test {
namespace {

constexpr std::int64_t kHeads = 2, kWidth = 8;

// Tokens [begin, end) of one source for all caches here, [Hkv,T,D].
ConstTensorView tokens(std::int64_t begin, std::int64_t end) {
  static const std::vector<float> values = [] {
    std::vector<float> all(static_cast<std::size_t>(kHeads * 5000 * kWidth));
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<float>(i % 1009) / 1009 - 0.5f;
    return all;
  }();
  return ConstTensorView(values.data() + begin * kWidth, Dims{kHeads, end - begin, kWidth}, Dims{5000 * kWidth, kWidth, 1});
}

KVCache cache_of(std::int64_t page_size, std::int64_t max_tokens = 0, DType type = DType::kF32) {
  return KVCache(
      {.num_kv_heads = kHeads, .head_dim = kWidth, .dtype = type, .page_size = page_size, .max_tokens = max_tokens});
}

// What a sequence holds, read back through the batch that attention would take.
std::vector<float> content(const KVCache& cache, KVCache::Sequence sequence) {
  KVBatch batch;
  const KVCache::Sequence sequences[] = {sequence};
  cache.gather(sequences, batch);
  std::vector<float> all;
  const std::int64_t size = batch.k.size(2);
  for (std::int64_t t = 0; t < cache.length(sequence); ++t) {
    const std::int64_t page = batch.page_table.as<std::int64_t>()[t / size];
    for (const ConstTensorView* view : {&batch.k, &batch.v}) {
      const ConstTensorView& scales = view == &batch.k ? batch.k_scales : batch.v_scales;
      for (std::int64_t h = 0; h < kHeads; ++h) {
        const double scale = scales.defined() ? element(scales, {page, h, t % size}) : 1.0;
        for (std::int64_t e = 0; e < kWidth; ++e) {
          all.push_back(static_cast<float>(element(*view, {page, h, t % size, e}) * scale));
        }
      }
    }
  }
  return all;
}

bool append(KVCache& cache, KVCache::Sequence sequence, std::int64_t count) {
  const std::int64_t from = cache.length(sequence);
  try {
    cache.append(sequence, tokens(from, from + count), tokens(from + 1, from + count + 1));
    return true;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kOutOfMemory) << error.what();
    return false;
  }
}

TEST(CacheGrowth, ARefusedAppendChangesNothing) {
  KVCache a = cache_of(0, 100);
  const KVCache::Sequence s = a.add();
  EXPECT_FALSE(append(a, s, 101));
  EXPECT_TRUE(append(a, s, 1));  // was refused for ever

  KVCache b = cache_of(0, 200);
  const KVCache::Sequence t = b.add(), u = b.add();
  EXPECT_TRUE(append(b, t, 60));
  const std::size_t bytes = b.bytes();
  EXPECT_FALSE(append(b, u, 141));
  EXPECT_EQ(b.bytes(), bytes);
  EXPECT_EQ(b.pages_in_use(), 1);
  EXPECT_TRUE(append(b, u, 60));
  EXPECT_FALSE(append(b, u, 61));
  EXPECT_TRUE(append(b, u, 30));
}

TEST(CacheGrowth, InOnePieceTheRoomIsWhatTheBoundLeaves) {
  for (const auto& [bound, fit] : {std::pair<std::int64_t, std::int64_t>{16, 16}, {40, 32}, {64, 64}, {100, 96}, {129, 128}}) {
    KVCache cache = cache_of(0, bound);
    const KVCache::Sequence s = cache.add();
    EXPECT_FALSE(append(cache, s, fit + 1)) << bound;
    EXPECT_TRUE(append(cache, s, fit - 1)) << bound;
    EXPECT_TRUE(append(cache, s, 1)) << bound;
    EXPECT_FALSE(append(cache, s, 1)) << bound;
    EXPECT_LE(cache.bytes(), static_cast<std::size_t>(bound * kHeads * kWidth * 2) * sizeof(float));
  }
  KVCache none = cache_of(0, 15);
  EXPECT_FALSE(append(none, none.add(), 1));
  // Pieces that nobody has any more do not stand in the way of a longer one, nor do rooms of the longest of others.
  KVCache cache = cache_of(0, 256);
  const KVCache::Sequence s[] = {cache.add(), cache.add(), cache.add(), cache.add()};
  for (const KVCache::Sequence one : s) EXPECT_TRUE(append(cache, one, 50));
  for (int i = 1; i < 4; ++i) cache.remove(s[i]);
  EXPECT_TRUE(append(cache, s[0], 206));
  EXPECT_EQ(cache.pages_in_use(), 1);
  cache.truncate(s[0], 70);
  const KVCache::Sequence other = cache.add();
  EXPECT_TRUE(append(cache, other, 128));
  EXPECT_FALSE(append(cache, other, 1));
  EXPECT_EQ(cache.length(s[0]), 70);
}

// Calls that are refused, against a cache that never heard of them; all it holds against plain vectors.
TEST(CacheGrowth, RefusedCallsMightNeverHaveBeenMade) {
  std::mt19937_64 engine(3);
  int refused = 0, forks_refused = 0;
  for (int round = 0; round < 120; ++round) {
    const std::int64_t page_size = std::vector<std::int64_t>{0, 0, 16, 48}[static_cast<std::size_t>(round % 4)];
    const std::int64_t bound = between(engine, 16, 700);
    const DType type = round % 3 == 0 ? DType::kI8 : DType::kF32;
    KVCache tried = cache_of(page_size, bound, type), spared = cache_of(page_size, bound, type);
    std::vector<KVCache::Sequence> living;
    for (int step = 0; step < 60; ++step) {
      const auto any = [&] { return living[static_cast<std::size_t>(between(engine, 0, std::ssize(living) - 1))]; };
      const std::int64_t what = between(engine, 0, 9);
      if (living.empty() || what == 0) {
        living.push_back(tried.add());
        ASSERT_EQ(spared.add(), living.back());
      } else if (what == 1) {
        const KVCache::Sequence gone = any();
        tried.remove(gone), spared.remove(gone);
        std::erase(living, gone);
      } else if (what == 2) {
        const KVCache::Sequence cut = any();
        const std::int64_t length = between(engine, 0, tried.length(cut));
        tried.truncate(cut, length), spared.truncate(cut, length);
      } else if (what == 3) {
        const KVCache::Sequence from = any();
        std::optional<KVCache::Sequence> made;
        try {
          made = tried.fork(from);
        } catch (const Error& error) {
          ASSERT_EQ(error.code(), ErrorCode::kOutOfMemory);
          ++forks_refused;
        }
        if (made) {
          ASSERT_EQ(spared.fork(from), *made);
          living.push_back(*made);
        }
      } else {
        const KVCache::Sequence to = any();
        const std::int64_t count = between(engine, 1, what == 9 ? 400 : 60);
        if (append(tried, to, count)) {
          ASSERT_TRUE(append(spared, to, count));
        } else {
          ++refused;
        }
      }
      ASSERT_EQ(tried.bytes(), spared.bytes());
      ASSERT_EQ(tried.pages_in_use(), spared.pages_in_use());
      for (const KVCache::Sequence sequence : living) {
        ASSERT_EQ(tried.length(sequence), spared.length(sequence));
        ASSERT_EQ(content(tried, sequence), content(spared, sequence));
        if (type != DType::kF32) continue;
        const std::vector<float> held = content(tried, sequence);
        for (std::int64_t t = 0; t < tried.length(sequence); ++t) {  // each begins with the same tokens
          ASSERT_EQ(held[static_cast<std::size_t>(t * 2 * kHeads * kWidth)], element(tokens(t, t + 1), {0, 0, 0}));
        }
      }
    }
  }
  EXPECT_GT(refused, 100);
  EXPECT_GT(forks_refused, 10);
}

// The tokens of a KVBatch of the same cache, while its memory grows.
TEST(CacheGrowth, AppendsFromItsOwnMemory) {
  for (const std::int64_t page_size : {0, 16, 64}) {
    KVCache cache = cache_of(page_size), copies = cache_of(page_size);
    const KVCache::Sequence from = cache.add();
    ASSERT_EQ(copies.add(), from);
    EXPECT_TRUE(append(cache, from, 40));
    EXPECT_TRUE(append(copies, from, 40));
    std::vector<KVCache::Sequence> others{from, cache.fork(from)};
    ASSERT_EQ(copies.fork(from), others[1]);
    for (int round = 0; round < 60; ++round) {
      KVBatch batch;
      const KVCache::Sequence sequences[] = {from};
      cache.gather(sequences, batch);
      const std::int64_t size = batch.k.size(2), page = batch.page_table.as<std::int64_t>()[0];
      const std::int64_t count = std::min<std::int64_t>(size, 1 + round % 37);
      // The last of them first, where the round is odd; and keys as values.
      const auto part = [&](const ConstTensorView& all) {
        const bool backwards = round % 2 == 1;
        return ConstTensorView(
            static_cast<const float*>(all.data()) + page * all.stride(0) + (backwards ? (count - 1) * all.stride(2) : 0),
            Dims{kHeads, count, kWidth}, Dims{all.stride(1), backwards ? -all.stride(2) : all.stride(2), all.stride(3)});
      };
      const auto copy = [&](const ConstTensorView& all) {
        return filled(DType::kF32, {kHeads, count, kWidth},
                      [&](const Index& at) { return element(part(all), {at[0], at[1], at[2]}); });
      };
      const Strided k = copy(batch.v), v = copy(batch.k);
      const KVCache::Sequence to = others[static_cast<std::size_t>(round) % others.size()];
      cache.append(to, part(batch.v), part(batch.k));
      copies.append(to, k.view(), v.view());
      for (const KVCache::Sequence sequence : others) {
        ASSERT_EQ(content(cache, sequence), content(copies, sequence)) << page_size << ", round " << round;
      }
      if (round % 7 == 0) {
        others.push_back(cache.add());
        ASSERT_EQ(copies.add(), others.back());
      }
    }
  }
}

// Growing takes what is written, not twice what there is.
TEST(CacheGrowth, CopiesNothing) {
  if (kSanitized) GTEST_SKIP() << "a sanitizer's own memory grows too";
  EXPECT_EQ(in_a_child([] {
              constexpr std::int64_t kPage = 1024;
              KVCache cache({.num_kv_heads = 4, .head_dim = 64, .page_size = kPage});
              const KVCache::Sequence sequence = cache.add();
              const std::vector<float> page(4 * kPage * 64, 1.0f);
              const ConstTensorView view(page.data(), Dims{4, kPage, 64});
              for (int i = 0; i < 17; ++i) cache.append(sequence, view, view);  // just doubled: 34 of 64 MiB are written
              // With the workspace and all else below a tenth of a copy more.
              return own_status("VmHWM") < own_status("VmRSS") + 3 * 1024 ? 0 : 1;
            }),
            0);
}

}  // namespace
}  // namespace manyheads::test
