#pragma once

#include <manyheads/model/pooling.hpp>
#include <manyheads/model/text_model.hpp>
#include <span>
#include <vector>

#include "lens/text_batches.hpp"
#include "lens/text_scorer.hpp"

namespace manyheads::lens {

// How much a model's output moves when one head is switched off (EncoderOptions::head_scale 0), a mean over texts: of
// an encoder 1 - the cosine between the text's vectors, of a decoder the loss with the head off minus the loss with it
// on. Each batch of texts costs a run for every head.
class AblationScorer {
 public:
  // `pooling` makes an encoder's vector.
  AblationScorer(const model::TextModel& model, model::PoolingConfig pooling);
  void add(std::span<const BatchText> texts, const BatchOptions& options);
  RoleScore finish() const;

 private:
  std::vector<double> losses(const Tensor& hidden, const std::vector<std::vector<std::int64_t>>& ids,
                             const BatchOptions& options) const;

  const model::TextModel& model_;
  model::PoolingConfig pooling_;
  std::vector<WeightedMean> heads_;
};

}  // namespace manyheads::lens
