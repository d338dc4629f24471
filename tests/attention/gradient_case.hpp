#pragma once

#include <cstdint>
#include <random>
#include <string>

#include <manyheads/attention_backward.hpp>

#include "attention/gradient_oracle.hpp"
#include "attention/plain_gradients.hpp"
#include "attention/random_case.hpp"

namespace manyheads::test {

// A RandomCase and its gradients, in layouts and types of their own.
struct GradientCase {
  explicit GradientCase(std::uint64_t seed);

  ConstTensorView dlse_view() const { return dlse.memory.empty() ? ConstTensorView() : dlse.view(); }
  AttentionGradients gradients();
  Oracle oracle() const { return evaluate(call.q.view(), call.k.view(), call.v.view(), call.options); }
  ExpectedGradients expected(const Oracle& oracle) const;
  PlainGradients plain(const Oracle& oracle) const;  // behind call.run()
  void fill(double value);                           // all gradients
  void run_backward();                               // behind call.run()
  // "" where all gradients lie within their bounds; `largest` as of compare_gradient().
  std::string compare(const ExpectedGradients& expected, double* largest = nullptr);

  // The same for root mean squares beside those of the plain steps.
  std::string compare_means(const ExpectedGradients& expected, const PlainGradients& plain) const;

  RandomCase call;
  std::mt19937_64 engine;
  Strided dout, dlse;  // dlse has no memory where the loss does not read lse
  Strided dq, dk, dv, dbias, dsinks, dalibi;
};

}  // namespace manyheads::test
