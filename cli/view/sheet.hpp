#pragma once

#include <array>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "view/colours.hpp"

namespace manyheads::cli {

enum class Anchor { kStart, kMiddle, kEnd };

struct Letters {
  double size = 12;
  bool bold = false;
  Anchor anchor = Anchor::kStart;
  bool quiet = false;    // in the theme's second ink
  bool upwards = false;  // turned, read from below
  std::optional<Colour> colour{};
};

struct Point {
  double x = 0, y = 0;
};

// What a figure shows, in pixels of the page from its upper left corner: drawn once, written as SVG or as PNG. It is as
// large as what lies on it, and a margin.
class Sheet {
 public:
  explicit Sheet(const Theme& theme) : theme_(theme) {}
  const Theme& theme() const { return theme_; }

  // `told` stands under the pointer, in an SVG.
  struct Box {
    double x = 0, y = 0, width = 0, height = 0;
    std::optional<Colour> fill{}, edge{};
    double opacity = 1;
    bool hatched = false;  // on the fill, in the edge's colour
    std::string told{};
  };
  // A cubic curve.
  struct Curve {
    std::array<Point, 4> points{};
    Colour colour{};
    double width = 1;
    double opacity = 1;
    std::string told{};
  };
  struct Line {
    Point from, to;
    Colour colour{};
    double width = 1;
    bool dashed = false;
  };
  struct Disc {
    Point at;
    double radius = 1;
    std::optional<Colour> fill{};
    Colour edge{};
    std::string told{};
  };
  struct Text {
    Point at;  // of the line that its letters stand on
    std::string words;
    Letters letters{};
  };
  // Colours of equal cells, line by line.
  struct Cells {
    double x = 0, y = 0, width = 0, height = 0;
    int columns = 0, lines = 0;
    std::vector<Colour> colours{};
    std::string told{};
  };

  void add(Box box);
  void add(Curve curve);
  void add(Line line);
  void add(Disc disc);
  void add(Cells cells);
  void text(double x, double y, std::string words, Letters letters = {});
  // Some lines of at most `columns` letters, broken between words; returns where the next one would stand.
  double paragraph(double x, double y, const std::string& words, int columns, Letters letters = {});

  double bottom() const { return bottom_; }

  std::string svg(const std::string& title) const;
  // Two pixels for one of the page. Its letters are those of ASCII and some more; others become boxes. Throws Error
  // (kUnsupported) where there were too many pixels.
  std::string png() const;

  // About the room that a line of text takes, in both formats.
  static double width_of(const std::string& words, double size = 12);

 private:
  void reach(double x, double y);

  const Theme& theme_;
  std::vector<std::variant<Box, Curve, Line, Disc, Text, Cells>> items_;
  double right_ = 0, bottom_ = 0;
};

}  // namespace manyheads::cli
