#include "attention/oracle.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <sstream>

namespace manyheads::test {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kUnit32 = 0x1p-24;

double unit(DType type) { return type == DType::kBF16 ? 0x1p-8 : type == DType::kF16 ? 0x1p-11 : 0.0; }

std::int64_t whole(const ConstTensorView& view, std::initializer_list<std::int64_t> index) {
  return static_cast<std::int64_t>(element(view, index));
}

// The value at [b,h,i,j] of a tensor that broadcasts from the right.
double broadcast(const ConstTensorView& view, const std::int64_t (&index)[4]) {
  std::int64_t at = 0;
  for (int axis = 0; axis < view.rank(); ++axis) {
    if (view.size(axis) != 1) at += index[4 - view.rank() + axis] * view.stride(axis);
  }
  return element_at(view, at);
}

}  // namespace

double element(const ConstTensorView& view, std::initializer_list<std::int64_t> index) {
  std::int64_t at = 0;
  int axis = 0;
  for (const std::int64_t i : index) at += i * view.stride(axis++);
  return element_at(view, at);
}

double element_at(const ConstTensorView& view, std::int64_t at) {
  const void* data = view.data();
  switch (view.dtype()) {
    case DType::kF32:
      return static_cast<double>(static_cast<const float*>(data)[at]);
    case DType::kBF16:
      return static_cast<double>(static_cast<float>(static_cast<const bfloat16*>(data)[at]));
    case DType::kF16:
      return static_cast<double>(static_cast<float>(static_cast<const float16*>(data)[at]));
    case DType::kF64:
      return static_cast<const double*>(data)[at];
    case DType::kBool:
    case DType::kU8:
      return static_cast<const std::uint8_t*>(data)[at];
    case DType::kI8:
      return static_cast<const std::int8_t*>(data)[at];
    case DType::kI32:
      return static_cast<const std::int32_t*>(data)[at];
    case DType::kI64:
      return static_cast<double>(static_cast<const std::int64_t*>(data)[at]);
  }
  return 0;
}

std::vector<double> rows_of(const ConstTensorView& view) {
  std::vector<double> all;
  all.reserve(static_cast<std::size_t>(view.size(0) * view.size(1) * view.size(2) * view.size(3)));
  for (std::int64_t b = 0; b < view.size(0); ++b) {
    for (std::int64_t h = 0; h < view.size(1); ++h) {
      for (std::int64_t i = 0; i < view.size(2); ++i) {
        for (std::int64_t e = 0; e < view.size(3); ++e) all.push_back(element(view, {b, h, i, e}));
      }
    }
  }
  return all;
}

Sums sum_of_products(const double* a, const double* b, std::int64_t count) {
  double value[4] = {}, absolute[4] = {};
  for (std::int64_t i = 0; i < count; i += 4) {
    for (std::int64_t lane = 0; lane < std::min<std::int64_t>(4, count - i); ++lane) {
      const double product = a[i + lane] * b[i + lane];
      value[lane] += product;
      absolute[lane] += std::fabs(product);
    }
  }
  return {value[0] + value[1] + (value[2] + value[3]), absolute[0] + absolute[1] + (absolute[2] + absolute[3])};
}

std::array<std::uint32_t, 4> random_words(std::array<std::uint32_t, 4> x, std::uint64_t key) {
  std::uint32_t low = static_cast<std::uint32_t>(key), high = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = 0xD2511F53ull * x[0], b = 0xCD9E8D57ull * x[2];
    x = {static_cast<std::uint32_t>(b >> 32) ^ x[1] ^ low, static_cast<std::uint32_t>(b),
         static_cast<std::uint32_t>(a >> 32) ^ x[3] ^ high, static_cast<std::uint32_t>(a)};
    low += 0x9E3779B9u;
    high += 0xBB67AE85u;
  }
  return x;
}

double kept_weight(const Dropout& dropout, std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t j) {
  const std::array<std::uint32_t, 4> words = random_words(
      {static_cast<std::uint32_t>(dropout.first_query + i), static_cast<std::uint32_t>(j / 4),
       static_cast<std::uint32_t>(dropout.first_head + h), static_cast<std::uint32_t>(dropout.first_entry + b)},
      dropout.seed);
  const double uniform = static_cast<double>(words[static_cast<std::size_t>(j % 4)] >> 8) * 0x1p-24;
  return uniform < dropout.p ? 0 : 1 / (1 - dropout.p);
}

