#include "attention/plain_gradients.hpp"

#include <algorithm>
#include <cmath>
#include <sstream>

namespace manyheads::test {
namespace {

constexpr std::size_t kLeastElements = 1000;  // a mean over fewer says little
constexpr double kMostRatio = 1.5;

double rounded(double value, DType type) {
  if (type == DType::kBF16) return static_cast<double>(static_cast<float>(bfloat16(static_cast<float>(value))));
  if (type == DType::kF16) return static_cast<double>(static_cast<float>(float16(static_cast<float>(value))));
  return static_cast<double>(static_cast<float>(value));
}
float as_float(double value) { return static_cast<float>(value); }

std::vector<float> as_floats(const std::vector<double>& values) {
  std::vector<float> all(values.size());
  std::transform(values.begin(), values.end(), all.begin(), as_float);
  return all;
}

double broadcast(const ConstTensorView& view, const std::int64_t (&index)[4]) {
  std::int64_t at[4] = {};
  for (int axis = 0; axis < view.rank(); ++axis) at[axis] = view.size(axis) == 1 ? 0 : index[4 - view.rank() + axis];
  switch (view.rank()) {
    case 1:
      return element(view, {at[0]});
    case 2:
      return element(view, {at[0], at[1]});
    case 3:
      return element(view, {at[0], at[1], at[2]});
    default:
      return element(view, {at[0], at[1], at[2], at[3]});
  }
}

}  // namespace

PlainGradients plain_gradients(const ConstTensorView& q, const ConstTensorView& k, const ConstTensorView& v,
                               const ConstTensorView& out, const ConstTensorView& dout, const ConstTensorView& lse,
                               const ConstTensorView& dlse, const AttentionOptions& options, const Oracle& o) {
  const std::size_t d = static_cast<std::size_t>(q.size(3)), dv = static_cast<std::size_t>(v.size(3));
  const std::size_t tk = static_cast<std::size_t>(o.tk);
  const std::int64_t group = k.size(1) > 0 ? q.size(1) / k.size(1) : 1;
  const float scale = as_float(options.scale.value_or(1 / std::sqrt(static_cast<double>(d))));
  const float cap = as_float(options.softcap);
  const Mask& mask = options.mask;
  const std::vector<float> qs = as_floats(o.q), ks = as_floats(o.k), vs = as_floats(o.v),
                           douts = as_floats(rows_of(dout));
  PlainGradients g{std::vector<float>(qs.size()), std::vector<float>(ks.size()), std::vector<float>(vs.size())};
  const double weights =
      static_cast<double>(o.weights.size()) - static_cast<double>(std::count(o.weights.begin(), o.weights.end(), 0.0));
  g.terms = weights * static_cast<double>(d) / std::max(1.0, static_cast<double>(std::max(qs.size(), ks.size())));
  if (g.terms < kLeastMeanTerms) return g;
  std::vector<float> tangent(tk), prob(tk);
  std::size_t row = 0;
  for (std::int64_t b = 0; b < o.batch; ++b) {
    const std::int64_t length =
        mask.key_lengths.defined() ? static_cast<std::int64_t>(element(mask.key_lengths, {b})) : o.tk;
    std::int64_t diagonal = mask.alignment == Alignment::kBottomRight ? length - o.tq : 0;
    if (mask.offsets.defined()) diagonal = static_cast<std::int64_t>(element(mask.offsets, {b}));
    for (std::int64_t h = 0; h < o.heads; ++h) {
      const std::size_t of_keys = static_cast<std::size_t>((b * k.size(1) + h / group) * o.tk);
      for (std::int64_t i = 0; i < o.tq; ++i, ++row) {
        if (o.forbidden[row]) continue;
        const double* const probs = o.probs.data() + row * tk;
        const auto kept = [&](std::size_t j) { return o.kept.empty() ? 1.0f : as_float(o.kept[row * tk + j]); };
        const float* const query = qs.data() + row * d;
        const float* const dout_row = douts.data() + row * dv;
        const float row_lse = as_float(element(lse, {b, h, i}));
        for (std::size_t j = 0; j < tk; ++j) {
          if (probs[j] == 0) continue;  // forbidden, or nothing
          float sum = 0;
          for (std::size_t e = 0; e < d; ++e) sum += query[e] * ks[(of_keys + j) * d + e];
          float s = scale * sum;
          if (cap > 0) {
            tangent[j] = std::tanh(s / cap);
            s = cap * tangent[j];
          }
          if (mask.bias.defined()) {
            s += as_float(broadcast(mask.bias, {b, h, i, static_cast<std::int64_t>(j)}));
          }
          if (mask.alibi_slopes.defined()) {
            s -= as_float(element(mask.alibi_slopes, {h})) *
                 std::fabs(as_float(static_cast<double>(static_cast<std::int64_t>(j) - i - diagonal)));
          }
          prob[j] = std::exp(s - row_lse);
        }
        const auto of_type = [&](float x) { return as_float(rounded(static_cast<double>(x), q.dtype())); };
        float delta = dlse.defined() ? -as_float(element(dlse, {b, h, i})) : 0;
        for (std::size_t e = 0; e < dv; ++e) {
          delta += dout_row[e] * as_float(element(out, {b, h, i, static_cast<std::int64_t>(e)}));
        }
        float* const dq = g.dq.data() + row * d;
        for (std::size_t j = 0; j < tk; ++j) {
          if (probs[j] == 0) continue;
          float dprob = 0;
          for (std::size_t e = 0; e < dv; ++e) {
            dprob += dout_row[e] * vs[(of_keys + j) * dv + e];
            g.dv[(of_keys + j) * dv + e] += of_type(kept(j) * prob[j]) * dout_row[e];
          }
          float ds = prob[j] * (kept(j) * dprob - delta);
          if (cap > 0) ds *= 1 - tangent[j] * tangent[j];
          ds = of_type(ds);
          for (std::size_t e = 0; e < d; ++e) {
            dq[e] += ds * ks[(of_keys + j) * d + e];
            g.dk[(of_keys + j) * d + e] += ds * query[e];
          }
        }
      }
    }
  }
  for (std::vector<float>* of : {&g.dq, &g.dk}) {
    for (float& x : *of) x *= scale;
  }
  return g;
}

std::string compare_with_plain(const char* name, const ExpectedGradient& expected, const std::vector<float>& plain,
                               const ConstTensorView& got, double* largest) {
  if (plain.size() <= kLeastElements) return "";
  double of_plain = 0, of_got = 0;
  std::size_t n = 0;
  for (const double value : rows_of(got)) {
    const double want = expected.value[n], error = value - want;
    const double plain_error = rounded(static_cast<double>(plain[n]), got.dtype()) - want;
    of_got += error * error;
    of_plain += plain_error * plain_error;
    ++n;
  }
  // Beyond a type's range there is no mean.
  if (!std::isfinite(of_plain) || of_got == 0) return "";
  const double ratio = std::sqrt(of_got / of_plain);
  if (ratio <= kMostRatio) {
    if (largest != nullptr) *largest = std::max(*largest, ratio);
    return "";
  }
  std::ostringstream text;
  text << name << "'s root mean square error is " << std::sqrt(of_got / static_cast<double>(n)) << ", "
       << std::sqrt(of_plain / static_cast<double>(n)) << " by the plain steps";
  return text.str();
}

}  // namespace manyheads::test
