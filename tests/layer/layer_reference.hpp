#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <manyheads/multi_head_attention.hpp>
#include <manyheads/tensor.hpp>
#include <vector>

#include "kernels/dispatch.hpp"

// The layer from its definition, in float64 and plain loops, and how far a result in F32 may lie from it.
namespace manyheads::layer_test {

// Elements of an F32, F64, BF16 or F16 tensor, row-major.
inline std::vector<double> values(const Tensor& tensor) {
  std::vector<double> all(static_cast<std::size_t>(tensor.elements()));
  for (std::size_t i = 0; i < all.size(); ++i) {
    switch (tensor.dtype()) {
      case DType::kF64:
        all[i] = tensor.as<double>()[i];
        break;
      case DType::kBF16:
        all[i] = static_cast<float>(tensor.as<bfloat16>()[i]);
        break;
      case DType::kF16:
        all[i] = static_cast<float>(tensor.as<float16>()[i]);
        break;
      default:
        all[i] = tensor.as<float>()[i];
    }
  }
  return all;
}

struct LayerCase {
  MultiHeadAttentionConfig config;
  StateDict state;
  Tensor query, key, value;
  std::vector<double> added;       // [B,H,T,S]: what all masks add to the scores; -inf forbids
  std::vector<double> head_scale;  // [H]; empty: 1
  std::vector<double> kept;        // [B,H,T,S'], what dropout makes of a weight of 1; empty: 1
};

constexpr double kUnit = 0x1p-24;  // rounding of F32

// Numbers and how far F32 may be from each.
struct Matrix {
  std::int64_t rows = 0, columns = 0;
  std::vector<double> value, bound;

