#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "view/sheet.hpp"

namespace manyheads::cli {

// Pixels that shapes are laid on, with smooth edges. Places are in pixels.
class Pixels {
 public:
  Pixels(int width, int height, Colour ground);

  void box(double x, double y, double width, double height, Colour colour, double opacity);
  void hatch(double x, double y, double width, double height, double step, Colour colour);
  // A line through the points.
  void stroke(std::span<const Point> points, double width, Colour colour, double opacity);
  void disc(Point at, double radius, Colour colour);
  // `dot`: pixels of a letter's dot, along both sides.
  void letter(double x, double y, int dot, char32_t letter, Colour colour, bool upwards);

  std::string png() const;

 private:
  void lay(int x, int y, Colour colour, double share);

  int width_, height_;
  std::vector<Colour> colours_;
};

}  // namespace manyheads::cli
