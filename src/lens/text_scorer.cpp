#include "lens/text_scorer.hpp"

#include "base/parallel.hpp"
#include "lens/each_row.hpp"
#include "lens/head_scorer.hpp"
#include "lens/token_kinds.hpp"
#include "lens/without_special.hpp"

namespace manyheads::lens {

bool RoleScore::passes(std::size_t head) const {
  const std::optional<double>& value = values[head];
  return role != nullptr && value && (*value > threshold || (at_threshold && *value == threshold));
}

TextScorer::TextScorer(const model::EncoderConfig& config)
    : num_heads_(config.num_heads), by_head_(static_cast<std::size_t>(config.num_layers * config.num_heads)) {
  for (std::vector<WeightedMean>& means : by_head_) means.resize(2 * score_rules().size());
}

void TextScorer::read_head(const BatchText& text, std::size_t head) {
  const TokenKinds kinds = token_kinds(text.trace);
  const WithoutSpecial without(text.trace);
  HeadScorer all(kinds), kept(without.kinds());
  std::vector<float> row;
  std::int64_t query = 0;
  const auto heads = static_cast<std::size_t>(num_heads_);
  for_each_row(text.trace, head / heads, static_cast<std::int64_t>(head % heads), [&](const float* weights) {
    all.add(weights);
    if (without.renormalise(query++, weights, row)) kept.add(row.data());
  });
  const HeadScores scores[2] = {all.finish(), kept.finish()};
  const double rows[2] = {static_cast<double>(kinds.ids.size()), static_cast<double>(without.kinds().ids.size())};
  for (std::size_t rule = 0; rule < score_rules().size(); ++rule) {
    for (std::size_t i = 0; i < 2; ++i) {
      const std::optional<double>& value = scores[i].scores[rule].value;
      if (value) by_head_[head][2 * rule + i].add(*value, rows[i]);
    }
  }
}

void TextScorer::add(std::span<const BatchText> texts, const Threads& threads) {
  // A head's sums run over the texts in order, whatever the threads.
  const auto count = static_cast<std::int64_t>(by_head_.size());
  base::parallel_for(count, base::worker_count(count, threads), threads.executor, [&](std::int64_t head, int) {
    for (const BatchText& text : texts) read_head(text, static_cast<std::size_t>(head));
  });
}

std::vector<RoleScore> TextScorer::finish() const {
  std::vector<RoleScore> scores;
  for (const ScoreRule& rule : score_rules()) {
    for (const bool without : {false, true}) {
      RoleScore score{std::string(rule.name) + (without ? "_without_special" : ""),
                      rule.role,
                      rule.threshold,
                      rule.threshold_is_ours,
                      rule.id == ScoreId::kPositional,
                      rule.formula + std::string(without ? "; without special tokens, A renormalised" : ""),
                      rule.source};
      for (const std::vector<WeightedMean>& means : by_head_) score.values.push_back(means[scores.size()].value());
      scores.push_back(std::move(score));
    }
  }
  return scores;
}

}  // namespace manyheads::lens
