// Packed sequences and pages: other places for the same numbers, so the same bits as plain tensors.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "attention/call.hpp"

namespace manyheads::test {
namespace {

class Sequences : public AtEachIsa {};
MANYHEADS_AT_EACH_ISA(Sequences);

// A batch of calls of their own, and the same as one call on packed or paged tensors.
struct Batch {
  Batch(std::uint64_t seed, DType t) : engine(seed), type(t) {
    kv_heads = between(engine, 1, 2);
    q_heads = kv_heads * between(engine, 1, 3);
    d = between(engine, 1, 40);
    dv = between(engine, 0, 1) == 0 ? d : between(engine, 1, 40);
    if (between(engine, 0, 2) == 0) d = dv = 16 * between(engine, 1, 3);  // whole vectors
    const std::int64_t entries = between(engine, 1, 5);
    for (std::int64_t b = 0; b < entries; ++b) {
      // Decoding, short and long prefills, and entries without queries or keys.
      const std::int64_t kind = between(engine, 0, 4);
      const std::int64_t tq = kind == 0 ? 1 : kind == 1 ? 0 : between(engine, 1, kind == 2 ? 150 : 20);
      const std::int64_t tk = between(engine, 0, 3) == 0 ? between(engine, 500, 1300) : between(engine, 0, 130);
      calls.emplace_back(Sizes{1, q_heads, kv_heads, tq, tk, d, dv}, type, out_type(),
                         seed * 10 + static_cast<std::uint64_t>(b));
    }
    slopes = filled(DType::kF32, {q_heads}, [](const Index&) { return 0.125; });
    if (between(engine, 0, 1) == 0) options.mask.causal = true;
    options.mask.alignment = between(engine, 0, 1) == 0 ? Alignment::kBottomRight : Alignment::kTopLeft;
    if (between(engine, 0, 2) == 0) options.mask.window_left = between(engine, 0, 100);
    if (between(engine, 0, 3) == 0) options.mask.alibi_slopes = slopes.view();
    if (between(engine, 0, 4) == 0) options.softcap = 5;
  }

  // F32 for all but one half type: rounded to those, two results would seldom differ.
  DType out_type() const { return type == DType::kF16 ? type : DType::kF32; }
  std::int64_t entries() const { return static_cast<std::int64_t>(calls.size()); }
  // Starts of the entries' queries or keys.
  Strided starts(bool of_keys, DType integer) const {
    std::vector<std::int64_t> at{0};
    for (const Call& call : calls) at.push_back(at.back() + (of_keys ? call.sizes.tk : call.sizes.tq));
    return integers(at, integer);
  }
  static std::int64_t last(const Strided& starts) {
    return static_cast<std::int64_t>(element(starts.view(), {starts.shape[0] - 1}));
  }
  // The entries' rows [h][i] of q, k or v one after the other, [T,H,W].
  Strided packed(Strided Call::* member, std::int64_t heads, std::int64_t width, const Strided& starts) const {
    Strided all = dense(type, {last(starts), heads, width});
    std::vector<std::int64_t> at;
    for (std::int64_t b = 0; b <= entries(); ++b) at.push_back(static_cast<std::int64_t>(element(starts.view(), {b})));
    all.fill([&](const Index& i) {
      const std::size_t b = static_cast<std::size_t>(std::upper_bound(at.begin(), at.end(), i[0]) - at.begin() - 1);
      return element((calls[b].*member).view(), {0, i[1], i[0] - at[b], i[2]});
    });
    return all;
  }
  void run_alone() {
    for (Call& call : calls) {
      call.options = options;
      call.run();
    }
  }

