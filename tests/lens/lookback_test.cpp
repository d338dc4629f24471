#include <manyheads/lens/lookback.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <tuple>
#include <vector>

#include "base/index.hpp"

namespace manyheads::lens {
namespace {

constexpr std::int64_t kLayers = 2, kHeads = 4, kKvHeads = 2, kSize = 8;

using base::at;

// The heads of T tokens, drawn at random.
class RandomHeads {
 public:
  explicit RandomHeads(std::int64_t tokens) : tokens_(tokens) {
    for (std::int64_t l = 0; l < kLayers; ++l) {
      q_.push_back(draw(tokens * kHeads * kSize));
      k_.push_back(draw(tokens * kKvHeads * kSize));
    }
    for (std::int64_t l = 0; l < kLayers; ++l) {
      for (std::int64_t h = 0; h < kHeads; ++h) {
        for (std::int64_t i = 0; i < tokens; ++i) rows_.push_back(work_out(l, h, i));
      }
    }
  }

  static model::EncoderConfig config() {
    model::EncoderConfig config;
    config.num_layers = kLayers;
    config.num_heads = kHeads;
    config.num_kv_heads = kKvHeads;
    config.head_dim = kSize;
    config.scale = 0.6;
    return config;
  }

  // Rows [first, first + count) as a pass gives them.
  std::vector<model::LayerHeads> pass(std::int64_t first, std::int64_t count) const {
    std::vector<model::LayerHeads> layers(at(kLayers));
    for (std::int64_t l = 0; l < kLayers; ++l) {
      model::LayerHeads& heads = layers[at(l)];
      heads.q = {q_[at(l)].data() + first * kHeads * kSize, Dims{count, kHeads, kSize}};
      heads.k = {k_[at(l)].data() + first * kKvHeads * kSize, Dims{count, kKvHeads, kSize}};
      Tensor lse(DType::kF32, Dims{kHeads, count});
      for (std::int64_t h = 0; h < kHeads; ++h) {
        for (std::int64_t r = 0; r < count; ++r) {
          double sum = 0;
          for (std::int64_t j = 0; j <= first + r; ++j) sum += std::exp(score(l, h, first + r, j));
          lse.as<float>()[h * count + r] = static_cast<float>(std::log(sum));
        }
      }
      heads.lse = lse.cview();
      heads.row_starts = {0, count};
      heads.storage = {lse};
    }
    return layers;
  }

  const std::vector<double>& weights(std::int64_t l, std::int64_t h, std::int64_t query) const {
    return rows_[at((l * kHeads + h) * tokens_ + query)];
  }

  std::int64_t tokens() const { return tokens_; }

 private:
  std::vector<double> work_out(std::int64_t l, std::int64_t h, std::int64_t query) const {
    std::vector<double> row;
    double sum = 0;
    for (std::int64_t j = 0; j <= query; ++j) sum += row.emplace_back(std::exp(score(l, h, query, j)));
    for (double& weight : row) weight /= sum;
    return row;
  }
  std::vector<float> draw(std::int64_t count) {
    std::vector<float> values;
    for (std::int64_t i = 0; i < count; ++i) {
      state_ = state_ * 6364136223846793005u + 1442695040888963407u;
      values.push_back(static_cast<float>(static_cast<double>(state_ >> 40) * 0x1p-23 - 1));
    }
    return values;
  }
  double score(std::int64_t l, std::int64_t h, std::int64_t query, std::int64_t key) const {
    double sum = 0;
    for (std::int64_t d = 0; d < kSize; ++d) {
      sum += static_cast<double>(q_[at(l)][at((query * kHeads + h) * kSize + d)]) *
             static_cast<double>(k_[at(l)][at((key * kKvHeads + h / (kHeads / kKvHeads)) * kSize + d)]);
    }
    return 0.6 * sum;
  }

