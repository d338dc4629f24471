#pragma once

#include <cstddef>
#include <cstdint>
#include <manyheads/lens/roles.hpp>
#include <manyheads/model/encoder.hpp>
#include <manyheads/parallel.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lens/text_batches.hpp"

// Scores of every head of a model.
namespace manyheads::lens {

// A score and its value for each head, by layer and head; none where nothing gives one.
struct RoleScore {
  std::string name;            // "previous_without_special"
  const char* role = nullptr;  // the badge; null for a score that gives none
  double threshold = 0;
  bool threshold_is_ours = true;
  bool at_threshold = false;  // whether the threshold itself passes
  std::string formula;
  const char* source = "";
  std::vector<std::optional<double>> values{};

  bool passes(std::size_t head) const;
};

// A mean with weights.
class WeightedMean {
 public:
  void add(double value, double weight) {
    sum_ += weight * value;
    weights_ += weight;
  }
  std::optional<double> value() const {
    if (weights_ == 0) return std::nullopt;
    return sum_ / weights_;
  }

 private:
  double sum_ = 0, weights_ = 0;
};

// Means over texts of the scores of score_rules(), a text weighted by its tokens: over all tokens, and once more
// without special ones (WithoutSpecial).
class TextScorer {
 public:
  explicit TextScorer(const model::EncoderConfig& config);
  void add(std::span<const BatchText> texts, const Threads& threads);
  // Each rule, and behind it the same without special tokens.
  std::vector<RoleScore> finish() const;

 private:
  void read_head(const BatchText& text, std::size_t head);

  std::int64_t num_heads_;
  std::vector<std::vector<WeightedMean>> by_head_;  // by head; of each rule with special tokens and without
};

}  // namespace manyheads::lens
