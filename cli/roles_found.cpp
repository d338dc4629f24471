#include "roles_found.hpp"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/format.hpp"
#include "cli.hpp"
#include "lens/unicode.hpp"

namespace manyheads::cli {
namespace {

using Json = nlohmann::ordered_json;
using lens::RoleScore;

constexpr std::size_t kBest = 4;
constexpr std::size_t kBestTokens = 6;
constexpr std::string_view kWithout = "_without_special";

std::string name_of(const RolesFound& found, std::size_t head) {
  return base::format("{}.{}", found.layer_of(head), found.head_of(head));
}

// "previous", or "  without special tokens" on the line behind it.
std::string title_of(const std::string& name) { return name.ends_with(kWithout) ? "  without special tokens" : name; }

std::string score_text(const RolesFound& found, const RoleScore& score, bool legend) {
  std::vector<std::size_t> order;
  std::size_t passing = 0;
  for (std::size_t i = 0; i < score.values.size(); ++i) {
    if (score.values[i] && !std::isnan(*score.values[i])) order.push_back(i);
    passing += score.passes(i) ? 1 : 0;
  }
  if (order.empty()) return "";
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return *score.values[a] > *score.values[b]; });
  std::string out = base::format("  {:<28}", title_of(score.name));
  if (score.role != nullptr) {
    out += base::format("{:>4} {} {:<4}", passing, score.at_threshold ? ">=" : "> ", score.threshold);
  } else {
    out += base::format("{:12}", "");
  }
  for (std::size_t i = 0; i < std::min(kBest, order.size()); ++i) {
    out += base::format("  {:>5} {:<7.3g}", name_of(found, order[i]), *score.values[order[i]]);
  }
  out.erase(out.find_last_not_of(' ') + 1);
  out += "\n";
  if (legend) out += base::format("      {} ({})\n", score.formula, score.source);
  return out;
}

std::string scores_text(const RolesFound& found, const std::string& title, const std::vector<RoleScore>& scores,
                        bool legend) {
  std::string out;
  for (const RoleScore& score : scores) out += score_text(found, score, legend);
  return out.empty() ? out : title + ":\n" + out;
}

std::string clusters_text(const RolesFound& found, const RolesFound::Alike& alike, const char* without) {
  std::string out = base::format(
      "\nClusters of heads by the mean Jensen-Shannon divergence of their rows, in nats, over {} rows{}:\n", alike.rows,
      without);
  for (const lens::HeadCluster& cluster : alike.clusters) {
    std::string heads;
    for (const std::size_t head : cluster.heads) heads.append(" ").append(name_of(found, head));
    out += base::format("  {:.3f} within {}:{}\n", cluster.mean_distance, cluster.heads.size(), heads);
  }
  return out;
}

// The tokens with the largest shares.
std::string shares_text(const std::vector<std::string>& tokens, const std::vector<double>& shares) {
  std::vector<std::size_t> order;
  for (std::size_t t = 0; t < shares.size(); ++t) {
    if (!std::isnan(shares[t])) order.push_back(t);
  }
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return shares[a] > shares[b]; });
  std::string out;
  for (std::size_t i = 0; i < std::min(kBestTokens, order.size()); ++i) {
    out += base::format("  {} {:.2f}", lens::printable(tokens[order[i]]), shares[order[i]]);
  }
  return out + "\n";
}

Json number(const std::optional<double>& value) {
  return value && std::isfinite(*value) ? Json(*value) : Json(nullptr);
}

Json rule_json(const RoleScore& score) {
  const bool role = score.role != nullptr;
  return {{"score", score.name},
          {"role", role ? Json(score.role) : Json(nullptr)},
          {"threshold", role ? Json(score.threshold) : Json(nullptr)},
          {"threshold_from", !role                     ? Json(nullptr)
                             : score.threshold_is_ours ? Json("manyheads")
                                                       : Json("source")},
          {"formula", score.formula},
          {"source", score.source}};
}

