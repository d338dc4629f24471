#include <algorithm>
#include <cmath>
#include <manyheads/attention_backward.hpp>
#include <memory>

#include "attention/check.hpp"
#include "base/format.hpp"
#include "bench/cases/prefill.hpp"
#include "bench/cases/sampling.hpp"

namespace manyheads::bench {

namespace {

// A call of attention_backward() behind the call of attention() that it belongs to.
struct BackwardCall {
  std::shared_ptr<Call> forward;
  Tensor lse, dout, dq, dk, dv;
  AttentionGradients gradients;

  explicit BackwardCall(const Prefill& p) : forward(make_call(p)) {
    const Dims shape{1, p.heads, p.tokens, p.d};
    lse = Tensor(DType::kF32, {1, p.heads, p.tokens});
    dout = normal(p.type, shape, 6);
    dq = normal(p.type, shape, 7);  // memory that a run may be the first to touch would count as its own
    dk = normal(p.type, shape, 7);
    dv = normal(p.type, shape, 7);
    gradients.dq = dq.view();
    gradients.dk = dk.view();
    gradients.dv = dv.view();
    AttentionOptions options = forward->options;
    const TensorView of_lse = lse.view();
    options.lse = of_lse;
    options.workspace = nullptr;
    attention(forward->q, forward->k, forward->v, forward->out, options);
  }
  void run() {
    attention_backward(forward->q, forward->k, forward->v, forward->out, dout.cview(), lse.cview(), gradients,
                       forward->options);
  }
};

// The errors of the gradients of a few queries and keys of the last head, in float64 from the call's out and lse.
double backward_error(const BackwardCall& call, const Prefill& p) {
  const ConstTensorView q = call.forward->q, k = call.forward->k, v = call.forward->v, out = call.forward->out;
  const std::int64_t head = (p.heads - 1) * p.tokens, d = p.d;
  const double scale = 1 / std::sqrt(static_cast<double>(d));
  const auto dot = [&](const ConstTensorView& a, std::int64_t i, const ConstTensorView& b, std::int64_t j) {
    double sum = 0;
    for (std::int64_t e = 0; e < d; ++e) sum += element(a, (head + i) * d + e) * element(b, (head + j) * d + e);
    return sum;
  };
  struct Pair {
    double weight, score_gradient;  // the weight after dropout
  };
  const kernels::Dropout dropout = attention_detail::check_dropout("bench", call.forward->options.dropout);
  const auto pair = [&](std::int64_t i, std::int64_t j) {
    const double added = p.part.added ? static_cast<double>(p.part.added(i, j)) : 0;
    const double weight = std::exp(scale * dot(q, i, k, j) + added - element(call.lse.cview(), head + i));
    const double kept = !dropout.any() ? 1 : dropout.keeps(0, p.heads - 1, i, j) ? dropout.factor : 0;
    return Pair{kept * weight, weight * (kept * dot(call.dout.cview(), i, v, j) - dot(call.dout.cview(), i, out, i))};
  };
  double worst = 0;
  const auto compare = [&](const Tensor& gradient, std::int64_t row, const std::vector<double>& expected) {
    for (std::int64_t e = 0; e < d; ++e) {
      const double error = element(gradient.cview(), (head + row) * d + e) - expected[static_cast<std::size_t>(e)];
      worst = std::max(worst, std::abs(error));
    }
  };
  const auto add = [&](std::vector<double>& sum, double factor, const ConstTensorView& of, std::int64_t row) {
    for (std::int64_t e = 0; e < d; ++e) sum[static_cast<std::size_t>(e)] += factor * element(of, (head + row) * d + e);
  };
  for (const std::int64_t row : probe_rows(p.tokens)) {
    std::vector<double> dq(static_cast<std::size_t>(d)), dk = dq, dv = dq;
    for (std::int64_t other = 0; other < p.tokens; ++other) {
      add(dq, scale * pair(row, other).score_gradient, k, other);
      const Pair of_key = pair(other, row);
      add(dk, scale * of_key.score_gradient, q, other);
      add(dv, of_key.weight, call.dout.cview(), other);
    }
    compare(call.dq, row, dq);
    compare(call.dk, row, dk);
    compare(call.dv, row, dv);
  }
  return worst;
}

// FLOP are 2.5 times the forward's: five products instead of two.
Case backward_case(const Prefill& p, const std::optional<Prefill>& base = {}, const std::string& over = {}) {
  Case c;
  c.row = {.name = p.name,
           .dtype = dtype_name(p.type),
           .heads = p.heads,
           .kv_heads = p.heads,
           .head_dim = p.d,
           .tokens = p.tokens,
           .threads = p.threads,
           .causal = p.part.causal,
           .over = over};
  if (p.part.share < 1) c.row.share = p.part.share;
  const auto t = static_cast<double>(p.tokens);
  c.flop = 10.0 * static_cast<double>(p.heads * p.d) * t * t * p.part.share;
  c.prepare = [=] {
    const auto call = std::make_shared<BackwardCall>(p);
    PreparedCase prepared{.work = [call] { call->run(); }, .base = {}, .error = {}};
    if (base) prepared.base = [other = std::make_shared<BackwardCall>(*base)] { other->run(); };
    prepared.error = [=] { return backward_error(*call, p); };
    return prepared;
  };
  return c;
}

constexpr DType kTypes[] = {DType::kF32, DType::kBF16};

Prefill backward(DType type, std::int64_t d, std::int64_t tokens) {
  Prefill p = prefill(type, d, tokens);
  p.name = "backward";
  return p;
}

void add_plain(std::vector<Case>& cases, bool quick) {
  for (const DType type : kTypes) {
    for (const std::int64_t d : {64, 128}) {
      for (const std::int64_t tokens : {1024, 4096}) {
        if (quick && (d != 64 || tokens != 1024)) continue;
        const Prefill full = backward(type, d, tokens);
        Prefill causal = full;
        causal.part = causal_part(tokens);
        cases.push_back(backward_case(full));
        cases.push_back(backward_case(causal, full, "full"));
      }
    }
  }
}

void add_masked_backward(std::vector<Case>& cases, bool quick) {
  for (const DType type : kTypes) {
    if (quick && type != DType::kF32) continue;
    const Prefill base = backward(type, 64, quick ? 1024 : 4096);
    Prefill drops = base;
    drops.name = "backward, dropout 10 %";
    drops.part = dropout_part();
    cases.push_back(backward_case(drops, base, "no dropout"));
    for (const auto& [name, part] : {std::pair{"window 10 %", window_part(base.tokens, 0.1)},
                                     {"documents 10 %", documents_part(base.tokens, 0.1)}}) {
      Prefill p = base;
      p.name = base::format("backward, {}", name);
      p.part = part;
      Case c = backward_case(p, base, "share x no mask");
      c.base_share = part.share;
      cases.push_back(std::move(c));
    }
  }
}

// One sequence with one head, over the same on one thread.
void add_one_head(std::vector<Case>& cases, const Size& size) {
  if (size.threads == 1) return;
  for (const DType type : kTypes) {
    if (size.quick && type != DType::kF32) continue;
    Prefill one = backward(type, 64, size.quick ? 1024 : 4096);
    one.name = "backward, one head";
    one.heads = 1;
    Prefill many = one;
    many.threads = size.threads;
    cases.push_back(backward_case(many, one, "one thread"));
  }
}

// Long enough for its memory to show, which the mask does not change.
void add_long(std::vector<Case>& cases, bool quick) {
  for (const DType type : kTypes) {
    if (quick) continue;
    Prefill p = backward(type, 64, 65536);
    p.name = "backward, window 1 %";
    p.part = window_part(p.tokens, 0.01);
    Case c = backward_case(p);
    c.measures_memory = true;
    cases.push_back(std::move(c));
  }
}

}  // namespace

std::vector<Case> backward_cases(const Size& size) {
  std::vector<Case> cases;
  add_plain(cases, size.quick);
  add_masked_backward(cases, size.quick);
  add_one_head(cases, size);
  add_long(cases, size.quick);
  return cases;
}

}  // namespace manyheads::bench
