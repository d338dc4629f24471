#include <algorithm>
#include <filesystem>
#include <manyheads/error.hpp>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "base/file.hpp"
#include "base/format.hpp"
#include "lens/relations.hpp"
#include "lens/relations_json.hpp"
#include "lens/treebank.hpp"
#include "lens/unicode.hpp"
#include "roles.hpp"
#include "text.hpp"

namespace manyheads::cli {
namespace {

using lens::RelationReading;

constexpr std::size_t kBest = 3;

struct Found {
  std::string model;
  std::string treebank;  // its file's name
  std::size_t sentences = 0, too_long = 0;
  bool causal = false;
  std::vector<RelationReading> relations;
};

bool any_reads(const RelationReading& reading) {
  return std::any_of(reading.best.begin(), reading.best.end(), [](const auto& head) { return head.reads; });
}

std::string percent(double share) { return base::format("{:.0f} %", 100 * share); }

std::string relation_text(const RelationReading& reading) {
  std::string out =
      base::format("{}, {}: {} words", lens::printable(reading.relation),
                   reading.to_head ? "word → its head" : "head → its word", reading.chosen_on + reading.scored_on);
  if (reading.left_out > 0) out += base::format(", {} left out", reading.left_out);
  out += "\n";
  if (reading.unseen > 0) {
    out += base::format("  invisible to this model for {} more: their partner stands later\n", reading.unseen);
  }
  if (!reading.enough()) {
    return out + base::format("  too few to say anything: {} in each half are needed\n", RelationReading::kFewest);
  }
  out += base::format("  {:<8}{:>6}\n", reading.offset ? base::format("{:+d}", *reading.offset) : "",
                      percent(reading.offset_accuracy));
  for (const lens::HeadOnRelation& head : reading.best) {
    out += base::format("  {:<8}{:>6}  ({:.0f} to {:.0f} %)  weight {:.2f}{}\n",
                        base::format("{}.{}", head.layer, head.head), percent(head.accuracy), 100 * head.interval[0],
                        100 * head.interval[1], head.mean_weight, head.reads ? "  reads it" : "");
  }
  if (!any_reads(reading)) out += "  no head reads it: none lies above the offset in both halves\n";
  return out;
}

void print_text(const Found& found) {
  std::string out = base::format(
      "{}, {} of {}{}\n"
      "A head is right where its heaviest word is the partner in the tree. The three heads are the best on every "
      "second\n"
      "sentence. They are scored on the others (95 % interval), beside the fixed offset that finds most words of "
      "these.\n"
      "A head reads a relation where in both halves its whole interval lies above the best offset's share. Weight: "
      "its\n"
      "mean on the partners.\n",
      found.model, found.sentences == 1 ? "1 sentence" : base::format("{} sentences", found.sentences),
      lens::printable(found.treebank),
      found.too_long > 0
          ? base::format(", {} left out: longer than the model takes, or without a token", found.too_long)
          : "");
  if (found.causal) {
    out += "In this model a word sees only earlier words. The first token of a text is no partner: heads rest on it.\n";
  }
  for (const RelationReading& reading : found.relations) out.append("\n").append(relation_text(reading));
  print(out);
}

void print_as_json(const Found& found) {
  print_json({{"model", found.model},
              {"treebank", found.treebank},
              {"sentences", found.sentences},
              {"too_long", found.too_long},
              {"causal", found.causal},
              {"relations", lens::relations_json(found.relations)}});
}

}  // namespace

void print_relations(const RolesRequest& request) {
  check_model(request.model);
  const std::vector<lens::TreebankSentence> treebank = lens::load_treebank(request.treebank);
  const std::vector<std::string> all = lens::relations_of(treebank);
  for (const std::string& asked : request.relations) {
    for (std::size_t begin = 0; begin <= asked.size();) {
      const std::size_t end = std::min(asked.find('+', begin), asked.size());
      const std::string name = asked.substr(begin, end - begin);
      if (std::find(all.begin(), all.end(), name.substr(0, name.find(':'))) == all.end()) {
        std::string names;
        for (const std::string& known : all) names += (names.empty() ? "" : ", ") + known;
        throw Error(ErrorCode::kInvalidArgument, "--relation: " + base::path_in_quotes(request.treebank) + " has no " +
                                                     base::in_quotes(name) + "; it has " + names);
      }
      begin = end + 1;
    }
  }
  const model::TextModel model(request.model);
  const model::EncoderConfig& config = model.encoder().config();
  lens::RelationScorer scorer(request.relations.empty() ? all : request.relations, config.num_layers, config.num_heads,
                              config.causal);
  const Threads threads{.num_threads = request.common.threads};
  const std::size_t too_long = lens::for_each_batch(
      model, [&](std::size_t i) { return i < treebank.size() ? std::optional(treebank[i].text) : std::nullopt; },
      {threads, request.common.bits},
      [&](std::span<const lens::BatchText> texts) { scorer.add(treebank, texts, threads); });
  const Found found{model_name(request.model),
                    std::filesystem::path(request.treebank).filename().string(),
                    treebank.size() - too_long,
                    too_long,
                    config.causal,
                    scorer.finish(kBest)};
  if (request.common.json) {
    print_as_json(found);
  } else {
    print_text(found);
  }
}

}  // namespace manyheads::cli