  std::mt19937_64 engine;
  DType type;
  std::int64_t q_heads = 0, kv_heads = 0, d = 0, dv = 0;
  std::vector<Call> calls;
  Strided slopes;
  AttentionOptions options;
};

// Rows of a packed result against the entries' own.
void expect_same_rows(const Batch& batch, const Strided& out, const Strided& lse, const std::string& what) {
  std::int64_t first = 0;
  for (std::size_t b = 0; b < batch.calls.size(); ++b) {
    const Call& alone = batch.calls[b];
    for (std::int64_t h = 0; h < batch.q_heads; ++h) {
      for (std::int64_t i = 0; i < alone.sizes.tq; ++i) {
        bool same = bits(lse.view(), {h, first + i}) == bits(alone.lse.view(), {0, h, i});
        for (std::int64_t e = 0; e < batch.dv; ++e) {
          same = same && bits(out.view(), {first + i, h, e}) == bits(alone.out.view(), {0, h, i, e});
        }
        ASSERT_TRUE(same) << what << ", entry " << b << ", head " << h << ", query " << i << " of " << alone.sizes.tq
                          << " with " << alone.sizes.tk << " keys";
      }
    }
    first += alone.sizes.tq;
  }
}

TEST_P(Sequences, PackedRowsHaveTheBitsOfTheirOwnCalls) {
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    Batch batch(seed, static_cast<DType>(seed % 3));
    batch.run_alone();
    const Strided q_starts = batch.starts(false, seed % 2 == 0 ? DType::kI32 : DType::kI64);
    const Strided k_starts = batch.starts(true, DType::kI64);
    const Strided q = batch.packed(&Call::q, batch.q_heads, batch.d, q_starts);
    const Strided k = batch.packed(&Call::k, batch.kv_heads, batch.d, k_starts);
    const Strided v = batch.packed(&Call::v, batch.kv_heads, batch.dv, k_starts);
    Strided out = dense(batch.out_type(), {q.shape[0], batch.q_heads, batch.dv});
    Strided lse = dense(DType::kF32, {batch.q_heads, q.shape[0]});
    const TensorView lse_view = lse.mutable_view();
    AttentionOptions options = batch.options;
    options.lse = lse_view;
    options.cu_seqlens_q = q_starts.view();
    options.cu_seqlens_k = k_starts.view();
    for (const int threads : {1, 3}) {
      options.threads.num_threads = threads;
      Workspace workspace;
      workspace.reserve(attention_workspace_size(q.view(), k.view(), v.view(), out.mutable_view(), options));
      const std::size_t capacity = workspace.capacity();
      options.workspace = &workspace;
      attention(q.view(), k.view(), v.view(), out.mutable_view(), options);
      EXPECT_EQ(workspace.capacity(), capacity);
      expect_same_rows(batch, out, lse, "seed " + std::to_string(seed));
    }
    // The definition reads the same places.
    Strided exact = dense(DType::kF32, out.shape);
    options.lse = {};
    attention_reference(q.view(), k.view(), v.view(), exact.mutable_view(), options);
    const double tolerance = batch.type == DType::kF32 ? 1e-4 : batch.type == DType::kF16 ? 1e-2 : 6e-2;
    for (std::int64_t row = 0; row < q.shape[0]; ++row) {
      for (std::int64_t h = 0; h < batch.q_heads; ++h) {
        EXPECT_NEAR(element(exact.view(), {row, h, 0}), element(out.view(), {row, h, 0}), tolerance);
      }
    }
    const Explanation e = explain(q.view(), k.view(), v.view(), out.mutable_view(), options);
    EXPECT_TRUE(contains(e.path, "packed sequences"));
  }
}

TEST_P(Sequences, PagesHaveTheBitsOfPlainKeys) {
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    Batch batch(seed, static_cast<DType>(seed % 3));
    batch.run_alone();
    const std::int64_t size = std::vector<std::int64_t>{16, 32, 48, 64, 128, 256}[seed % 6];
    std::int64_t columns = 1;
    std::int64_t pages = 1;
    for (const Call& call : batch.calls) {
      columns = std::max(columns, (call.sizes.tk + size - 1) / size);
      pages += (call.sizes.tk + size - 1) / size;
    }
    std::vector<std::int64_t> order(static_cast<std::size_t>(pages));
    std::iota(order.begin(), order.end(), std::int64_t{0});
    std::shuffle(order.begin(), order.end(), batch.engine);
    // What no key lies on is NaN, and what lies behind a sequence's end no page at all.
    std::vector<std::vector<std::int64_t>> table;
    std::size_t next = 0;
    std::vector<std::int64_t> lengths;
    for (const Call& call : batch.calls) {
      table.emplace_back(static_cast<std::size_t>(columns), -7);
      for (std::int64_t i = 0; i * size < call.sizes.tk; ++i) table.back()[static_cast<std::size_t>(i)] = order[next++];
      lengths.push_back(call.sizes.tk);
    }
    const auto fill = [&](Strided Call::* member, std::int64_t width) {
      Strided all = filled(batch.type, {pages, batch.kv_heads, size, width}, [](const Index&) { return kNaN; });
      for (std::size_t b = 0; b < batch.calls.size(); ++b) {
        for (std::int64_t j = 0; j < batch.calls[b].sizes.tk; ++j) {
          const std::int64_t page = table[b][static_cast<std::size_t>(j / size)];
          for (std::int64_t h = 0; h < batch.kv_heads; ++h) {
            for (std::int64_t e = 0; e < width; ++e) {
              all.set(((page * batch.kv_heads + h) * size + j % size) * width + e,
                      element((batch.calls[b].*member).view(), {0, h, j, e}));
            }
          }
        }
      }
      return all;
    };
    const Strided k = fill(&Call::k, batch.d);
    const Strided v = fill(&Call::v, batch.dv);
    const Strided page_table =
        filled(seed % 2 == 0 ? DType::kI32 : DType::kI64, {batch.entries(), columns}, [&](const Index& at) {
          return static_cast<double>(table[static_cast<std::size_t>(at[0])][static_cast<std::size_t>(at[1])]);
        });
    const Strided key_lengths = integers(lengths);
    const Strided q_starts = batch.starts(false, DType::kI32);
    const Strided q = batch.packed(&Call::q, batch.q_heads, batch.d, q_starts);
    Strided out = dense(batch.out_type(), {q.shape[0], batch.q_heads, batch.dv});
    Strided lse = dense(DType::kF32, {batch.q_heads, q.shape[0]});
    const TensorView lse_view = lse.mutable_view();
    AttentionOptions options = batch.options;
    options.lse = lse_view;
    options.cu_seqlens_q = q_starts.view();
    options.page_table = page_table.view();
    options.mask.key_lengths = key_lengths.view();
    options.threads.num_threads = 2;
    attention(q.view(), k.view(), v.view(), out.mutable_view(), options);
    expect_same_rows(batch, out, lse, "seed " + std::to_string(seed) + ", pages of " + std::to_string(size));
  }
}

