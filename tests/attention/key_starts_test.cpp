#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "attention/call.hpp"
#include "attention/draw.hpp"

// Sequences padded on the left: the keys before a start do not exist, and the bits are those of the bare sequence.
namespace manyheads::test {
namespace {

class KeyStarts : public AtEachIsa {};
MANYHEADS_AT_EACH_ISA(KeyStarts);

// A batch whose entries are padded on the left to one length, and each entry alone.
TEST_P(KeyStarts, ALeftPaddedBatchHasTheBitsOfEachSequence) {
  for (const DType type : {DType::kF32, DType::kBF16, DType::kF16}) {
    for (const std::int64_t queries : {std::int64_t{0}, std::int64_t{3}}) {  // 0: as many as keys
      const std::vector<std::int64_t> starts{0, 1, 17, 64, 700, 1299};
      Sizes s{.batch = 6, .q_heads = 4, .kv_heads = 2, .tq = queries == 0 ? 1300 : queries, .tk = 1300, .d = 24, .dv = 32};
      Call padded(s, type, DType::kF32, 3);
      const Strided begins = integers(starts, DType::kI32);
      // What is not there is never read.
      for (Strided* x : {&padded.k, &padded.v}) {
        for (std::size_t b = 0; b < starts.size(); ++b) {
          for (std::int64_t h = 0; h < s.kv_heads; ++h) {
            for (std::int64_t j = 0; j < starts[b]; ++j) {
              x->set(x->origin + static_cast<std::int64_t>(b) * x->strides[0] + h * x->strides[1] + j * x->strides[2],
                     std::numeric_limits<double>::quiet_NaN());
            }
          }
        }
      }
      padded.options.mask = mask::causal(Alignment::kBottomRight) | mask::key_starts(begins.view());
      padded.run();
      for (std::size_t b = 0; b < starts.size(); ++b) {
        Sizes bare = s;
        bare.batch = 1;
        bare.tk = s.tk - starts[b];
        bare.tq = std::min(s.tq, bare.tk);
        Call alone(bare, type, DType::kF32, 1);
        const std::int64_t first = s.tq - bare.tq;
        const auto copy = [&](const Strided& from, Strided& to, std::int64_t skip) {
          to.fill([&](const Index& at) {
            return element(from.view(), {static_cast<std::int64_t>(b), at[1], at[2] + skip, at[3]});
          });
        };
        copy(padded.q, alone.q, first);
        copy(padded.k, alone.k, starts[b]);
        copy(padded.v, alone.v, starts[b]);
        alone.options.mask = mask::causal(Alignment::kBottomRight);
        alone.run();
        const auto entry = static_cast<std::int64_t>(b);
        for (std::int64_t h = 0; h < s.q_heads; ++h) {
          for (std::int64_t i = 0; i < s.tq; ++i) {
            if (i < first) {  // a query that stands before the sequence sees nothing
              ASSERT_EQ(padded.out_at(entry, h, i, 0), 0.0);
              ASSERT_EQ(padded.lse_at(entry, h, i), -kInf);
            } else {
              ASSERT_TRUE(same_row(padded, {entry, h, i}, alone, {0, h, i - first}))
                  << name_of(type) << ", start " << starts[b] << ", query " << i;
            }
          }
        }
      }
    }
  }
}

// Bias, bool mask and documents keep storage places; weights lie there too.
TEST_P(KeyStarts, OtherMasksKeepStoragePlaces) {
  Call call({.batch = 2, .q_heads = 2, .kv_heads = 1, .tq = 20, .tk = 150, .d = 8, .dv = 8});
  const Strided starts = integers({70, 3}), lengths = integers({150, 140});
  const Strided added = filled(DType::kF32, {20, 150}, [](const Index& at) { return 0.01 * static_cast<double>(at[1]); });
  const Strided seen = filled(DType::kBool, {20, 150}, [](const Index& at) { return (at[0] + at[1]) % 3 != 0 ? 1.0 : 0.0; });
  std::vector<std::int64_t> q_ids(20), k_ids(150);
  for (std::size_t i = 0; i < q_ids.size(); ++i) q_ids[i] = i < 10 ? 0 : 1;
  for (std::size_t j = 0; j < k_ids.size(); ++j) k_ids[j] = j < 100 ? 0 : 1;
  const Strided q_documents = ids(2, q_ids), k_documents = ids(2, k_ids);
  call.options.mask = mask::key_starts(starts.view()) | mask::key_lengths(lengths.view()) | mask::bias(added.view()) |
                      mask::allowed(seen.view()) | mask::documents(q_documents.view(), k_documents.view()) |
                      mask::window(90, 90, Alignment::kBottomRight);
  EXPECT_EQ(call.wrong(), "");
  const Strided weights = dense(DType::kF32, {2, 2, 20, 150});
  Strided written = weights;
  attention_weights(call.q.view(), call.k.view(), call.lse.view(), written.mutable_view(), call.options);
  const Oracle oracle = call.oracle();
  for (std::size_t at = 0; at < oracle.weights.size(); ++at) {
    const auto place = static_cast<std::int64_t>(at);
    EXPECT_NEAR(element(written.view(), {place / 6000, place / 3000 % 2, place / 150 % 20, place % 150}),
                oracle.weights[at], 1e-5);
  }
}

TEST(KeyStartsErrors, NameTheEntry) {
  Call call({.batch = 2, .tq = 2, .tk = 5});
  const Strided lengths = integers({4, 5}), far = integers({1, 6}), negative = integers({-1, 0}), three = integers({0, 0, 0});
  const auto error = [&](const Mask& mask) {
    call.options.mask = mask;
    return error_of([&] { call.run(); });
  };
  EXPECT_EQ(error(mask::key_starts(far.view())), "attention: key_starts[1] is 6, expected 0 to Tk = 5");
  const Strided behind = integers({5, 0});
  EXPECT_EQ(error(mask::key_starts(behind.view()) | mask::key_lengths(lengths.view())),
            "attention: key_starts[0] is 5, expected 0 to key_lengths[0] = 4");
  EXPECT_EQ(error(mask::key_starts(negative.view())), "attention: key_starts[0] is -1, expected 0 to Tk = 5");
  EXPECT_EQ(error(mask::key_starts(three.view())), "attention: key_starts is I64 [3], expected I32 or I64 [2]");
}

}  // namespace
}  // namespace manyheads::test
