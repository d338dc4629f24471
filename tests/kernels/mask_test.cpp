#include "kernels/mask.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <set>
#include <tuple>
#include <vector>

#include "attention/check.hpp"
#include "attention/draw.hpp"

// The mask answers both ways, and each way as every single pair of a query and a key says.
namespace manyheads::test {
namespace {

using kernels::AttentionMask;
using kernels::QueryBlock;

struct MaskedCall {
  MaskedCall(Draw& draw, const Sizes& s) : mask(draw, s) {
    params.batch = s.batch;
    params.q_heads = s.q_heads;
    params.kv_heads = s.kv_heads;
    params.tq = s.tq;
    params.tk = s.tk;
    lengths = integers(std::vector<std::int64_t>(static_cast<std::size_t>(s.batch), s.tk));
    std::vector<std::int64_t> begins;
    for (std::int64_t b = 0; b < s.batch; ++b) {
      const ConstTensorView ends = mask.mask.key_lengths;
      const auto end = ends.defined() ? static_cast<std::int64_t>(element(ends, {b})) : s.tk;
      begins.push_back(draw.chance(0.5) ? draw.between(0, end) : 0);
    }
    starts = integers(begins);
    Mask all = mask.mask;
    all.bias = {};
    if (draw.chance(0.5)) all.key_starts = starts.view();
    attention_detail::check_mask("test", all, params);
  }
  RandomMask mask;
  Strided lengths, starts;
  kernels::QkvMask params;
};

TEST(AttentionMaskBothWays, AgreeWithEachPair) {
  std::int64_t partly = 0, skipped = 0;
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    Draw draw(seed);
    Sizes s = random_sizes(draw);
    s.tq = std::min<std::int64_t>(s.tq, 150);
    s.tk = std::min<std::int64_t>(s.tk, 300);
    const MaskedCall call(draw, s);
    const AttentionMask mask(call.params);
    const std::int64_t rows = draw.between(1, 70);
    const std::int64_t group = s.q_heads / s.kv_heads;
    using Pair = std::tuple<std::int64_t, std::int64_t>;  // first query of a block, run
    for (std::int64_t b = 0; b < s.batch; ++b) {
      for (std::int64_t head = 0; head < s.q_heads; ++head) {
        const std::int64_t kv_head = head / group, h = head % group;
        const std::int64_t keys = call.params.key_length(b);
        std::map<Pair, bool> of_queries, of_keys;  // whether partly masked
        for (std::int64_t i = 0; i < s.tq; i += rows) {
          const QueryBlock q_block{b, kv_head, h * s.tq + i, std::min(rows, s.tq - i)};
          mask.each_run(q_block, mask.keys_of(q_block), [&](std::int64_t begin, std::int64_t end, bool some) {
            const std::int64_t run = begin / kernels::kRunKeys;
            const std::int64_t whole = std::min((run + 1) * kernels::kRunKeys, keys) - run * kernels::kRunKeys;
            of_queries[{i, run}] = some || end - begin < whole;
          });
        }
        for (std::int64_t begin = 0; begin < keys; begin += kernels::kRunKeys) {
          mask.each_query_block(b, kv_head, h, {begin, std::min(begin + kernels::kRunKeys, keys)}, rows,
                                [&](const QueryBlock& q_block, bool some) {
                                  of_keys[{q_block.row - h * s.tq, begin / kernels::kRunKeys}] = some;
                                });
        }
        ASSERT_EQ(of_queries, of_keys) << "seed " << seed;
        for (std::int64_t i = 0; i < s.tq; i += rows) {
          for (std::int64_t begin = 0; begin < keys; begin += kernels::kRunKeys) {
            bool any = false, all = true;
            for (std::int64_t q = i; q < std::min(i + rows, s.tq); ++q) {
              for (std::int64_t j = begin; j < std::min(begin + kernels::kRunKeys, keys); ++j) {
                const bool sees = mask.sees(b, head, q, j);
                any = any || sees;
                all = all && sees;
              }
            }
            const auto found = of_queries.find({i, begin / kernels::kRunKeys});
            if (any) ASSERT_TRUE(found != of_queries.end()) << "seed " << seed << ": a pair is not visited";
            if (found == of_queries.end()) {
              ++skipped;
              continue;
            }
            if (!found->second) ASSERT_TRUE(all) << "seed " << seed << ": a forbidden pair counts as seen";
            partly += found->second ? 1 : 0;
          }
        }
      }
    }
  }
  EXPECT_GT(partly, 1000);
  EXPECT_GT(skipped, 1000);
}

}  // namespace
}  // namespace manyheads::test
