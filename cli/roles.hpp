#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <manyheads/model/text_model.hpp>
#include <nlohmann/json_fwd.hpp>

#include "cli.hpp"
#include "lens/relations.hpp"
#include "lens/text_batches.hpp"

// The arguments of `roles`, and its parts.
namespace manyheads::cli {

struct RolesRequest {
  Common common;
  std::string model;
  std::vector<std::string> texts;
  std::string file;  // of texts, one a line
  bool ablation = false;
  bool legend = false;
  std::int64_t clusters = 0;  // 0: none
  std::int64_t random_tokens = 50;
  std::uint64_t seed = 1;
  std::string treebank;
  std::vector<std::string> relations;
};

// The scores of every head over the texts, on random tokens that stand twice, and of what it writes.
void print_roles(const RolesRequest& request);

// What heads find in a treebank.
struct TreebankReading {
  std::string model;
  std::string treebank;  // its file's name
  std::size_t sentences = 0, too_long = 0;
  bool causal = false;
  std::vector<lens::RelationReading> relations;
};

// `relations`: those asked for, as --relation takes them; none: all. progress, as view::Progress; what it cancels is
// incomplete.
TreebankReading read_treebank(const model::TextModel& model, const std::string& model_name, const std::string& file,
                              const std::vector<std::string>& relations, const lens::BatchOptions& options,
                              const std::function<bool(double)>& progress = {});
nlohmann::ordered_json treebank_json(const TreebankReading& reading);

// Which heads read the relations of a treebank.
void print_relations(const RolesRequest& request);

}  // namespace manyheads::cli
