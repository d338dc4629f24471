#include "lens/scores_json.hpp"

#include <cmath>

namespace manyheads::lens {

using Json = nlohmann::ordered_json;

Json json_number(const std::optional<double>& value) {
  return value && std::isfinite(*value) ? Json(*value) : Json(nullptr);
}

Json scores_json(const HeadScores& scores) {
  Json json = Json::object();
  for (const ScoreRule& rule : score_rules()) {
    const Score& score = scores.scores[static_cast<std::size_t>(rule.id)];
    json[rule.name] = json_number(score.value);
    const bool has_place = rule.id == ScoreId::kPositional || rule.id == ScoreId::kSink;
    if (has_place) {
      json[rule.id == ScoreId::kSink ? "sink_key" : "positional_offset"] =
          score.place ? Json(*score.place) : Json(nullptr);
    }
  }
  return json;
}

Json rules_json() {
  Json list = Json::array();
  for (const ScoreRule& rule : score_rules()) {
    list.push_back({{"score", rule.name},
                    {"role", rule.role == nullptr ? Json(nullptr) : Json(rule.role)},
                    {"threshold", rule.role == nullptr ? Json(nullptr) : Json(rule.threshold)},
                    {"threshold_from", rule.role == nullptr     ? Json(nullptr)
                                       : rule.threshold_is_ours ? Json("manyheads")
                                                                : Json("source")},
                    {"formula", rule.formula},
                    {"source", rule.source}});
  }
  return list;
}

}  // namespace manyheads::lens