Oracle evaluate(const ConstTensorView& q, const ConstTensorView& k, const ConstTensorView& v,
                const AttentionOptions& options) {
  Oracle o;
  o.batch = q.size(0);
  o.heads = q.size(1);
  o.tq = q.size(2);
  o.tk = k.size(2);
  o.dv = v.size(3);
  const std::int64_t d = q.size(3);
  const std::int64_t group = k.size(1) > 0 ? o.heads / k.size(1) : 1;
  const double scale = options.scale.value_or(1 / std::sqrt(static_cast<double>(d)));
  const Mask& mask = options.mask;
  std::vector<double> score(static_cast<std::size_t>(o.tk));
  std::vector<double> sum(static_cast<std::size_t>(o.dv)), size(sum), vanishing(sum);
  o.q = rows_of(q);
  o.k = rows_of(k);
  o.v = rows_of(v);
  for (std::int64_t b = 0; b < o.batch; ++b) {
    const std::int64_t length = mask.key_lengths.defined() ? whole(mask.key_lengths, {b}) : o.tk;
    const std::int64_t start = mask.key_starts.defined() ? whole(mask.key_starts, {b}) : 0;
    std::int64_t diagonal = mask.alignment == Alignment::kBottomRight ? length - o.tq : 0;
    if (mask.offsets.defined()) diagonal = whole(mask.offsets, {b});
    for (std::int64_t h = 0; h < o.heads; ++h) {
      const std::int64_t of_keys = (b * k.size(1) + h / group) * o.tk;
      for (std::int64_t i = 0; i < o.tq; ++i) {
        const double* const query = o.q.data() + ((b * o.heads + h) * o.tq + i) * d;
        double kappa = 0;
        bool any = false;
        bool nan = false;
        const double sink = options.sinks.defined() ? element(options.sinks, {h}) : -kInfinity;
        double largest = sink;
        for (std::int64_t j = 0; j < o.tk; ++j) {
          double& s = score[static_cast<std::size_t>(j)];
          s = -kInfinity;
          const std::int64_t place = j - (i + diagonal);
          if (j < start || j >= length || (mask.causal && place > 0)) continue;
          if (mask.window_left >= 0 && -place > mask.window_left) continue;
          if (mask.window_right >= 0 && place > mask.window_right) continue;
          if (mask.q_documents.defined() && whole(mask.q_documents, {b, i}) != whole(mask.k_documents, {b, j})) {
            continue;
          }
          if (mask.allowed.defined() && broadcast(mask.allowed, {b, h, i, j}) == 0) continue;
          if (mask.ignored.defined() && broadcast(mask.ignored, {b, h, i, j}) != 0) continue;
          double added = 0;
          double terms = 0;
          if (mask.bias.defined()) {
            added = broadcast(mask.bias, {b, h, i, j});
            if (added == -kInfinity) continue;
            terms += std::fabs(added);
          }
          const Sums dot = sum_of_products(query, o.k.data() + (of_keys + j) * d, d);
          s = scale * dot.value;
          terms += std::fabs(scale) * dot.absolute;
          if (options.softcap > 0) s = options.softcap * std::tanh(s / options.softcap);
          s += added;
          if (mask.alibi_slopes.defined()) {
            const double fall = element(mask.alibi_slopes, {h}) * std::fabs(static_cast<double>(place));
            s -= fall;
            terms += std::fabs(fall);
          }
          any = true;
          nan = nan || std::isnan(s);
          largest = std::max(largest, s);
          kappa = std::max(kappa, terms);
        }
        double total = any ? std::exp(sink - largest) : 0;
        std::fill(sum.begin(), sum.end(), 0);
        std::fill(size.begin(), size.end(), 0);
        std::fill(vanishing.begin(), vanishing.end(), 0);
        for (std::int64_t j = 0; any && j < o.tk; ++j) {
          double& s = score[static_cast<std::size_t>(j)];
          if (s == -kInfinity) {
            s = 0;
            continue;
          }
          s = std::exp(s - largest);
          total += s;
          const double stays = options.dropout.p > 0 ? kept_weight(options.dropout, b, h, i, j - start) : 1;
          const double weight = s * stays;
          const double* const values = o.v.data() + (of_keys + j) * o.dv;
          for (std::size_t e = 0; e < sum.size(); ++e) {
            sum[e] += weight * values[e];
            size[e] += weight * std::fabs(values[e]);
          }
          if (!(s < 0x1p-95)) continue;
          // Rounding leaves a probability near the limit on either side.
          for (std::size_t e = 0; e < sum.size(); ++e) vanishing[e] += weight * std::fabs(values[e]);
        }
        o.forbidden.push_back(!any);
        o.kappa.push_back(kappa);
        o.lse.push_back(nan ? std::nan("") : any ? largest + std::log(total) : sink);
        for (std::int64_t j = 0; j < o.tk; ++j) {
          o.probs.push_back(any ? score[static_cast<std::size_t>(j)] / total : 0);
          o.weights.push_back(o.probs.back());
          if (options.dropout.p == 0) continue;
          o.kept.push_back(j < start ? 0 : kept_weight(options.dropout, b, h, i, j - start));
          o.weights.back() *= o.kept.back();
        }
        for (std::int64_t e = 0; e < o.dv; ++e) {
          o.out.push_back(any ? sum[static_cast<std::size_t>(e)] / total : 0);
          o.magnitude.push_back(any ? size[static_cast<std::size_t>(e)] / total : 0);
          if (options.dropout.p > 0) o.vanishing.push_back(any ? vanishing[static_cast<std::size_t>(e)] / total : 0);
        }
      }
    }
  }
  return o;
}

