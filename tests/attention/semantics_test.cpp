#include <gtest/gtest.h>
#include <sys/mman.h>
#if defined(__SSE__)
#include <xmmintrin.h>
#endif

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "attention/call.hpp"

// The rules of what attention means, but for masks, one test a rule, at each instruction set of the machine.
namespace manyheads::test {
namespace {

class Semantics : public AtEachIsa {};
MANYHEADS_AT_EACH_ISA(Semantics);

// --- Shapes, layouts, types ---

TEST_P(Semantics, QueryHeadsReadTheirGroupsKeyValueHead) {
  for (const std::int64_t tq : {1, 5, 70}) {
    Call call({.batch = 2, .q_heads = 6, .kv_heads = 2, .tq = tq, .tk = 80, .d = 8, .dv = 2});
    call.v.fill([](const Index& at) { return static_cast<double>(10 * at[0] + at[1] + 1); });
    call.run();
    for (std::int64_t b = 0; b < 2; ++b) {
      for (std::int64_t h = 0; h < 6; ++h) {
        EXPECT_NEAR(call.out_at(b, h, tq - 1, 0), static_cast<double>(10 * b + h / 3 + 1), 1e-5) << h;
      }
    }
  }
  Call random({.batch = 2, .q_heads = 12, .kv_heads = 3, .tq = 7, .tk = 70, .d = 16, .dv = 12});
  EXPECT_EQ(random.wrong(), "");
}

TEST_P(Semantics, AnyHeadSize) {
  for (const std::int64_t d : {1, 2, 3, 7, 16, 33, 64, 80, 128, 257, 600}) {
    for (const std::int64_t dv : {d, std::int64_t{1}, std::int64_t{5}, std::int64_t{67}}) {
      Call call({.q_heads = 2, .kv_heads = 1, .tq = 19, .tk = 131, .d = d, .dv = dv}, DType::kF32,
                static_cast<std::uint64_t>(d * 1000 + dv));
      EXPECT_EQ(call.wrong(), "") << "D " << d << ", Dv " << dv;
    }
  }
}

TEST_P(Semantics, AnyNumberOfQueries) {
  for (std::int64_t tq = 1; tq <= 70; ++tq) {
    Call call({.q_heads = 2, .kv_heads = 1, .tq = tq, .tk = tq + 3, .d = 8, .dv = 5}, DType::kF32,
              static_cast<std::uint64_t>(tq));
    call.options.mask = mask::causal(Alignment::kBottomRight);
    EXPECT_EQ(call.wrong(), "") << tq;
  }
}

TEST_P(Semantics, AnyNumberOfKeys) {
  for (const std::int64_t tk : {1,   2,   3,   4,   5,    63,   64,   65,   127,  128,  129,  511,  512,
                                513, 575, 576, 577, 1023, 1024, 1025, 1537, 2049, 4096, 4097, 5000, 9001}) {
    Call call({.tq = 3, .tk = tk, .d = 8, .dv = 6}, DType::kF32, static_cast<std::uint64_t>(tk));
    EXPECT_EQ(call.wrong(), "") << tk;
  }
}

TEST_P(Semantics, EqualKeysAndValuesKeepTheirDigits) {
  // Equal terms round alike at each step of a sum: the worst that runs and chunks must bear.
  for (const std::int64_t tk : {16, 64, 100, 512, 3000}) {
    Call call({.tq = 2, .tk = tk, .d = 1, .dv = 40});
    call.k.fill([](const Index&) { return 0.0; });
    call.v.fill([](const Index& at) { return 1 + 0.025 * static_cast<double>(at[3]); });
    EXPECT_EQ(call.wrong(), "") << tk;
  }
}

TEST_P(Semantics, AMillionEqualKeysKeepTheirDigits) {
  // One running sum, of keys or of chunks, would lose them.
  Call call({.tq = 1, .tk = 1000000, .d = 1, .dv = 4});
  call.k.fill([](const Index&) { return 0.0; });
  call.v.fill([](const Index& at) { return 1.1 + 0.3 * static_cast<double>(at[3]); });
  EXPECT_EQ(call.wrong(), "");
}

TEST_P(Semantics, EveryTypeInAndOut) {
  for (const DType in : {DType::kF32, DType::kBF16, DType::kF16}) {
    for (const DType out : {DType::kF32, DType::kBF16, DType::kF16}) {
      for (const std::int64_t d : {5, 64}) {
        Call call({.batch = 2, .q_heads = 2, .kv_heads = 1, .tq = 30, .tk = 600, .d = d, .dv = 33}, in, out, 7);
        EXPECT_EQ(call.wrong(), "") << name_of(in) << " -> " << name_of(out);
      }
    }
  }
}

TEST_P(Semantics, HalfOutputsAreRoundedOnceFromTheF32Result) {
  for (const DType in : {DType::kF32, DType::kBF16, DType::kF16}) {
    const Sizes s{.q_heads = 2, .kv_heads = 2, .tq = 20, .tk = 90, .d = 32, .dv = 20};
    Call full(s, in, DType::kF32, 3);
    full.run();
    for (const DType out : {DType::kBF16, DType::kF16}) {
      Call half(s, in, out, 3);
      half.run();
      for (std::int64_t i = 0; i < 20; ++i) {
        for (std::int64_t e = 0; e < 20; ++e) {
          const float value = static_cast<float>(full.out_at(0, 1, i, e));
          const std::uint32_t expected = out == DType::kBF16 ? bfloat16(value).bits : float16(value).bits;
          EXPECT_EQ(bits(half.out.view(), {0, 1, i, e}), expected);
        }
      }
    }
  }
}

TEST_P(Semantics, AnyLayout) {
  struct Layout {
    const char* name;
    std::vector<int> order;
    std::int64_t gap, step;
    int reversed;
  };
  const Sizes s{.batch = 2, .q_heads = 4, .kv_heads = 2, .tq = 21, .tk = 140, .d = 24, .dv = 13};
  for (const DType type : {DType::kF32, DType::kBF16, DType::kF16}) {
    Call plain(s, type);
    plain.run();
    for (const Layout& l :
         {Layout{"[B,T,H,D]", {0, 2, 1, 3}, 0, 1, -1}, Layout{"rows apart", {0, 1, 2, 3}, 5, 1, -1},
          Layout{"elements apart", {0, 1, 2, 3}, 0, 3, -1}, Layout{"rows backwards", {0, 1, 2, 3}, 0, 1, 2},
          Layout{"elements backwards", {0, 1, 2, 3}, 0, 1, 3}, Layout{"batch backwards", {0, 2, 1, 3}, 0, 1, 0},
          Layout{"head size slowest", {3, 2, 1, 0}, 0, 1, -1}, Layout{"keys fastest", {0, 1, 3, 2}, 2, 1, 1}}) {
      Call call(s, type);
      for (const auto& [tensor, from] :
           {std::pair{&call.q, &plain.q}, {&call.k, &plain.k}, {&call.v, &plain.v}, {&call.out, &plain.out}}) {
        *tensor = Strided(type, from->shape, l.order, l.gap, l.step, l.reversed, 1);
        tensor->fill([&, from = from](const Index& at) { return element(from->view(), {at[0], at[1], at[2], at[3]}); });
      }
      call.run();
      EXPECT_TRUE(same_bits(plain, call)) << l.name << " " << name_of(type);
    }
  }
}

TEST_P(Semantics, InputsMayBroadcastWithStrideZero) {
  const Sizes s{.batch = 2, .q_heads = 3, .kv_heads = 3, .tq = 9, .tk = 70, .d = 16, .dv = 16};
  Call call(s);
  const auto shared = [](const Strided& tensor) {
    return ConstTensorView(tensor.view().data(), tensor.type, tensor.shape,
                           Dims{0, 0, tensor.strides[2], tensor.strides[3]});
  };
  const ConstTensorView q = shared(call.q);
  const ConstTensorView k = shared(call.k);
  const ConstTensorView v(call.v.view().data(), call.v.type, call.v.shape, Dims{0, 0, 0, 1});
  const TensorView lse = call.lse.mutable_view();
  call.options.lse = lse;
  attention(q, k, v, call.out.mutable_view(), call.options);
  call.options.lse = {};
  EXPECT_EQ(compare(evaluate(q, k, v, call.options), call.out.view(), call.lse.view(), 16, DType::kF32, false), "");
}

TEST_P(Semantics, ViewsInterleavedInOneBufferAreNoOverlap) {
  // [B,T,4,H,D]: query, key, value and output of a token side by side, as a fused projection leaves them.
  constexpr std::int64_t kT = 30, kH = 2, kD = 8;
  std::vector<float> buffer(2 * kT * 4 * kH * kD);
  std::mt19937_64 engine(5);
  std::normal_distribution<float> normal;
  for (float& x : buffer) x = normal(engine);
  const Dims shape{2, kH, kT, kD};
  const Dims strides{kT * 4 * kH * kD, kD, 4 * kH * kD, 1};
  const auto part = [&](std::int64_t i) { return TensorView(buffer.data() + i * kH * kD, shape, strides); };
  const Oracle oracle = evaluate(part(0), part(1), part(2), {});
  attention(part(0), part(1), part(2), part(3));
  EXPECT_EQ(compare(oracle, part(3), {}, kD, DType::kF32, false), "");
}

TEST_P(Semantics, ElementOffsetsBeyondTwoToThe32) {
  // Address space only: the pages between the rows are never touched.
  constexpr std::size_t kBytes = std::size_t{3} << 34;
  void* space = ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (space == MAP_FAILED) GTEST_SKIP() << "no address space of 48 GiB";
  constexpr std::int64_t kApart = std::int64_t{1} << 32;  // elements of F32
  Call call({.tq = 2, .tk = 3, .d = 8, .dv = 8});
  std::int64_t place = 0;
  const auto spread = [&](const Strided& tensor) {
    const Dims strides{0, 0, kApart, 1};
    const TensorView far(static_cast<float*>(space) + 1024 * place++, tensor.shape, strides);
    for (std::int64_t row = 0; row < tensor.shape[2]; ++row) {
      for (std::int64_t e = 0; e < 8; ++e) {
        static_cast<float*>(far.data())[row * kApart + e] = static_cast<float>(element(tensor.view(), {0, 0, row, e}));
      }
    }
    return far;
  };
  const TensorView q = spread(call.q), k = spread(call.k), v = spread(call.v), out = spread(call.out);
  bool* mask = static_cast<bool*>(space) + 4096 * place++;
  constexpr std::int64_t kMaskApart = std::int64_t{1} << 33;
  for (std::int64_t j = 0; j < 3; ++j) mask[j * kMaskApart] = j != 1;
  call.options.mask = mask::allowed(ConstTensorView(mask, Dims{1, 3}, Dims{0, kMaskApart}));
  attention(q, k, v, out, call.options);
  EXPECT_EQ(compare(call.oracle(), out, {}, 8, DType::kF32, false), "");
  ::munmap(space, kBytes);
}

#if defined(__SSE__)
TEST_P(Semantics, TheCallersFloatingPointModeIsKept) {
  const unsigned int before = _mm_getcsr();
  for (const unsigned int mode : {before, before | 0x8040u}) {  // denormals as they are, and flushed to zero
    _mm_setcsr(mode);
    Call call({.tq = 30, .tk = 700, .d = 16, .dv = 16});
    call.run();
    EXPECT_EQ(_mm_getcsr() & ~0x3fu, mode & ~0x3fu);  // but for the flags of what happened
    _mm_setcsr(before);
    EXPECT_EQ(compare(call.oracle(), call.out.view(), call.lse.view(), 16, DType::kF32, false), "");
  }
}
#endif

// --- What is added to the scores, and what they are scaled by ---

TEST_P(Semantics, Scale) {
  for (const double scale : {0.0, -0.25, 1.0, 3.0, 1e-30, 1e-300, -1e-13, 0x1p-40, 0x1p40, 1e13}) {
    Call call({.tq = 30, .tk = 150, .d = 16, .dv = 8});
    call.options.scale = scale;
    EXPECT_EQ(call.wrong(), "") << scale;
  }
}

TEST_P(Semantics, AnExtremeScalePicksTheLargestScore) {
  for (const double scale : {1e30, -1e30, 1e37, 1e300, -1e300}) {
    Call call({.tq = 30, .tk = 150, .d = 16, .dv = 8});
    call.options.scale = scale;
    call.run();
    for (std::int64_t i = 0; i < 30; ++i) {
      std::int64_t best = 0;
      double top = -kInf;
      for (std::int64_t j = 0; j < 150; ++j) {
        double dot = 0;
        for (std::int64_t e = 0; e < 16; ++e) {
          dot += element(call.q.view(), {0, 0, i, e}) * element(call.k.view(), {0, 0, j, e});
        }
        if (std::copysign(dot, dot * scale) > top) {
          top = std::copysign(dot, dot * scale);
          best = j;
        }
      }
      EXPECT_EQ(call.out_at(0, 0, i, 0), element(call.v.view(), {0, 0, best, 0})) << scale << ", query " << i;
    }
  }
}

TEST_P(Semantics, Softcap) {
  for (const double softcap : {0.5, 1.0, 20.0, 50.0, 1000.0, 1e6, 1e-3, 1e30, 1e-30}) {
    for (const double scale : {0.3, 5.0}) {
      Call call({.tq = 30, .tk = 150, .d = 16, .dv = 8});
      call.options.softcap = softcap;
      call.options.scale = scale;
      EXPECT_EQ(call.wrong(), "") << softcap << " " << scale;
    }
  }
}

TEST_P(Semantics, AnExtremeSoftcapIsAsNoneOrAsZero) {
  for (const double softcap : {1e38, 1e300, 1e-40, 1e-300}) {
    Call call({.tq = 10, .tk = 70, .d = 16, .dv = 8});
    call.options.softcap = softcap;
    EXPECT_EQ(call.wrong(), "") << softcap;
  }
}

TEST_P(Semantics, SoftcapComesBeforeBiasAndAlibi) {
  Call call({.q_heads = 2, .kv_heads = 1, .tq = 30, .tk = 150, .d = 16, .dv = 8});
  call.options.softcap = 2;
  const Strided added = filled(DType::kF32, {30, 150}, [](const Index& at) { return static_cast<double>(at[1] % 9); });
  const Strided slopes = filled(DType::kF32, {2}, [](const Index& at) { return at[0] == 0 ? 0.5 : -0.01; });
  call.options.mask = mask::bias(added.view()) | mask::alibi(slopes.view());
  EXPECT_EQ(call.wrong(), "");
}

TEST_P(Semantics, Alibi) {
  const Strided slopes = filled(DType::kF32, {2}, [](const Index& at) { return at[0] == 0 ? 0.0625 : 3.0; });
  for (const Alignment alignment : {Alignment::kTopLeft, Alignment::kBottomRight}) {
    for (const bool is_causal : {false, true}) {
      Call call({.batch = 2, .q_heads = 2, .kv_heads = 2, .tq = 40, .tk = 700, .d = 8, .dv = 8});
      const Strided lengths = integers({700, 555});
      call.options.mask = mask::alibi(slopes.view()) | mask::align(alignment) | mask::key_lengths(lengths.view());
      call.options.mask.causal = is_causal;
      EXPECT_EQ(call.wrong(), "") << is_causal;
    }
  }
  Call far({.q_heads = 2, .kv_heads = 2, .tq = 3, .tk = 90, .d = 8, .dv = 8});
  const Strided offset = integers({100000});
  far.options.mask = mask::alibi(slopes.view()) | mask::offsets(offset.view());
  EXPECT_EQ(far.wrong(), "");
}

TEST_P(Semantics, SinksAddMassAndNoValue) {
  for (const double sink : {0.0, 3.0, -3.0, 80.0, 1e4, -1e4, 1e30, -1e30, -kInf}) {
    Call call({.q_heads = 2, .kv_heads = 1, .tq = 20, .tk = 600, .d = 16, .dv = 8});
    const Strided logits = filled(DType::kF32, {2}, [&](const Index& at) { return at[0] == 0 ? sink : 0.5; });
    call.options.sinks = logits.view();
    EXPECT_EQ(call.wrong(), "") << sink;
  }
}

TEST_P(Semantics, LargeScores) {
  for (const DType type : {DType::kF32, DType::kBF16}) {
    for (const double size : {30.0, 1e3, 1e6, 1e15, 1e25}) {
      for (const std::int64_t tq : {3, 30}) {
        Call call({.tq = tq, .tk = 700, .d = 16, .dv = 8}, type, DType::kF32, 1);
        call.k.fill([&, engine = std::mt19937_64(3), normal = std::normal_distribution<double>()](
                        const Index&) mutable { return normal(engine) * size; });
        EXPECT_EQ(call.wrong(), "") << name_of(type) << ", " << size << ", " << tq << " queries";
      }
    }
  }
}

TEST_P(Semantics, RisingAndFallingScoresRescaleExactly) {
  // The maximum moves again and again, up by far more than 2^127 in all, and down.
  for (const double step : {0.7, -0.7, 5.0, -5.0}) {
    Call call({.tq = 20, .tk = 3000, .d = 8, .dv = 8});
    const Strided added =
        filled(DType::kF32, {3000}, [&](const Index& at) { return static_cast<double>(at[0]) * step; });
    call.options.mask = mask::bias(added.view());
    EXPECT_EQ(call.wrong(), "") << step;
  }
}

TEST_P(Semantics, RowsWhoseKeysBeginInALaterChunk) {
  Call call({.tq = 600, .tk = 2600, .d = 8, .dv = 4});
  call.options.mask = mask::window(300, 100, Alignment::kBottomRight);
  EXPECT_EQ(call.wrong(), "");
  const Strided mask = filled(DType::kBool, {600, 2600},
                              [](const Index& at) { return at[1] / 512 == at[0] % 6 || at[1] / 512 == at[0] / 7 % 6; });
  call.options.mask = mask::allowed(mask.view());
  EXPECT_EQ(call.wrong(), "");
}

// Scores and softmax in F32, probabilities rounded to the type, their product with v in F32, rounded once.
std::vector<double> plain_steps(const Call& call) {
  const Sizes& s = call.sizes;
  std::vector<double> out;
  const auto rounded = [&](float x) {
    return call.q.type == DType::kBF16 ? static_cast<float>(bfloat16(x)) : static_cast<float>(float16(x));
  };
  for (std::int64_t h = 0; h < s.q_heads; ++h) {
    for (std::int64_t i = 0; i < s.tq; ++i) {
      std::vector<float> p;
      for (std::int64_t j = 0; j < s.tk; ++j) {
        float score = 0;
        for (std::int64_t e = 0; e < s.d; ++e) {
          score += static_cast<float>(element(call.q.view(), {0, h, i, e})) *
                   static_cast<float>(element(call.k.view(), {0, h, j, e}));
        }
        p.push_back(score / std::sqrt(static_cast<float>(s.d)));
      }
      const float largest = *std::max_element(p.begin(), p.end());
      float sum = 0;
      for (float& x : p) sum += x = std::exp(x - largest);
      for (std::int64_t e = 0; e < s.dv; ++e) {
        float value = 0;
        for (std::int64_t j = 0; j < s.tk; ++j) {
          value +=
              rounded(p[static_cast<std::size_t>(j)] / sum) * static_cast<float>(element(call.v.view(), {0, h, j, e}));
        }
        out.push_back(static_cast<double>(rounded(value)));
      }
    }
  }
  return out;
}

TEST_P(Semantics, HalfTypesAreNoWorseThanThePlainThreeSteps) {
  for (const DType type : {DType::kBF16, DType::kF16}) {
    for (const std::int64_t tq : {2, 40}) {  // few rows, and rows in the lanes
      Call call({.q_heads = 2, .kv_heads = 2, .tq = tq, .tk = 700, .d = 64, .dv = 48}, type, 11);
      call.run();
      const Oracle oracle = call.oracle();
      const std::vector<double> plain = plain_steps(call);
      double ours = 0;
      double theirs = 0;
      std::size_t at = 0;
      for (std::int64_t h = 0; h < 2; ++h) {
        for (std::int64_t i = 0; i < tq; ++i) {
          for (std::int64_t e = 0; e < 48; ++e, ++at) {
            ours += std::pow(call.out_at(0, h, i, e) - oracle.out[at], 2);
            theirs += std::pow(plain[at] - oracle.out[at], 2);
          }
        }
      }
      EXPECT_LE(std::sqrt(ours), 1.1 * std::sqrt(theirs)) << name_of(type) << ", " << tq << " queries";
    }
  }
}

}  // namespace
}  // namespace manyheads::test
