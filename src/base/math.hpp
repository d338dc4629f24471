#pragma once

#include <cmath>
#include <limits>

// Functions of double from additions, multiplications and divisions in one order: the same bits on every machine, which
// the C library's do not promise. Relative error below 4 * 2^-53.
namespace manyheads::base {

constexpr double kLog2e = 1.44269504088896340736;
constexpr double kLn2 = 0.693147180559945309417;

namespace math_detail {

// kLn2 in two parts; the first has 21 zeros at its end, so that its product with a whole exponent is exact.
constexpr double kLn2High = 0x1.62e42fee00000p-1;
constexpr double kLn2Low = 0x1.a39ef35793c76p-33;

// e^t for |t| <= 0.35: its series, of which the first term left out is below 2^-57.
inline double exp_near_0(double t) {
  double sum = 1;
  for (int n = 13; n > 0; --n) sum = 1 + sum * (t * (1.0 / n));
  return sum;
}

}  // namespace math_detail

inline double exp(double x) {
  if (!(x < 710)) return x * std::numeric_limits<double>::infinity();
  if (x < -750) return 0;
  const double k = std::floor(x * kLog2e + 0.5);
  return std::ldexp(math_detail::exp_near_0((x - k * math_detail::kLn2High) - k * math_detail::kLn2Low),
                    static_cast<int>(k));
}

inline double exp2(double x) {
  if (!(x < 1024)) return x * std::numeric_limits<double>::infinity();
  if (x < -1080) return 0;
  const double k = std::floor(x + 0.5);
  return std::ldexp(math_detail::exp_near_0((x - k) * kLn2), static_cast<int>(k));
}

namespace math_detail {

// For x = 2^k (1 + f), 1 + f between sqrt(1/2) and sqrt(2), and s = f / (2 + f):
//   log x = k log 2 + 2 (s + s^3 / 3 + s^5 / 5 + ...)
struct Log {
  double k, rest;
};
inline Log log_of(double x) {
  int k = 0;
  double m = std::frexp(x, &k);
  if (m < 0.70710678118654752440) {
    m *= 2;
    --k;
  }
  const double f = m - 1, s = f / (2 + f), s2 = s * s;
  double sum = 0;
  for (int n = 23; n > 1; n -= 2) sum = (sum + 1.0 / n) * s2;
  return {static_cast<double>(k), 2 * (s + s * sum)};
}
inline bool has_log(double x) { return x > 0 && x < std::numeric_limits<double>::infinity(); }
inline double log_at_the_ends(double x) {
  return x == 0 ? -std::numeric_limits<double>::infinity() : x > 0 ? x : std::numeric_limits<double>::quiet_NaN();
}

}  // namespace math_detail

inline double log(double x) {
  if (!math_detail::has_log(x)) return math_detail::log_at_the_ends(x);
  const math_detail::Log log = math_detail::log_of(x);
  return log.k * math_detail::kLn2High + (log.rest + log.k * math_detail::kLn2Low);
}

inline double log2(double x) {
  if (!math_detail::has_log(x)) return math_detail::log_at_the_ends(x);
  const math_detail::Log log = math_detail::log_of(x);
  return log.k + log.rest * kLog2e;
}

// log(1 + x) for x >= 0, where 1 + x would lose x.
inline double log1p(double x) {
  const double u = 1 + x;
  if (u == 1 || u == std::numeric_limits<double>::infinity()) return x;
  return log(u) + (x - (u - 1)) / u;
}

// Near 0 Lambert's continued fraction, x / (1 + x^2 / (3 + x^2 / (5 + ...))).
inline double tanh(double x) {
  const double a = std::fabs(x);
  if (a < 0.5) {
    const double x2 = x * x;
    double below = 19;
    for (int n = 17; n > 0; n -= 2) below = n + x2 / below;
    return x / below;
  }
  if (!(a < 20)) return a >= 20 ? std::copysign(1.0, x) : x;
  return std::copysign(1 - 2 / (exp(2 * a) + 1), x);
}

}  // namespace manyheads::base
