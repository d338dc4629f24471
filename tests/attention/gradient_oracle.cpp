#include "attention/gradient_oracle.hpp"

#include <algorithm>
#include <cmath>
#include <sstream>

namespace manyheads::test {
namespace {

constexpr double kUnit32 = 0x1p-24, kUnitBf16 = 0x1p-8;
constexpr double kLeastNormal = 0x1p-126;
// Probabilities below it are 0.
constexpr double kLeastProb = 0x1p-96;

std::size_t place(const Dims& shape, const std::int64_t (&index)[4]) {
  std::int64_t at = 0;
  for (int axis = 0; axis < shape.rank(); ++axis) {
    at = at * shape[axis] + (shape[axis] == 1 ? 0 : index[4 - shape.rank() + axis]);
  }
  return static_cast<std::size_t>(at);
}

ExpectedGradient zeros(const Dims& shape) {
  const std::size_t count = static_cast<std::size_t>(element_count(shape));
  return {std::vector<double>(count), std::vector<double>(count), std::vector<double>(count)};
}

}  // namespace

ExpectedGradients expect_gradients(const ConstTensorView& q, const ConstTensorView& k, const ConstTensorView& v,
                                   const ConstTensorView& dout, const ConstTensorView& dlse, DType out_type,
                                   const AttentionOptions& options, const Oracle& o) {
  const std::int64_t d = q.size(3), dv = v.size(3), group = k.size(1) > 0 ? q.size(1) / k.size(1) : 1;
  const double scale = options.scale.value_or(1 / std::sqrt(static_cast<double>(d)));
  const bool capped = options.softcap > 0;
  const Mask& mask = options.mask;
  ExpectedGradients g{zeros(q.shape()),
                      zeros(k.shape()),
                      zeros(v.shape()),
                      zeros(mask.bias.defined() ? mask.bias.shape() : Dims{0}),
                      zeros(options.sinks.defined() ? options.sinks.shape() : Dims{0}),
                      zeros(mask.alibi_slopes.defined() ? mask.alibi_slopes.shape() : Dims{0})};
  const double sums = (8 + std::log2(static_cast<double>(group))) * kUnit32;
  const double of_power = 8 * kUnit32;  // of BF16 pairs
  const double of_dot = (2 + std::sqrt(static_cast<double>(dv)) / 4) * kUnit32;
  const auto add = [](ExpectedGradient& to, std::size_t at, double value, double error, double pairs = 0) {
    to.value[at] += value;
    to.error[at] += error;
    to.pairs[at] += pairs;
  };
  const std::vector<double> douts = rows_of(dout);
  std::vector<double> dprob(static_cast<std::size_t>(o.tk)), absolute(dprob.size());
  std::size_t row = 0;
  for (std::int64_t b = 0; b < o.batch; ++b) {
    const std::int64_t length =
        mask.key_lengths.defined() ? static_cast<std::int64_t>(element(mask.key_lengths, {b})) : o.tk;
    std::int64_t diagonal = mask.alignment == Alignment::kBottomRight ? length - o.tq : 0;
    if (mask.offsets.defined()) diagonal = static_cast<std::int64_t>(element(mask.offsets, {b}));
    for (std::int64_t h = 0; h < o.heads; ++h) {
      const std::int64_t of_keys = (b * k.size(1) + h / group) * o.tk;
      for (std::int64_t i = 0; i < o.tq; ++i, ++row) {
        if (o.forbidden[row]) {  // its lse is the sink
          if (options.sinks.defined() && dlse.defined()) {
            const double x = element(dlse, {b, h, i});
            add(g.dsinks, static_cast<std::size_t>(h), x, kUnit32 * std::fabs(x));
          }
          continue;
        }
        const double* const query = o.q.data() + row * static_cast<std::size_t>(d);
        const double* const dout_row = douts.data() + row * static_cast<std::size_t>(dv);
        double* const dq_value = g.dq.value.data() + row * static_cast<std::size_t>(d);
        double* const dq_error = g.dq.error.data() + row * static_cast<std::size_t>(d);
        double* const dq_pairs = g.dq.pairs.data() + row * static_cast<std::size_t>(d);
        const double* const weights = o.probs.data() + row * static_cast<std::size_t>(o.tk);
        const auto kept = [&](std::int64_t j) {
          return o.kept.empty() ? 1 : o.kept[row * static_cast<std::size_t>(o.tk) + static_cast<std::size_t>(j)];
        };
        const double of_kept = o.kept.empty() ? 0 : 2 * kUnit32;
        const double factor = 2 + std::sqrt(static_cast<double>(d)) / 4 + (capped ? 8 : 0);
        const double of_prob = lse_bound(o, row, d, q.dtype(), capped) + factor * o.kappa[row] * kUnit32 + 4 * kUnit32;
        double delta = 0, absolute_delta = 0, of_delta = 0;
        for (std::int64_t e = 0; e < dv; ++e) {
          of_delta +=
              std::fabs(dout_row[e]) * out_bound(o, row * static_cast<std::size_t>(dv) + static_cast<std::size_t>(e), d,
                                                 q.dtype(), out_type, capped);
        }
        for (std::int64_t j = 0; j < o.tk; ++j) {
          const std::size_t n = static_cast<std::size_t>(j);
          if (weights[j] == 0) continue;  // forbidden, or nothing
          const Sums products = sum_of_products(dout_row, o.v.data() + (of_keys + j) * dv, dv);
          dprob[n] = kept(j) * products.value;
          absolute[n] = kept(j) * products.absolute;
          delta += weights[j] * dprob[n];
          absolute_delta += weights[j] * absolute[n];
        }
        if (dlse.defined()) {
          delta -= element(dlse, {b, h, i});
          absolute_delta += std::fabs(element(dlse, {b, h, i}));
        }
        of_delta += kUnit32 * absolute_delta;
        for (std::int64_t j = 0; j < o.tk; ++j) {
          const double p = weights[j];
          if (p == 0) continue;
          const std::size_t n = static_cast<std::size_t>(j);
          const double p_error = p * of_prob + std::min(p, kLeastProb);
          const std::size_t of_value = static_cast<std::size_t>((of_keys + j) * dv);
          const double of_weight = kept(j) * (p_error + p * (sums + of_kept));
          const double of_weight_pairs = kept(j) * ((kUnitBf16 + of_power) * p + kLeastNormal);
          for (std::int64_t e = 0; e < dv; ++e) {
            const double size = std::fabs(dout_row[e]);
            const std::size_t at = of_value + static_cast<std::size_t>(e);
            g.dv.value[at] += p * kept(j) * dout_row[e];
            g.dv.error[at] += of_weight * size;
            g.dv.pairs[at] += of_weight_pairs * size + kLeastNormal;
          }
          const double terms = absolute[n] + absolute_delta;
          double ds = p * (dprob[n] - delta);
          const double ds_error =
              (p_error + 3 * kUnit32 * p) * terms + p * ((of_dot + of_kept) * absolute[n] + of_delta);
          const double summed = ds_error + sums * p * terms;
          if (mask.bias.defined())
            add(g.dbias, place(mask.bias.shape(), {b, h, i, j}), ds, ds_error, of_power * p * terms);
          if (mask.alibi_slopes.defined()) {
            const double distance = std::fabs(static_cast<double>(j - i - diagonal));
            add(g.dalibi_slopes, static_cast<std::size_t>(h), -ds * distance, ds_error * distance,
                of_power * p * terms * distance);
          }
          if (capped) {
            const double score = sum_of_products(query, o.k.data() + (of_keys + j) * d, d).value;
            const double t = std::tanh(scale * score / options.softcap);
            ds *= (1 - t) * (1 + t);
          }
          // The derivative of the cap errs by 8 u, and by the error of its score over the cap.
          const double of_cap = capped ? (8 + factor * o.kappa[row] / options.softcap) * kUnit32 * p * terms : 0;
          const double grad_error = summed + of_cap + 2 * kUnit32 * p * terms;
          const double of_pairs =
              of_power * p * terms + kUnitBf16 * (std::fabs(ds) + grad_error + of_power * p * terms) + kLeastNormal;
          const double of_term = std::fabs(scale) * grad_error, of_term_pairs = std::fabs(scale) * of_pairs;
          const double least = std::fabs(scale) * kLeastNormal;
          const std::size_t of_key = static_cast<std::size_t>((of_keys + j) * d);
          for (std::int64_t e = 0; e < d; ++e) {
            const std::size_t at = of_key + static_cast<std::size_t>(e);
            const double key = o.k[at], key_size = std::fabs(key), query_size = std::fabs(query[e]);
            dq_value[e] += scale * ds * key;
            dq_error[e] += of_term * key_size;
            dq_pairs[e] += of_term_pairs * key_size + least;
            g.dk.value[at] += scale * ds * query[e];
            g.dk.error[at] += of_term * query_size;
            g.dk.pairs[at] += of_term_pairs * query_size + least;
          }
        }
        if (options.sinks.defined()) {
          const double p = std::exp(element(options.sinks, {h}) - o.lse[row]);
          add(g.dsinks, static_cast<std::size_t>(h), -p * delta, p * (of_prob * absolute_delta + of_delta));
        }
      }
    }
  }
  return g;
}

std::string compare_gradient(const char* name, const ExpectedGradient& expected, const ConstTensorView& got, bool pairs,
                             double* largest) {
  const double unit = got.dtype() == DType::kBF16 ? 0x1p-8 : got.dtype() == DType::kF16 ? 0x1p-11 : kUnit32;
  const double least = got.dtype() == DType::kF16 ? 0x1p-24 : 0x1p-126;
  std::vector<std::int64_t> index(static_cast<std::size_t>(got.rank()));
  for (std::size_t n = 0; n < expected.value.size(); ++n) {
    std::int64_t rest = static_cast<std::int64_t>(n), at = 0;
    for (int axis = got.rank() - 1; axis >= 0; --axis) {
      index[static_cast<std::size_t>(axis)] = rest % got.size(axis);
      at += index[static_cast<std::size_t>(axis)] * got.stride(axis);
      rest /= got.size(axis);
    }
    const double value = element_at(got, at), want = expected.value[n];
    const double of_sums = expected.error[n] + (pairs ? expected.pairs[n] : 0);
    const double bound = of_sums * (1 + unit) + std::fabs(want) * unit + least;
    const double error = std::fabs(value - want);
    if (error <= bound) {
      // A half type's own rounding comes near its bound by definition.
      if (largest != nullptr && bound > least && got.dtype() == DType::kF32)
        *largest = std::max(*largest, error / bound);
      continue;
    }
    // Beyond the largest F16.
    if (got.dtype() == DType::kF16 && std::isinf(value) && std::fabs(want) + bound >= 65504.0) continue;
    std::ostringstream text;
    text.precision(9);
    text << name << "[";
    for (std::size_t a = 0; a < index.size(); ++a) text << (a > 0 ? "," : "") << index[a];
    text << "] is " << value << ", expected " << want << " within " << bound;
    return text.str();
  }
  return "";
}

}  // namespace manyheads::test
