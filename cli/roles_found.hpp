#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lens/head_distances.hpp"
#include "lens/text_scorer.hpp"

namespace manyheads::cli {

// What `roles` finds without a treebank.
struct RolesFound {
  std::string model;
  std::int64_t num_layers = 0, num_heads = 0;
  bool causal = false;
  std::size_t texts = 0, tokens = 0, left_out = 0;
  std::vector<lens::RoleScore> over_texts, switched_off, on_repeats, written;
  std::int64_t repeated = 0;  // random tokens that stand twice
  std::optional<double> first_loss, second_loss;

  struct Alike {
    std::int64_t rows = 0;
    std::vector<double> distances;  // [heads,heads]
    std::vector<lens::HeadCluster> clusters;
  };
  std::optional<Alike> alike, alike_without_special;  // with --clusters

  struct Rollout {
    std::size_t text = 0;
    std::vector<std::string> tokens;
    std::vector<double> shares;
    std::vector<double> without_special;  // the shares made to add up to 1 over the others; NaN of a special token
  };
  std::vector<Rollout> rollouts;  // of the texts of the command line

  std::int64_t layer_of(std::size_t head) const { return static_cast<std::int64_t>(head) / num_heads; }
  std::int64_t head_of(std::size_t head) const { return static_cast<std::int64_t>(head) % num_heads; }
};

void print_roles_text(const RolesFound& found, bool legend);
void print_roles_json(const RolesFound& found);

}  // namespace manyheads::cli