double out_bound(const Oracle& oracle, std::size_t at, std::int64_t d, DType in, DType out, bool softcap) {
  const double kappa = oracle.kappa[at / static_cast<std::size_t>(oracle.dv)];
  const double factor = 2 + std::sqrt(static_cast<double>(d)) / 4 + (softcap ? 8 : 0);
  const double a = oracle.magnitude[at];
  const double roundings = oracle.kept.empty() ? 8 : 10;
  double bound = (roundings + factor * kappa) * kUnit32 * a + 2 * std::max(unit(in), unit(out)) * a;
  if (!oracle.vanishing.empty()) bound += oracle.vanishing[at];
  if (in == DType::kF16 || out == DType::kF16) bound += 0x1p-25;
  // Below the normal numbers the spacing is absolute.
  return bound + (out == DType::kBF16 ? 0x1p-126 : 0x1p-122);
}

double weight_bound(const Oracle& oracle, std::size_t at, std::int64_t d, bool softcap, double smallest) {
  const double kappa = oracle.kappa[at / static_cast<std::size_t>(oracle.tk)];
  const double factor = 2 + std::sqrt(static_cast<double>(d)) / 4 + (softcap ? 8 : 0);
  const double stays = oracle.kept.empty() ? 1 : oracle.kept[at];
  return (10 + 2 * factor * kappa) * kUnit32 * oracle.weights[at] + 0x1p-126 * smallest * stays;
}

double lse_bound(const Oracle& oracle, std::size_t row, std::int64_t d, DType in, bool softcap) {
  const double factor = 1 + std::sqrt(static_cast<double>(d)) / 8 + (softcap ? 8 : 0);
  return (8 + factor * oracle.kappa[row]) * kUnit32 + 2 * kUnit32 * std::fabs(oracle.lse[row]) +
         (in == DType::kBF16 ? 0x1p-16 : 0);
}

std::string compare(const Oracle& oracle, const ConstTensorView& out, const ConstTensorView& lse, std::int64_t d,
                    DType in, bool softcap, double* largest) {
  const auto within = [&](double got, double want, double bound) {
    if (std::isnan(want)) return std::isnan(got);
    const double error = std::fabs(got - want);
    if (!(error <= bound)) return false;
    if (largest != nullptr) *largest = std::max(*largest, error / bound);
    return true;
  };
  std::size_t at = 0;
  std::size_t row = 0;
  std::ostringstream text;
  text.precision(9);
  for (std::int64_t b = 0; b < oracle.batch; ++b) {
    for (std::int64_t h = 0; h < oracle.heads; ++h) {
      for (std::int64_t i = 0; i < oracle.tq; ++i, ++row) {
        for (std::int64_t e = 0; e < oracle.dv; ++e, ++at) {
          const double got = element(out, {b, h, i, e});
          const double want = oracle.out[at];
          const double bound = oracle.forbidden[row] ? 0 : out_bound(oracle, at, d, in, out.dtype(), softcap);
          if (within(got, want, bound)) continue;
          text << "out[" << b << "," << h << "," << i << "," << e << "] is " << got << ", expected " << want
               << " within " << bound << " (kappa " << oracle.kappa[row] << ")";
          return text.str();
        }
        if (!lse.defined()) continue;
        const double got = element(lse, {b, h, i});
        const double want = oracle.lse[row];
        const double bound = lse_bound(oracle, row, d, in, softcap);
        if (got == want || within(got, want, bound)) continue;
        text << "lse[" << b << "," << h << "," << i << "] is " << got << ", expected " << want << " within " << bound;
        return text.str();
      }
    }
  }
  return "";
}

}  // namespace manyheads::test
