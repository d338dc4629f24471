#include "lens/scores_json.hpp"

#include <cmath>

#include "io/json.hpp"

namespace manyheads::lens {

using io::OrderedJson;

OrderedJson json_number(const std::optional<double>& value) {
  return value && std::isfinite(*value) ? OrderedJson(*value) : OrderedJson(nullptr);
}

OrderedJson scores_json(const HeadScores& scores) {
  OrderedJson json = OrderedJson::object();
  for (const ScoreRule& rule : score_rules()) {
    const Score& score = scores.scores[static_cast<std::size_t>(rule.id)];
    json[rule.name] = json_number(score.value);
    const bool has_place = rule.id == ScoreId::kPositional || rule.id == ScoreId::kSink;
    if (has_place) {
      json[rule.id == ScoreId::kSink ? "sink_key" : "positional_offset"] =
          score.place ? OrderedJson(*score.place) : OrderedJson(nullptr);
    }
  }
  return json;
}

OrderedJson rules_json() {
  OrderedJson list = OrderedJson::array();
  for (const ScoreRule& rule : score_rules()) {
    list.push_back({{"score", rule.name},
                    {"role", rule.role == nullptr ? OrderedJson(nullptr) : OrderedJson(rule.role)},
                    {"threshold", rule.role == nullptr ? OrderedJson(nullptr) : OrderedJson(rule.threshold)},
                    {"threshold_from", rule.role == nullptr     ? OrderedJson(nullptr)
                                       : rule.threshold_is_ours ? OrderedJson("manyheads")
                                                                : OrderedJson("source")},
                    {"formula", rule.formula},
                    {"source", rule.source}});
  }
  return list;
}

}  // namespace manyheads::lens
