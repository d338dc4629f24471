#include "attention/gradient_case.hpp"

#include <numeric>
#include <utility>
#include <vector>

namespace manyheads::test {

GradientCase::GradientCase(std::uint64_t seed) : call(seed), engine(seed ^ 0x6bad1e47u) {
  const auto between = [&](std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(engine);
  };
  const auto like = [&](DType type, const Dims& shape) {
    std::vector<int> order(static_cast<std::size_t>(shape.rank()));
    std::iota(order.begin(), order.end(), 0);
    if (shape.rank() == 4 && between(0, 2) == 0) std::swap(order[1], order[2]);
    return Strided(type, shape, order, between(0, 4) == 0 ? 3 : 0, between(0, 9) == 0 ? 2 : 1, -1,
                   static_cast<std::size_t>(between(0, 3)));
  };
  const auto type = [&] { return between(0, 3) == 0 ? DType::kF32 : call.type; };
  std::normal_distribution<double> normal;
  dout = like(type(), call.out.shape);
  dout.fill([&](const auto&) { return normal(engine); });
  if (between(0, 2) == 0) {
    dlse = like(DType::kF32, call.lse.shape);
    dlse.fill([&](const auto&) { return normal(engine); });
  }
  dq = like(type(), call.q.shape);
  dk = like(type(), call.k.shape);
  dv = like(type(), call.v.shape);
  if (call.options.mask.bias.defined()) dbias = like(type(), call.options.mask.bias.shape());
  if (call.options.sinks.defined()) dsinks = like(DType::kF32, call.options.sinks.shape());
  if (call.options.mask.alibi_slopes.defined()) dalibi = like(DType::kF32, call.options.mask.alibi_slopes.shape());
}

AttentionGradients GradientCase::gradients() {
  AttentionGradients all;
  all.dlse = dlse_view();
  all.dq = dq.mutable_view();
  all.dk = dk.mutable_view();
  all.dv = dv.mutable_view();
  if (call.options.mask.bias.defined()) all.dbias = dbias.mutable_view();
  if (call.options.sinks.defined()) all.dsinks = dsinks.mutable_view();
  if (call.options.mask.alibi_slopes.defined()) all.dalibi_slopes = dalibi.mutable_view();
  return all;
}

ExpectedGradients GradientCase::expected(const Oracle& oracle) const {
  return expect_gradients(call.q.view(), call.k.view(), call.v.view(), dout.view(), dlse_view(), call.out_type,
                          call.options, oracle);
}

PlainGradients GradientCase::plain(const Oracle& oracle) const {
  return plain_gradients(call.q.view(), call.k.view(), call.v.view(), call.out.view(), dout.view(), call.lse.view(),
                         dlse_view(), call.options, oracle);
}

void GradientCase::fill(double value) {
  for (Strided* tensor : {&dq, &dk, &dv, &dbias, &dsinks, &dalibi}) {
    if (!tensor->memory.empty()) tensor->fill([value](const auto&) { return value; });
  }
}

void GradientCase::run_backward() {
  attention_backward(call.q.view(), call.k.view(), call.v.view(), call.out.view(), dout.view(), call.lse.view(),
                     gradients(), call.options);
}

std::string GradientCase::compare(const ExpectedGradients& expected, double* largest) {
  std::string wrong;
  const bool pairs = explain_backward(call.q.view(), call.k.view(), call.v.view(), call.out.view(), dout.view(),
                                      call.lse.view(), gradients(), call.options)
                         .bits == std::string("bf16-pairs-1");
  const auto check = [&](const char* name, const ExpectedGradient& of, const Strided& got) {
    if (wrong.empty() && !got.memory.empty()) wrong = compare_gradient(name, of, got.view(), pairs, largest);
  };
  check("dq", expected.dq, dq);
  check("dk", expected.dk, dk);
  check("dv", expected.dv, dv);
  check("dbias", expected.dbias, dbias);
  check("dsinks", expected.dsinks, dsinks);
  check("dalibi_slopes", expected.dalibi_slopes, dalibi);
  return wrong;
}

std::string GradientCase::compare_means(const ExpectedGradients& expected, const PlainGradients& plain) const {
  if (plain.terms < kLeastMeanTerms) return "";
  std::string wrong = compare_with_plain("dq", expected.dq, plain.dq, dq.view());
  if (wrong.empty()) wrong = compare_with_plain("dk", expected.dk, plain.dk, dk.view());
  if (wrong.empty()) wrong = compare_with_plain("dv", expected.dv, plain.dv, dv.view());
  return wrong;
}

}  // namespace manyheads::test
