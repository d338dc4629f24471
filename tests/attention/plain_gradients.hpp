#pragma once

#include <string>
#include <vector>

#include "attention/gradient_oracle.hpp"

// The gradients by the plain steps, from what attention_backward() is given: a loop over full matrices.
//   P = exp(score - lse) and delta = sum of dout out, less dlse, in F32
//   dS = P (dout v^T - delta); P and dS rounded to the type of q
//   dv = P^T dout, dq = scale dS k, dk = scale dS^T q, rounded once
// Every sum is one chain of F32. Ours may err by 1.5 times as much in the root mean square over a tensor.
namespace manyheads::test {

struct PlainGradients {
  std::vector<float> dq, dk, dv;  // before they are rounded; nothing where there are fewer terms than a mean needs
  double terms = 0;               // weights of a query, or of a key where those are fewer, in the mean
};
// Of fewer terms a mean says little: a row of one key has no error by the plain steps.
constexpr double kLeastMeanTerms = 16;

PlainGradients plain_gradients(const ConstTensorView& q, const ConstTensorView& k, const ConstTensorView& v,
                               const ConstTensorView& out, const ConstTensorView& dout, const ConstTensorView& lse,
                               const ConstTensorView& dlse, const AttentionOptions& options, const Oracle& oracle);

// "" where the root mean square error of a gradient of more than 1,000 elements is at most 1.5 times the plain one's,
// else both. `largest`, where given, is raised to the ratio.
std::string compare_with_plain(const char* name, const ExpectedGradient& expected, const std::vector<float>& plain,
                               const ConstTensorView& got, double* largest = nullptr);

}  // namespace manyheads::test
