// Integers at and past every limit, tensors beyond 2^31 elements, threads and memory that cannot be had, and forks.
#include <gtest/gtest.h>
#include <malloc.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <manyheads/kv_cache.hpp>
#include <memory>
#include <string>
#include <vector>

#include "attention/call.hpp"
#include "attention/child.hpp"
#include "attention/exact.hpp"

namespace manyheads::test {
namespace {

constexpr std::int64_t kMost32 = std::numeric_limits<std::int32_t>::max();
constexpr std::int64_t kLeast32 = std::numeric_limits<std::int32_t>::min();
constexpr std::int64_t kMost64 = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t kLeast64 = std::numeric_limits<std::int64_t>::min();

class Limits : public AtEachIsa {};
MANYHEADS_AT_EACH_ISA(Limits);

// Values past a limit: next to it, and where a narrower integer would wrap back into range.
std::vector<std::int64_t> past(std::int64_t low, std::int64_t high, DType type) {
  std::vector<std::int64_t> values{low - 1, high + 1, kMost32, kLeast32};
  if (type == DType::kI64) {
    values.insert(values.end(),
                  {(std::int64_t{1} << 32) + low, (std::int64_t{1} << 32) + high, -(std::int64_t{1} << 32),
                   std::int64_t{1} << 62, kMost64, kMost64 - 1, kLeast64, kLeast64 + 1});
  }
  return values;
}

TEST_P(Limits, PageTablesAndLengths) {
  constexpr std::int64_t kPages = 5, kSize = 16, kColumns = 3;
  const Exact q(DType::kF32, {1, 2, 3, 8}), k(DType::kF32, {kPages, 1, kSize, 8}),
      v(DType::kF32, {kPages, 1, kSize, 8});
  Exact out(DType::kF32, {1, 2, 3, 8});
  for (const DType type : {DType::kI32, DType::kI64}) {
    const auto error = [&](const std::vector<std::int64_t>& pages, std::int64_t length) {
      const Exact table(type, {1, kColumns}, pages);
      const Exact lengths(type, {1}, {length});
      return error_of([&] {
        attention(q.view(), k.view(), v.view(), out.view(),
                  {.mask = mask::key_lengths(lengths.view()), .page_table = table.view()});
      });
    };
    for (const std::int64_t length : {0, 1, 15, 16, 17, 47, 48}) {
      EXPECT_EQ(error({kPages - 1, 0, kPages - 1}, length), "no error") << length;
    }
    for (const std::int64_t length : past(0, kColumns * kSize, type)) {
      EXPECT_EQ(error({0, 1, 2}, length),
                "attention: key_lengths[0] is " + std::to_string(length) + ", expected 0 to Tk = 48");
    }
    for (const std::int64_t page : past(0, kPages - 1, type)) {
      EXPECT_EQ(error({4, 0, page}, 33), "attention: page_table[0, 2] is " + std::to_string(page) + ", k has 5 pages");
      EXPECT_EQ(error({4, 0, page}, 32), "no error") << "a page that no key lies on is not looked at";
    }
  }
}

TEST_P(Limits, StartsOfPackedSequences) {
  constexpr std::int64_t kQ = 6, kK = 9;
  const Exact q(DType::kF32, {kQ, 2, 8}), k(DType::kF32, {kK, 1, 8}), v(DType::kF32, {kK, 1, 8});
  Exact out(DType::kF32, {kQ, 2, 8});
  for (const DType type : {DType::kI32, DType::kI64}) {
    const auto error = [&](const std::vector<std::int64_t>& q_starts, const std::vector<std::int64_t>& k_starts) {
      const Exact a(type, {static_cast<std::int64_t>(q_starts.size())}, q_starts);
      const Exact b(type, {static_cast<std::int64_t>(k_starts.size())}, k_starts);
      return error_of([&] {
        attention(q.view(), k.view(), v.view(), out.view(), {.cu_seqlens_q = a.view(), .cu_seqlens_k = b.view()});
      });
    };
    // Empty entries at either end, and all rows in one.
    EXPECT_EQ(error({0, 0, 6, 6}, {0, 9, 9, 9}), "no error");
    EXPECT_EQ(error({0, 0, 0, 6}, {0, 0, 0, 9}), "no error");
    EXPECT_EQ(error({0, 6}, {0, 9}), "no error");
    for (const std::int64_t at : past(0, 0, type)) {
      const std::string what = "attention: cu_seqlens_q[0] is " + std::to_string(at) + ", expected 0";
      EXPECT_EQ(error({at, 3, 6}, {0, 4, 9}), what);
    }
    for (const std::int64_t at : past(0, kQ, type)) {
      const std::string text = error({0, at, 6}, {0, 4, 9});
      const std::string number = std::to_string(at);
      EXPECT_EQ(text, at < 0 ? "attention: cu_seqlens_q[1] is " + number + ", less than 0 before it"
                             : "attention: cu_seqlens_q[2] is 6, less than " + number + " before it");
    }
    for (const std::int64_t at : past(4, kK, type)) {
      const std::string text = error({0, 2, 6}, {0, 4, at});
      const std::string number = std::to_string(at);
      EXPECT_EQ(text, at < 4 ? "attention: cu_seqlens_k[2] is " + number + ", less than 4 before it"
                             : "attention: cu_seqlens_k ends at " + number + ", k has 9 rows");
    }
  }
}

TEST_P(Limits, LengthsAndOffsetsOfPlainKeys) {
  constexpr std::int64_t kTk = 70;
  const Exact q(DType::kF32, {1, 2, 3, 8}), k(DType::kF32, {1, 1, kTk, 8}), v(DType::kF32, {1, 1, kTk, 8});
  Exact out(DType::kF32, {1, 2, 3, 8});
  for (const DType type : {DType::kI32, DType::kI64}) {
    const auto error = [&](std::int64_t value, bool is_offset) {
      const Exact integer(type, {1}, {value});
      const Mask mask = is_offset ? mask::causal() | mask::window(3, 0) | mask::offsets(integer.view())
                                  : mask::key_lengths(integer.view());
      return error_of([&] { attention(q.view(), k.view(), v.view(), out.view(), {.mask = mask}); });
    };
    for (const std::int64_t length : {0, 1, 63, 64, 65, 70}) EXPECT_EQ(error(length, false), "no error") << length;
    for (const std::int64_t length : past(0, kTk, type)) {
      EXPECT_EQ(error(length, false),
                "attention: key_lengths[0] is " + std::to_string(length) + ", expected 0 to Tk = 70");
    }
    constexpr std::int64_t kFar = std::int64_t{1} << 60;
    std::vector<std::int64_t> places{kMost32, kLeast32, 69, 70, -3, -4};
    if (type == DType::kI64) places.insert(places.end(), {kFar, -kFar});
    for (const std::int64_t place : places) EXPECT_EQ(error(place, true), "no error") << place;
    for (const std::int64_t place : {kFar + 1, -kFar - 1, kMost64, kLeast64}) {
      if (type == DType::kI32) continue;
      EXPECT_EQ(error(place, true), "attention: offsets[0] is " + std::to_string(place) + ", expected -2^60 to 2^60");
    }
    // Windows of any width that the type holds.
    for (const std::int64_t side : {kMost32, kMost64, kMost64 - 1}) {
      EXPECT_EQ(
          error_of([&] { attention(q.view(), k.view(), v.view(), out.view(), {.mask = mask::window(side, side)}); }),
          "no error");
    }
  }
}

TEST(CacheLimits, LengthsAndSequences) {
  const Exact rows(DType::kF32, {1, 40, 8});
  for (const std::int64_t page_size : {0, 16}) {
    KVCache cache({.head_dim = 8, .page_size = page_size});
    const KVCache::Sequence sequence = cache.add();
    cache.append(sequence, rows.view(), rows.view());
    for (const std::int64_t length : past(0, 40, DType::kI64)) {
      EXPECT_EQ(error_of([&] { cache.truncate(sequence, length); }),
                "KVCache::truncate: length is " + std::to_string(length) + ", sequence 0 has 40 tokens");
    }
    for (const std::int64_t other : past(0, 0, DType::kI64)) {
      const std::string missing = "there is no sequence " + std::to_string(other);
      KVBatch batch;
      const KVCache::Sequence sequences[] = {sequence, other};
      EXPECT_TRUE(contains(error_of([&] { cache.gather(sequences, batch); }), missing));
      EXPECT_TRUE(contains(error_of([&] { cache.fork(other); }), missing));
      EXPECT_TRUE(contains(error_of([&] { cache.remove(other); }), missing));
    }
    EXPECT_EQ(cache.length(sequence), 40);
    cache.truncate(sequence, 40);
    cache.truncate(sequence, 0);
    EXPECT_EQ(cache.pages_in_use(), 0);
  }
}

TEST(CacheLimits, MoreTokensThanMemoryHolds) {
  const Exact some(DType::kF32, {1, 40, 1});
  for (const std::int64_t page_size : {0, 16}) {
    for (const std::int64_t count : {kMost64, kMost64 - 40, (std::int64_t{1} << 62) + 1, std::int64_t{1} << 48}) {
      const ConstTensorView many(some.view().data(), DType::kF32, {1, count, 1}, {0, 0, 0});
      KVCache cache({.head_dim = 1, .page_size = page_size});
      const KVCache::Sequence sequence = cache.add();
      cache.append(sequence, some.view(), some.view());
      EXPECT_TRUE(contains(error_of([&] { cache.append(sequence, many, many); }, ErrorCode::kOutOfMemory),
                           "are more than memory holds"));
      EXPECT_EQ(cache.length(sequence), 40);
    }
  }
}

TEST(CallLimits, MoreKeysThanPlacesCanCount) {
  // Views of stride 0 take no memory, however long they are.
  const Exact q(DType::kF32, {1, 1, 1, 8}), page(DType::kF32, {1, 1, 16, 8}), zero(DType::kI64, {1}, {0});
  Exact out(DType::kF32, {1, 1, 1, 8});
  for (const std::int64_t columns : {std::int64_t{1} << 57, std::int64_t{1} << 59, std::int64_t{1} << 60}) {
    const ConstTensorView table(zero.view().data(), DType::kI64, {1, columns}, {0, 0});
    AttentionOptions options;
    options.page_table = table;
    options.mask = mask::key_lengths(zero.view());
    EXPECT_TRUE(contains(error_of([&] { attention(q.view(), page.view(), page.view(), out.view(), options); }),
                         "more than 2^60 keys"));
  }
  const ConstTensorView keys(page.view().data(), DType::kF32, {1, 1, std::int64_t{1} << 61, 1}, {0, 0, 0, 0});
  const ConstTensorView one(q.view().data(), DType::kF32, {1, 1, 1, 1});
  EXPECT_TRUE(contains(error_of([&] {
                         attention(one, keys, keys, TensorView(out.view().data(), DType::kF32, {1, 1, 1, 1}),
                                   {.mask = mask::key_lengths(zero.view())});
                       }),
                       "more than 2^60 keys"));
}

// Zeros that take no memory until they are written to.
class Sparse {
 public:
  Sparse(DType type, Dims shape) : type_(type), shape_(shape) {
    bytes_ = static_cast<std::size_t>(element_count(shape)) * size_of(type);
    data_ = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (data_ == MAP_FAILED) return;
    ::madvise(data_, bytes_, MADV_HUGEPAGE);  // zeros are then read 2 MiB at a time
  }
  Sparse(const Sparse&) = delete;
  Sparse& operator=(const Sparse&) = delete;
  ~Sparse() {
    if (data_ != MAP_FAILED) ::munmap(data_, bytes_);
  }
  bool there() const { return data_ != MAP_FAILED; }
  TensorView view() const { return TensorView(data_, type_, shape_); }
  template <class T>
  T& at(std::int64_t i) const {
    return static_cast<T*>(data_)[i];
  }

