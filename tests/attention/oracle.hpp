#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include <manyheads/attention.hpp>

// An evaluation of attention in float64 that shares no code with the library, and the bounds that it is held to.
namespace manyheads::test {

// The element so many elements behind the view's first, as a double, whatever its type.
double element_at(const ConstTensorView& view, std::int64_t offset);
double element(const ConstTensorView& view, std::initializer_list<std::int64_t> index);
// All elements of a [B,H,T,width], one row after the other.
std::vector<double> rows_of(const ConstTensorView& view);

struct Sums {
  double value, absolute;
};
// Of a[i] b[i], and of their absolute values. Four sums each, since one alone waits for each of its additions.
Sums sum_of_products(const double* a, const double* b, std::int64_t count);

struct Oracle {
  std::int64_t batch = 0, heads = 0, tq = 0, tk = 0, dv = 0;
  std::vector<double> q, k, v;    // rows_of() the inputs
  std::vector<double> out;        // [B,Hq,Tq,Dv]
  std::vector<double> lse;        // [B,Hq,Tq]
  std::vector<double> weights;    // [B,Hq,Tq,Tk], without what dropout takes
  std::vector<double> probs;      // [B,Hq,Tq,Tk], before dropout
  std::vector<double> kept;       // [B,Hq,Tq,Tk]: weights / probs; empty without dropout
  std::vector<double> magnitude;  // A of each output element: sum of p |v|
  std::vector<double> vanishing;  // with dropout, of each output element: A of the keys whose probability counts as 0
  std::vector<double> kappa;      // of each row: the largest sum of absolute score terms over its allowed keys
  std::vector<bool> forbidden;    // of each row
};

// Philox4x32-10's words for a counter and a key (Salmon et al. 2011).
std::array<std::uint32_t, 4> random_words(std::array<std::uint32_t, 4> counter, std::uint64_t key);
// What dropout makes of the weight 1 of key j, counted from the entry's first.
double kept_weight(const Dropout& dropout, std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t j);

Oracle evaluate(const ConstTensorView& q, const ConstTensorView& k, const ConstTensorView& v,
                const AttentionOptions& options);

// The bounds of the numbers' rules: u = 2^-24, 2^-11 or 2^-8 for the types of inputs and output.
//   out: (8 + (2 + sqrt(D) / 4) kappa) u32 A, and 2 u A more (fp16: and 2^-25) where a half type takes part; with
//     dropout 2 u32 A more, its factor's rounding and the product's, and what vanishes: where dropout takes the
//     largest, probabilities below 2^-96 of it may be all that is left
//   lse: (8 + (1 + sqrt(D) / 8) kappa) u32 + 2 u32 |lse|, and 2^-16 more for bf16
//   weight: (10 + 2 (2 + sqrt(D) / 4) kappa) u32 of it; probabilities below `smallest` times 2^-126 may be 0, and
//     dropout's factor comes after
// softcap adds 8 to the factors of kappa, since tanh and two roundings come on top.
double out_bound(const Oracle& oracle, std::size_t element, std::int64_t d, DType in, DType out, bool softcap);
double lse_bound(const Oracle& oracle, std::size_t row, std::int64_t d, DType in, bool softcap);
double weight_bound(const Oracle& oracle, std::size_t weight, std::int64_t d, bool softcap, double smallest = 1);

// "" when out (and lse, where defined) lie within the bounds, else where they first do not. `largest`, where given, is
// raised to the largest error as a fraction of its bound.
std::string compare(const Oracle& oracle, const ConstTensorView& out, const ConstTensorView& lse, std::int64_t d,
                    DType in, bool softcap, double* largest = nullptr);

}  // namespace manyheads::test