Json alike_json(const RolesFound& found, const std::optional<RolesFound::Alike>& alike) {
  if (!alike) return nullptr;
  Json clusters = Json::array(), distances = Json::array();
  for (const lens::HeadCluster& cluster : alike->clusters) {
    Json heads = Json::array();
    for (const std::size_t head : cluster.heads) {
      heads.push_back({{"layer", found.layer_of(head)}, {"head", found.head_of(head)}});
    }
    clusters.push_back({{"heads", heads}, {"mean_distance", cluster.mean_distance}});
  }
  const auto heads = static_cast<std::ptrdiff_t>(found.num_layers * found.num_heads);
  for (auto row = alike->distances.begin(); row != alike->distances.end(); row += heads) {
    distances.push_back(std::vector<double>(row, row + heads));
  }
  return {{"rows", alike->rows}, {"distances", distances}, {"clusters", clusters}};
}

}  // namespace

void print_roles_text(const RolesFound& found, bool legend) {
  std::string out = base::format("{}, {} layers of {} heads", found.model, found.num_layers, found.num_heads);
  if (found.texts > 0) {
    out += base::format(", {} text{} of {} tokens", found.texts, found.texts == 1 ? "" : "s", found.tokens);
  }
  if (found.left_out > 0) {
    out += base::format(", {} left out: longer than the model takes, or without a token", found.left_out);
  }
  out += "\nA score, how many heads pass its threshold, and the heads with the largest values.";
  out += legend ? "\n" : " --legend: formulas and sources.\n";
  out += scores_text(found, "\nOver the texts", found.over_texts, legend);
  out += scores_text(found, "\nSwitched off, how far the output moves", found.switched_off, legend);
  out += scores_text(found, base::format("\nOn {} random tokens that stand twice", found.repeated), found.on_repeats,
                     legend);
  if (found.first_loss) {
    out += base::format("  loss {:.2f} nats in the first copy, {:.2f} in the second\n", *found.first_loss,
                        *found.second_loss);
  }
  out += scores_text(found, "\nWhat it writes on reading a token, to that token's logit", found.written, legend);
  if (found.alike) {
    out += clusters_text(found, *found.alike, "");
    out += clusters_text(found, *found.alike_without_special, " without special tokens");
  }
  if (!found.rollouts.empty()) {
    out += base::format("\nAttention rollout (Abnar & Zuidema 2020), what each token gets of {}:\n",
                        found.causal ? "the last token's output" : "the mean output");
    for (const RolesFound::Rollout& rollout : found.rollouts) {
      out += shares_text(rollout.tokens, rollout.shares);
      out += "    without special tokens" + shares_text(rollout.tokens, rollout.without_special);
    }
  }
  print(out);
}

void print_roles_json(const RolesFound& found) {
  std::vector<const RoleScore*> scores;
  for (const auto* group : {&found.over_texts, &found.switched_off, &found.on_repeats, &found.written}) {
    for (const RoleScore& score : *group) scores.push_back(&score);
  }
  Json heads = Json::array(), rules = Json::array(), rollouts = Json::array();
  for (const RoleScore* score : scores) rules.push_back(rule_json(*score));
  for (std::size_t i = 0; i < static_cast<std::size_t>(found.num_layers * found.num_heads); ++i) {
    Json values = Json::object(), roles = Json::array();
    for (const RoleScore* score : scores) {
      values[score->name] = number(score->values[i]);
      if (score->passes(i)) roles.push_back(score->name);
    }
    heads.push_back({{"layer", found.layer_of(i)}, {"head", found.head_of(i)}, {"scores", values}, {"roles", roles}});
  }
  for (const RolesFound::Rollout& rollout : found.rollouts) {
    rollouts.push_back({{"text", rollout.text},
                        {"tokens", rollout.tokens},
                        {"shares", rollout.shares},
                        {"shares_without_special", rollout.without_special}});
  }
  print_json({{"model", found.model},
              {"num_layers", found.num_layers},
              {"num_heads", found.num_heads},
              {"texts", found.texts},
              {"tokens", found.tokens},
              {"left_out", found.left_out},
              {"repeated_tokens", found.repeated},
              {"first_loss", number(found.first_loss)},
              {"second_loss", number(found.second_loss)},
              {"heads", heads},
              {"score_rules", rules},
              {"alike", alike_json(found, found.alike)},
              {"alike_without_special", alike_json(found, found.alike_without_special)},
              {"rollouts", rollouts}});
}

}  // namespace manyheads::cli