 private:
  DType type_;
  Dims shape_;
  std::size_t bytes_ = 0;
  void* data_ = nullptr;
};

// Why tensors beyond 2^31 elements cannot be had here; "" where they can.
std::string too_small() {
  const double gib =
      static_cast<double>(::sysconf(_SC_PHYS_PAGES)) * static_cast<double>(::sysconf(_SC_PAGE_SIZE)) / 0x1p30;
  if (gib < 20) return "tensors beyond 2^31 elements need a machine of 20 GiB, this one has " + std::to_string(gib);
#if defined(__SANITIZE_THREAD__)
  return "the thread sanitizer's shadow of a tensor beyond 2^31 elements is larger than memory";
#endif
  return "";
}

// 2^25 and some keys of 64 I8: zeros, but for one before the 2^31st element, one behind it and the last.
TEST(BeyondTwoToThe31, KeysAndValuesOfOneHead) {
  if (const std::string why = too_small(); !why.empty()) GTEST_SKIP() << why;
  constexpr std::int64_t kKeys = (std::int64_t{1} << 25) + 1001, kD = 64;
  const Sparse k(DType::kI8, {1, 1, kKeys, kD}), v(DType::kI8, {1, 1, kKeys, kD});
  const Sparse k_scales(DType::kF32, {1, 1, kKeys}), v_scales(DType::kF32, {1, 1, kKeys});
  if (!k.there() || !v.there()) GTEST_SKIP() << "no address space of 5 GiB";
  const std::int64_t places[] = {(std::int64_t{1} << 24) + 7, (std::int64_t{1} << 25) + 3, kKeys - 1};
  Strided q = dense(DType::kF32, {1, 4, 1, kD});
  q.fill([](const Index& at) { return at[1] == at[3] ? 40.0 : 0.0; });
  for (int i = 0; i < 3; ++i) {
    // Head i finds key i and its value; head 3 finds none and sees every key alike.
    k.at<std::int8_t>(places[i] * kD + i) = 1;
    k_scales.at<float>(places[i]) = 1;
    v.at<std::int8_t>(places[i] * kD + 10) = static_cast<std::int8_t>(100 + i);
    v_scales.at<float>(places[i]) = 1;
  }
  Strided out = dense(DType::kF32, {1, 4, 1, kD});
  Strided lse = dense(DType::kF32, {1, 4, 1});
  const TensorView lse_view = lse.mutable_view();
  AttentionOptions options;
  options.scale = 1.0;
  options.lse = lse_view;
  options.k_scales = k_scales.view();
  options.v_scales = v_scales.view();
  attention(q.view(), k.view(), v.view(), out.mutable_view(), options);
  for (std::int64_t h = 0; h < 3; ++h) {
    EXPECT_NEAR(element(out.view(), {0, h, 0, 10}), 100.0 + static_cast<double>(h), 1e-4) << h;
    EXPECT_NEAR(element(lse.view(), {0, h, 0}), 40, 1e-5) << h;
  }
  EXPECT_NEAR(element(out.view(), {0, 3, 0, 10}), 303.0 / kKeys, 1e-11);
  EXPECT_NEAR(element(lse.view(), {0, 3, 0}), std::log(static_cast<double>(kKeys)), 1e-5);
}

// 2^21 and some rows of 16 BF16 in, of 1024 out: each of more than 2^31 elements is written.
TEST(BeyondTwoToThe31, QueriesAndOutputsOfOneHead) {
  if (const std::string why = too_small(); !why.empty()) GTEST_SKIP() << why;
  constexpr std::int64_t kRows = (std::int64_t{1} << 21) + 333, kD = 16, kDv = 1024;
  const Sparse q(DType::kBF16, {1, 1, kRows, kD}), out(DType::kBF16, {1, 1, kRows, kDv});
  if (!q.there() || !out.there()) GTEST_SKIP() << "no address space of 5 GiB";
  Strided k = dense(DType::kBF16, {1, 1, 2, kD});
  k.fill([](const Index& at) { return at[3] == 0 ? (at[2] == 0 ? 16.0 : -16.0) : 0.0; });
  Strided v = dense(DType::kBF16, {1, 1, 2, kDv});
  v.fill([](const Index& at) { return at[2] == 0 ? 1.0 : 3.0; });
  // Rows of zero see the mean, 2; those around the 2^31st element and the last one see key 0 or 1 alone.
  constexpr std::int64_t kEdge = std::int64_t{1} << 21;
  const auto sign = [](std::int64_t row) {
    return row == kEdge - 1 || row == kRows - 1 ? 16.0f : row == kEdge ? -16.0f : 0.0f;
  };
  for (const std::int64_t row : {kEdge - 1, kEdge, kRows - 1}) q.at<bfloat16>(row * kD) = bfloat16(sign(row));
  attention(q.view(), k.view(), v.view(), out.view());
  for (std::int64_t row = 0; row < kRows; row += row < kEdge - 1000 ? 997 : 1) {
    const float expected = sign(row) > 0 ? 1.0f : sign(row) < 0 ? 3.0f : 2.0f;
    for (const std::int64_t e : {std::int64_t{0}, kDv - 1}) {
      ASSERT_EQ(static_cast<float>(out.at<bfloat16>(row * kDv + e)), expected) << "row " << row;
    }
  }
}

// A pool of pages whose element offsets pass 2^32, of which few are touched.
TEST_P(Limits, PagesBeyondTwoToThe32Elements) {
  constexpr std::int64_t kPages = (std::int64_t{1} << 22) + 5, kSize = 16, kD = 64;
  const Sparse k(DType::kBF16, {kPages, 1, kSize, kD}), v(DType::kBF16, {kPages, 1, kSize, kD});
  if (!k.there() || !v.there()) GTEST_SKIP() << "no address space of 17 GiB";
  Call call({.q_heads = 2, .kv_heads = 1, .tq = 3, .tk = 40, .d = kD, .dv = kD}, DType::kBF16);
  const std::vector<std::int64_t> pages{kPages - 1, 3, std::int64_t{1} << 22};
  for (std::int64_t j = 0; j < 40; ++j) {
    for (std::int64_t e = 0; e < kD; ++e) {
      const std::int64_t at = (pages[static_cast<std::size_t>(j / kSize)] * kSize + j % kSize) * kD + e;
      k.at<bfloat16>(at) = bfloat16(static_cast<float>(element(call.k.view(), {0, 0, j, e})));
      v.at<bfloat16>(at) = bfloat16(static_cast<float>(element(call.v.view(), {0, 0, j, e})));
    }
  }
  call.run();
  Call paged(call.sizes, DType::kBF16);
  const Exact table(DType::kI32, {1, 3}, pages);
  const Exact length(DType::kI32, {1}, {40});
  const TensorView lse = paged.lse.mutable_view();
  AttentionOptions options;
  options.mask = mask::key_lengths(length.view());
  options.page_table = table.view();
  options.lse = lse;
  attention(call.q.view(), k.view(), v.view(), paged.out.mutable_view(), options);
  EXPECT_TRUE(same_bits(call, paged));
}

// Packed rows whose element offsets pass 2^32.
TEST_P(Limits, PackedRowsBeyondTwoToThe32Elements) {
  constexpr std::int64_t kApart = std::int64_t{1} << 30;
  const Sparse space(DType::kF32, {9 * kApart});
  if (!space.there()) GTEST_SKIP() << "no address space of 36 GiB";
  const Exact q(DType::kF32, {3, 1, 8}), starts(DType::kI32, {3}, {0, 2, 9}), q_starts(DType::kI32, {3}, {0, 1, 3});
  const Exact near(DType::kF32, {9, 1, 8});
  for (std::int64_t j = 0; j < 9; ++j) {
    for (std::int64_t e = 0; e < 8; ++e) space.at<float>(j * kApart + e) = near.as<float>()[j * 8 + e];
  }
  const ConstTensorView far(space.view().data(), DType::kF32, {9, 1, 8}, {kApart, 8, 1});
  Exact expected(DType::kF32, {3, 1, 8}), out(DType::kF32, {3, 1, 8});
  const AttentionOptions options{.cu_seqlens_q = q_starts.view(), .cu_seqlens_k = starts.view()};
  attention(q.view(), near.view(), near.view(), expected.view(), options);
  attention(q.view(), far, far, out.view(), options);
  EXPECT_EQ(std::memcmp(expected.bytes.get(), out.bytes.get(), out.size()), 0);
}

// Leaves the process so much more address space than it has. Large blocks are then the system's, not an earlier test's.
void limit_memory(std::size_t more_bytes) {
  ::mallopt(M_MMAP_THRESHOLD, 1 << 16);
  rlimit limit{};
  ::getrlimit(RLIMIT_AS, &limit);
  limit.rlim_cur = own_status("VmSize") * 1024 + more_bytes;
  ::setrlimit(RLIMIT_AS, &limit);
}

TEST_P(Limits, AForkedChildDecodesInBlocksWithTheSameBits) {
  if (kSanitized) GTEST_SKIP() << "the thread sanitizer ends children that start threads";
  Call alone = split_call(1);
  alone.run();
  Call parent = split_call(4);
  EXPECT_GT(parent.explanation().kv_splits, 1);
  parent.run();  // the parent's pool has threads
  EXPECT_TRUE(same_bits(alone, parent));
  EXPECT_EQ(in_a_child([&] {
              Call call = split_call(4);
              call.run();
              if (own_status("Threads") != 4) return 2;
              return same_bits(alone, call) ? 0 : 1;
            }),
            0);
  parent.run();
  EXPECT_TRUE(same_bits(alone, parent));
}

TEST_P(Limits, MemoryThatCannotBeHadIsAnErrorAndNothingIsLost) {
  if (kSanitized) GTEST_SKIP() << "a sanitizer needs the address space that this test takes away";
  // Wide rows and many threads: a workspace larger than any block that malloc keeps.
  const Sizes s{.q_heads = 256, .kv_heads = 1, .tq = 1, .tk = 3000, .d = 8, .dv = 2048};
  Call alone(s);
  alone.options.threads.num_threads = 1;
  alone.run();
  EXPECT_EQ(in_a_child([&] {
              Call call = alone;
              call.options.threads.num_threads = 1000;
              const std::size_t wanted = attention_workspace_size(call.q.view(), call.k.view(), call.v.view(),
                                                                  call.out.mutable_view(), call.options);
              if (wanted < std::size_t{64} << 20) return 5;
              limit_memory(wanted / 2);
              std::size_t before = 0;
              for (int round = 0; round < 20; ++round) {
                // malloc may open a second arena when the first cannot grow: that is no leak.
                if (round == 3) before = own_status("VmSize");
                try {
                  call.run();
                  return 1;
                } catch (const Error& error) {
                  if (error.code() != ErrorCode::kOutOfMemory) return 2;
                }
              }
              if (own_status("VmSize") > before + 1024) return 3;
              call.options.threads.num_threads = 1;
              call.run();
              return same_bits(alone, call) ? 0 : 4;
            }),
            0);
}

TEST(CacheLimits, MemoryThatCannotBeHadChangesNothing) {
  if (kSanitized) GTEST_SKIP() << "a sanitizer needs the address space that this test takes away";
  for (const std::int64_t page_size : {0, 64}) {
    EXPECT_EQ(in_a_child([&] {
                const Exact some(DType::kF32, {2, 100, 64});
                const float one = 1;
                const ConstTensorView many(&one, DType::kF32, {2, 1 << 16, 64}, {0, 0, 0});
                KVCache cache({.num_kv_heads = 2, .head_dim = 64, .page_size = page_size});
                const KVCache::Sequence sequence = cache.add();
                cache.append(sequence, some.view(), some.view());
                // The keys' new memory can be had, 64 MiB in one piece or 33 in pages, the values' cannot.
                limit_memory(std::size_t{page_size == 0 ? 96u : 50u} << 20);
                const std::size_t bytes = cache.bytes();
                const std::int64_t pages = cache.pages_in_use();
                std::size_t before = 0;
                for (int round = 0; round < 6; ++round) {
                  if (round == 3) before = own_status("VmSize");
                  try {
                    cache.append(sequence, many, many);
                    return 1;
                  } catch (const Error& error) {
                    if (error.code() != ErrorCode::kOutOfMemory) return 2;
                  }
                  if (cache.length(sequence) != 100 || cache.pages_in_use() != pages || cache.bytes() != bytes)
                    return 3;
                }
                if (own_status("VmSize") > before + 1024) return 4;
                cache.append(sequence, some.view(), some.view());
                return cache.length(sequence) == 200 ? 0 : 5;
              }),
              0)
        << page_size;
  }
}

}  // namespace
}  // namespace manyheads::test
