#include <algorithm>
#include <cmath>
#include <manyheads/multi_head_attention.hpp>
#include <memory>
#include <utility>

#include "base/format.hpp"
#include "bench/cases/case.hpp"
#include "layer/linear.hpp"
#include "bench/cases/sampling.hpp"

namespace manyheads::bench {

namespace {

double dot(const float* a, const float* b, std::int64_t count) {
  double sum = 0;
  for (std::int64_t i = 0; i < count; ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return sum;
}

struct LinearWork {
  Tensor weight, bias, x, y;
  layer::Linear linear;
};

Case linear_case(std::int64_t size, std::int64_t rows, int threads) {
  Case c;
  c.row = {.name = base::format("linear {}x{}", size, size), .tokens = rows, .threads = threads};
  c.flop = 2.0 * static_cast<double>(rows) * static_cast<double>(size * size);
  if (threads > 1) c.row.over = "one thread";
  c.prepare = [=] {
    auto work = std::make_shared<LinearWork>();
    work->weight = normal(DType::kF32, {size, size}, 1);
    work->bias = normal(DType::kF32, {size}, 2);
    work->x = normal(DType::kF32, {rows, size}, 3);
    work->y = Tensor(DType::kF32, {rows, size});
    work->linear = layer::Linear(work->weight.cview(), work->bias.cview());
    const auto on = [=](int count) {
      return [=] {
        work->linear.run(std::as_const(work->x).as<float>(), rows, size, work->y.as<float>(), size,
                         layer::Activation::kNone, {.num_threads = count});
      };
    };
    PreparedCase prepared{.work = on(threads), .base = {}, .error = {}};
    if (threads > 1) prepared.base = on(1);
    prepared.error = [=] {
      double worst = 0;
      const float* x = std::as_const(work->x).as<float>();
      const float* w = std::as_const(work->weight).as<float>();
      for (const std::int64_t i : probe_rows(rows)) {
        for (std::int64_t n = 0; n < size; ++n) {
          const double sum = dot(x + i * size, w + n * size, size) + element(work->bias.cview(), n);
          worst = std::max(worst, std::abs(element(work->y.cview(), i * size + n) - sum));
        }
      }
      return worst;
    };
    return prepared;
  };
  return c;
}

struct LayerWork {
  explicit LayerWork(const MultiHeadAttentionConfig& config) : layer(config) {}
  MultiHeadAttention layer;
  Tensor x, y;
  Workspace workspace;
};

// The layer's definition for one row of the first sequence, in float64.
std::vector<double> layer_row(const LayerWork& work, const std::vector<double>& kv, std::int64_t row) {
  const StateDict state = work.layer.state_dict();
  const float* w_in = state.at("in_proj_weight").as<float>();
  const float* b_in = state.at("in_proj_bias").as<float>();
  const float* w_out = state.at("out_proj.weight").as<float>();
  const float* b_out = state.at("out_proj.bias").as<float>();
  const std::int64_t e = work.layer.config().d_model, d = work.layer.d_k(), tokens = work.x.size(1);
  const float* x = work.x.as<float>();
  std::vector<double> concatenated(static_cast<std::size_t>(e)), q(static_cast<std::size_t>(d));
  for (std::int64_t h = 0; h < work.layer.config().num_heads; ++h) {
    for (std::int64_t c = 0; c < d; ++c) {
      q[static_cast<std::size_t>(c)] =
          dot(x + row * e, w_in + (h * d + c) * e, e) + static_cast<double>(b_in[h * d + c]);
    }
    double sum = 0;
    for (std::int64_t j = 0; j < tokens; ++j) {
      const double* k = &kv[static_cast<std::size_t>(j * 2 * e + h * d)];
      double score = 0;
      for (std::int64_t c = 0; c < d; ++c) score += q[static_cast<std::size_t>(c)] * k[c];
      // Scores of such inputs are small: float64 needs no maximum subtracted.
      const double weight = std::exp(score / std::sqrt(static_cast<double>(d)));
      sum += weight;
      for (std::int64_t c = 0; c < d; ++c) concatenated[static_cast<std::size_t>(h * d + c)] += weight * k[e + c];
    }
    for (std::int64_t c = h * d; c < (h + 1) * d; ++c) concatenated[static_cast<std::size_t>(c)] /= sum;
  }
  std::vector<double> y(static_cast<std::size_t>(e));
  for (std::int64_t n = 0; n < e; ++n) {
    double sum = static_cast<double>(b_out[n]);
    for (std::int64_t c = 0; c < e; ++c) {
      sum += concatenated[static_cast<std::size_t>(c)] * static_cast<double>(w_out[n * e + c]);
    }
    y[static_cast<std::size_t>(n)] = sum;
  }
  return y;
}

Case layer_case(std::int64_t d_model, std::int64_t heads, std::int64_t batch, std::int64_t tokens, int threads) {
  Case c;
  c.row = {.name = base::format("layer {}, {} head{}", d_model, heads, heads == 1 ? "" : "s"),
           .heads = heads,
           .head_dim = d_model / heads,
           .tokens = tokens,
           .batch = batch,
           .threads = threads};
  const auto e = static_cast<double>(d_model);
  const auto t = static_cast<double>(tokens);
  c.flop = static_cast<double>(batch) * (8 * t * e * e + 4 * t * t * e);
  if (threads > 1) c.row.over = "one thread";
  c.prepare = [=] {
    auto work = std::make_shared<LayerWork>(MultiHeadAttentionConfig{.d_model = d_model, .num_heads = heads});
    work->x = normal(DType::kF32, {batch, tokens, d_model}, 1);
    work->y = Tensor(DType::kF32, {batch, tokens, d_model});
    const auto on = [=](int count) {
      return [=] {
        work->layer.forward(work->x.cview(), work->y.view(),
                            {.threads = {.num_threads = count}, .workspace = &work->workspace});
      };
    };
    PreparedCase prepared{.work = on(threads), .base = {}, .error = {}};
    if (threads > 1) prepared.base = on(1);
    prepared.error = [=] {
      const StateDict state = work->layer.state_dict();
      const float* w_in = state.at("in_proj_weight").as<float>();
      const float* b_in = state.at("in_proj_bias").as<float>();
      std::vector<double> kv(static_cast<std::size_t>(tokens * 2 * d_model));
      for (std::int64_t j = 0; j < tokens; ++j) {
        for (std::int64_t n = 0; n < 2 * d_model; ++n) {
          kv[static_cast<std::size_t>(j * 2 * d_model + n)] =
              dot(std::as_const(work->x).as<float>() + j * d_model, w_in + (d_model + n) * d_model, d_model) +
              static_cast<double>(b_in[d_model + n]);
        }
      }
      double worst = 0;
      for (const std::int64_t i : probe_rows(tokens)) {
        const std::vector<double> expected = layer_row(*work, kv, i);
        for (std::int64_t n = 0; n < d_model; ++n) {
          worst = std::max(worst,
                           std::abs(element(work->y.cview(), i * d_model + n) - expected[static_cast<std::size_t>(n)]));
        }
      }
      return worst;
    };
    return prepared;
  };
  return c;
}

}  // namespace

std::vector<Case> layer_cases(const Size& size) {
  std::vector<Case> cases;
  for (const int threads : thread_counts(size)) {
    for (const std::int64_t rows : {7, 64, 512, 4096}) cases.push_back(linear_case(512, rows, threads));
    cases.push_back(layer_case(512, 8, 1, 7, threads));
    cases.push_back(layer_case(512, 8, 1, 128, threads));
    cases.push_back(layer_case(512, 1, 1, 128, threads));
    if (!size.quick) cases.push_back(layer_case(512, 8, 8, 512, threads));
  }
  return cases;
}

}  // namespace manyheads::bench
