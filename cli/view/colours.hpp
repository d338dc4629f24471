#pragma once

#include <cstddef>
#include <vector>

#include "png.hpp"

// The colours of the page (viewer/src/style/tokens.css), for figures that no browser draws.
namespace manyheads::cli {

struct Theme {
  Colour paper, line, edge, ink, quiet, q, k, v, w, less, more;
};

const Theme& theme_of(bool dark);

// Weights from 0 to 1 as the page colours them: steps that look equal, from paper to the theme's w.
class WeightRamp {
 public:
  explicit WeightRamp(const Theme& theme);
  // As the page's small maps: the square root makes small weights visible. `largest` is the last colour.
  Colour root(double weight, double largest) const;
  Colour straight(double weight, double largest) const;

 private:
  Colour at(double share) const;
  std::vector<Colour> colours_;
};

}  // namespace manyheads::cli
