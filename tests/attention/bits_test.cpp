#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "attention/call.hpp"
#include "attention/draw.hpp"

// The bits of a row follow from its own query, keys, values and mask: not from where it lies or with what.
// Outputs are F32 beside half types too: rounded to those, two results would seldom differ.
namespace manyheads::test {
namespace {

class Bits : public AtEachIsa {};
MANYHEADS_AT_EACH_ISA(Bits);

// Copies the rows of `from` that `at` names into a call of its own, which has the rows' shape.
void copy(const Strided& from, Strided& to, const Index& shift) {
  to.fill([&](const Index& at) {
    return element(from.view(), {at[0] + shift[0], at[1] + shift[1], at[2] + shift[2], at[3]});
  });
}

TEST_P(Bits, AnyPlaceInTheBatchAndAmongTheHeads) {
  for (std::uint64_t seed = 1; seed <= 15; ++seed) {
    Draw draw(seed);
    const Sizes s = random_sizes(draw);
    const RandomMask mask(draw, s);
    const DType type = random_type(draw);
    Call all(s, type, DType::kF32, seed);
    all.options.mask = mask.mask;
    all.run();
    const std::int64_t group = s.q_heads / s.kv_heads;
    for (std::int64_t b = 0; b < s.batch; ++b) {
      for (std::int64_t h = 0; h < s.q_heads; ++h) {
        Sizes small = s;
        small.batch = small.q_heads = small.kv_heads = 1;
        Call alone(small, type, DType::kF32, 1);
        copy(all.q, alone.q, {b, h, 0});
        copy(all.k, alone.k, {b, h / group, 0});
        copy(all.v, alone.v, {b, h / group, 0});
        const auto entry = [b](const ConstTensorView& view) {
          if (!view.defined()) return view;
          Dims shape = view.shape();
          shape[0] = 1;
          return ConstTensorView(static_cast<const char*>(view.data()) +
                                     b * view.stride(0) * static_cast<std::int64_t>(size_of(view.dtype())),
                                 view.dtype(), shape, view.strides());
        };
        alone.options.mask = mask.mask;
        alone.options.mask.key_lengths = entry(mask.mask.key_lengths);
        alone.options.mask.q_documents = entry(mask.mask.q_documents);
        alone.options.mask.k_documents = entry(mask.mask.k_documents);
        const Strided slope = filled(DType::kF32, {1}, [](const Index&) { return 0.125; });
        if (mask.mask.alibi_slopes.defined()) alone.options.mask.alibi_slopes = slope.view();
        alone.run();
        for (std::int64_t i = 0; i < s.tq; ++i) {
          ASSERT_TRUE(same_row(all, {b, h, i}, alone, {0, 0, i}))
              << "seed " << seed << ", row " << b << " " << h << " " << i;
        }
      }
    }
  }
}

TEST_P(Bits, OneQueryAFewOrAllAtOnce) {
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    Draw draw(seed);
    Sizes s = random_sizes(draw);
    s.tk = std::max(s.tk, s.tq);
    const RandomMask mask(draw, s);
    const DType type = random_type(draw);
    Call full(s, type, DType::kF32, seed);
    full.options.mask = mask.mask;
    full.run();
    for (std::int64_t begin = 0; begin < s.tq;) {
      const std::int64_t count = std::min(s.tq - begin, draw.chance(0.5) ? 1 : draw.between(1, 40));
      Sizes few = s;
      few.tq = count;
      Call part(few, type, DType::kF32, 1);
      copy(full.q, part.q, {0, 0, begin});
      copy(full.k, part.k, {0, 0, 0});
      copy(full.v, part.v, {0, 0, 0});
      part.options.mask = mask.mask;
      // The diagonal of the part's first query is that of the full call's query `begin`.
      const Strided places = filled(DType::kI64, {s.batch}, [&](const Index& at) {
        const double length =
            mask.mask.key_lengths.defined() ? element(mask.mask.key_lengths, {at[0]}) : static_cast<double>(s.tk);
        const bool right = mask.mask.alignment == Alignment::kBottomRight;
        return (right ? length - static_cast<double>(s.tq) : 0.0) + static_cast<double>(begin);
      });
      part.options.mask.offsets = places.view();
      const Strided q_ids = filled(DType::kI32, {s.batch, count},
                                   [&](const Index& at) { return static_cast<double>((at[1] + begin) / 23); });
      if (mask.mask.q_documents.defined()) part.options.mask.q_documents = q_ids.view();
      part.run();
      for (std::int64_t b = 0; b < s.batch; ++b) {
        for (std::int64_t h = 0; h < s.q_heads; ++h) {
          for (std::int64_t i = 0; i < count; ++i) {
            ASSERT_TRUE(same_row(full, {b, h, begin + i}, part, {b, h, i}))
                << "seed " << seed << ": row " << b << " " << h << " " << begin + i << ", " << count << " of " << s.tq
                << " queries and " << s.tk << " keys";
          }
        }
      }
      begin += count;
    }
  }
}

// Runs cut at any place: chains of keys are counted from key 0, not from where a row's keys begin.
TEST_P(Bits, WindowsThatBeginAnywhereInARun) {
  for (const DType type : {DType::kF32, DType::kBF16, DType::kF16}) {
    const Sizes s{.q_heads = 2, .tq = 150, .tk = 150, .d = 64, .dv = 64};
    Call full(s, type, DType::kF32, 1);
    full.options.mask = mask::window(37, 0);
    full.run();
    for (std::int64_t i = 0; i < s.tq; ++i) {
      Sizes one = s;
      one.tq = 1;
      Call part(one, type, DType::kF32, 1);
      copy(full.q, part.q, {0, 0, i});
      copy(full.k, part.k, {0, 0, 0});
      copy(full.v, part.v, {0, 0, 0});
      const Strided place = integers({i});
      part.options.mask = full.options.mask;
      part.options.mask.offsets = place.view();
      part.run();
      for (const std::int64_t h : {0, 1}) ASSERT_TRUE(same_row(full, {0, h, i}, part, {0, h, 0})) << "query " << i;
    }
  }
}

TEST_P(Bits, DecodingAppendsKeysAndKeepsEveryRow) {
  // Step t sees the first t keys; the prefill sees them through its causal mask.
  for (const DType type : {DType::kF32, DType::kBF16}) {
    const Sizes s{.q_heads = 4, .kv_heads = 2, .tq = 1100, .tk = 1100, .d = 16, .dv = 16};
    Call prefill(s, type, DType::kF32, 9);
    prefill.options.mask = mask::causal();
    prefill.run();
    for (const std::int64_t t : {1, 2, 63, 64, 65, 128, 511, 512, 513, 700, 1024, 1025, 1100}) {
      Call step({.q_heads = 4, .kv_heads = 2, .tq = 1, .tk = t, .d = 16, .dv = 16}, type, DType::kF32, 1);
      copy(prefill.q, step.q, {0, 0, t - 1});
      copy(prefill.k, step.k, {0, 0, 0});
      copy(prefill.v, step.v, {0, 0, 0});
      step.run();
      for (std::int64_t h = 0; h < 4; ++h) {
        EXPECT_TRUE(same_row(prefill, {0, h, t - 1}, step, {0, h, 0})) << "step " << t;
      }
    }
  }
}

TEST_P(Bits, PaddingKeysChangeNothing) {
  for (std::uint64_t seed = 1; seed <= 12; ++seed) {
    Draw draw(seed);
    const Sizes s = random_sizes(draw);
    const DType type = random_type(draw);
    Call plain(s, type, DType::kF32, seed);
    const bool is_causal = draw.chance(0.5);
    plain.options.mask = is_causal ? mask::causal(Alignment::kBottomRight) : Mask{};
    plain.run();
    for (const std::int64_t extra : {std::int64_t{1}, std::int64_t{64}, draw.between(2, 900)}) {
      Sizes wide = s;
      wide.tk += extra;
      Call padded(wide, type, DType::kF32, 1);
      const auto pad = [&](const Strided& from, Strided& to) {
        to.fill(
            [&](const Index& at) { return at[2] < s.tk ? element(from.view(), {at[0], at[1], at[2], at[3]}) : kNaN; });
      };
      copy(plain.q, padded.q, {0, 0, 0});
      pad(plain.k, padded.k);
      pad(plain.v, padded.v);
      const Strided lengths = integers(std::vector<std::int64_t>(static_cast<std::size_t>(s.batch), s.tk));
      padded.options.mask = plain.options.mask | mask::key_lengths(lengths.view());
      padded.run();
      EXPECT_TRUE(same_bits(plain, padded)) << "seed " << seed << ", " << extra << " keys of padding by lengths";
      const Strided mask = filled(DType::kBool, {wide.tk}, [&](const Index& at) { return at[0] < s.tk; });
      padded.options.mask = mask::allowed(mask.view());
      if (is_causal) {
        const Strided places = integers(std::vector<std::int64_t>(static_cast<std::size_t>(s.batch), s.tk - s.tq));
        padded.options.mask = padded.options.mask | mask::causal() | mask::offsets(places.view());
        padded.run();
      } else {
        padded.run();
      }
      EXPECT_TRUE(same_bits(plain, padded)) << "seed " << seed << ", " << extra << " keys of padding by a bool mask";
    }
  }
}

TEST_P(Bits, AnyLayoutAndAddress) {
  for (std::uint64_t seed = 1; seed <= 12; ++seed) {
    Draw draw(seed);
    const Sizes s = random_sizes(draw);
    const DType type = random_type(draw);
    Call plain(s, type, seed);
    plain.run();
    for (int round = 0; round < 4; ++round) {
      Call other(s, type);
      for (auto [tensor, from] :
           {std::pair{&other.q, &plain.q}, {&other.k, &plain.k}, {&other.v, &plain.v}, {&other.out, &plain.out}}) {
        const std::vector<int> order = draw.chance(0.5) ? std::vector{0, 2, 1, 3} : std::vector{0, 1, 2, 3};
        *tensor =
            Strided(type, from->shape, order, draw.chance(0.5) ? draw.between(1, 20) : 0, draw.chance(0.2) ? 2 : 1,
                    static_cast<int>(draw.between(-1, 3)), static_cast<std::size_t>(draw.between(0, 31)));
        tensor->fill([&, from = from](const Index& at) { return element(from->view(), {at[0], at[1], at[2], at[3]}); });
      }
      other.run();
      EXPECT_TRUE(same_bits(plain, other)) << "seed " << seed;
    }
  }
}

#if !defined(__SANITIZE_ADDRESS__)  // whose companion for undefined behaviour reports the tests' own reads
TEST_P(Bits, AddressesThatAreNoMultipleOfTheElement) {
  const Sizes s{.batch = 2, .q_heads = 2, .kv_heads = 1, .tq = 37, .tk = 131, .d = 29, .dv = 23};
  const Strided added =
      filled(DType::kF32, {37, 131}, [](const Index& at) { return static_cast<double>(at[0] * at[1] % 5); });
  for (const DType type : {DType::kF32, DType::kBF16, DType::kF16}) {
    Call plain(s, type, DType::kF32, 1);
    plain.options.mask = mask::bias(added.view());
    plain.run();
    for (const std::size_t bytes : {1u, 2u, 3u}) {
      const auto shifted = [bytes](const Strided& tensor) {
        std::vector<unsigned char> memory(tensor.memory.size() + 8);
        std::memcpy(memory.data() + bytes, tensor.memory.data(), tensor.memory.size());
        return memory;
      };
      std::vector<unsigned char> q = shifted(plain.q), k = shifted(plain.k), v = shifted(plain.v), b = shifted(added);
      std::vector<unsigned char> out(plain.out.memory.size() + 8), lse(plain.lse.memory.size() + 8);
      const auto view = [bytes](std::vector<unsigned char>& memory, const Strided& like) {
        return TensorView(memory.data() + bytes, like.type, like.shape, like.strides);
      };
      const TensorView lse_view = view(lse, plain.lse);
      AttentionOptions options;
      options.mask = mask::bias(view(b, added));
      options.lse = lse_view;
      attention(view(q, plain.q), view(k, plain.k), view(v, plain.v), view(out, plain.out), options);
      const std::size_t out_size = static_cast<std::size_t>(element_count(plain.out.shape)) * size_of(type);
      EXPECT_EQ(std::memcmp(out.data() + bytes, plain.out.memory.data(), out_size), 0) << name_of(type) << " " << bytes;
      EXPECT_EQ(std::memcmp(lse.data() + bytes, plain.lse.memory.data(), 2 * 2 * 37 * 4), 0) << name_of(type);
    }
  }
}
#endif

TEST_P(Bits, NaNNeighboursChangeNothing) {
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    Draw draw(seed);
    Sizes s = random_sizes(draw);
    s.tq = std::max<std::int64_t>(s.tq, 2);
    const DType type = random_type(draw);
    Call clean(s, type, DType::kF32, seed);
    clean.run();
    // Another query of the same tile is NaN.
    const std::int64_t row = draw.between(0, s.tq - 1);
    Call dirty(s, type, DType::kF32, seed);
    dirty.q.fill(
        [&](const Index& at) { return at[2] == row ? kNaN : element(clean.q.view(), {at[0], at[1], at[2], at[3]}); });
    dirty.run();
    for (std::int64_t i = 0; i < s.tq; ++i) {
      if (i == row) continue;
      EXPECT_TRUE(same_row(clean, {0, 0, i}, dirty, {0, 0, i})) << "seed " << seed << ", query " << i;
    }
    // A key and a value that only later queries see are NaN.
    Call before(s, type, DType::kF32, seed);
    const std::int64_t place = std::min(row, s.tk - 1);
    before.options.mask = mask::causal(Alignment::kTopLeft);
    before.run();
    for (const bool in_values : {false, true}) {
      Call behind(s, type, DType::kF32, seed);
      Strided& tensor = in_values ? behind.v : behind.k;
      tensor.fill([&](const Index& at) {
        return at[2] >= place ? kNaN : element((in_values ? clean.v : clean.k).view(), {at[0], at[1], at[2], at[3]});
      });
      behind.options.mask = mask::causal(Alignment::kTopLeft);
      behind.run();
      for (std::int64_t i = 0; i < place; ++i) {
        EXPECT_TRUE(same_row(before, {0, 0, i}, behind, {0, 0, i})) << "seed " << seed << ", query " << i;
      }
    }
  }
}

