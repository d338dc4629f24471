#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <vector>

#include "lens/relations.hpp"

namespace manyheads::lens {

// [{"relation": "amod", "direction": "to_head", ..., "heads": [...]}, ...], one for each reading.
nlohmann::ordered_json relations_json(const std::vector<RelationReading>& readings);

}  // namespace manyheads::lens
