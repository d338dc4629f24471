#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "attention/draw.hpp"
#include "attention/gradient_call.hpp"
#include "kernels/dropout.hpp"

// Dropout: which weights go follows from the seed and their places alone, in every direction, form and blocking.
namespace manyheads::test {
namespace {

class DropoutOf : public AtEachIsa {};
MANYHEADS_AT_EACH_ISA(DropoutOf);

Strided weights_of(Call& call) {
  Strided weights = dense(DType::kF32, {call.sizes.batch, call.sizes.q_heads, call.sizes.tq, call.sizes.tk});
  call.run();
  attention_weights(call.q.view(), call.k.view(), call.lse.view(), weights.mutable_view(), call.options);
  return weights;
}

// The vectors that come with Random123 (Salmon et al. 2011).
TEST(Philox, KnownAnswers) {
  using Words = std::array<std::uint32_t, 4>;
  struct Answer {
    Words counter;
    std::uint32_t key[2];
    Words words;
  };
  const Answer answers[] = {
      {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
      {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
       {0xffffffff, 0xffffffff},
       {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
      {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
       {0xa4093822, 0x299f31d0},
       {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
  };
  for (const Answer& a : answers) {
    EXPECT_EQ(kernels::philox(a.counter, a.key[0], a.key[1]), a.words);
    EXPECT_EQ(random_words(a.counter, std::uint64_t{a.key[1]} << 32 | a.key[0]), a.words);
  }
}

// Of queries equal to each other and of keys alike each weight is 1 / Tk before dropout: what is left shows what went.
TEST_P(DropoutOf, AsManyGoAsPSays) {
  constexpr std::int64_t kSide = 256, kHeads = 3;
  for (const double p : {0.1, 0.5, 0.9}) {
    Call call({.batch = 2, .q_heads = kHeads, .kv_heads = 1, .tq = kSide, .tk = kSide, .d = 8, .dv = 1});
    call.q.fill([](const Index&) { return 0.0; });
    call.options.dropout = {.p = p, .seed = 77};
    const Strided weights = weights_of(call);
    // Dropped at each place of a block of 64 x 64, over heads, entries and blocks.
    std::vector<double> at(64 * 64);
    double gone = 0;
    for (std::int64_t b = 0; b < 2; ++b) {
      for (std::int64_t h = 0; h < kHeads; ++h) {
        for (std::int64_t i = 0; i < kSide; ++i) {
          for (std::int64_t j = 0; j < kSide; ++j) {
            const double w = element(weights.view(), {b, h, i, j});
            if (w != 0) {
              EXPECT_NEAR(w * kSide * (1 - p), 1, 8 * 0x1p-24);
              continue;
            }
            ++gone;
            ++at[static_cast<std::size_t>(i % 64 * 64 + j % 64)];
          }
        }
      }
    }
    // Five standard deviations of the binomial distribution: one seed in 1.7 million would leave them.
    const double all = 2 * kHeads * kSide * kSide;
    EXPECT_NEAR(gone, p * all, 5 * std::sqrt(p * (1 - p) * all)) << p;
    // Chi-square over the places, of 4096 degrees of freedom: mean 4096, standard deviation sqrt(8192).
    const double each = all / (64 * 64);
    double chi_square = 0;
    for (const double x : at) chi_square += (x - p * each) * (x - p * each) / (p * (1 - p) * each);
    EXPECT_NEAR(chi_square, 4096, 5 * std::sqrt(8192.0)) << p;
  }
}

// Neighbours in any direction go independently: the share of pairs that both go is p^2.
TEST_P(DropoutOf, NeighboursAreIndependent) {
  constexpr double kP = 0.3;
  kernels::Dropout dropout;
  dropout.dropped = static_cast<std::uint32_t>(std::ceil(kP * 0x1p24));
  dropout.key[0] = 9;
  const auto goes = [&](std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t j) {
    return !dropout.keeps(b, h, i, j);
  };
  constexpr std::int64_t kSide = 12;
  for (const Index step : {Index{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}, {0, 0, 0, 4}, {0, 0, 1, 1}}) {
    double both = 0, all = 0;
    for (std::int64_t b = 0; b < kSide; ++b) {
      for (std::int64_t h = 0; h < kSide; ++h) {
        for (std::int64_t i = 0; i < kSide; ++i) {
          for (std::int64_t j = 0; j < kSide; ++j, ++all) {
            both += goes(b, h, i, j) && goes(b + step[0], h + step[1], i + step[2], j + step[3]) ? 1 : 0;
          }
        }
      }
    }
    // Pairs overlap: at most twice the variance of independent ones.
    EXPECT_NEAR(both, kP * kP * all, 5 * std::sqrt(2 * kP * kP * all));
  }
}

// Forward, weights and backward drop the same, and the definition too.
TEST_P(DropoutOf, ForwardWeightsAndBackwardDropTheSame) {
  for (const std::int64_t tq : {1, 3, 70}) {
    const Sizes s{2, 4, 2, tq, 130, 16, tq};
    GradientCall call(s);
    call.options.dropout = {.p = 0.4, .seed = 0xfedcba9876543210};
    call.options.mask = mask::causal(Alignment::kBottomRight);
    // dout = 1 on the diagonal: dv[j, i] is the weight of query i on key j, summed over the heads of a group.
    call.dout.fill([](const Index& at) { return at[2] == at[3] ? 1.0 : 0.0; });
    call.run_backward();
    EXPECT_EQ(call.wrong(), "");
    const Strided weights = weights_of(call);
    std::int64_t gone = 0;
    for (std::int64_t b = 0; b < 2; ++b) {
      for (std::int64_t h = 0; h < 2; ++h) {
        for (std::int64_t i = 0; i < tq; ++i) {
          for (std::int64_t j = 0; j < 130; ++j) {
            const double first = element(weights.view(), {b, 2 * h, i, j}),
                         second = element(weights.view(), {b, 2 * h + 1, i, j});
            EXPECT_NEAR(element(call.dv.view(), {b, h, j, i}), first + second, 1e-6);
            EXPECT_EQ(element(call.dv.view(), {b, h, j, i}) == 0, first + second == 0);
            gone += first == 0 && second == 0 ? 1 : 0;
          }
        }
      }
    }
    EXPECT_GT(gone, 0);
  }
}

// A call of one head of one entry has the rows of the whole.
TEST_P(DropoutOf, OneHeadHasTheBitsOfTheWhole) {
  const Sizes s{2, 4, 2, 20, 90, 16, 24};
  Call whole(s);
  whole.options.dropout = {.p = 0.3, .seed = 21};
  whole.run();
  Call part({1, 1, 1, 20, 90, 16, 24});
  part.options.dropout = {.p = 0.3, .seed = 21, .first_head = 3, .first_entry = 1};
  for (const auto& [from, to, head] :
       {std::tuple{&whole.q, &part.q, 3}, {&whole.k, &part.k, 1}, {&whole.v, &part.v, 1}}) {
    to->fill([&, from = from, head = head](const Index& at) { return element(from->view(), {1, head, at[2], at[3]}); });
  }
  part.run();
  for (std::int64_t i = 0; i < 20; ++i) EXPECT_TRUE(same_row(part, {0, 0, i}, whole, {1, 3, i}));
}

// A call of some queries of a sequence, prefill or decode, has the rows of the whole.
TEST_P(DropoutOf, PartsOfTheQueriesHaveTheBitsOfTheWhole) {
  for (const DType type : {DType::kF32, DType::kBF16}) {
    const Sizes s{1, 4, 2, 90, 700, 24, 40};
    Call whole(s, type);
    whole.options.dropout = {.p = 0.2, .seed = 3, .first_query = 17};
    whole.run();
    for (const std::int64_t count : {1, 2, 7, 33}) {
      for (const std::int64_t first : {0, 50}) {
        Sizes few = s;
        few.tq = count;
        Call part(few, type);
        part.options.dropout = whole.options.dropout;
        part.options.dropout.first_query += first;
        const auto copy = [](const Strided& from, Strided& to, std::int64_t skip) {
          to.fill([&](const Index& at) { return element(from.view(), {at[0], at[1], at[2] + skip, at[3]}); });
        };
        copy(whole.q, part.q, first);
        copy(whole.k, part.k, 0);
        copy(whole.v, part.v, 0);
        part.run();
        for (std::int64_t h = 0; h < 4; ++h) {
          for (std::int64_t i = 0; i < count; ++i) {
            EXPECT_TRUE(same_row(part, {0, h, i}, whole, {0, h, first + i})) << count << " from " << first;
          }
        }
      }
    }
  }
}

// Any blocking: threads, parts of the keys, and masks that cut runs keep the bits.
TEST_P(DropoutOf, PartsOfTheKeysMergeToTheBitsOfTheWhole) {
  const Sizes s{2, 2, 1, 20, 1300, 16, 24};
  Call whole(s), merged(s);
  whole.options.dropout = {.p = 0.3, .seed = 11};
  whole.run();
  std::vector<RowStates> parts;
  for (const auto& [begin, keys] : {std::pair<std::int64_t, std::int64_t>{0, 512}, {512, 788}}) {
    RowStates& states = parts.emplace_back(begin, keys, s.batch, s.q_heads, s.tq, s.dv);
    AttentionOptions options = whole.options;
    options.row_states = &states;
    const auto part = [&, from = begin, count = keys](const Strided& of) {
      Dims shape = of.shape;
      shape[2] = count;
      return ConstTensorView(of.memory.data() + from * of.strides[2] * 4, of.type, shape, of.strides);
    };
    Strided ignored = dense(DType::kF32, whole.out.shape);
    attention(whole.q.view(), part(whole.k), part(whole.v), ignored.mutable_view(), options);
  }
  merge_attention(parts, merged.out.mutable_view(), merged.lse.mutable_view());
  EXPECT_TRUE(same_bits(whole, merged));
}

TEST_P(DropoutOf, AnyNumberOfThreads) {
  const Sizes s{2, 4, 2, 150, 1100, 24, 16};
  GradientCall one(s);
  one.options.dropout = {.p = 0.5, .seed = 1};
  one.options.threads.num_threads = 1;
  one.run_backward();
  for (const int threads : {2, 3, 8}) {
    GradientCall many(s);
    many.options = one.options;
    many.options.threads.num_threads = threads;
    many.run_backward();
    EXPECT_TRUE(same_bits(one, many) && same_gradients(one, many)) << threads;
  }
}

// Rows by themselves, with keys that a mask cuts anywhere, and padding at the front.
TEST_P(DropoutOf, KeysCountFromTheFirst) {
  const Sizes s{1, 2, 2, 40, 150, 16, 16};
  Call plain(s);
  plain.options.dropout = {.p = 0.4, .seed = 8};
  plain.run();
  Sizes longer = s;
  longer.tk = 150 + 37;
  Call padded(longer);
  padded.options = plain.options;
  const Strided starts = integers({37});
  padded.options.mask.key_starts = starts.view();
  padded.q = plain.q;
  for (const auto& [from, to] : {std::pair{&plain.k, &padded.k}, {&plain.v, &padded.v}}) {
    to->fill([&, from = from](const Index& at) {
      return at[2] < 37 ? kNaN : element(from->view(), {at[0], at[1], at[2] - 37, at[3]});
    });
  }
  padded.run();
  EXPECT_TRUE(same_bits(plain, padded));
}

TEST_P(DropoutOf, NoneAndAll) {
  const Sizes s{1, 2, 1, 70, 130, 16, 16};
  GradientCall none(s), without(s), all(s);
  none.options.dropout = {.p = 0, .seed = 5};
  none.run_backward();
  without.run_backward();
  EXPECT_TRUE(same_bits(none, without) && same_gradients(none, without));
  all.dlse.fill([](const Index&) { return 0.0; });
  all.options.dropout = {.p = 1};
  all.run_backward();
  for (const Strided* tensor : {&all.out, &all.dq, &all.dk, &all.dv}) {
    Strided walk = *tensor;
    walk.fill([&](const Index& at) {
      EXPECT_EQ(element(tensor->view(), {at[0], at[1], at[2], at[3]}), 0.0);
      return 0.0;
    });
  }
  EXPECT_TRUE(std::memcmp(all.lse.view().data(), without.lse.view().data(), 2 * 70 * sizeof(float)) == 0);
}

// Rows beyond F32 are computed again in float64, and drop the same there.
TEST_P(DropoutOf, RowsBeyondFloat) {
  for (const std::int64_t tq : {1, 40}) {
    Call call({.q_heads = 2, .kv_heads = 2, .tq = tq, .tk = 90, .d = 8, .dv = 8});
    call.options.dropout = {.p = 0.5, .seed = 2};
    call.q.fill([](const Index& at) { return at[3] == 0 ? 1e25 : 0.0; });
    call.k.fill([](const Index& at) { return at[3] == 0 ? -1e15 * static_cast<double>(at[2] % 3) : 1.0; });
    EXPECT_EQ(call.wrong(), "");
  }
}

TEST(DropoutErrors, NameTheArgument) {
  GradientCall call({.tq = 4, .tk = 32});
  const auto refused = [&](const Dropout& dropout, const std::string& why, auto&& run) {
    call.options.dropout = dropout;
    try {
      run();
      ADD_FAILURE() << why;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(why), std::string::npos) << error.what();
    }
  };
  const auto forward = [&] { call.run(); };
  refused({.p = -0.1}, "attention: dropout.p is -0.1, expected 0 to 1", forward);
  refused({.p = 1.5}, "dropout.p is 1.5", forward);
  refused({.p = kNaN}, "dropout.p is nan", forward);
  refused({.p = 0.1, .first_query = -1}, "dropout.first_query is -1, expected 0 or more", forward);
  refused({.p = 0.1, .first_entry = -7}, "dropout.first_entry is -7", forward);
  refused({.p = 2}, "attention_backward: dropout.p is 2", [&] {
    attention_backward(call.q.view(), call.k.view(), call.v.view(), call.out.view(), call.dout.view(), call.lse.view(),
                       call.gradients(), call.options);
  });
  const Strided pages = filled(DType::kI32, {1, 2}, [](const Index& at) { return static_cast<double>(at[1]); });
  const Strided keys = filled(DType::kF32, {2, 1, 16, 8}, [](const Index&) { return 1.0; });
  refused({.p = 0.1}, "dropout with page_table", [&] {
    AttentionOptions options = call.options;
    options.page_table = pages.view();
    attention(call.q.view(), keys.view(), keys.view(), call.out.mutable_view(), options);
  });
  const Strided bytes = filled(DType::kI8, {1, 1, 32, 8}, [](const Index&) { return 1.0; });
  const Strided scales = filled(DType::kF32, {1, 1, 32}, [](const Index&) { return 1.0; });
  refused({.p = 0.1}, "dropout with I8 keys", [&] {
    AttentionOptions options = call.options;
    options.k_scales = options.v_scales = scales.view();
    attention(call.q.view(), bytes.view(), bytes.view(), call.out.mutable_view(), options);
  });
}

}  // namespace
}  // namespace manyheads::test
