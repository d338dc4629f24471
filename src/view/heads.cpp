#include <manyheads/lens/links.hpp>
#include <manyheads/lens/read_heads.hpp>
#include <vector>

#include "lens/scores_json.hpp"
#include "view/state.hpp"

// What a trace holds, and what each of its heads does.
namespace manyheads::view {
namespace {

using Json = nlohmann::ordered_json;

Json words_json(const std::vector<lens::Word>& words) {
  Json list = Json::array();
  for (const lens::Word& word : words) {
    list.push_back({{"text", word.text},
                    {"first_token", word.first_token},
                    {"num_tokens", word.num_tokens},
                    {"sequence", word.sequence}});
  }
  return list;
}

}  // namespace

Answer ask_trace(const Question& question) {
  const lens::Trace& trace = question.trace().trace;
  const bool any = !trace.layers.empty();
  return json_answer({{"id", question.json().value.at("trace")},
                      {"model", trace.model},
                      {"text", trace.text},
                      {"text2", trace.text2 ? Json(*trace.text2) : Json(nullptr)},
                      {"tokens", trace.tokens},
                      {"token_ids", trace.token_ids},
                      {"words", words_json(lens::words_of(trace))},
                      {"word_of_token", trace.words},
                      {"sequences", trace.sequences},
                      {"offsets", trace.offsets},
                      {"layers", trace.layers.size()},
                      {"heads", any ? trace.num_heads(0) : 0},
                      {"kv_heads", any ? trace.layers[0].k.size(0) : 0},
                      {"d", any ? trace.layers[0].q.size(2) : 0},
                      {"queries", trace.num_queries()},
                      {"keys", trace.num_keys()},
                      {"causal", trace.causal},
                      {"scale", trace.scale},
                      {"softcap", trace.softcap},
                      {"has_values", any && trace.layers[0].v.defined()},
                      {"has_row_sum", any && trace.layers[0].row_sum.defined()}});
}

Answer ask_heads(const Question& question) {
  const lens::Trace& trace = question.trace().trace;
  const std::vector<lens::HeadReading> readings =
      lens::read_heads(trace, lens::words_of(trace), {}, 0, question.threads(), question.progress());
  if (readings.empty() && !trace.layers.empty()) return cancelled();
  Json heads = Json::array();
  for (const lens::HeadReading& reading : readings) {
    Json roles = Json::array();
    for (const lens::ScoreRule* rule : reading.scores.roles) roles.push_back(rule->role);
    heads.push_back({{"layer", reading.layer},
                     {"head", reading.head},
                     {"scores", lens::scores_json(reading.scores)},
                     {"roles", roles}});
  }
  return json_answer({{"heads", heads}, {"score_rules", lens::rules_json()}});
}

Answer ask_links(const Question& question) {
  const lens::Trace& trace = question.trace().trace;
  const std::vector<lens::Word> words = lens::words_of(trace);
  const auto count = static_cast<std::int64_t>(words.size());
  std::vector<lens::Link> links;
  for (const io::JsonDocument& pair : require_array(question.json(), "pairs")) {
    const std::vector<std::int64_t> at = numbers(pair, {count, count});
    links.push_back({static_cast<std::size_t>(at[0]), static_cast<std::size_t>(at[1])});
  }
  const std::vector<lens::HeadReading> heads =
      lens::read_heads(trace, words, links, 0, question.threads(), question.progress());
  if (heads.empty() && !trace.layers.empty()) return cancelled();
  Json list = Json::array();
  for (std::size_t i = 0; i < links.size(); ++i) {
    Json of_heads = Json::array();
    double sum = 0;
    for (const lens::HeadReading& reading : heads) {
      const lens::WeighedLink& link = reading.asked[i];
      if (reading.layer == of_heads.size()) of_heads.push_back(Json::array());
      of_heads.back().push_back(
          {{"weight", lens::json_number(link.weight)}, {"offset_mean", lens::json_number(link.offset_mean)}});
      sum += link.weight;
    }
    const auto& [query, key] = links[i];
    list.push_back({{"query_word", query},
                    {"key_word", key},
                    {"query", words[query].text},
                    {"key", words[key].text},
                    {"offset", static_cast<std::int64_t>(key) - static_cast<std::int64_t>(query)},
                    {"heads", of_heads},
                    {"mean", lens::json_number(heads.empty() ? 0 : sum / static_cast<double>(heads.size()))}});
  }
  return json_answer({{"links", list}});
}

}  // namespace manyheads::view
