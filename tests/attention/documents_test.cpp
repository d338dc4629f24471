#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "attention/call.hpp"

// Documents, by which tiles are cut: the bits of each row stay those of the same mask written out.
namespace manyheads::test {
namespace {

class Documents : public AtEachIsa {};
MANYHEADS_AT_EACH_ISA(Documents);

// The document of each token where documents of these lengths follow each other, and end with the tokens.
std::vector<std::int64_t> ids_of(const std::vector<std::int64_t>& lengths) {
  std::vector<std::int64_t> ids;
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    ids.insert(ids.end(), static_cast<std::size_t>(lengths[i]), static_cast<std::int64_t>(i) * 3 - 4);
  }
  return ids;
}

// Ids that differ above bit 32 alone, many rows and few: what the same mask written out gives.
TEST_P(Documents, IdsOfSixtyFourBits) {
  for (const std::int64_t tq : {3, 100}) {
    const auto id = [](std::int64_t i) { return static_cast<double>((i / 21 + 1) * 4294967296 + 5); };
    Call call({.tq = tq, .tk = 100, .d = 20, .dv = 20});
    const Strided q_ids = filled(DType::kI64, {1, tq}, [&](const Index& at) { return id(at[1]); });
    const Strided k_ids = filled(DType::kI64, {1, 100}, [&](const Index& at) { return id(at[1]); });
    const Strided same =
        filled(DType::kBool, {tq, 100}, [&](const Index& at) { return id(at[0]) == id(at[1]) ? 1.0 : 0.0; });
    call.options.mask = mask::documents(q_ids.view(), k_ids.view());
    call.run();
    Call written({.tq = tq, .tk = 100, .d = 20, .dv = 20});
    written.options.mask = mask::allowed(same.view());
    written.run();
    for (std::int64_t i = 0; i < tq; ++i) EXPECT_TRUE(same_row(call, {0, 0, i}, written, {0, 0, i})) << "query " << i;
  }
}

// Long and short ones in any order, those of the two entries elsewhere, one id that comes back, rows in another order
// than keys, and fewer rows than a tile.
TEST_P(Documents, OfAnyLengthGiveTheBitsOfTheMaskWrittenOut) {
  const std::vector<std::int64_t> first = {1, 130, 19, 20, 21, 3, 3, 64, 2, 7, 30};  // 300 tokens
  const std::vector<std::int64_t> second = {63, 65, 5, 1, 1, 1, 1, 1, 100, 62};
  std::vector<std::int64_t> ids[2] = {ids_of(first), ids_of(second)};
  std::replace(ids[1].begin(), ids[1].end(), ids[1].back(), ids[1].front());
  for (const DType type : {DType::kF32, DType::kBF16}) {
    for (const std::int64_t tq : {300, 299, 65, 30}) {
      for (const bool is_causal : {false, true}) {
        const Sizes s{.batch = 2, .q_heads = 4, .kv_heads = 2, .tq = tq, .tk = 300, .d = 24, .dv = 16};
        const auto q_id = [&](const Index& at) {
          const std::int64_t i = at[0] == 0 ? at[1] : 299 - at[1];
          return static_cast<double>(ids[at[0]][static_cast<std::size_t>(i)]);
        };
        const auto k_id = [&](const Index& at) {
          return static_cast<double>(ids[at[0]][static_cast<std::size_t>(at[1])]);
        };
        const Strided q_ids = filled(DType::kI32, {2, tq}, q_id);
        const Strided k_ids = filled(DType::kI64, {2, 300}, k_id);
        const Strided same = filled(DType::kBool, {2, 1, tq, 300}, [&](const Index& at) {
          return q_id({at[0], at[2]}) == k_id({at[0], at[3]}) ? 1.0 : 0.0;
        });
        const Mask besides = is_causal ? mask::causal(Alignment::kBottomRight) : Mask{};
        Call written(s, type, DType::kF32, 1);  // whose bits show more
        written.options.mask = mask::allowed(same.view()) | besides;
        written.run();
        for (const int threads : {1, 3}) {
          Call call(s, type, DType::kF32, 1);
          call.options.mask = mask::documents(q_ids.view(), k_ids.view()) | besides;
          call.options.threads.num_threads = threads;
          call.run();
          for (std::int64_t b = 0; b < 2; ++b) {
            for (std::int64_t h = 0; h < 4; ++h) {
              for (std::int64_t i = 0; i < tq; ++i) {
                ASSERT_TRUE(same_row(written, {b, h, i}, call, {b, h, i}))
                    << name_of(type) << " " << b << " " << h << " " << i << " of " << tq
                    << (is_causal ? " causal" : "");
              }
            }
          }
        }
      }
    }
  }
}

// Ids before, between and behind those of the keys, few rows and many, with all that a run of keys brings along.
TEST_P(Documents, WithoutAnyKeyGiveZeros) {
  for (const DType type : {DType::kF32, DType::kBF16}) {
    for (const std::int64_t tq : {2, 90}) {
      for (const double id : {-1.0, 5.0, 100.0}) {
        for (const std::int64_t tk : {1, 64, 100, 127}) {
          Call call({.tq = tq, .tk = tk, .d = 20, .dv = 20}, type, DType::kF32, 1);
          const Strided q_ids = filled(DType::kI32, {1, tq}, [&](const Index&) { return id; });
          std::vector<std::int32_t> k_ids;
          for (std::int64_t j = 0; j < tk; ++j) k_ids.push_back(j % 2 == 0 ? 1 : 9);
          k_ids.push_back(static_cast<std::int32_t>(id));  // no key: not to be looked at
          const Strided all = filled(DType::kBool, {tq, tk}, [](const Index&) { return 1.0; });
          const Strided added = filled(DType::kF32, {tq, tk}, [](const Index&) { return 1.0; });
          Strided weights = filled(DType::kF32, {1, 1, tq, tk}, [](const Index&) { return 777.0; });
          call.options.mask = mask::documents(q_ids.view(), {k_ids.data(), {1, tk}}) | mask::allowed(all.view()) |
                              mask::bias(added.view());
          call.run();
          EXPECT_EQ(call.explanation().skipped_runs, call.explanation().runs);
          attention_weights(call.q.view(), call.k.view(), call.lse.view(), weights.mutable_view(), call.options);
          for (std::int64_t i = 0; i < tq; ++i) {
            for (std::int64_t e = 0; e < 20; ++e) ASSERT_EQ(call.out_at(0, 0, i, e), 0.0);
            for (std::int64_t j = 0; j < tk; ++j) ASSERT_EQ(element(weights.view(), {0, 0, i, j}), 0.0);
            ASSERT_EQ(call.lse_at(0, 0, i), -kInf);
          }
        }
      }
    }
  }
}

// A tile with queries of two long documents would read the keys of both. Short ones between them share one.
TEST_P(Documents, NoTileReadsTheKeysOfTwoLongOnes) {
  const std::vector<std::int64_t> ids = ids_of({130, 5, 6, 190, 53, 256});
  const Strided q_ids = filled(DType::kI32, {1, 640}, [&](const Index& at) {
    return static_cast<double>(ids[static_cast<std::size_t>(at[1])]);
  });
  Call call({.q_heads = 2, .kv_heads = 1, .tq = 640, .tk = 640, .d = 32, .dv = 32});
  call.options.mask = mask::documents(q_ids.view(), q_ids.view());
  const double pairs = 130 * 130 + 11 * 11 + 190 * 190 + 53 * 53 + 256 * 256;
  EXPECT_LE(call.explanation().flop, 2.0 * 2 * (32 + 32) * pairs);  // less where tiles are smaller than 11 queries
}

}  // namespace
}  // namespace manyheads::test
