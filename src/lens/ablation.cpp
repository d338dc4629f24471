#include "lens/ablation.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <utility>

#include "lens/loss.hpp"

namespace manyheads::lens {
namespace {

double cosine(const float* a, const float* b, std::int64_t n) {
  double ab = 0, aa = 0, bb = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    const double x = static_cast<double>(a[i]), y = static_cast<double>(b[i]);
    ab += x * y;
    aa += x * x;
    bb += y * y;
  }
  return ab / std::sqrt(aa * bb);
}

}  // namespace

AblationScorer::AblationScorer(const model::TextModel& model, model::PoolingConfig pooling)
    : model_(model), pooling_(std::move(pooling)) {
  const model::EncoderConfig& config = model.encoder().config();
  heads_.resize(static_cast<std::size_t>(config.num_layers * config.num_heads));
}

// The mean loss of each text's tokens; of one token none, 0.
std::vector<double> AblationScorer::losses(const Tensor& hidden, const std::vector<std::vector<std::int64_t>>& ids,
                                           const BatchOptions& options) const {
  std::vector<double> result;
  for (std::size_t b = 0; b < ids.size(); ++b) {
    const std::vector<double> own =
        token_losses(*model_.decoder(), hidden, static_cast<std::int64_t>(b), ids[b], options.threads, options.bits);
    const double sum = std::accumulate(own.begin(), own.end(), 0.0);
    result.push_back(own.empty() ? 0 : sum / static_cast<double>(own.size()));
  }
  return result;
}

void AblationScorer::add(std::span<const BatchText> texts, const BatchOptions& options) {
  const model::EncoderConfig& config = model_.encoder().config();
  const bool decoder = model_.decoder() != nullptr;
  std::vector<std::vector<std::int64_t>> ids, type_ids;
  for (const BatchText& text : texts) {
    ids.push_back(text.encoding.ids);
    type_ids.push_back(text.encoding.type_ids);
  }
  const model::TokenBatch batch = model::TokenBatch::from_rows(ids, type_ids);
  Tensor scale(DType::kF32, Dims{config.num_layers, config.num_heads});
  std::fill_n(scale.as<float>(), heads_.size(), 1.0f);
  Workspace workspace;
  model::EncoderOptions run;
  run.threads = options.threads;
  run.bits = options.bits;
  run.workspace = &workspace;
  // The output with the heads of `scale`: losses, or vectors.
  std::vector<double> loss;
  const auto output = [&] {
    const Tensor hidden = model_.encoder().run(batch, run);
    if (!decoder) return model::pool(hidden.cview(), batch.lengths, pooling_);
    loss = losses(hidden, ids, options);
    return Tensor();
  };
  const Tensor whole = output();
  const std::vector<double> whole_loss = loss;
  run.head_scale = scale.cview();
  for (std::size_t head = 0; head < heads_.size(); ++head) {
    scale.as<float>()[head] = 0;
    const Tensor without = output();
    scale.as<float>()[head] = 1;
    for (std::size_t b = 0; b < texts.size(); ++b) {
      const auto tokens = static_cast<double>(ids[b].size());
      if (decoder) {
        if (ids[b].size() > 1) heads_[head].add(loss[b] - whole_loss[b], tokens - 1);
        continue;
      }
      const std::int64_t width = whole.size(1), at = static_cast<std::int64_t>(b) * width;
      heads_[head].add(1 - cosine(whole.as<float>() + at, without.as<float>() + at, width), tokens);
    }
  }
}

RoleScore AblationScorer::finish() const {
  const bool decoder = model_.decoder() != nullptr;
  RoleScore score{decoder ? "ablation_loss" : "ablation_cosine",
                  nullptr,
                  0,
                  true,
                  false,
                  decoder ? "the loss in nats with the head off minus the loss with it on"
                          : "1 - cosine between the text's vector with the head off and with it on",
                  "Michel et al. 2019, Are Sixteen Heads Really Better than One"};
  for (const WeightedMean& mean : heads_) score.values.push_back(mean.value());
  return score;
}

}  // namespace manyheads::lens
