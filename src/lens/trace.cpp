#include <algorithm>
#include <cmath>
#include <manyheads/lens/patch.hpp>
#include <manyheads/lens/trace.hpp>
#include <utility>
#include <vector>

#include "base/math.hpp"
#include "base/parallel.hpp"
#include "lens/trace_pass.hpp"

namespace manyheads::lens {
namespace {

// log of the sum of exp(scale q k) over the keys that a query sees, [Hq,T].
Tensor lse_in_double(const ConstTensorView& q, const ConstTensorView& k, double scale, bool causal,
                     const TraceOptions& options) {
  Tensor lse(DType::kF32, Dims{q.size(0), q.size(1)});
  float* out = lse.as<float>();
  const std::int64_t rows = q.size(0) * q.size(1);
  const int workers = base::worker_count(rows, options.threads);
  base::parallel_for(rows, workers, options.threads.executor, [&](std::int64_t i, int) {
    const std::int64_t head = i / q.size(1), row = i % q.size(1), kv_head = head / (q.size(0) / k.size(0));
    const float* query = static_cast<const float*>(q.data()) + head * q.stride(0) + row * q.stride(1);
    const std::int64_t keys = causal ? row + 1 : k.size(1);
    std::vector<double> scores(static_cast<std::size_t>(keys));
    for (std::int64_t j = 0; j < keys; ++j) {
      const float* key = static_cast<const float*>(k.data()) + kv_head * k.stride(0) + j * k.stride(1);
      double sum = 0;
      for (std::int64_t d = 0; d < k.size(2); ++d) {
        sum += static_cast<double>(query[d * q.stride(2)]) * static_cast<double>(key[d * k.stride(2)]);
      }
      scores[static_cast<std::size_t>(j)] = scale * sum;
    }
    const double largest = *std::max_element(scores.begin(), scores.end());
    double sum = 0;
    for (const double score : scores) sum += base::exp(score - largest);
    out[i] = static_cast<float>(largest + base::log(sum));
  });
  return lse;
}

}  // namespace

void add_pass(const model::Encoder& encoder, const model::Encoding& encoding, std::span<const model::LayerHeads> layers,
              std::int64_t entry, Trace& trace) {
  trace.tokens = encoding.tokens;
  trace.token_ids = encoding.ids;
  trace.offsets = encoding.offsets;
  trace.words = encoding.words;
  trace.sequences.assign(encoding.sequences.begin(), encoding.sequences.end());
  trace.scale = encoder.config().scale;
  trace.causal = encoder.config().causal;
  trace.key_length = static_cast<std::int64_t>(encoding.size());
  for (const model::LayerHeads& layer : layers) {
    const model::EntryHeads heads = layer.entry(entry);
    trace.layers.push_back({heads.q, heads.k, heads.lse, {}, {}, {}, layer.storage});
  }
}

Trace make_trace(const model::Encoder& encoder, const model::Encoding& encoding, const std::string& model,
                 const std::string& text, const TraceOptions& options) {
  std::vector<model::LayerHeads> layers;
  model::EncoderOptions run;
  run.layers = &layers;
  run.threads = options.threads;
  run.bits = options.bits;
  run.head_scale = options.head_scale;
  Tensor hidden = encoder.run(model::TokenBatch::from_rows({encoding.ids}, {encoding.type_ids}), run);
  if (options.hidden != nullptr) *options.hidden = std::move(hidden);

  Trace trace;
  trace.model = model;
  trace.text = text;
  trace.text2 = options.text2;
  add_pass(encoder, encoding, layers, 0, trace);
  for (std::size_t i = 0; i < trace.layers.size(); ++i) {
    TraceLayer& layer = trace.layers[i];
    if (options.values) layer.v = layers[i].entry().v;
    if (!options.lse_in_double) continue;
    layer.storage.push_back(lse_in_double(layer.q, layer.k, trace.scale, trace.causal, options));
    layer.lse = layer.storage.back().cview();
  }
  for (std::size_t i = 0; options.row_sums && i < trace.layers.size(); ++i) add_row_sums(trace, i, options.threads);
  return trace;
}

AttentionOptions attention_options(const Trace& trace) {
  AttentionOptions options;
  options.scale = trace.scale;
  options.softcap = trace.softcap;
  options.mask.causal = trace.causal;
  options.mask.window_left = trace.window[0];
  options.mask.window_right = trace.window[1];
  options.mask.alignment = trace.alignment;
  if (trace.key_length != trace.num_keys()) {
    options.mask.key_lengths = ConstTensorView(&trace.key_length, Dims{1});
  }
  return options;
}

}  // namespace manyheads::lens
