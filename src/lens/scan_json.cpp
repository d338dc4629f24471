#include "lens/scan_json.hpp"

#include <algorithm>
#include <manyheads/lens/roles.hpp>
#include <utility>

#include "base/index.hpp"
#include "io/json.hpp"
#include "lens/scan.hpp"

namespace manyheads::lens {
namespace {

using base::at;
using io::OrderedJson;

double number(const ScanFile& scan, const std::string& tensor, std::int64_t i) {
  return scan.tensors.at(tensor).as<double>()[i];
}

std::int64_t whole(const ScanFile& scan, const std::string& tensor, std::int64_t i) {
  return scan.tensors.at(tensor).as<std::int64_t>()[i];
}

std::int64_t count_of(const std::vector<ScanFile::ScoreName>& scores) {
  return static_cast<std::int64_t>(scores.size());
}

OrderedJson example_json(const ScanFile& scan, const PassageText& text_of, std::int64_t row, double value) {
  const std::int64_t* const place = scan.tensors.at("passages").as<std::int64_t>() + 6 * row;
  const std::optional<std::string> text = text_of(row);
  return {{"value", value},
          {"passage", place[0]},
          {"file", scan.files[at(place[1])].name},
          {"offset", place[2]},
          {"length", place[3]},
          {"begin", place[4]},
          {"end", place[5]},
          {"text", text ? OrderedJson(*text) : OrderedJson(nullptr)}};
}

// The examples from `first` on that there are.
OrderedJson examples_json(const ScanFile& scan, const PassageText& text_of, const std::string& which,
                          std::int64_t first, std::int64_t count) {
  OrderedJson list = OrderedJson::array();
  for (std::int64_t e = first; e < first + count; ++e) {
    const std::int64_t row = whole(scan, which + "_passages", e);
    if (row >= 0) list.push_back(example_json(scan, text_of, row, number(scan, which + "_values", e)));
  }
  return list;
}

OrderedJson score_json(const ScanFile& scan, std::int64_t head, std::int64_t score) {
  const std::int64_t i = head * count_of(scan.scores) + score;
  OrderedJson deciles = OrderedJson::array(), histogram = OrderedJson::array();
  for (std::int64_t d = 0; d < kScanDeciles - 1; ++d) {
    deciles.push_back(number(scan, "score_deciles", i * (kScanDeciles - 1) + d));
  }
  for (std::int64_t b = 0; b < ScoreSketch::kParts; ++b) {
    histogram.push_back(whole(scan, "score_histogram", i * ScoreSketch::kParts + b));
  }
  return {{"name", scan.scores[at(score)].name},
          {"count", whole(scan, "score_count", i)},
          {"mean", number(scan, "score_mean", i)},
          {"min", number(scan, "score_min", i)},
          {"max", number(scan, "score_max", i)},
          {"error", number(scan, "score_error", i)},
          {"deciles", deciles},
          {"range", {number(scan, "score_range", 2 * i), number(scan, "score_range", 2 * i + 1)}},
          {"histogram", histogram}};
}

void add_examples(const ScanFile& scan, const PassageText& text_of, std::int64_t head, std::int64_t score,
                  OrderedJson& json) {
  const std::int64_t i = head * count_of(scan.scores) + score;
  json["top"] = examples_json(scan, text_of, "top", i * kScanTop, kScanTop);
  json["samples"] = OrderedJson::array();
  for (std::int64_t d = 0; d < kScanDeciles; ++d) {
    json["samples"].push_back(
        examples_json(scan, text_of, "sample", (i * kScanDeciles + d) * kScanSamples, kScanSamples));
  }
}

OrderedJson tokens_json(const ScanFile& scan, const std::string& which, std::int64_t head) {
  OrderedJson list = OrderedJson::array();
  for (std::int64_t i = head * kScanTokens; i < (head + 1) * kScanTokens; ++i) {
    const std::int64_t id = whole(scan, which + "_tokens", i);
    if (id < 0) break;
    list.push_back({{"token", scan.tokens_by_id.at(id)},
                    {"id", id},
                    {"mass", number(scan, which + "_mass", i)},
                    {"count", whole(scan, which + "_count", i)}});
  }
  return list;
}

// The roles whose score passes its threshold in the mean over the passages.
OrderedJson roles_json(const ScanFile& scan, std::int64_t head) {
  OrderedJson roles = OrderedJson::array();
  for (std::int64_t s = 0; s < count_of(scan.scores); ++s) {
    const std::int64_t i = head * count_of(scan.scores) + s;
    if (whole(scan, "score_count", i) == 0) continue;
    for (const ScoreRule& rule : score_rules()) {
      if (rule.name == scan.scores[at(s)].name && passes(rule, number(scan, "score_mean", i)))
        roles.push_back(rule.role);
    }
  }
  return roles;
}

// Shares of all weights by the distance query - key, [begin, end].
OrderedJson distances_json(const ScanFile& scan, std::int64_t head) {
  const Tensor& edges = scan.tensors.at("distance_edges");
  const std::int64_t bins = edges.size(0) - 1;
  double all = 0;
  for (std::int64_t bin = 0; bin < bins; ++bin) all += number(scan, "distance_mass", head * bins + bin);
  OrderedJson list = OrderedJson::array();
  for (std::int64_t bin = 0; bin < bins && all > 0; ++bin) {
    const double mass = number(scan, "distance_mass", head * bins + bin);
    if (mass == 0) continue;
    list.push_back({{"begin", edges.as<std::int64_t>()[bin]},
                    {"end", edges.as<std::int64_t>()[bin + 1] - 1},
                    {"share", mass / all}});
  }
  return list;
}

}  // namespace

std::vector<std::int64_t> heads_by_mean(const ScanFile& scan, std::int64_t score) {
  const auto place = [&](std::int64_t head) { return head * count_of(scan.scores) + score; };
  std::vector<std::int64_t> order;
  for (std::int64_t head = 0; head < scan.layers() * scan.heads(); ++head) {
    if (whole(scan, "score_count", place(head)) > 0) order.push_back(head);
  }
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
    return number(scan, "score_mean", place(a)) > number(scan, "score_mean", place(b));
  });
  return order;
}