  std::int64_t tokens_;
  std::uint64_t state_ = 3;
  std::vector<std::vector<float>> q_, k_;
  std::vector<std::vector<double>> rows_;  // weights, of each layer, head and query
};

// By the definition: what each head gives to each token, beside its means over the rows from `first` on.
std::vector<LookedAt> by_definition(const RandomHeads& heads, std::int64_t query, std::int64_t first) {
  std::vector<LookedAt> all;
  for (std::int64_t j = 1; j <= query; ++j) {
    LookedAt& looked = all.emplace_back(LookedAt{j, {}});
    for (std::int64_t l = 0; l < kLayers; ++l) {
      for (std::int64_t h = 0; h < kHeads; ++h) {
        const std::vector<double>& row = heads.weights(l, h, query);
        const double even = std::accumulate(row.begin() + 1, row.end(), 0.0) / static_cast<double>(query);
        double by_offset = even, by_token = even;
        int offsets = 1, tokens = 1;
        for (std::int64_t r = first; r < query; ++r) {
          const std::vector<double>& before = heads.weights(l, h, r);
          if (r - (query - j) >= 1) {
            by_offset += before[at(r - (query - j))];
            ++offsets;
          }
          if (r >= j) {
            by_token += before[at(j)];
            ++tokens;
          }
        }
        looked.heads.push_back({l, h, row[at(j)], std::max(by_offset / offsets, by_token / tokens)});
      }
    }
    std::stable_sort(looked.heads.begin(), looked.heads.end(),
                     [](const LookingHead& a, const LookingHead& b) { return a.rise() > b.rise(); });
    looked.heads.resize(2);
    std::erase_if(looked.heads, [](const LookingHead& head) { return head.rise() <= 0; });
  }
  std::erase_if(all, [](const LookedAt& looked) { return looked.heads.empty(); });
  std::stable_sort(all.begin(), all.end(),
                   [](const LookedAt& a, const LookedAt& b) { return a.heads[0].rise() > b.heads[0].rise(); });
  all.resize(std::min<std::size_t>(all.size(), 3));
  return all;
}

// Weights are F32: two roundings of 2^-24 on sums of at most nine products, relative to scores below 5.
void expect_same(const std::vector<LookedAt>& is, const std::vector<LookedAt>& should) {
  ASSERT_EQ(is.size(), should.size());
  for (std::size_t i = 0; i < is.size(); ++i) {
    EXPECT_EQ(is[i].token, should[i].token) << i;
    ASSERT_EQ(is[i].heads.size(), should[i].heads.size());
    for (std::size_t h = 0; h < is[i].heads.size(); ++h) {
      const LookingHead &a = is[i].heads[h], &b = should[i].heads[h];
      EXPECT_EQ(std::tie(a.layer, a.head), std::tie(b.layer, b.head));
      EXPECT_NEAR(a.weight, b.weight, 1e-5);
      EXPECT_NEAR(a.usual, b.usual, 1e-5);
    }
  }
}

TEST(Lookback, IsTheDefinitionInPassesOfAnySize) {
  const RandomHeads heads(60);
  for (const std::int64_t chunk : {60, 40, 7, 1}) {
    Lookback lookback(heads.config(), 40);
    for (std::int64_t done = 0; done < heads.tokens();) {
      const std::int64_t count = std::min(done < 40 ? std::min(chunk, 40 - done) : 1, heads.tokens() - done);
      lookback.append(heads.pass(done, count));
      done += count;
      SCOPED_TRACE(done);
      expect_same(lookback.last(), done == 1 ? std::vector<LookedAt>() : by_definition(heads, done - 1, 1));
    }
  }
}

TEST(Lookback, OfALongPromptTheLast256TokensCount) {
  const RandomHeads heads(300);
  Lookback lookback(heads.config(), 290);
  lookback.append(heads.pass(0, 200));
  lookback.append(heads.pass(200, 90));
  for (std::int64_t done = 290; done < 300; done += 3) {
    lookback.append(heads.pass(done, 1));
    expect_same(lookback.last(), by_definition(heads, done, 290 - 256));
    for (std::int64_t skipped = 1; skipped < 3 && done + skipped < 300; ++skipped) {
      lookback.append(heads.pass(done + skipped, 1));
    }
  }
}

}  // namespace
}  // namespace manyheads::lens
