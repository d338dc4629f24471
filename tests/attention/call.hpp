#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <manyheads/attention.hpp>
#include <manyheads/cpu.hpp>
#include <manyheads/error.hpp>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "attention/oracle.hpp"
#include "attention/random_case.hpp"
#include "support.hpp"

// What the tests of attention share: one call whose tensors it owns, and a fixture that runs at each instruction set.
namespace manyheads::test {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

using Index = std::vector<std::int64_t>;

class AtEachIsa : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override { set_isa(GetParam()); }
  void TearDown() override { set_isa(""); }
};

// The instruction sets of this machine that have tiles, or their emulation.
inline std::vector<std::string> isas_with_tiles() {
  std::vector<std::string> list;
  for (const std::string& isa : available_isas()) {
    if (isa.starts_with("amx")) list.push_back(isa);
  }
  return list;
}

inline std::string isa_of(const testing::TestParamInfo<std::string>& test) { return test.param; }

#define MANYHEADS_AT_EACH_ISA(Suite) INSTANTIATE_TEST_SUITE_P(Isa, Suite, testing::ValuesIn(available_isas()), isa_of)

inline std::int64_t between(std::mt19937_64& engine, std::int64_t low, std::int64_t high) {
  return std::uniform_int_distribution<std::int64_t>(low, high)(engine);
}

inline Strided dense(DType type, Dims shape, std::size_t misalign = 0) {
  std::vector<int> order(static_cast<std::size_t>(shape.rank()));
  std::iota(order.begin(), order.end(), 0);
  return Strided(type, shape, order, 0, 1, -1, misalign);
}

template <class F>
Strided filled(DType type, Dims shape, F&& make) {
  Strided tensor = dense(type, shape);
  tensor.fill(make);
  return tensor;
}

inline Strided integers(const std::vector<std::int64_t>& values, DType type = DType::kI64) {
  return filled(type, Dims{static_cast<std::int64_t>(values.size())},
                [&](const Index& at) { return static_cast<double>(values[static_cast<std::size_t>(at[0])]); });
}

// Ids that are the same for each batch entry.
inline Strided ids(std::int64_t batch, const std::vector<std::int64_t>& values, DType type = DType::kI32) {
  return filled(type, Dims{batch, static_cast<std::int64_t>(values.size())},
                [&](const Index& at) { return static_cast<double>(values[static_cast<std::size_t>(at[1])]); });
}

struct Sizes {
  std::int64_t batch = 1, q_heads = 1, kv_heads = 1, tq = 1, tk = 1, d = 8, dv = 8;
};

// A call of attention on dense tensors of normal values. Outputs begin as garbage that no result equals.
struct Call {
  explicit Call(const Sizes& s, DType type = DType::kF32, std::uint64_t seed = 1) : Call(s, type, type, seed) {}
  Call(const Sizes& s, DType type, DType out_type, std::uint64_t seed)
      : sizes(s),
        q(dense(type, {s.batch, s.q_heads, s.tq, s.d})),
        k(dense(type, {s.batch, s.kv_heads, s.tk, s.d})),
        v(dense(type, {s.batch, s.kv_heads, s.tk, s.dv})),
        out(dense(out_type, {s.batch, s.q_heads, s.tq, s.dv})),
        lse(dense(DType::kF32, {s.batch, s.q_heads, s.tq})) {
    std::mt19937_64 engine(seed);
    std::normal_distribution<double> normal;
    for (Strided* tensor : {&q, &k, &v}) {
      tensor->fill([&](const Index&) { return normal(engine); });
    }
  }

  void run() {
    for (Strided* tensor : {&out, &lse}) {
      tensor->fill([](const Index&) { return 777.0; });
    }
    const TensorView lse_view = lse.mutable_view();
    options.lse = lse_view;
    attention(q.view(), k.view(), v.view(), out.mutable_view(), options);
    options.lse = {};
  }

  Explanation explanation() { return explain(q.view(), k.view(), v.view(), out.mutable_view(), options); }
  Oracle oracle() const { return evaluate(q.view(), k.view(), v.view(), options); }

  // Runs, and says where out or lse leave the bounds; "" where they do not.
  std::string wrong() {
    run();
    return compare(oracle(), out.view(), lse.view(), sizes.d, q.type, options.softcap > 0);
  }

  double out_at(std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t e) const {
    return element(out.view(), {b, h, i, e});
  }
  double lse_at(std::int64_t b, std::int64_t h, std::int64_t i) const { return element(lse.view(), {b, h, i}); }

  Sizes sizes;
  Strided q, k, v, out, lse;
  AttentionOptions options;
};

// The bytes of one element of a view, so that results are compared bit by bit, NaN and -0 included.
inline std::uint32_t bits(const ConstTensorView& view, std::initializer_list<std::int64_t> index) {
  std::int64_t at = 0;
  int axis = 0;
  for (const std::int64_t i : index) at += i * view.stride(axis++);
  std::uint32_t value = 0;
  std::memcpy(&value, static_cast<const char*>(view.data()) + at * static_cast<std::int64_t>(size_of(view.dtype())),
              size_of(view.dtype()));
  return value;
}

// Whether row (b, h, i) of one call and row (b2, h2, i2) of another have the same bits in out and lse.
inline bool same_row(const Call& a, Index x, const Call& c, Index y) {
  for (std::int64_t e = 0; e < a.sizes.dv; ++e) {
    if (bits(a.out.view(), {x[0], x[1], x[2], e}) != bits(c.out.view(), {y[0], y[1], y[2], e})) return false;
  }
  return bits(a.lse.view(), {x[0], x[1], x[2]}) == bits(c.lse.view(), {y[0], y[1], y[2]});
}

inline bool same_bits(const Call& a, const Call& c) {
  for (std::int64_t b = 0; b < a.sizes.batch; ++b) {
    for (std::int64_t h = 0; h < a.sizes.q_heads; ++h) {
      for (std::int64_t i = 0; i < a.sizes.tq; ++i) {
        if (!same_row(a, {b, h, i}, c, {b, h, i})) return false;
      }
    }
  }
  return true;
}

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace manyheads::test