// Many query blocks read a head's keys and values packed, one query reads them where they lie. What later queries see
// changes no bit, wherever the keys of a query end.
TEST_P(Bits, APackedHeadAndOneQueryAtATime) {
  const Sizes s{.q_heads = 2, .kv_heads = 1, .tq = 300, .tk = 320, .d = 72, .dv = 40};
  for (const DType type : {DType::kBF16, DType::kF16}) {
    Call all(s, type, DType::kF32, 3);
    all.options.threads.num_threads = 1;
    all.options.mask = mask::causal(Alignment::kBottomRight);
    EXPECT_NE(all.explanation().path.find("K and V of each head packed"), std::string::npos) << all.explanation().path;
    all.run();
    for (const std::int64_t row : {0, 1, 30, 32, 63, 64, 127, 200, 299}) {
      const std::int64_t last = row + s.tk - s.tq;  // what it sees
      Sizes alone = s;
      alone.tq = 1;
      alone.tk = last + 1;
      Call one(alone, type, DType::kF32, 1);
      one.q.fill([&](const Index& at) { return element(all.q.view(), {0, at[1], row, at[3]}); });
      one.k.fill([&](const Index& at) { return element(all.k.view(), {0, 0, at[2], at[3]}); });
      one.v.fill([&](const Index& at) { return element(all.v.view(), {0, 0, at[2], at[3]}); });
      one.run();
      for (const std::int64_t head : {0, 1}) {
        EXPECT_TRUE(same_row(all, {0, head, row}, one, {0, head, 0})) << name_of(type) << ", query " << row;
      }
      Call poisoned = all;
      poisoned.v.fill(
          [&](const Index& at) { return at[2] > last ? kNaN : element(all.v.view(), {0, 0, at[2], at[3]}); });
      poisoned.run();
      for (std::int64_t i = std::max<std::int64_t>(0, row - 40); i <= row; ++i) {
        EXPECT_TRUE(same_row(all, {0, 1, i}, poisoned, {0, 1, i})) << name_of(type) << ", query " << i << " of " << row;
      }
    }
  }
}

TEST_P(Bits, RunAgainTheSame) {
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    Draw draw(seed);
    const Sizes s = random_sizes(draw);
    Call once(s, DType::kF32, seed), again(s, DType::kF32, seed);
    once.run();
    again.run();
    EXPECT_TRUE(same_bits(once, again)) << "seed " << seed;
  }
}

}  // namespace
}  // namespace manyheads::test
