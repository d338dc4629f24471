#include "lens/pyramid.hpp"

#include <algorithm>
#include <utility>

namespace manyheads::lens {
namespace {

std::int64_t cells(std::int64_t places, std::int64_t side) { return (places + side - 1) / side; }

// The places of a cell along one axis.
std::int64_t places_in(std::int64_t cell, std::int64_t side, std::int64_t places) {
  return std::min(side, places - cell * side);
}

PyramidLevel halved(const PyramidLevel& below, std::int64_t queries, std::int64_t keys) {
  PyramidLevel level = empty_level(2 * below.side, queries, keys);
  for (std::int64_t r = 0; r < level.rows(); ++r) {
    for (std::int64_t c = 0; c < level.keys(); ++c) {
      double sum = 0;
      float largest = 0;
      for (std::int64_t i = 2 * r; i < std::min(2 * r + 2, below.rows()); ++i) {
        for (std::int64_t j = 2 * c; j < std::min(2 * c + 2, below.keys()); ++j) {
          const std::int64_t at = i * below.keys() + j;
          const std::int64_t places = places_in(i, below.side, queries) * places_in(j, below.side, keys);
          sum += static_cast<double>(below.mean.as<float>()[at]) * static_cast<double>(places);
          largest = std::max(largest, below.max.as<float>()[at]);
        }
      }
      const std::int64_t places = places_in(r, level.side, queries) * places_in(c, level.side, keys);
      level.mean.as<float>()[r * level.keys() + c] = static_cast<float>(sum / static_cast<double>(places));
      level.max.as<float>()[r * level.keys() + c] = largest;
    }
  }
  return level;
}

}  // namespace

PyramidLevel empty_level(std::int64_t side, std::int64_t queries, std::int64_t keys) {
  const Dims shape{cells(queries, side), cells(keys, side)};
  PyramidLevel level{side, Tensor(DType::kF32, shape), Tensor(DType::kF32, shape)};
  std::fill_n(level.mean.as<float>(), level.mean.elements(), 0.0f);
  std::fill_n(level.max.as<float>(), level.max.elements(), 0.0f);
  return level;
}

void add_levels(std::int64_t queries, std::int64_t keys, std::vector<PyramidLevel>& levels) {
  while (levels.back().rows() > 1 || levels.back().keys() > 1) {
    PyramidLevel next = halved(levels.back(), queries, keys);
    levels.push_back(std::move(next));
  }
}

}  // namespace manyheads::lens
