#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

#include "attention/draw.hpp"
#include "attention/gradient_call.hpp"

// The schedule never changes the gradients: threads, executors, batch, place, strides and packing keep the bits.
namespace manyheads::test {
namespace {

class BackwardBits : public AtEachIsa {};
MANYHEADS_AT_EACH_ISA(BackwardBits);

class InReverse : public Executor {
 public:
  int concurrency() const noexcept override { return 64; }
  void run(std::int64_t count, Task task, void* context) override {
    for (std::int64_t i = count; i-- > 0;) task(context, i);
  }
};

Sizes many_chunks(Draw& draw) {
  Sizes s = random_sizes(draw);
  s.batch = draw.between(1, 2);
  s.tq = draw.between(1, 700);
  s.tk = draw.between(1, 1700);
  return s;
}

TEST_P(BackwardBits, AnyNumberOfThreads) {
  for (std::uint64_t seed = 1; seed <= 8; ++seed) {
    Draw draw(seed);
    const Sizes s = many_chunks(draw);
    const RandomMask mask(draw, s);
    const DType type = random_type(draw);
    GradientCall one(s, type, seed);
    one.options.mask = mask.mask;
    one.options.threads.num_threads = 1;
    one.run_backward();
    InReverse reverse;
    for (const int threads : {2, 3, 8, 64, 0}) {
      GradientCall many(s, type, seed);
      many.options.mask = mask.mask;
      many.options.threads.num_threads = threads;
      if (threads == 0) many.options.threads.executor = &reverse;
      many.run_backward();
      EXPECT_TRUE(same_gradients(one, many)) << "seed " << seed << ", " << threads << " threads";
    }
  }
}

// One chunk of keys, whose queries are cut into parts.
TEST_P(BackwardBits, AnyNumberOfThreadsForFewKeys) {
  for (const DType type : {DType::kF32, DType::kBF16}) {
    for (const Sizes& s : {Sizes{1, 3, 1, 1300, 200, 24, 16}, Sizes{1, 1, 1, 2100, 600, 16, 24}}) {
      GradientCall one(s, type);
      one.options.mask.window_left = 1000;
      one.options.mask.alignment = Alignment::kTopLeft;
      one.options.threads.num_threads = 1;
      one.run_backward();
      for (const int threads : {2, 3, 8, 64}) {
        GradientCall many(s, type);
        many.options.mask = one.options.mask;
        many.options.threads.num_threads = threads;
        many.run_backward();
        EXPECT_TRUE(same_gradients(one, many)) << threads << " threads";
      }
    }
  }
}

TEST_P(BackwardBits, AnyPlaceInTheBatch) {
  const Sizes alone{1, 2, 1, 150, 600, 24, 16};
  Sizes together = alone;
  together.batch = 5;
  GradientCall one(alone), many(together);
  for (std::int64_t b = 0; b < 5; ++b) {
    for (const auto& [from, to] : {std::pair{&one.q, &many.q},
                                   {&one.k, &many.k},
                                   {&one.v, &many.v},
                                   {&one.dout, &many.dout},
                                   {&one.dlse, &many.dlse}}) {
      const std::int64_t count = element_count(from->shape);
      for (std::int64_t e = 0; b % 2 == 0 && e < count; ++e) {
        to->set(b * count + e, static_cast<double>(static_cast<const float*>(from->view().data())[e]));
      }
    }
  }
  one.run_backward();
  many.options.threads.num_threads = 2;
  many.run_backward();
  for (const auto& [from, to] : {std::pair{&one.dq, &many.dq}, {&one.dk, &many.dk}, {&one.dv, &many.dv}}) {
    const std::int64_t count = element_count(from->shape);
    for (std::int64_t b = 0; b < 5; b += 2) {
      EXPECT_EQ(std::memcmp(from->view().data(), static_cast<const float*>(to->view().data()) + b * count,
                            static_cast<std::size_t>(count) * sizeof(float)),
                0)
          << b;
    }
  }
}

// Rows [B,T,H,D], gaps, and elements two apart.
TEST_P(BackwardBits, AnyStrides) {
  const Sizes s{2, 4, 2, 90, 130, 32, 32};
  GradientCall plain(s), spread(s);
  const auto lay_out = [](Strided& tensor, std::vector<int> order, std::int64_t gap, std::int64_t step) {
    Strided other(tensor.type, tensor.shape, order, gap, step, -1, 1);
    other.fill([&](const Index& at) { return element(tensor.view(), {at[0], at[1], at[2], at[3]}); });
    tensor = other;
  };
  lay_out(spread.q, {0, 2, 1, 3}, 0, 1);
  lay_out(spread.k, {0, 2, 1, 3}, 5, 1);
  lay_out(spread.v, {0, 1, 2, 3}, 0, 2);
  lay_out(spread.dout, {0, 2, 1, 3}, 3, 1);
  spread.out = Strided(DType::kF32, spread.out.shape, {0, 2, 1, 3}, 0, 1, -1, 0);
  spread.dq = Strided(DType::kF32, spread.q.shape, {0, 2, 1, 3}, 0, 1, -1, 0);
  spread.dk = Strided(DType::kF32, spread.k.shape, {3, 2, 1, 0}, 0, 1, -1, 0);
  spread.dv = Strided(DType::kF32, spread.v.shape, {0, 1, 2, 3}, 2, 2, -1, 3);
  plain.run_backward();
  spread.run_backward();
  EXPECT_TRUE(same_gradients(plain, spread));
}

// Packed sequences: each has the gradients that it has alone.
TEST_P(BackwardBits, PackedSequences) {
  const std::vector<std::pair<std::int64_t, std::int64_t>> lengths{{70, 70}, {1, 600}, {0, 5}, {130, 0}, {33, 64}};
  const std::int64_t q_heads = 4, kv_heads = 2, d = 16, dv = 24;
  std::vector<GradientCall> alone;
  std::vector<std::int64_t> q_starts{0}, k_starts{0};
  for (const auto& [tq, tk] : lengths) {
    alone.emplace_back(Sizes{1, q_heads, kv_heads, tq, tk, d, dv}, DType::kF32, static_cast<std::uint64_t>(tq + tk));
    q_starts.push_back(q_starts.back() + tq);
    k_starts.push_back(k_starts.back() + tk);
  }
  const Strided qs = integers(q_starts), ks = integers(k_starts, DType::kI32);
  const auto pack = [&](Strided Call::* of_call, Strided GradientCall::* of_gradients, std::int64_t heads,
                        std::int64_t width, const std::vector<std::int64_t>& starts) {
    return filled(DType::kF32, {starts.back(), heads, width}, [&](const Index& at) {
      std::size_t b = 0;
      while (starts[b + 1] <= at[0]) ++b;
      const Strided& from = of_call != nullptr ? alone[b].*of_call : alone[b].*of_gradients;
      return element(from.view(), {0, at[1], at[0] - starts[b], at[2]});
    });
  };
  for (GradientCall& call : alone) {
    call.options.mask.causal = true;
    call.options.mask.alignment = Alignment::kBottomRight;
    call.run_backward();
  }
  const Strided q = pack(&Call::q, nullptr, q_heads, d, q_starts), k = pack(&Call::k, nullptr, kv_heads, d, k_starts);
  const Strided v = pack(&Call::v, nullptr, kv_heads, dv, k_starts),
                out = pack(&Call::out, nullptr, q_heads, dv, q_starts);
  const Strided dout = pack(nullptr, &GradientCall::dout, q_heads, dv, q_starts);
  const Strided lse = filled(DType::kF32, {q_heads, q_starts.back()}, [&](const Index& at) {
    std::size_t b = 0;
    while (q_starts[b + 1] <= at[1]) ++b;
    return alone[b].lse_at(0, at[0], at[1] - q_starts[b]);
  });
  const Strided dlse = filled(DType::kF32, lse.shape, [&](const Index& at) {
    std::size_t b = 0;
    while (q_starts[b + 1] <= at[1]) ++b;
    return element(alone[b].dlse.view(), {0, at[0], at[1] - q_starts[b]});
  });
  Strided dq = dense(DType::kF32, q.shape), dk = dense(DType::kF32, k.shape), dvalue = dense(DType::kF32, v.shape);
  AttentionGradients gradients;
  gradients.dlse = dlse.view();
  gradients.dq = dq.mutable_view();
  gradients.dk = dk.mutable_view();
  gradients.dv = dvalue.mutable_view();
  AttentionOptions options;
  options.mask.causal = true;
  options.mask.alignment = Alignment::kBottomRight;
  options.cu_seqlens_q = qs.view();
  options.cu_seqlens_k = ks.view();
  options.threads.num_threads = 2;
  attention_backward(q.view(), k.view(), v.view(), out.view(), dout.view(), lse.view(), gradients, options);
  EXPECT_TRUE(same_tensor(dq, pack(nullptr, &GradientCall::dq, q_heads, d, q_starts)));
  EXPECT_TRUE(same_tensor(dk, pack(nullptr, &GradientCall::dk, kv_heads, d, k_starts)));
  EXPECT_TRUE(same_tensor(dvalue, pack(nullptr, &GradientCall::dv, kv_heads, dv, k_starts)));
}

// One family of bits on AVX2, AVX-512 and the definition without vectors, BF16 read as F32 too.
TEST(BackwardFamilies, HaveOneSetOfBits) {
  std::vector<std::string> of_family;
  for (const std::string& isa : available_isas()) {
    set_isa(isa);
    if (std::string(active_bits()) == "f32-fma-1") of_family.push_back(isa);
  }
  for (const DType type : {DType::kF32, DType::kBF16}) {
    for (const Sizes& s : {Sizes{1, 2, 1, 150, 700, 40, 24}, Sizes{1, 1, 1, 65, 70, 8, 8}}) {
      std::vector<GradientCall> calls;
      for (const std::string& isa : of_family) {
        set_isa(isa);
        calls.emplace_back(s, type);
        calls.back().options.softcap = 4;
        calls.back().options.bits = "f32-fma-1";
        calls.back().options.mask.causal = true;
        calls.back().options.mask.alignment = Alignment::kBottomRight;
        calls.back().run_backward();
        EXPECT_TRUE(same_gradients(calls.front(), calls.back())) << isa;
      }
    }
  }
  set_isa("");
}

}  // namespace
}  // namespace manyheads::test
