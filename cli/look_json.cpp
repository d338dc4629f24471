#include <algorithm>
#include <nlohmann/json.hpp>

#include "cli.hpp"
#include "findings.hpp"
#include "lens/scores_json.hpp"

namespace manyheads::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kBestInJson = 5;

using lens::json_number;

Json links_json(const Findings& found) {
  Json list = Json::array();
  for (const lens::LinkReading& reading : found.links) {
    const auto& [query, key] = reading.link;
    Json best = Json::array();
    for (std::size_t i = 0; i < std::min(kBestInJson, reading.best.size()); ++i) {
      const auto& head = reading.best[i];
      best.push_back({{"layer", head.layer},
                      {"head", head.head},
                      {"weight", json_number(head.link.weight)},
                      {"offset_mean", json_number(head.link.offset_mean)}});
    }
    list.push_back({{"name", found.word_names[query] + "→" + found.word_names[key]},
                    {"query", found.words[query].text},
                    {"key", found.words[key].text},
                    {"query_word", query},
                    {"key_word", key},
                    {"offset", static_cast<std::int64_t>(key) - static_cast<std::int64_t>(query)},
                    {"best", best},
                    {"mean", json_number(reading.mean)}});
  }
  return list;
}

Json heads_json(const Findings& found) {
  Json list = Json::array();
  for (const lens::HeadReading& reading : found.heads) {
    Json roles = Json::array();
    for (const lens::ScoreRule* rule : reading.scores.roles) roles.push_back(rule->role);
    Json strongest = Json::array();
    for (const lens::WeighedLink& link : reading.strongest) {
      strongest.push_back({{"query", found.words[link.link.query].text},
                           {"key", found.words[link.link.key].text},
                           {"query_word", link.link.query},
                           {"key_word", link.link.key},
                           {"weight", json_number(link.weight)},
                           {"offset_mean", json_number(link.offset_mean)}});
    }
    Json links = Json::array();
    for (const lens::WeighedLink& link : reading.asked) {
      links.push_back({{"weight", json_number(link.weight)}, {"offset_mean", json_number(link.offset_mean)}});
    }
    list.push_back({{"layer", reading.layer},
                    {"head", reading.head},
                    {"scores", lens::scores_json(reading.scores)},
                    {"roles", roles},
                    {"links", links},
                    {"strongest", strongest}});
  }
  return list;
}

}  // namespace

void print_findings_json(const Findings& found, const Shown& shown) {
  Json words = Json::array();
  for (const lens::Word& word : found.words) {
    words.push_back({{"text", word.text},
                     {"first_token", word.first_token},
                     {"num_tokens", word.num_tokens},
                     {"sequence", word.sequence}});
  }
  Json json = {{"model", found.trace.model},
               {"text", found.trace.text},
               {"text2", found.trace.text2 ? Json(*found.trace.text2) : Json(nullptr)},
               {"tokens", found.trace.tokens},
               {"truncated_from", found.full_size > found.trace.tokens.size() ? Json(found.full_size) : Json(nullptr)},
               {"words", words},
               {"num_layers", found.trace.layers.size()},
               {"num_heads", found.trace.num_heads(0)},
               {"links", links_json(found)},
               {"heads", heads_json(found)},
               {"score_rules", lens::rules_json()}};
  if (shown.head) {
    const Tensor weights = weights_of(found, *shown.head, found.trace.num_queries(), shown.threads);
    Json rows = Json::array();
    for (std::int64_t q = 0; q < weights.size(0); ++q) {
      Json row = Json::array();
      for (std::int64_t k = 0; k < weights.size(1); ++k) {
        row.push_back(json_number(static_cast<double>(weights.as<float>()[q * weights.size(1) + k])));
      }
      rows.push_back(row);
    }
    json["head"] = {{"layer", shown.head->layer}, {"head", shown.head->head}, {"weights", rows}};
  }
  print_json(json);
}

}  // namespace manyheads::cli
