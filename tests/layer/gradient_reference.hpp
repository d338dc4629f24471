#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "layer/layer_reference.hpp"

// The layer's gradients from their definition, in float64, and how far F32 may lie from each.
namespace manyheads::layer_test {

inline std::vector<double> transposed(const std::vector<double>& w, std::int64_t rows, std::int64_t columns) {
  std::vector<double> to(w.size());
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < columns; ++c) {
      to[static_cast<std::size_t>(c * rows + r)] = w[static_cast<std::size_t>(r * columns + c)];
    }
  }
  return to;
}

// dy^T x: a chain of up to 512 tokens of a sequence; what is added up in two floats rounds once.
inline Matrix weight_gradient_of(const Matrix& dy, const Matrix& x, std::int64_t tokens) {
  Matrix dw(dy.columns, x.columns);
  const double chain = static_cast<double>(std::min<std::int64_t>(tokens, 512) + 2) * kUnit;
  for (std::int64_t n = 0; n < dy.columns; ++n) {
    for (std::int64_t k = 0; k < x.columns; ++k) {
      double sum = 0, magnitude = 0, carried = 0;
      for (std::int64_t t = 0; t < dy.rows; ++t) {
        const std::size_t a = dy.at(t, n), b = x.at(t, k);
        const double all = (std::abs(dy.value[a]) + dy.bound[a]) * (std::abs(x.value[b]) + x.bound[b]);
        sum += dy.value[a] * x.value[b];
        magnitude += all;
        carried += all - std::abs(dy.value[a] * x.value[b]);
      }
      dw.value[dw.at(n, k)] = sum;
      dw.bound[dw.at(n, k)] = carried + chain * magnitude;
    }
  }
  return dw;
}

// The sum of some rows, in float64, rounded once.
inline Matrix sum_of_rows(const Matrix& dy, std::int64_t first = 0, std::int64_t step = 1) {
  Matrix db(1, dy.columns);
  for (std::int64_t t = first; t < dy.rows; t += step) {
    for (std::int64_t n = 0; n < dy.columns; ++n) {
      db.value[db.at(0, n)] += dy.value[dy.at(t, n)];
      db.bound[db.at(0, n)] += dy.bound[dy.at(t, n)];
    }
  }
  for (std::size_t n = 0; n < db.value.size(); ++n) db.bound[n] += kUnit * (std::abs(db.value[n]) + db.bound[n]);
  return db;
}

// The first `keys` of every entry's `all` rows.
inline Matrix without_added(const Matrix& x, std::int64_t batch, std::int64_t keys, std::int64_t all) {
  Matrix y(batch * keys, x.columns);
  for (std::int64_t b = 0; b < batch; ++b) {
    for (std::int64_t j = 0; j < keys; ++j) {
      for (std::int64_t i = 0; i < x.columns; ++i) {
        y.value[y.at(b * keys + j, i)] = x.value[x.at(b * all + j, i)];
        y.bound[y.at(b * keys + j, i)] = x.bound[x.at(b * all + j, i)];
      }
    }
  }
  return y;
}

// Side by side.
inline Matrix beside(const std::vector<const Matrix*>& parts) {
  std::int64_t columns = 0;
  for (const Matrix* part : parts) columns += part->columns;
  Matrix all(parts[0]->rows, columns);
  std::int64_t first = 0;
  for (const Matrix* part : parts) {
    for (std::int64_t r = 0; r < part->rows; ++r) {
      for (std::int64_t c = 0; c < part->columns; ++c) {
        all.value[all.at(r, first + c)] = part->value[part->at(r, c)];
        all.bound[all.at(r, first + c)] = part->bound[part->at(r, c)];
      }
    }
    first += part->columns;
  }
  return all;
}

