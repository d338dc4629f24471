#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "cli.hpp"

namespace manyheads::cli {

struct MapRequest {
  Common common;
  std::string source, model, head, rows, keys, out;  // source: a trace, or with a model a text; no head: the page's
  std::optional<std::string> pair;
  bool truncate = false;
  std::string pool = "mean";
  std::int64_t size = 512;
};

// Writes the map to request.out and reports it, as the verb does.
void map(const MapRequest& request);

}  // namespace manyheads::cli
