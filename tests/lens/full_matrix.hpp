#pragma once

#include <algorithm>
#include <cmath>
#include <manyheads/lens/trace.hpp>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "lens/random_trace.hpp"

// Heads in double, all weights at once, and the ways that traces mask and change scores.
namespace manyheads::lens {

struct FullMatrix {
  FullMatrix(const Trace& trace, std::size_t layer, std::int64_t head) : keys(trace.num_keys()) {
    const ConstTensorView &q = trace.layers[layer].q, &k = trace.layers[layer].k;
    const std::int64_t group = q.size(0) / k.size(0);
    const auto number = [](const ConstTensorView& v, std::int64_t a, std::int64_t b, std::int64_t c) {
      return std::fabs(static_cast<double>(
          static_cast<const float*>(v.data())[a * v.stride(0) + b * v.stride(1) + c * v.stride(2)]));
    };
    for (std::int64_t i = 0; i < trace.num_queries(); ++i) {
      const std::vector<double> scores = row_scores(trace, layer, head, i);
      const double lse = row_lse(trace, layer, head, scores);
      double kappa = 0;
      for (std::int64_t j = 0; j < keys; ++j) {
        const double score = scores[static_cast<std::size_t>(j)];
        weights.push_back(lse == -kInf ? 0 : std::exp(score - lse));
        double sum = 0;
        for (std::int64_t d = 0; d < q.size(2); ++d) sum += number(q, head, i, d) * number(k, head / group, j, d);
        const ConstTensorView& bias = trace.layers[layer].bias;
        const double added = bias.defined() ? number(bias, bias.size(0) == 1 ? 0 : head, i, j) : 0;
        if (std::isfinite(score)) kappa = std::max(kappa, std::fabs(trace.scale) * sum + added);
      }
      const double depth = std::sqrt(static_cast<double>(q.size(2))) / 4;
      bounds.push_back(std::max(1e-5, (8 + (trace.softcap > 0 ? 8 : 0) + (2 + depth) * kappa) * 0x1p-24));
    }
  }
  double at(std::int64_t i, std::int64_t j) const { return weights[static_cast<std::size_t>(i * keys + j)]; }
  double bound(std::int64_t i) const { return bounds[static_cast<std::size_t>(i)]; }

  std::int64_t keys;
  std::vector<double> weights, bounds;  // of each weight, and of the error of a row's
};

// Every kind of mask and of score, of that shape.
inline std::vector<std::pair<std::string, Trace>> every_kind(const Shape& shape) {
  const auto with = [&](const std::function<void(Trace&)>& change) { return random_trace(shape, change); };
  const auto with_bias = [&](Trace& t, std::int64_t heads, bool forbids) {
    std::mt19937 random(3);
    for (TraceLayer& layer : t.layers) {
      Tensor bias = random_tensor({heads, shape.queries, shape.keys}, random);
      for (std::int64_t i = 0; forbids && i < bias.elements(); ++i) {
        if (i % 3 == 0 || i / shape.keys % 7 == 2) bias.as<float>()[i] = -std::numeric_limits<float>::infinity();
      }
      add(layer, &TraceLayer::bias, bias);
    }
  };
  const auto with_sinks = [&](Trace& t) {
    std::mt19937 random(4);
    for (TraceLayer& layer : t.layers) add(layer, &TraceLayer::sinks, random_tensor({shape.heads}, random));
  };
  const auto sharp = [](Trace& t) {
    for (TraceLayer& layer : t.layers) {
      for (std::int64_t i = 0; i < layer.k.size(0) * layer.k.size(1) * layer.k.size(2); ++i) {
        layer.storage[1].as<float>()[i] *= 30;
      }
    }
  };
  const auto causal = [&](Trace& t) {
    t.causal = true;
    t.alignment = Alignment::kBottomRight;
  };
  return {{"plain", with([](Trace&) {})},
          {"sharp", with(sharp)},
          {"causal", with(causal)},
          {"causal from the top left", with([](Trace& t) { t.causal = true, t.alignment = Alignment::kTopLeft; })},
          {"causal, sharp", with([&](Trace& t) { causal(t), sharp(t); })},
          {"window", with([](Trace& t) { t.window = {5, 9}; })},
          {"causal window", with([&](Trace& t) { causal(t), t.window = {70, -1}; })},
          {"softcap", with([&](Trace& t) { t.softcap = 0.7; })},
          {"softcap, sharp", with([&](Trace& t) { t.softcap = 40, sharp(t); })},
          {"key length", with([&](Trace& t) { t.key_length = shape.keys * 2 / 3; })},
          {"no key", with([](Trace& t) { t.key_length = 0; })},
          {"bias", with([&](Trace& t) { with_bias(t, shape.heads, false); })},
          {"bias that forbids", with([&](Trace& t) { with_bias(t, 1, true), causal(t); })},
          {"sinks", with(with_sinks)},
          {"sinks, causal, sharp", with([&](Trace& t) { with_sinks(t), causal(t), sharp(t); })},
          {"all", with([&](Trace& t) {
             with_bias(t, shape.heads, true), with_sinks(t), causal(t);
             t.window = {100, -1}, t.softcap = 5, t.key_length = shape.keys - 3;
           })}};
}

}  // namespace manyheads::lens
