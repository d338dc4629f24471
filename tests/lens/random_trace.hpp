#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <manyheads/error.hpp>
#include <manyheads/lens/trace.hpp>
#include <random>
#include <string>
#include <vector>

namespace manyheads::lens {

constexpr double kInf = std::numeric_limits<double>::infinity();

struct Shape {
  std::int64_t heads = 2, kv_heads = 2, queries = 5, keys = 5, head_dim = 4;
};

inline Tensor random_tensor(const Dims& shape, std::mt19937& random) {
  std::normal_distribution<float> normal(0.0f, 1.0f);
  Tensor tensor(DType::kF32, shape);
  for (std::int64_t i = 0; i < tensor.elements(); ++i) tensor.as<float>()[i] = normal(random);
  return tensor;
}

// The scores of one row by the definition: -inf where the mask forbids.
inline std::vector<double> row_scores(const Trace& trace, std::size_t l, std::int64_t h, std::int64_t i) {
  const TraceLayer& layer = trace.layers[l];
  const std::int64_t d = layer.q.size(2);
  const std::int64_t group = layer.q.size(0) / layer.k.size(0);
  const std::int64_t offset = trace.alignment == Alignment::kBottomRight ? trace.key_length - layer.q.size(1) : 0;
  const auto at = [](const ConstTensorView& v, std::int64_t a, std::int64_t b, std::int64_t c) {
    return static_cast<double>(
        static_cast<const float*>(v.data())[a * v.stride(0) + b * v.stride(1) + c * v.stride(2)]);
  };
  std::vector<double> scores;
  for (std::int64_t j = 0; j < layer.k.size(1); ++j) {
    double s = 0;
    for (std::int64_t x = 0; x < d; ++x) s += at(layer.q, h, i, x) * at(layer.k, h / group, j, x);
    s *= trace.scale;
    if (trace.softcap > 0) s = trace.softcap * std::tanh(s / trace.softcap);
    if (layer.bias.defined()) s += at(layer.bias, layer.bias.size(0) == 1 ? 0 : h, i, j);
    const std::int64_t diagonal = i + offset;
    const bool allowed = j < trace.key_length && (!trace.causal || j <= diagonal) &&
                         (trace.window[0] < 0 || j >= diagonal - trace.window[0]) &&
                         (trace.window[1] < 0 || j <= diagonal + trace.window[1]);
    scores.push_back(allowed ? s : -kInf);
  }
  return scores;
}

inline double row_lse(const Trace& trace, std::size_t l, std::int64_t h, std::vector<double> scores) {
  const ConstTensorView& sinks = trace.layers[l].sinks;
  if (sinks.defined()) scores.push_back(static_cast<double>(static_cast<const float*>(sinks.data())[h]));
  const double largest = scores.empty() ? -kInf : *std::max_element(scores.begin(), scores.end());
  if (largest == -kInf) return -kInf;
  double sum = 0;
  for (const double s : scores) sum += std::exp(s - largest);
  return largest + std::log(sum);
}

// `change` sets the mask; lse follows from it.
inline Trace random_trace(const Shape& shape, const std::function<void(Trace&)>& change = {}) {
  std::mt19937 random(7);
  Trace trace;
  trace.model = "tiny";
  trace.text = "abcdefghijklmnop";
  trace.scale = 0.5;
  trace.key_length = shape.keys;
  for (std::int64_t t = 0; t < shape.keys; ++t) {
    trace.tokens.push_back(std::string(1, static_cast<char>('a' + t)));
    trace.token_ids.push_back(10 + t);
    trace.offsets.push_back({t, t + 1});
    trace.words.push_back(t == 0 || t == shape.keys - 1 ? -1 : t - 1);
    trace.sequences.push_back(trace.words.back() < 0 ? -1 : 0);
  }
  for (int l = 0; l < 2; ++l) {
    Tensor q = random_tensor({shape.heads, shape.queries, shape.head_dim}, random);
    Tensor k = random_tensor({shape.kv_heads, shape.keys, shape.head_dim}, random);
    Tensor lse(DType::kF32, {shape.heads, shape.queries});
    trace.layers.push_back({q.cview(), k.cview(), lse.cview(), {}, {}, {}, {q, k, lse}});
  }
  if (change) change(trace);
  for (std::size_t l = 0; l < trace.layers.size(); ++l) {
    for (std::int64_t h = 0; h < shape.heads; ++h) {
      for (std::int64_t i = 0; i < shape.queries; ++i) {
        trace.layers[l].storage[2].as<float>()[h * shape.queries + i] =
            static_cast<float>(row_lse(trace, l, h, row_scores(trace, l, h, i)));
      }
    }
  }
  return trace;
}

inline void add(TraceLayer& layer, ConstTensorView TraceLayer::* part, const Tensor& tensor) {
  layer.*part = tensor.cview();
  layer.storage.push_back(tensor);
}

// Every weight of every head against the definition in double.
inline void expect_weights(const Trace& trace) {
  for (std::size_t l = 0; l < trace.layers.size(); ++l) {
    for (std::int64_t h = 0; h < trace.num_heads(l); ++h) {
      Tensor weights(DType::kF32, {trace.num_queries(), trace.num_keys()});
      trace_weights(trace, l, h, weights.view(), {.num_threads = 1});
      for (std::int64_t first = 0; first < trace.num_queries(); first += 2) {  // two rows at a time: the same bits
        Tensor rows(DType::kF32, {std::min<std::int64_t>(2, trace.num_queries() - first), trace.num_keys()});
        trace_rows(trace, l, h, first, rows.view(), {.num_threads = 1});
        const auto bytes = static_cast<std::size_t>(rows.elements()) * sizeof(float);
        EXPECT_EQ(std::memcmp(rows.as<float>(), weights.as<float>() + first * trace.num_keys(), bytes), 0) << first;
      }
      for (std::int64_t i = 0; i < trace.num_queries(); ++i) {
        const std::vector<double> scores = row_scores(trace, l, h, i);
        const double lse = row_lse(trace, l, h, scores);
        double sum = 0;
        for (std::int64_t j = 0; j < trace.num_keys(); ++j) {
          const double expected = lse == -kInf ? 0 : std::exp(scores[static_cast<std::size_t>(j)] - lse);
          const double found = static_cast<double>(weights.as<float>()[i * trace.num_keys() + j]);
          EXPECT_NEAR(found, expected, 1e-6) << "layer " << l << " head " << h << " " << i << "," << j;
          sum += found;
        }
        if (!trace.layers[l].sinks.defined() && lse != -kInf) {
          EXPECT_NEAR(sum, 1, 1e-6);
        }
      }
    }
  }
}

// What trace_weights says of a head, empty where it gives weights.
inline std::string weights_error(const Trace& trace, std::size_t layer = 0, std::int64_t head = 0) {
  Tensor weights(DType::kF32, {trace.num_queries(), trace.num_keys()});
  try {
    trace_weights(trace, layer, head, weights.view(), {.num_threads = 1});
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), trace.place.empty() ? ErrorCode::kInvalidArgument : ErrorCode::kMalformedFile);
    return error.what();
  }
  return "";
}

}  // namespace manyheads::lens