  Matrix() = default;
  Matrix(std::int64_t r, std::int64_t c)
      : rows(r), columns(c), value(static_cast<std::size_t>(r * c)), bound(static_cast<std::size_t>(r * c)) {}
  std::size_t at(std::int64_t r, std::int64_t c) const { return static_cast<std::size_t>(r * columns + c); }
};

struct LayerResult {
  std::vector<double> output, output_bound;    // [B,T,E]
  std::vector<double> weights, weights_bound;  // [B,H,T,S'], the added keys behind
  Matrix q, k, v, heads;                       // [B T,E], [B S',Hkv d_k] twice, [B T,E]: heads are scaled by head_scale
  struct Row {                                 // [B,H,T]
    double lse;
    double kappa;        // the largest sum of absolute terms of a score
    double score_bound;  // how far scores may be for what q and k are off by
  };
  std::vector<Row> rows;
};

// x W^T + b. A chain of n products and sums in F32 is off by n u of the sum of magnitudes at most; to this comes what
// the inputs were off by.
inline Matrix project(const Matrix& x, const double* w, const double* b, std::int64_t columns) {
  Matrix y(x.rows, columns);
  for (std::int64_t r = 0; r < x.rows; ++r) {
    for (std::int64_t n = 0; n < columns; ++n) {
      double sum = b != nullptr ? b[n] : 0, magnitude = std::abs(sum), carried = 0;
      for (std::int64_t k = 0; k < x.columns; ++k) {
        const double weight = w[n * x.columns + k];
        sum += x.value[x.at(r, k)] * weight;
        magnitude += std::abs(x.value[x.at(r, k)] * weight);
        carried += x.bound[x.at(r, k)] * std::abs(weight);
      }
      y.value[y.at(r, n)] = sum;
      y.bound[y.at(r, n)] = carried + static_cast<double>(x.columns + 2) * kUnit * (magnitude + carried);
    }
  }
  return y;
}

inline Matrix rows_of(const Tensor& x) {
  Matrix m(x.size(0) * x.size(1), x.size(2));
  m.value = values(x);
  return m;
}

// [B * S, width] with the added rows behind each entry's own.
inline Matrix with_added(const Matrix& x, std::int64_t batch, std::int64_t keys,
                         const std::vector<std::vector<double>>& rows) {
  const std::int64_t all = keys + static_cast<std::int64_t>(rows.size());
  Matrix y(batch * all, x.columns);
  for (std::int64_t b = 0; b < batch; ++b) {
    for (std::int64_t j = 0; j < all; ++j) {
      for (std::int64_t i = 0; i < x.columns; ++i) {
        const bool own = j < keys;
        y.value[y.at(b * all + j, i)] = own ? x.value[x.at(b * keys + j, i)]
                                            : rows[static_cast<std::size_t>(j - keys)][static_cast<std::size_t>(i)];
        if (own) y.bound[y.at(b * all + j, i)] = x.bound[x.at(b * keys + j, i)];
      }
    }
  }
  return y;
}

// Values of a tensor of the state; empty where it has none.
inline std::vector<double> tensor_of(const LayerCase& c, const char* name) {
  const auto found = c.state.find(name);
  return found == c.state.end() ? std::vector<double>{} : values(found->second);
}

struct InProjections {
  std::vector<double> q, k, v;
};

inline InProjections in_projections(const LayerCase& c) {
  InProjections w{tensor_of(c, "q_proj_weight"), tensor_of(c, "k_proj_weight"), tensor_of(c, "v_proj_weight")};
  if (const std::vector<double> all = tensor_of(c, "in_proj_weight"); !all.empty()) {
    const auto cut = static_cast<std::ptrdiff_t>(c.config.d_model * c.config.d_model);
    w.q.assign(all.begin(), all.begin() + cut);
    w.k.assign(all.begin() + cut, all.begin() + 2 * cut);
    w.v.assign(all.begin() + 2 * cut, all.end());
  }
  return w;
}

// `rounding` is the relative rounding of the output's type.
inline LayerResult reference_layer(const LayerCase& c, double rounding) {
  const std::int64_t e = c.config.d_model, heads = c.config.num_heads, d = e / heads;
  const std::int64_t kv_heads = c.config.num_kv_heads > 0 ? c.config.num_kv_heads : heads, kv = kv_heads * d;
  const std::int64_t batch = c.query.size(0), queries = c.query.size(1), keys = c.key.size(1);

  const auto [wq, wk, wv] = in_projections(c);
  const auto get = [&](const char* name) { return tensor_of(c, name); };
  const std::vector<double> bias = get("in_proj_bias"), wo = get("out_proj.weight"), bo = get("out_proj.bias");
  const double* b = bias.empty() ? nullptr : bias.data();
  const Matrix q = project(rows_of(c.query), wq.data(), b, e);
  std::vector<std::vector<double>> more_keys, more_values;
  if (c.config.add_bias_kv) {
    more_keys.push_back(get("bias_k"));
    more_values.push_back(get("bias_v"));
  }
  if (c.config.add_zero_attn) {
    more_keys.emplace_back(static_cast<std::size_t>(kv), 0.0);
    more_values.emplace_back(static_cast<std::size_t>(kv), 0.0);
  }
  const Matrix k = with_added(project(rows_of(c.key), wk.data(), b == nullptr ? b : b + e, kv), batch, keys, more_keys);
  const Matrix v =
      with_added(project(rows_of(c.value), wv.data(), b == nullptr ? b : b + e + kv, kv), batch, keys, more_values);
  const std::int64_t all_keys = keys + static_cast<std::int64_t>(more_keys.size());

  LayerResult result;
  Matrix out(batch * queries, e);
  const double scale = 1 / std::sqrt(static_cast<double>(d));
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  std::vector<double> score(static_cast<std::size_t>(all_keys)), weight(score.size());
  for (std::int64_t n = 0; n < batch; ++n) {
    for (std::int64_t h = 0; h < heads; ++h) {
      const std::int64_t kv_column = h / (heads / kv_heads) * d;
      for (std::int64_t i = 0; i < queries; ++i) {
        double top = -kInfinity, kappa = 0, score_bound = 0;
        for (std::int64_t j = 0; j < all_keys; ++j) {
          double added = 0;
          if (j < keys) added = c.added[static_cast<std::size_t>(((n * heads + h) * queries + i) * keys + j)];
          double sum = 0, magnitude = std::abs(added), carried = 0;
          for (std::int64_t x = 0; x < d; ++x) {
            const std::size_t qi = q.at(n * queries + i, h * d + x), ki = k.at(n * all_keys + j, kv_column + x);
            sum += q.value[qi] * k.value[ki];
            magnitude += scale * std::abs(q.value[qi] * k.value[ki]);
            carried +=
                scale * (q.bound[qi] * (std::abs(k.value[ki]) + k.bound[ki]) + k.bound[ki] * std::abs(q.value[qi]));
          }
          score[static_cast<std::size_t>(j)] = added == -kInfinity ? -kInfinity : scale * sum + added;
          if (added == -kInfinity) continue;
          top = std::max(top, score[static_cast<std::size_t>(j)]);
          kappa = std::max(kappa, magnitude + carried);
          score_bound = std::max(score_bound, carried);
        }
        double total = 0;
        for (std::size_t j = 0; j < score.size(); ++j) {
          weight[j] = score[j] == -kInfinity ? 0 : std::exp(score[j] - top);
          total += weight[j];
        }
        // Attention's own bound, and scores that are off by s make each weight off by a factor of exp(2 s).
        result.rows.push_back({top + std::log(total), kappa, score_bound});
        const double own = ((c.kept.empty() ? 8 : 10) + (2 + std::sqrt(static_cast<double>(d)) / 4) * kappa) * kUnit;
        const double shift = std::expm1(2 * score_bound);
        for (double& w : weight) {
          if (total > 0) w /= total;
          if (!c.kept.empty()) w *= c.kept[result.weights.size()];
          result.weights.push_back(w);
          result.weights_bound.push_back(w * (shift + 2 * own) + 0x1p-126);
        }
        const double factor = c.head_scale.empty() ? 1 : c.head_scale[static_cast<std::size_t>(h)];
        for (std::int64_t x = 0; x < d; ++x) {
          double sum = 0, magnitude = 0, carried = 0;
          for (std::int64_t j = 0; j < all_keys; ++j) {
            const std::size_t vi = v.at(n * all_keys + j, kv_column + x);
            const double w = weight[static_cast<std::size_t>(j)];
            sum += w * v.value[vi];
            magnitude += w * (std::abs(v.value[vi]) + v.bound[vi]);
            carried += w * v.bound[vi];
          }
          const std::size_t at = out.at(n * queries + i, h * d + x);
          out.value[at] = factor * sum;
          out.bound[at] = std::abs(factor) * (carried + (own + shift) * magnitude + kUnit * std::abs(sum));
        }
      }
    }
  }
  if (c.config.dtype == DType::kBF16 && kernels::active_table().linear.rounds_rows_to_bf16) {
    // BF16 weights multiply rows rounded to BF16; the inputs of these cases are of that type already.
    for (std::size_t i = 0; i < out.value.size(); ++i) out.bound[i] += 0x1p-8 * (std::abs(out.value[i]) + out.bound[i]);
  }
  const Matrix y = project(out, wo.data(), bo.empty() ? nullptr : bo.data(), e);
  result.output = y.value;
  result.q = q;
  result.k = k;
  result.v = v;
  result.heads = out;
  for (std::size_t i = 0; i < y.value.size(); ++i) {
    // The smallest step of F16 is 2^-24.
    result.output_bound.push_back(y.bound[i] * (1 + rounding) + rounding * std::abs(y.value[i]) +
                                  (rounding > kUnit ? 0x1p-25 : 0));
  }
  return result;
}

}  // namespace manyheads::layer_test