// Of the loss sum(y dy), by the names of the state and "query", "key", "value"; in self-attention "query" has all of
// dx. For F32 weights and inputs without head_scale. What is computed before is off by its bound, and attention adds
// its own (attention/gradient_oracle.hpp says the same of exact inputs).
inline std::map<std::string, Matrix> reference_gradients(const LayerCase& c, const Tensor& dy, bool self) {
  const std::int64_t e = c.config.d_model, heads = c.config.num_heads, d = e / heads;
  const std::int64_t kv_heads = c.config.num_kv_heads > 0 ? c.config.num_kv_heads : heads, kv = kv_heads * d;
  const std::int64_t batch = c.query.size(0), queries = c.query.size(1), keys = c.key.size(1), group = heads / kv_heads;
  const LayerResult forward = reference_layer(c, 0);
  const Matrix &q = forward.q, &k = forward.k, &v = forward.v, &out = forward.heads;
  const std::int64_t all_keys = k.rows / batch;
  const auto [wq, wk, wv] = in_projections(c);
  const Matrix of_y = rows_of(dy);
  const Matrix dout = project(of_y, transposed(tensor_of(c, "out_proj.weight"), e, e).data(), nullptr, e);

  Matrix dq(batch * queries, e), dk(batch * all_keys, kv), dv(batch * all_keys, kv);
  const auto add = [](Matrix& to, std::size_t at, double value, double bound) {
    to.value[at] += value;
    to.bound[at] += bound;
  };
  const double scale = 1 / std::sqrt(static_cast<double>(d)), root = std::sqrt(static_cast<double>(d));
  const double sums = (8 + std::log2(static_cast<double>(group))) * kUnit, of_dot = (2 + root / 4) * kUnit;
  std::vector<double> dprob(static_cast<std::size_t>(all_keys)), absolute(dprob.size()), of_dprob(dprob.size());
  for (std::int64_t n = 0; n < batch; ++n) {
    for (std::int64_t h = 0; h < heads; ++h) {
      const std::int64_t column = h * d, kv_column = h / group * d;
      for (std::int64_t i = 0; i < queries; ++i) {
        const auto row = static_cast<std::size_t>((n * heads + h) * queries + i);
        const LayerResult::Row& of = forward.rows[row];
        const double* const weights = forward.weights.data() + row * static_cast<std::size_t>(all_keys);
        // Scores and lse are off by score_bound each, beside what attention rounds.
        const double of_prob = std::expm1(2 * of.score_bound + (12 + (3 + 3 * root / 8) * of.kappa) * kUnit +
                                          2 * kUnit * std::abs(of.lse));
        double delta = 0, absolute_delta = 0, of_delta = 0;
        for (std::int64_t x = 0; x < d; ++x) {
          const std::size_t at = out.at(n * queries + i, column + x);
          delta += dout.value[at] * out.value[at];
          of_delta +=
              std::abs(dout.value[at]) * out.bound[at] + dout.bound[at] * (std::abs(out.value[at]) + out.bound[at]);
        }
        for (std::int64_t j = 0; j < all_keys; ++j) {
          const auto key = static_cast<std::size_t>(j);
          dprob[key] = absolute[key] = of_dprob[key] = 0;
          for (std::int64_t x = 0; x < d; ++x) {
            const std::size_t a = dout.at(n * queries + i, column + x), b = v.at(n * all_keys + j, kv_column + x);
            const double product = dout.value[a] * v.value[b];
            const double all = (std::abs(dout.value[a]) + dout.bound[a]) * (std::abs(v.value[b]) + v.bound[b]);
            dprob[key] += product;
            absolute[key] += all;
            of_dprob[key] += of_dot * all + (all - std::abs(product));
          }
          absolute_delta += weights[j] * absolute[key];
        }
        of_delta += kUnit * absolute_delta;
        for (std::int64_t j = 0; j < all_keys; ++j) {
          const double p = weights[j];
          if (p == 0) continue;
          const auto key = static_cast<std::size_t>(j);
          const double p_error = p * of_prob + std::min(p, 0x1p-96), p_most = p + p_error;
          const double terms = absolute[key] + absolute_delta;
          const double ds = p * (dprob[key] - delta);
          const double ds_error = p_error * terms + p_most * ((5 * kUnit + sums) * terms + of_dprob[key] + of_delta);
          for (std::int64_t x = 0; x < d; ++x) {
            const std::size_t a = q.at(n * queries + i, column + x), b = k.at(n * all_keys + j, kv_column + x);
            add(dq, a, scale * ds * k.value[b],
                scale * (ds_error * (std::abs(k.value[b]) + k.bound[b]) + std::abs(ds) * k.bound[b]));
            add(dk, b, scale * ds * q.value[a],
                scale * (ds_error * (std::abs(q.value[a]) + q.bound[a]) + std::abs(ds) * q.bound[a]));
            add(dv, b, p * dout.value[a],
                (p_error + p_most * sums) * (std::abs(dout.value[a]) + dout.bound[a]) + p * dout.bound[a]);
          }
        }
      }
    }
  }

  const Matrix own_dk = without_added(dk, batch, keys, all_keys), own_dv = without_added(dv, batch, keys, all_keys);
  const Matrix query = rows_of(c.query), key = rows_of(c.key), value = rows_of(c.value);
  std::map<std::string, Matrix> gradients;
  const Matrix dwq = weight_gradient_of(dq, query, queries), dwk = weight_gradient_of(own_dk, key, keys),
               dwv = weight_gradient_of(own_dv, value, keys);
  if (c.state.contains("in_proj_weight")) {
    Matrix all(3 * e, e);
    const auto cut = static_cast<std::ptrdiff_t>(e * e);
    for (const auto& [part, at] : {std::pair{&dwq, 0}, {&dwk, 1}, {&dwv, 2}}) {
      std::copy(part->value.begin(), part->value.end(), all.value.begin() + at * cut);
      std::copy(part->bound.begin(), part->bound.end(), all.bound.begin() + at * cut);
    }
    gradients["in_proj_weight"] = all;
  } else {
    gradients["q_proj_weight"] = dwq;
    gradients["k_proj_weight"] = dwk;
    gradients["v_proj_weight"] = dwv;
  }
  gradients["out_proj.weight"] = weight_gradient_of(of_y, out, queries);
  if (c.state.contains("in_proj_bias")) {
    const Matrix of_q = sum_of_rows(dq), of_k = sum_of_rows(own_dk), of_v = sum_of_rows(own_dv);
    gradients["in_proj_bias"] = beside({&of_q, &of_k, &of_v});
    gradients["out_proj.bias"] = sum_of_rows(of_y);
  }
  if (c.config.add_bias_kv) {
    gradients["bias_k"] = sum_of_rows(dk, keys, all_keys);
    gradients["bias_v"] = sum_of_rows(dv, keys, all_keys);
  }
  const std::int64_t kdim = c.key.size(2), vdim = c.value.size(2);
  if (self) {
    // One chain over all three is off by more than any other order.
    std::vector<double> stacked = wq;
    stacked.insert(stacked.end(), wk.begin(), wk.end());
    stacked.insert(stacked.end(), wv.begin(), wv.end());
    gradients["query"] =
        project(beside({&dq, &own_dk, &own_dv}), transposed(stacked, e + 2 * kv, e).data(), nullptr, e);
  } else {
    gradients["query"] = project(dq, transposed(wq, e, e).data(), nullptr, e);
    gradients["key"] = project(own_dk, transposed(wk, kv, kdim).data(), nullptr, kdim);
    gradients["value"] = project(own_dv, transposed(wv, kv, vdim).data(), nullptr, vdim);
  }
  return gradients;
}

}  // namespace manyheads::layer_test
