#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "attention/call.hpp"

// The rules of what masks mean, one test a rule, at each instruction set of the machine.
namespace manyheads::test {
namespace {

class MaskSemantics : public AtEachIsa {};
MANYHEADS_AT_EACH_ISA(MaskSemantics);

// Which keys the queries of batch entry b see, read off the result: equal scores and V = 1 give 1 / (number seen).
std::vector<std::string> seen(const Mask& mask, std::int64_t tq, std::int64_t tk, std::int64_t batch = 1,
                              std::int64_t b = 0) {
  Call call({.batch = batch, .tq = tq, .tk = tk, .d = 4, .dv = tk});
  call.q.fill([](const Index&) { return 0.0; });
  call.v.fill([](const Index& at) { return at[2] == at[3] ? 1.0 : 0.0; });
  call.options.mask = mask;
  call.run();
  std::vector<std::string> rows;
  for (std::int64_t i = 0; i < tq; ++i) {
    std::string row;
    for (std::int64_t j = 0; j < tk; ++j) row += call.out_at(b, 0, i, j) > 0 ? '1' : '0';
    rows.push_back(row);
  }
  return rows;
}

using Rows = std::vector<std::string>;

// Ways to hide keys from queries. Key 70 and above are hidden from every query, or from query 0 alone.
struct Hiding {
  std::string name;
  Mask mask;
  std::vector<Strided> parts;
};

constexpr std::int64_t kVisible = 70;

std::vector<Hiding> hidings(const Sizes& s, bool from_first_only) {
  std::vector<Hiding> list;
  const auto forbids = [=](std::int64_t i, std::int64_t j) { return j >= kVisible && (i == 0 || !from_first_only); };
  const auto add = [&](const std::string& name) -> Hiding& {
    list.push_back({name, {}, {}});
    list.back().parts.reserve(2);
    return list.back();
  };
  {
    Hiding& h = add("bool mask");
    h.parts.push_back(filled(DType::kBool, {s.tq, s.tk}, [&](const Index& at) { return !forbids(at[0], at[1]); }));
    h.mask.allowed = h.parts[0].view();
  }
  {
    Hiding& h = add("bias");
    h.parts.push_back(
        filled(DType::kF32, {s.tq, s.tk}, [&](const Index& at) { return forbids(at[0], at[1]) ? -kInf : 0.25; }));
    h.mask.bias = h.parts[0].view();
  }
  if (from_first_only) {
    Hiding& h = add("causal");
    h.parts.push_back(integers(std::vector<std::int64_t>(static_cast<std::size_t>(s.batch), kVisible - 1)));
    h.mask = mask::causal() | mask::offsets(h.parts[0].view());
    Hiding& w = add("window");
    w.parts.push_back(integers(std::vector<std::int64_t>(static_cast<std::size_t>(s.batch), kVisible - 1)));
    w.mask = mask::window(-1, 0) | mask::offsets(w.parts[0].view());
  } else {
    Hiding& h = add("key lengths");
    h.parts.push_back(integers(std::vector<std::int64_t>(static_cast<std::size_t>(s.batch), kVisible)));
    h.mask.key_lengths = h.parts[0].view();
    Hiding& w = add("window");
    w.parts.push_back(integers(std::vector<std::int64_t>(static_cast<std::size_t>(s.batch), kVisible - s.tq)));
    w.mask = mask::window(-1, 0) | mask::offsets(w.parts[0].view());
    Hiding& documents = add("documents");
    documents.parts.push_back(ids(s.batch, std::vector<std::int64_t>(static_cast<std::size_t>(s.tq), 5)));
    std::vector<std::int64_t> keys(static_cast<std::size_t>(s.tk), 5);
    for (std::size_t j = kVisible; j < keys.size(); ++j) keys[j] = j % 2 == 0 ? 4 : 6;
    documents.parts.push_back(ids(s.batch, keys, DType::kI64));
    documents.mask.q_documents = documents.parts[0].view();
    documents.mask.k_documents = documents.parts[1].view();
  }
  return list;
}

// --- Forbidden rows ---

void expect_forbidden(const std::string& name, const Mask& mask, std::int64_t row) {
  for (const bool sinks : {false, true}) {
    Call call({.batch = 2, .q_heads = 2, .kv_heads = 1, .tq = 5, .tk = 9, .d = 8, .dv = 5});
    const Strided logits = filled(DType::kF32, {2}, [](const Index& at) { return at[0] == 0 ? -3.5 : 40.0; });
    if (sinks) call.options.sinks = logits.view();
    call.options.mask = mask;
    EXPECT_EQ(call.wrong(), "") << name;
    for (std::int64_t b = 0; b < 2; ++b) {
      for (std::int64_t h = 0; h < 2; ++h) {
        for (std::int64_t e = 0; e < 5; ++e) {
          EXPECT_EQ(bits(call.out.view(), {b, h, row, e}), 0u) << name;  // 0, not -0
        }
        EXPECT_EQ(call.lse_at(b, h, row), sinks ? (h == 0 ? -3.5 : 40.0) : -kInf) << name;
      }
    }
  }
}

TEST_P(MaskSemantics, RowsWithEveryKeyForbiddenGiveZeroAndMinusInfinityOrTheSink) {
  const Strided lengths = integers({0, 0});
  expect_forbidden("key lengths", mask::key_lengths(lengths.view()), 3);
  const Strided mask = filled(DType::kBool, {5, 9}, [](const Index& at) { return at[0] != 3; });
  expect_forbidden("bool mask", mask::allowed(mask.view()), 3);
  const Strided added = filled(DType::kF32, {5, 9}, [](const Index& at) { return at[0] == 3 ? -kInf : 1.0; });
  expect_forbidden("bias", mask::bias(added.view()), 3);
  const Strided mixed = filled(DType::kF32, {5, 9}, [](const Index& at) { return at[1] < 4 ? -kInf : 1.0; });
  const Strided rest = filled(DType::kBool, {5, 9}, [](const Index& at) { return at[0] != 3 || at[1] < 4; });
  expect_forbidden("bias and bool mask", mask::bias(mixed.view()) | mask::allowed(rest.view()), 3);
  const Strided before = integers({-4, -4});
  expect_forbidden("causal", mask::causal() | mask::offsets(before.view()), 3);
  const Strided behind = integers({100, 100});
  expect_forbidden("window", mask::window(2, 0) | mask::offsets(behind.view()), 3);
  const Strided q_ids = ids(2, {1, 1, 1, 7, 1});
  const Strided k_ids = ids(2, {1, 1, 1, 1, 1, 2, 2, 8, 9});
  expect_forbidden("documents", mask::documents(q_ids.view(), k_ids.view()), 3);
}

TEST_P(MaskSemantics, NoKeysAtAllIsAsEveryKeyForbidden) {
  for (const bool sinks : {false, true}) {
    Call call({.batch = 2, .q_heads = 3, .kv_heads = 1, .tq = 4, .tk = 0, .d = 8, .dv = 3});
    const Strided logits = filled(DType::kF32, {3}, [](const Index&) { return 2.5; });
    if (sinks) call.options.sinks = logits.view();
    call.run();
    for (std::int64_t i = 0; i < 4; ++i) {
      EXPECT_EQ(bits(call.out.view(), {1, 2, i, 2}), 0u);
      EXPECT_EQ(call.lse_at(1, 2, i), sinks ? 2.5 : -kInf);
    }
  }
}

TEST_P(MaskSemantics, EmptyBatchHeadsOrQueriesSucceed) {
  for (const Sizes& s : {Sizes{.batch = 0}, Sizes{.q_heads = 0, .kv_heads = 0}, Sizes{.q_heads = 0, .kv_heads = 2},
                         Sizes{.tq = 0}, Sizes{.batch = 0, .q_heads = 0, .kv_heads = 0, .tq = 0, .tk = 0}}) {
    Call call(s);
    call.options.mask = mask::causal(Alignment::kBottomRight);
    EXPECT_NO_THROW(call.run());
    // A view of nothing may lie nowhere.
    const ConstTensorView q(nullptr, DType::kF32, call.q.shape);
    if (element_count(call.q.shape) == 0 && element_count(call.out.shape) == 0) {
      EXPECT_NO_THROW(attention(q, call.k.view(), call.v.view(), TensorView(nullptr, DType::kF32, call.out.shape)));
    }
  }
}

TEST_P(MaskSemantics, ValuesOfNoWidthStillGiveTheLse) {
  Call call({.tq = 3, .tk = 70, .d = 8, .dv = 0});
  EXPECT_EQ(call.wrong(), "");
}

// --- Decided on the mask, never on a number ---

TEST_P(MaskSemantics, ALargeNegativeBiasStaysANumber) {
  for (const double low : {-1e4, -1e9, -1e30, -3.0e38, -static_cast<double>(std::numeric_limits<float>::max())}) {
    Call call({.tq = 20, .tk = 600, .d = 8, .dv = 4});
    call.q.fill([](const Index&) { return 0.0; });  // only the bias counts: a uniform mean
    const Strided added = filled(DType::kF32, {1, 1}, [&](const Index&) { return low; });
    call.options.mask = mask::bias(added.view());
    call.run();
    for (std::int64_t e = 0; e < 4; ++e) {
      double mean = 0;
      double size = 0;
      for (std::int64_t j = 0; j < 600; ++j) {
        mean += element(call.v.view(), {0, 0, j, e}) / 600;
        size += std::fabs(element(call.v.view(), {0, 0, j, e})) / 600;
      }
      for (std::int64_t i = 0; i < 20; ++i) EXPECT_NEAR(call.out_at(0, 0, i, e), mean, 8 * 0x1p-24 * size) << low;
    }
    const double lse = low + std::log(600.0);
    EXPECT_NEAR(call.lse_at(0, 0, 0), lse, 16 * 0x1p-24 * std::fabs(low)) << low;
    EXPECT_TRUE(std::isfinite(call.lse_at(0, 0, 0))) << low;
  }
}

TEST_P(MaskSemantics, ForbiddenKeysStayApartFromLowOnes) {
  const double lowest = -static_cast<double>(std::numeric_limits<float>::max());
  for (const double low : {-1e9, lowest}) {
    Call call({.tq = 3, .tk = 100, .d = 8, .dv = 1});
    call.q.fill([](const Index&) { return 0.0; });
    call.v.fill([](const Index& at) { return at[2] % 2 == 0 ? 1.0 : 1000.0; });
    const Strided added = filled(DType::kF32, {100}, [&](const Index& at) { return at[0] % 2 == 0 ? low : -kInf; });
    call.options.mask = mask::bias(added.view());
    call.run();
    EXPECT_NEAR(call.out_at(0, 0, 2, 0), 1.0, 1e-6) << low;
    // The same with the odd keys forbidden by a bool mask.
    const Strided all_low = filled(DType::kF32, {100}, [&](const Index&) { return low; });
    const Strided even = filled(DType::kBool, {100}, [](const Index& at) { return at[0] % 2 == 0; });
    call.options.mask = mask::bias(all_low.view()) | mask::allowed(even.view());
    call.run();
    EXPECT_NEAR(call.out_at(0, 0, 2, 0), 1.0, 1e-6) << low;
  }
}

TEST_P(MaskSemantics, MinusInfinityInABiasForbids) {
  for (const DType type : {DType::kF32, DType::kBF16, DType::kF16}) {
    for (const DType bias_type : {DType::kF32, type}) {
      Call call({.batch = 2, .q_heads = 2, .kv_heads = 2, .tq = 30, .tk = 150, .d = 16, .dv = 16}, type);
      const Strided added = filled(bias_type, {2, 1, 30, 150}, [](const Index& at) {
        return (at[2] * 7 + at[3] * 3) % 5 == 0 ? -kInf : static_cast<double>(at[3] % 8) / 8;
      });
      call.options.mask = mask::bias(added.view());
      EXPECT_EQ(call.wrong(), "") << name_of(type) << " " << name_of(bias_type);
    }
  }
}

TEST_P(MaskSemantics, PlusInfinityOrNaNInABiasComesOutAsNaN) {
  for (const double bad : {kInf, kNaN}) {
    for (const std::int64_t key : {0, 63, 64, 511, 512, 699}) {
      Call call({.tq = 40, .tk = 700, .d = 8, .dv = 3});
      Strided added =
          filled(DType::kF32, {40, 700}, [&](const Index& at) { return at[0] == 17 && at[1] == key ? bad : 0.0; });
      call.options.mask = mask::bias(added.view());
      call.run();
      for (std::int64_t i = 0; i < 40; ++i) {
        EXPECT_EQ(std::isnan(call.out_at(0, 0, i, 1)), i == 17) << bad << " at key " << key << ", query " << i;
      }
      EXPECT_TRUE(std::isnan(call.lse_at(0, 0, 17)) || (bad == kInf && call.lse_at(0, 0, 17) == kInf));
      // Behind a bool mask it is not read.
      const Strided mask = filled(DType::kBool, {700}, [&](const Index& at) { return at[0] != key; });
      call.options.mask = mask::bias(added.view()) | mask::allowed(mask.view());
      call.run();
      EXPECT_FALSE(std::isnan(call.out_at(0, 0, 17, 1))) << bad << " at key " << key;
    }
  }
}

// --- Where the diagonal lies ---

TEST_P(MaskSemantics, CausalNeedsAnAlignmentWhereTheLengthsDiffer) {
  Call call({.tq = 2, .tk = 4});
  call.options.mask = mask::causal();
  const std::string text = error_of([&] { call.run(); });
  EXPECT_TRUE(contains(text, "attention: causal with 2 queries and 4 keys: say top_left or bottom_right")) << text;
  EXPECT_EQ(call.out_at(0, 0, 0, 0), 777.0);
  EXPECT_EQ(seen(mask::causal(), 3, 3), (Rows{"100", "110", "111"}));
  // An offset says it too.
  const Strided one = integers({1});
  EXPECT_EQ(seen(mask::causal() | mask::offsets(one.view()), 2, 4), (Rows{"1100", "1110"}));
}

TEST_P(MaskSemantics, TopLeft) {
  EXPECT_EQ(seen(mask::causal(Alignment::kTopLeft), 2, 4), (Rows{"1000", "1100"}));
  EXPECT_EQ(seen(mask::causal(Alignment::kTopLeft), 4, 2), (Rows{"10", "11", "11", "11"}));
  EXPECT_EQ(seen(mask::window(1, 0, Alignment::kTopLeft), 3, 4), (Rows{"1000", "1100", "0110"}));
}

TEST_P(MaskSemantics, BottomRight) {
  EXPECT_EQ(seen(mask::causal(Alignment::kBottomRight), 2, 4), (Rows{"1110", "1111"}));
  EXPECT_EQ(seen(mask::causal(Alignment::kBottomRight), 4, 2), (Rows{"00", "00", "10", "11"}));
  EXPECT_EQ(seen(mask::window(1, 0, Alignment::kBottomRight), 2, 4), (Rows{"0110", "0011"}));
  EXPECT_EQ(seen(mask::causal() | mask::align(Alignment::kBottomRight), 1, 3), (Rows{"111"}));
}

TEST_P(MaskSemantics, BottomRightCountsFromTheKeyLengths) {
  const Strided lengths = integers({3, 5, 1, 0}, DType::kI32);
  const Mask mask = mask::causal(Alignment::kBottomRight) | mask::key_lengths(lengths.view());
  EXPECT_EQ(seen(mask, 2, 5, 4, 0), (Rows{"11000", "11100"}));
  EXPECT_EQ(seen(mask, 2, 5, 4, 1), (Rows{"11110", "11111"}));
  EXPECT_EQ(seen(mask, 2, 5, 4, 2), (Rows{"00000", "10000"}));
  EXPECT_EQ(seen(mask, 2, 5, 4, 3), (Rows{"00000", "00000"}));
  // Top-left does not.
  EXPECT_EQ(seen(mask::causal(Alignment::kTopLeft) | mask::key_lengths(lengths.view()), 2, 5, 4, 0),
            (Rows{"10000", "11000"}));
}

TEST_P(MaskSemantics, OffsetsStandInForTheAlignment) {
  const Strided far = integers({0, 2, -1, std::int64_t{1} << 60});
  const Mask mask = mask::causal(Alignment::kBottomRight) | mask::offsets(far.view());
  EXPECT_EQ(seen(mask, 2, 4, 4, 0), (Rows{"1000", "1100"}));
  EXPECT_EQ(seen(mask, 2, 4, 4, 1), (Rows{"1110", "1111"}));
  EXPECT_EQ(seen(mask, 2, 4, 4, 2), (Rows{"0000", "1000"}));
  EXPECT_EQ(seen(mask, 2, 4, 4, 3), (Rows{"1111", "1111"}));
  EXPECT_EQ(seen(mask::window(0, 0) | mask::offsets(far.view()), 2, 4, 4, 1), (Rows{"0010", "0001"}));
}

TEST_P(MaskSemantics, WindowWithAndWithoutCausal) {
  EXPECT_EQ(seen(mask::window(-1, -1), 3, 3), (Rows{"111", "111", "111"}));
  EXPECT_EQ(seen(mask::window(1, 1), 4, 4), (Rows{"1100", "1110", "0111", "0011"}));
  EXPECT_EQ(seen(mask::window(0, -1), 3, 3), (Rows{"111", "011", "001"}));
  EXPECT_EQ(seen(mask::window(-1, 0), 3, 3), (Rows{"100", "110", "111"}));
  EXPECT_EQ(seen(mask::window(-1, 1), 3, 4), (Rows{"1100", "1110", "1111"}));
  // Causal caps the right side at 0.
  EXPECT_EQ(seen(mask::window(1, 2) | mask::causal(), 4, 4), (Rows{"1000", "1100", "0110", "0011"}));
  EXPECT_EQ(seen(mask::window(std::numeric_limits<std::int64_t>::max(), 0), 2, 2), (Rows{"10", "11"}));
}

TEST_P(MaskSemantics, DocumentsAllowEqualIds) {
  const Strided q_ids = ids(1, {3, -1, 3, 9});
  const Strided k_ids = ids(1, {3, 3, -1, 3, 0}, DType::kI64);
  EXPECT_EQ(seen(mask::documents(q_ids.view(), k_ids.view()), 4, 5), (Rows{"11010", "00100", "11010", "00000"}));
}

TEST_P(MaskSemantics, PartsOfAMaskHoldTogether) {
  const Strided mask = filled(DType::kBool, {4}, [](const Index& at) { return at[0] != 1; });
  EXPECT_EQ(seen(mask::causal() | mask::allowed(mask.view()), 4, 4), (Rows{"1000", "1000", "1010", "1011"}));
  const Strided lengths = integers({3});
  EXPECT_EQ(seen(mask::causal() | mask::allowed(mask.view()) | mask::key_lengths(lengths.view()), 4, 4),
            (Rows{"1000", "1000", "1010", "1010"}));
  const Strided q_ids = ids(1, {0, 0, 1, 1});
  EXPECT_EQ(seen(mask::causal() | mask::documents(q_ids.view(), q_ids.view()) | mask::window(0, 3), 4, 4),
            (Rows{"1000", "0100", "0010", "0001"}));
  const Strided added = filled(DType::kF32, {4, 1}, [](const Index& at) { return at[0] == 2 ? -kInf : 0.0; });
  EXPECT_EQ(seen(mask::causal() | mask::bias(added.view()), 4, 4), (Rows{"1000", "1100", "0000", "1111"}));
}

TEST_P(MaskSemantics, MasksBroadcastFromTheRight) {
  const Sizes s{.batch = 2, .q_heads = 4, .kv_heads = 2, .tq = 6, .tk = 70, .d = 8, .dv = 8};
  for (const Dims& shape : {Dims{}, Dims{70}, Dims{1}, Dims{6, 1}, Dims{6, 70}, Dims{4, 1, 1}, Dims{4, 6, 70},
                            Dims{2, 1, 1, 70}, Dims{2, 4, 6, 70}, Dims{1, 1, 1, 1}, Dims{2, 1, 6, 1}}) {
    Call call(s);
    std::int64_t count = 0;
    const Strided mask = filled(DType::kBool, shape, [&](const Index&) { return count++ % 3 != 1; });
    const Strided added = filled(DType::kF32, shape, [&](const Index&) { return static_cast<double>(count++ % 7); });
    call.options.mask = mask::allowed(mask.view()) | mask::bias(added.view());
    EXPECT_EQ(call.wrong(), "") << shape.to_string();
  }
}

// --- What is not read ---

TEST_P(MaskSemantics, WhatIsMaskedIsNeverReadIntoTheResult) {
  const Sizes s{.batch = 2, .q_heads = 2, .kv_heads = 1, .tq = 60, .tk = 200, .d = 16, .dv = 9};
  for (const bool from_first_only : {false, true}) {
    for (const Hiding& hiding : hidings(s, from_first_only)) {
      Call clean(s);
      clean.options.mask = hiding.mask;
      EXPECT_EQ(clean.wrong(), "") << hiding.name;
      for (const double poison : {kNaN, kInf, -kInf, 3e38}) {
        for (const bool in_values : {false, true}) {
          Call dirty(s);
          dirty.options.mask = hiding.mask;
          Strided& tensor = in_values ? dirty.v : dirty.k;
          tensor.fill([&](const Index& at) {
            // Some whole rows, some single elements.
            const bool hit = at[2] >= kVisible && (at[2] % 3 != 0 || at[3] == 5);
            return hit ? poison : element((in_values ? clean.v : clean.k).view(), {at[0], at[1], at[2], at[3]});
          });
          dirty.run();
          for (std::int64_t b = 0; b < s.batch; ++b) {
            for (std::int64_t h = 0; h < s.q_heads; ++h) {
              for (std::int64_t i = 0; i < (from_first_only ? 1 : s.tq); ++i) {
                EXPECT_TRUE(same_row(clean, {b, h, i}, dirty, {b, h, i}))
                    << hiding.name << " with " << poison << (in_values ? " in values" : " in keys") << ", query " << i;
              }
            }
          }
        }
      }
    }
  }
}

TEST_P(MaskSemantics, ANaNInAVisiblePlaceComesOutAsNaN) {
  const Sizes s{.q_heads = 2, .kv_heads = 2, .tq = 50, .tk = 600, .d = 16, .dv = 10};
  for (const std::int64_t place : {0, 13, 49}) {
    Call call(s);
    call.q.set(call.q.strides[2] * place + 7, kNaN);
    call.run();
    for (std::int64_t i = 0; i < s.tq; ++i) {
      for (std::int64_t e = 0; e < s.dv; ++e) EXPECT_EQ(std::isnan(call.out_at(0, 0, i, e)), i == place) << i;
      EXPECT_EQ(std::isnan(call.lse_at(0, 0, i)), i == place) << "lse of query " << i << " is " << call.lse_at(0, 0, i);
      EXPECT_FALSE(std::isnan(call.out_at(0, 1, i, 0)));
    }
  }
  for (const std::int64_t key : {0, 30, 63, 64, 512, 599}) {
    Call call(s);
    call.k.set(call.k.strides[2] * key, kNaN);
    call.options.mask = mask::causal(Alignment::kBottomRight);  // query i sees keys to 550 + i
    call.run();
    for (std::int64_t i = 0; i < s.tq; ++i) {
      EXPECT_EQ(std::isnan(call.out_at(0, 0, i, 3)), key <= 550 + i) << "key " << key << ", query " << i;
      EXPECT_EQ(std::isnan(call.lse_at(0, 0, i)), key <= 550 + i) << "key " << key << ", query " << i;
    }
    Call values(s);
    values.v.set(values.v.strides[2] * key + 4, kNaN);
    values.options.mask = mask::causal(Alignment::kBottomRight);
    values.run();
    for (std::int64_t i = 0; i < s.tq; ++i) {
      for (std::int64_t e = 0; e < s.dv; ++e) {
        EXPECT_EQ(std::isnan(values.out_at(0, 0, i, e)), e == 4 && key <= 550 + i) << "key " << key << ", query " << i;
      }
      EXPECT_FALSE(std::isnan(values.lse_at(0, 0, i)));
    }
  }
}

TEST_P(MaskSemantics, ANaNInEveryScoreOfARowIsNaNWithASinkToo) {
  for (const bool sinks : {false, true}) {
    for (const bool masked : {false, true}) {
      Call call({.tq = 3, .tk = 90, .d = 4, .dv = 2});
      const Strided logits = filled(DType::kF32, {1}, [](const Index&) { return 1.0; });
      const Strided mask = filled(DType::kBool, {90}, [](const Index& at) { return at[0] > 4; });
      if (sinks) call.options.sinks = logits.view();
      if (masked) call.options.mask = mask::allowed(mask.view());
      call.q.set(call.q.strides[2] * 1, kNaN);
      call.run();
      EXPECT_TRUE(std::isnan(call.out_at(0, 0, 1, 0))) << call.out_at(0, 0, 1, 0);
      EXPECT_TRUE(std::isnan(call.lse_at(0, 0, 1)))
          << call.lse_at(0, 0, 1) << " sinks " << sinks << " masked " << masked;
      EXPECT_FALSE(std::isnan(call.out_at(0, 0, 2, 0)));
    }
  }
}

TEST_P(MaskSemantics, ANaNValueOfAVisibleKeyWithNoWeightIsNaN) {
  Call call({.tq = 4, .tk = 100, .d = 8, .dv = 3});
  const Strided added = filled(DType::kF32, {100}, [](const Index& at) { return at[0] == 40 ? -1e6 : 0.0; });
  call.options.mask = mask::bias(added.view());
  call.v.set(call.v.strides[2] * 40 + 1, kNaN);
  call.run();
  EXPECT_TRUE(std::isnan(call.out_at(0, 0, 2, 1)));
  EXPECT_FALSE(std::isnan(call.out_at(0, 0, 2, 0)));
}

}  // namespace
}  // namespace manyheads::test
