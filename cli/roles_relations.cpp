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

constexpr std::size_t kBestHeads = 3;

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

void print_text(const TreebankReading& found) {
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

}  // namespace

nlohmann::ordered_json treebank_json(const TreebankReading& found) {
  return {{"model", found.model},         {"treebank", found.treebank},
          {"sentences", found.sentences}, {"too_long", found.too_long},
          {"causal", found.causal},       {"relations", lens::relations_json(found.relations)}};
}

TreebankReading read_treebank(const model::TextModel& model, const std::string& model_name, const std::string& file,
                              const std::vector<std::string>& relations, const lens::BatchOptions& options,
                              const std::function<bool(double)>& progress) {
  const std::vector<lens::TreebankSentence> treebank = lens::load_treebank(file);
  const std::vector<std::string> all = lens::relations_of(treebank);
  for (const std::string& asked : relations) {
    for (std::size_t begin = 0; begin <= asked.size();) {
      const std::size_t end = std::min(asked.find('+', begin), asked.size());
      const std::string name = asked.substr(begin, end - begin);
      if (std::find(all.begin(), all.end(), name.substr(0, name.find(':'))) == all.end()) {
        std::string names;
        for (const std::string& known : all) names += (names.empty() ? "" : ", ") + known;
        throw Error(ErrorCode::kInvalidArgument, "--relation: " + base::path_in_quotes(file) + " has no " +
                                                     base::in_quotes(name) + "; it has " + names);
      }
      begin = end + 1;
    }
  }
  const model::EncoderConfig& config = model.encoder().config();
  lens::RelationScorer scorer(relations.empty() ? all : relations, config.num_layers, config.num_heads, config.causal);
  bool going = true;
  const std::size_t too_long = lens::for_each_batch(
      model,
      [&](std::size_t i) {
        if (progress) going = going && progress(static_cast<double>(i) / static_cast<double>(treebank.size() + 1));
        return going && i < treebank.size() ? std::optional(treebank[i].text) : std::nullopt;
      },
      options, [&](std::span<const lens::BatchText> texts) { scorer.add(treebank, texts, options.threads); });
  return {model_name,
          std::filesystem::path(file).filename().string(),
          treebank.size() - too_long,
          too_long,
          config.causal,
          scorer.finish(kBestHeads)};
}

void print_relations(const RolesRequest& request) {
  check_model(request.model);
  lens::load_treebank(request.treebank);  // its errors come before the model is read
  const model::TextModel model(request.model);
  const TreebankReading found = read_treebank(model, model_name(request.model), request.treebank, request.relations,
                                              {{.num_threads = request.common.threads}, request.common.bits});
  if (request.common.json) {
    print_json(treebank_json(found));
  } else {
    print_text(found);
  }
}

}  // namespace manyheads::cli
