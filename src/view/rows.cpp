#include <cmath>
#include <limits>
#include <manyheads/lens/trace.hpp>
#include <vector>

#include "view/state.hpp"

// One row of one head, as far as its single products.
namespace manyheads::view {
namespace {

double value(const ConstTensorView& view, std::int64_t a, std::int64_t b, std::int64_t c) {
  return static_cast<double>(
      static_cast<const float*>(view.data())[a * view.stride(0) + b * view.stride(1) + c * view.stride(2)]);
}

// What the question names.
struct Row {
  explicit Row(const Question& question)
      : trace(question.trace().trace),
        layer(question.layer(trace)),
        head(question.head(trace, layer)),
        row(question.query(trace)),
        part(trace.layers[static_cast<std::size_t>(layer)]),
        kv_head(head / (part.q.size(0) / part.k.size(0))) {}

  Tensor weights() const {
    Tensor weights(DType::kF32, {1, trace.num_keys()});
    lens::trace_rows(trace, static_cast<std::size_t>(layer), head, row, weights.view(), {.num_threads = 1});
    return weights;
  }
  std::map<std::string, std::string> metadata() const {
    return {{"layer", std::to_string(layer)}, {"head", std::to_string(head)}, {"row", std::to_string(row)}};
  }
  // Whether the mask lets the row see a key, the bias apart.
  bool sees(std::int64_t key) const {
    const bool bottom_right = trace.alignment == Alignment::kBottomRight;
    const std::int64_t diagonal = row + (bottom_right ? trace.key_length - trace.num_queries() : 0);
    return key < trace.key_length && (!trace.causal || key <= diagonal) &&
           (trace.window[0] < 0 || key >= diagonal - trace.window[0]) &&
           (trace.window[1] < 0 || key <= diagonal + trace.window[1]);
  }
  double product(std::int64_t key) const {
    double sum = 0;
    for (std::int64_t d = 0; d < part.q.size(2); ++d)
      sum += value(part.q, head, row, d) * value(part.k, kv_head, key, d);
    return sum;
  }
  // Before softmax; -inf where the row does not see the key.
  float score(std::int64_t key) const {
    double score = trace.scale * product(key);
    if (trace.softcap > 0) score = trace.softcap * std::tanh(score / trace.softcap);
    return sees(key) ? static_cast<float>(score + bias(key)) : -std::numeric_limits<float>::infinity();
  }
  double bias(std::int64_t key) const {
    const ConstTensorView& view = part.bias;
    if (!view.defined()) return 0;
    std::int64_t place = 0;
    const std::int64_t at[] = {head, row, key};
    for (int axis = 0; axis < view.rank(); ++axis) {
      if (view.size(axis) != 1) place += at[3 - view.rank() + axis] * view.stride(axis);
    }
    return static_cast<double>(static_cast<const float*>(view.data())[place]);
  }

  const lens::Trace& trace;
  std::int64_t layer, head, row;
  const lens::TraceLayer& part;
  std::int64_t kv_head;
};

}  // namespace

Answer ask_row(const Question& question) {
  const Row row(question);
  Tensor scores(DType::kF32, {row.trace.num_keys()});
  for (std::int64_t j = 0; j < scores.elements(); ++j) {
    scores.as<float>()[j] = row.score(j);
  }
  return tensors_answer({{"scores", scores}, {"weights", row.weights()}}, row.metadata());
}

Answer ask_why(const Question& question) {
  const Row row(question);
  const std::int64_t key = require_int(question.json(), "key", 0, row.trace.num_keys() - 1);
  const std::int64_t depth = row.part.q.size(2);
  Tensor q(DType::kF32, {depth}), k(DType::kF32, {depth}), products(DType::kF32, {depth});
  for (std::int64_t d = 0; d < depth; ++d) {
    const double a = value(row.part.q, row.head, row.row, d), b = value(row.part.k, row.kv_head, key, d);
    q.as<float>()[d] = static_cast<float>(a);
    k.as<float>()[d] = static_cast<float>(b);
    products.as<float>()[d] = static_cast<float>(a * b);
  }
  double dot = 0;
  for (std::int64_t d = 0; d < depth; ++d) dot += static_cast<double>(products.as<float>()[d]);
  Tensor weight(DType::kF32, {1}), score(DType::kF32, {1});
  weight.as<float>()[0] = row.weights().as<float>()[key];
  score.as<float>()[0] = row.score(key);
  auto metadata = row.metadata();
  metadata["dot"] = nlohmann::ordered_json(dot).dump();
  metadata["key"] = std::to_string(key);
  metadata["scale"] = nlohmann::ordered_json(row.trace.scale).dump();
  return tensors_answer({{"q", q}, {"k", k}, {"products", products}, {"weight", weight}, {"score", score}}, metadata);
}

Answer ask_head_output(const Question& question) {
  const Row row(question);
  const ConstTensorView& v = row.part.v;
  if (!v.defined()) question.refuse("the trace has no values: it was written without them");
  const Tensor weights = row.weights();
  Tensor output(DType::kF32, {v.size(2)});
  for (std::int64_t d = 0; d < v.size(2); ++d) {
    double sum = 0;
    for (std::int64_t j = 0; j < v.size(1); ++j) {
      const double weight = static_cast<double>(weights.as<float>()[j]);
      if (weight != 0) sum += weight * value(v, row.kv_head, j, d);
    }
    output.as<float>()[d] = static_cast<float>(sum);
  }
  Tensor values(DType::kF32, {v.size(1), v.size(2)});
  for (std::int64_t i = 0; i < values.elements(); ++i) {
    values.as<float>()[i] = static_cast<float>(value(v, row.kv_head, i / v.size(2), i % v.size(2)));
  }
  return tensors_answer({{"output", output}, {"v", values}, {"weights", weights}}, row.metadata());
}

}  // namespace manyheads::view
