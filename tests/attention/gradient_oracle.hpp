#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <manyheads/attention_backward.hpp>

#include "attention/oracle.hpp"

// The gradients of attention in float64, from the weights of an Oracle, and the bounds that they are held to.
namespace manyheads::test {

struct ExpectedGradient {
  std::vector<double> value;
  std::vector<double> error;  // what F32 arithmetic may add to, without the rounding of the result
  std::vector<double> pairs;  // what BF16 pairs may add to that
};

// Each in the order of its input's elements.
struct ExpectedGradients {
  ExpectedGradient dq, dk, dv, dbias, dsinks, dalibi_slopes;
};

// The errors follow those of the forward. With u = 2^-24, out's bound O and lse's bound L (oracle.hpp), kappa of the
// row, s = (2 + sqrt(D) / 4) kappa u of the scores, and absolute sums A[i,j] = sum |dout v|, Abar[i] = sum_j P A:
//   P:   e = L + s + 4 u, relative: the exponential 2 u, its factor's two roundings
//   dP:  (2 + sqrt(Dv) / 4) u A
//   delta: sum over Dv of |dout| O, and its rounding u (Abar + |dlse|), which stands for Abar below too
//   dS:  P ((e + 3 u) (A + Abar) + error of dP + error of delta)
// Dropout multiplies P by M for dv, and dP and A by M: with 2 u more each.
// A sum adds 8 u of its terms, as in the forward, and one u for each doubling of the heads of a group.
// BF16 pairs, with U = 2^-8, add:
//   the exponential is shorter: 8 u P to P, and 8 u P (A + Abar) to dS
//   P and dS are rounded for the products: U P and U (|dS| + its error)
//   what is below 2^-126 counts as 0, P and dS before the products and each term after them
ExpectedGradients expect_gradients(const ConstTensorView& q, const ConstTensorView& k, const ConstTensorView& v,
                                   const ConstTensorView& dout, const ConstTensorView& dlse, DType out_type,
                                   const AttentionOptions& options, const Oracle& oracle);

// "" where a gradient lies within its bounds, else where it first does not. pairs: BF16 pairs were multiplied.
// `largest`, where given, is raised to the
// largest error of an F32 gradient as a fraction of its bound.
std::string compare_gradient(const char* name, const ExpectedGradient& expected, const ConstTensorView& got,
                             bool pairs = false, double* largest = nullptr);

}  // namespace manyheads::test