std::vector<double> component_shares(const ScanFile& scan, const std::string& of, std::int64_t head) {
  const Tensor& variance = scan.tensors.at(of + "_variance");
  const std::int64_t each = variance.size(1), count = variance.size(2);
  const std::int64_t group = std::max<std::int64_t>(1, scan.heads() / std::max<std::int64_t>(1, each));
  const std::int64_t place = head / scan.heads() * each + std::min<std::int64_t>(each - 1, head % scan.heads() / group);
  const double total = number(scan, of + "_total_variance", place);
  std::vector<double> shares;
  for (std::int64_t c = 0; c < count; ++c) {
    shares.push_back(total > 0 ? variance.as<double>()[place * count + c] / total : 0.0);
  }
  return shares;
}

OrderedJson scan_json(const ScanFile& scan, const ScanPart& part, const PassageText& text_of) {
  std::vector<std::int64_t> order;
  if (part.head) {
    order = {*part.head};
  } else if (part.score) {
    order = heads_by_mean(scan, *part.score);
  } else {
    for (std::int64_t head = 0; head < scan.layers() * scan.heads(); ++head) order.push_back(head);
  }
  OrderedJson heads = OrderedJson::array();
  for (const std::int64_t h : order) {
    OrderedJson scores = OrderedJson::array();
    for (std::int64_t s = 0; s < count_of(scan.scores); ++s) {
      if (part.score && *part.score != s) continue;
      OrderedJson score = score_json(scan, h, s);
      if (part.head) add_examples(scan, text_of, h, s, score);
      scores.push_back(std::move(score));
    }
    OrderedJson head = {{"layer", h / scan.heads()}, {"head", h % scan.heads()}, {"scores", scores}};
    head["roles"] = roles_json(scan, h);
    if (part.head) {
      head["asking"] = tokens_json(scan, "asking", h);
      head["asked"] = tokens_json(scan, "asked", h);
      head["distances"] = distances_json(scan, h);
      head["query_components"] = component_shares(scan, "query", h);
      head["key_components"] = component_shares(scan, "key", h);
    }
    heads.push_back(std::move(head));
  }
  OrderedJson files = OrderedJson::array(), rules = OrderedJson::array();
  for (const ScanFile::File& file : scan.files) files.push_back(file.name);
  for (const ScanFile::ScoreName& score : scan.scores) {
    rules.push_back({{"name", score.name}, {"formula", score.formula}, {"source", score.source}});
  }
  return {{"model", scan.model},   {"files", files},    {"passages", scan.passages},
          {"tokens", scan.tokens}, {"seed", scan.seed}, {"score_rules", rules},
          {"heads", heads}};
}

}  // namespace manyheads::lens