TEST(SequenceErrors, PackedSequences) {
  const Strided q = dense(DType::kF32, {6, 2, 8});
  const Strided k = dense(DType::kF32, {9, 1, 8});
  Strided out = dense(DType::kF32, {6, 2, 8});
  const auto error = [&](const std::vector<std::int64_t>& q_starts, const std::vector<std::int64_t>& k_starts,
                         const Mask& mask = {}) {
    const Strided a = integers(q_starts);
    const Strided b = integers(k_starts);
    return error_of([&] {
      AttentionOptions options;
      options.mask = mask;
      options.cu_seqlens_q = a.view();
      options.cu_seqlens_k = b.view();
      attention(q.view(), k.view(), k.view(), out.mutable_view(), options);
    });
  };
  EXPECT_EQ(error({0, 2, 6}, {0, 4, 9}), "no error");
  EXPECT_EQ(error({0, 6, 6}, {0, 0, 9}), "no error");
  EXPECT_EQ(error({1, 2, 6}, {0, 4, 9}), "attention: cu_seqlens_q[0] is 1, expected 0");
  EXPECT_EQ(error({0, 2, 7}, {0, 4, 9}), "attention: cu_seqlens_q ends at 7, q has 6 rows");
  EXPECT_EQ(error({0, 2, 5}, {0, 4, 9}), "attention: cu_seqlens_q ends at 5, q has 6 rows");
  EXPECT_EQ(error({0, 2, 6}, {0, 10, 9}), "attention: cu_seqlens_k[2] is 9, less than 10 before it");
  EXPECT_EQ(error({0, 2, 6}, {0, -1, 9}), "attention: cu_seqlens_k[1] is -1, less than 0 before it");
  EXPECT_EQ(error({0, 2, 6}, {0, 9}), "attention: cu_seqlens_k is I64 [2], expected I32 or I64 [3]");
  EXPECT_EQ(error({}, {0, 9}), "attention: cu_seqlens_q is empty, expected [B+1]");
  // What has not the axes that give the batch is asked for by their names.
  EXPECT_EQ(error_of([&] {
              const Strided table = dense(DType::kI32, {2, 3});
              const Strided keys = dense(DType::kF32, {1, 1, 9, 8});
              attention(q.view(), keys.view(), keys.view(), out.mutable_view(), {.cu_seqlens_q = table.view()});
            }),
            "attention: cu_seqlens_q is I32 [2,3], expected I32 or I64 [B+1]");
  EXPECT_TRUE(contains(error({0, 2, 6}, {0, 4, 9}, mask::causal()), "causal with 2 queries and 4 keys in entry 0"));
  const Strided bias_tensor = dense(DType::kF32, {1});
  EXPECT_EQ(error({0, 2, 6}, {0, 4, 9}, mask::bias(bias_tensor.view())),
            "attention: bias with cu_seqlens: packed sequences have no one Tq and Tk");
  const Strided lengths = integers({1, 1});
  EXPECT_EQ(error({0, 2, 6}, {0, 4, 9}, mask::key_lengths(lengths.view())),
            "attention: key_lengths with cu_seqlens_k, which gives the lengths");
}

