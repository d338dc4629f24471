#pragma once

#include <string>
#include <vector>

#include "cli.hpp"

// The arguments of `roles`, and its parts.
namespace manyheads::cli {

struct RolesRequest {
  Common common;
  std::string model;
  std::string treebank;
  std::vector<std::string> relations;
};

// Which heads read the relations of a treebank.
void print_relations(const RolesRequest& request);

}  // namespace manyheads::cli
