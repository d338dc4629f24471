#include "layer/training.hpp"

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "layer/random_tensor.hpp"

namespace manyheads::layer_test {

Tensor in_double(const Tensor& from) {
  Tensor to(DType::kF64, from.shape());
  const std::vector<double> all = values(from);
  std::copy(all.begin(), all.end(), to.as<double>());
  return to;
}

void Training::run(int threads, Workspace* workspace) {
  std::mt19937_64 random(11);
  layer = std::make_unique<MultiHeadAttention>(config);
  StateDict state = layer->state_dict();
  for (auto& [name, tensor] : state) tensor = random_tensor(random, tensor.shape(), 0.4);
  layer->load_state_dict(state);
  const std::int64_t kdim = config.kdim > 0 ? config.kdim : config.d_model;
  const std::int64_t vdim = config.vdim > 0 ? config.vdim : config.d_model;
  query = random_tensor(random, {batch, queries, config.d_model}, 1, type);
  key = self ? query : random_tensor(random, {batch, keys, kdim}, 1, type);
  value = self ? query : random_tensor(random, {batch, keys, vdim}, 1, type);
  dy = random_tensor(random, {batch, queries, config.d_model}, 1, type);
  if (self) keys = queries;
  reference = {layer->config(), layer->state_dict(), query, key, value, {}, {}, {}};
  reference.added.assign(static_cast<std::size_t>(batch * config.num_heads * queries * keys), 0.0);
  options = {};
  if (mask) mask(options, reference);
  options.threads.num_threads = threads;
  options.activations = &activations;
  options.workspace = workspace;
  Tensor y(DType::kF32, query.shape());
  if (self) {
    layer->forward(query.view(), y.view(), options);
  } else {
    layer->forward(query.view(), key.view(), value.view(), y.view(), options);
  }
  gradients.clear();
  MultiHeadAttentionGradients to;
  const auto make = [&](const std::string& name, const Dims& shape) {
    gradients[name] = Tensor(DType::kF32, shape);
    return gradients[name].view();
  };
  to.dquery = make("query", query.shape());
  if (!self) {
    to.dkey = make("key", key.shape());
    to.dvalue = make("value", value.shape());
  }
  for (const auto& [name, tensor] : layer->state_dict()) to.parameters[name] = make(name, tensor.shape());
  if (options.head_scale.defined()) to.dhead_scale = make("head_scale", options.head_scale.shape());
  if (self) {
    layer->backward(query.view(), activations, dy.view(), to, options);
  } else {
    layer->backward(query.view(), key.view(), value.view(), activations, dy.view(), to, options);
  }
}

double Training::loss(const LayerCase& of) const {
  const LayerResult result = reference_layer(of, 0);
  const std::vector<double> factor = values(dy);
  double sum = 0;
  for (std::size_t i = 0; i < factor.size(); ++i) sum += result.output[i] * factor[i];
  return sum;
}

std::string Training::wrong() const {
  constexpr double kStep = 1e-5;
  LayerCase at = reference;
  for (Tensor* tensor : {&at.query, &at.key, &at.value}) *tensor = in_double(*tensor);
  for (auto& [name, tensor] : at.state) tensor = in_double(tensor);
  if (self) at.key = at.value = at.query;  // share the memory
  const auto check = [&](const std::string& name, double* input, std::int64_t count) -> std::string {
    const Tensor& gradient = gradients.at(name);
    std::vector<double> expected(static_cast<std::size_t>(count));
    double largest = 0;
    for (std::int64_t i = 0; i < count; ++i) {
      const double before = input[i];
      input[i] = before + kStep;
      const double more = loss(at);
      input[i] = before - kStep;
      const double less = loss(at);
      input[i] = before;
      expected[static_cast<std::size_t>(i)] = (more - less) / (2 * kStep);
      largest = std::max(largest, std::fabs(expected[static_cast<std::size_t>(i)]));
    }
    for (std::int64_t i = 0; i < count; ++i) {
      const double got = static_cast<double>(gradient.as<float>()[i]), want = expected[static_cast<std::size_t>(i)];
      if (std::fabs(got - want) > 0x1p-18 * largest + 1e-8) {
        return name + "[" + std::to_string(i) + "] is " + std::to_string(got) + ", expected " + std::to_string(want);
      }
    }
    return "";
  };
  std::string text = check("query", at.query.as<double>(), at.query.elements());
  if (text.empty() && !self) text = check("key", at.key.as<double>(), at.key.elements());
  if (text.empty() && !self) text = check("value", at.value.as<double>(), at.value.elements());
  for (auto& [name, tensor] : at.state) {
    if (text.empty()) text = check(name, tensor.as<double>(), tensor.elements());
  }
  if (text.empty() && !at.head_scale.empty()) {
    text = check("head_scale", at.head_scale.data(), static_cast<std::int64_t>(at.head_scale.size()));
  }
  return text;
}

}  // namespace manyheads::layer_test
