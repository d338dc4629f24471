#pragma once

#include <cstdint>
#include <manyheads/lens/head_map.hpp>
#include <vector>

namespace manyheads::lens {

// A level of zeros for that many queries and keys.
PyramidLevel empty_level(std::int64_t side, std::int64_t queries, std::int64_t keys);

// Adds the levels above the first, down to one cell. A cell weighs by the places that the matrix has in it.
void add_levels(std::int64_t queries, std::int64_t keys, std::vector<PyramidLevel>& levels);

}  // namespace manyheads::lens
