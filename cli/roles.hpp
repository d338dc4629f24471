#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli.hpp"

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

// Which heads read the relations of a treebank.
void print_relations(const RolesRequest& request);

}  // namespace manyheads::cli