TEST(SequenceErrors, PagesAndScales) {
  const Strided q = dense(DType::kF32, {2, 2, 3, 8});
  Strided out = dense(DType::kF32, {2, 2, 3, 8});
  const auto error = [&](std::int64_t size, const std::vector<std::int64_t>& entries,
                         const std::vector<std::int64_t>& lengths) {
    const Strided k = dense(DType::kF32, {5, 1, size, 8});
    const Strided table = filled(DType::kI32, {2, 2}, [&](const Index& at) {
      return static_cast<double>(entries[static_cast<std::size_t>(at[0] * 2 + at[1])]);
    });
    const Strided key_lengths = integers(lengths);
    return error_of([&] {
      AttentionOptions options;
      options.page_table = table.view();
      options.mask.key_lengths = key_lengths.view();
      attention(q.view(), k.view(), k.view(), out.mutable_view(), options);
    });
  };
  EXPECT_EQ(error(16, {0, 1, 4, 3}, {32, 17}), "no error");
  EXPECT_EQ(error(16, {0, -1, 4, 99}, {16, 16}), "no error");  // behind the lengths the table is not read
  EXPECT_EQ(error(16, {0, -1, 4, 3}, {17, 17}), "attention: page_table[0, 1] is -1, k has 5 pages");
  EXPECT_EQ(error(16, {0, 1, 5, 3}, {32, 1}), "attention: page_table[1, 0] is 5, k has 5 pages");
  EXPECT_EQ(error(16, {0, 1, 4, 3}, {33, 1}), "attention: key_lengths[0] is 33, expected 0 to Tk = 32");
  EXPECT_TRUE(contains(error(8, {0, 1, 2, 3}, {1, 1}), "k has pages of 8 keys, expected a multiple of 16"));

  const Strided k8 = filled(DType::kI8, {2, 1, 7, 8}, [](const Index&) { return 1.0; });
  const Strided k = dense(DType::kF32, {2, 1, 7, 8});
  const Strided scales = dense(DType::kF32, {2, 1, 7});
  const Strided short_scales = dense(DType::kF32, {2, 1, 6});
  const auto with = [&](const Strided& keys, const Strided* k_scales) {
    return error_of([&] {
      AttentionOptions options;
      if (k_scales != nullptr) options.k_scales = k_scales->view();
      options.v_scales = scales.view();
      attention(q.view(), keys.view(), keys.view(), out.mutable_view(), options);
    });
  };
  EXPECT_EQ(with(k8, &scales), "no error");
  EXPECT_EQ(with(k8, nullptr), "attention: k_scales is undefined, expected F32 [2,1,7] for k I8 [2,1,7,8]");
  EXPECT_EQ(with(k8, &short_scales), "attention: k_scales is F32 [2,1,6], expected F32 [2,1,7] for k I8 [2,1,7,8]");
  EXPECT_EQ(with(k, &scales), "attention: k_scales with k F32 [2,1,7,8]: only I8 takes scales");
  EXPECT_EQ(error_of([&] {
              AttentionOptions options;
              options.int8_products = true;
              attention(q.view(), k.view(), k.view(), out.mutable_view(), options);
            }),
            "attention: int8_products takes I8 keys and values (q F32 [2,2,3,8], k F32 [2,1,7,8], v F32 [2,1,7,8])");
  const Strided wide_q = dense(DType::kF32, {1, 1, 1, 131073});
  const Strided wide_k = dense(DType::kI8, {1, 1, 1, 131073});
  const Strided one = filled(DType::kF32, {1, 1, 1}, [](const Index&) { return 1.0; });
  Strided wide_out = dense(DType::kF32, {1, 1, 1, 131073});
  EXPECT_TRUE(contains(error_of([&] {
                         AttentionOptions options{
                             .k_scales = one.view(), .v_scales = one.view(), .int8_products = true};
                         attention(wide_q.view(), wide_k.view(), wide_k.view(), wide_out.mutable_view(), options);
                       }),
                       "attention: int8_products takes head sizes up to 131072 (q F32 [1,1,1,131073]"));
}

}  // namespace
}  // namespace manyheads::test
