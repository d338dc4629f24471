#include "view/sheet.hpp"

#include <algorithm>
#include <cmath>
#include <sstream>
#include <utility>

#include "base/base64.hpp"
#include "base/format.hpp"
#include "base/utf8.hpp"
#include "figure.hpp"
#include "lens/unicode.hpp"
#include "view/pixels.hpp"

namespace manyheads::cli {
namespace {

constexpr double kMargin = 12, kHatch = 7;
constexpr int kScale = 2;  // pixels of a PNG for one of the page
constexpr int kDots = 6;   // a letter's, with the gap behind it

// Pixels of a PNG for a letter's dot.
int dot_of(double size) { return size < 15 ? 2 : 3; }

std::string hex(const Colour& colour) { return base::format("#{:02x}{:02x}{:02x}", colour[0], colour[1], colour[2]); }

std::string number(double value) {
  std::string text = base::format("{:.2f}", value);
  text.erase(text.find_last_not_of('0') + 1);
  if (text.back() == '.') text.pop_back();
  return text == "-0" ? "0" : text;
}

// An element with attributes; with what stands under the pointer, where there is something.
std::string element(const std::string& name, const std::string& attributes, const std::string& told) {
  if (told.empty()) return "<" + name + attributes + "/>\n";
  return "<" + name + attributes + "><title>" + xml_escaped(told) + "</title></" + name + ">\n";
}

std::string attribute(const char* name, const std::string& value) { return base::format(" {}=\"{}\"", name, value); }
std::string attribute(const char* name, double value) { return attribute(name, number(value)); }

Colour colour_of(const Letters& letters, const Theme& theme) {
  return letters.colour.value_or(letters.quiet ? theme.quiet : theme.ink);
}

std::u32string code_points(const std::string& words) {
  const std::string text = lens::printable(words);
  std::u32string out;
  char32_t c;
  for (std::size_t at = 0; at < text.size() && base::next_code_point(text, &at, &c);) out += c;
  return out;
}

template <class... Kinds>
struct OneOf : Kinds... {
  using Kinds::operator()...;
};

std::string place_of(double x, double y, double width, double height) {
  return attribute("x", x) + attribute("y", y) + attribute("width", width) + attribute("height", height);
}

std::string svg_of(const Sheet::Box& box) {
  const std::string place = place_of(box.x, box.y, box.width, box.height);
  const std::string edge = box.edge ? attribute("stroke", hex(*box.edge)) : "";
  const std::string opacity = box.opacity < 1 ? attribute("fill-opacity", box.opacity) : "";
  std::string out =
      element("rect", place + attribute("fill", box.fill ? hex(*box.fill) : "none") + opacity + edge, box.told);
  if (box.hatched) out += element("rect", place + attribute("fill", "url(#left-over)"), "");
  return out;
}

std::string svg_of(const Sheet::Curve& curve) {
  const auto& p = curve.points;
  const std::string path = base::format("M{} {}C{} {} {} {} {} {}", number(p[0].x), number(p[0].y), number(p[1].x),
                                        number(p[1].y), number(p[2].x), number(p[2].y), number(p[3].x), number(p[3].y));
  return element("path",
                 attribute("d", path) + attribute("fill", "none") + attribute("stroke", hex(curve.colour)) +
                     attribute("stroke-width", curve.width) +
                     (curve.opacity < 1 ? attribute("stroke-opacity", curve.opacity) : ""),
                 curve.told);
}

std::string svg_of(const Sheet::Line& line) {
  return element("line",
                 attribute("x1", line.from.x) + attribute("y1", line.from.y) + attribute("x2", line.to.x) +
                     attribute("y2", line.to.y) + attribute("stroke", hex(line.colour)) +
                     attribute("stroke-width", line.width) + (line.dashed ? attribute("stroke-dasharray", "4 3") : ""),
                 "");
}

std::string svg_of(const Sheet::Disc& disc) {
  return element("circle",
                 attribute("cx", disc.at.x) + attribute("cy", disc.at.y) + attribute("r", disc.radius) +
                     attribute("fill", disc.fill ? hex(*disc.fill) : "none") + attribute("stroke", hex(disc.edge)),
                 disc.told);
}

std::string svg_of(const Sheet::Cells& cells) {
  Pixels pixels(cells.columns, cells.lines, {});
  for (std::size_t i = 0; i < cells.colours.size(); ++i) {
    const int column = static_cast<int>(i) % cells.columns, line = static_cast<int>(i) / cells.columns;
    pixels.box(column, line, 1, 1, cells.colours[i], 1);
  }
  return element("image",
                 place_of(cells.x, cells.y, cells.width, cells.height) + attribute("preserveAspectRatio", "none") +
                     attribute("style", "image-rendering:pixelated") +
                     attribute("href", "data:image/png;base64," + base::base64(pixels.png())),
                 cells.told);
}

std::string svg_of(const Sheet::Text& text, const Theme& theme) {
  const Letters& letters = text.letters;
  std::string attributes = attribute("x", text.at.x) + attribute("y", text.at.y) +
                           attribute("fill", hex(colour_of(letters, theme))) + attribute("font-size", letters.size);
  if (letters.bold) attributes += attribute("font-weight", "bold");
  if (letters.anchor != Anchor::kStart) {
    attributes += attribute("text-anchor", letters.anchor == Anchor::kEnd ? "end" : "middle");
  }
  if (letters.upwards) {
    attributes += attribute("transform", base::format("rotate(-90 {} {})", number(text.at.x), number(text.at.y)));
  }
  return "<text" + attributes + ">" + xml_escaped(text.words) + "</text>\n";
}

void lay(const Sheet::Box& box, Pixels& on) {
  const double x = kScale * (box.x + kMargin), y = kScale * (box.y + kMargin);
  const double width = kScale * box.width, height = kScale * box.height;
  if (box.fill) on.box(x, y, width, height, *box.fill, box.opacity);
  if (box.hatched && box.edge) on.hatch(x, y, width, height, kScale * kHatch, *box.edge);
  if (!box.edge) return;
  for (const double at : {x - 1, x + width - 1}) on.box(at, y - 1, 2, height + 2, *box.edge, 1);
  for (const double at : {y - 1, y + height - 1}) on.box(x - 1, at, width + 2, 2, *box.edge, 1);
}

void lay(const Sheet::Curve& curve, Pixels& on) {
  constexpr int kPieces = 48;
  std::vector<Point> points;
  for (int i = 0; i <= kPieces; ++i) {
    const double t = static_cast<double>(i) / kPieces, s = 1 - t;
    const double share[] = {s * s * s, 3 * s * s * t, 3 * s * t * t, t * t * t};
    Point at{kScale * kMargin, kScale * kMargin};
    for (std::size_t p = 0; p < 4; ++p) {
      at.x += kScale * share[p] * curve.points[p].x;
      at.y += kScale * share[p] * curve.points[p].y;
    }
    points.push_back(at);
  }
  on.stroke(points, kScale * curve.width, curve.colour, curve.opacity);
}

void lay(const Sheet::Line& line, Pixels& on) {
  const double length = std::hypot(line.to.x - line.from.x, line.to.y - line.from.y);
  const double dash = line.dashed ? 4 : length, step = line.dashed ? 7 : length + 1;
  const auto at = [&](double along) {
    const double share = length > 0 ? std::min(1.0, along / length) : 0;
    return Point{kScale * (kMargin + line.from.x + share * (line.to.x - line.from.x)),
                 kScale * (kMargin + line.from.y + share * (line.to.y - line.from.y))};
  };
  for (double from = 0; from <= length; from += step) {
    const Point ends[] = {at(from), at(from + dash)};
    on.stroke(ends, kScale * line.width, line.colour, 1);
  }
}

void lay(const Sheet::Disc& disc, const Theme& theme, Pixels& on) {
  const Point at{kScale * (disc.at.x + kMargin), kScale * (disc.at.y + kMargin)};
  on.disc(at, kScale * disc.radius + 1, disc.edge);
  on.disc(at, kScale * disc.radius - 1, disc.fill.value_or(theme.paper));
}

void lay(const Sheet::Cells& cells, Pixels& on) {
  const double width = kScale * cells.width / cells.columns, height = kScale * cells.height / cells.lines;
  for (std::size_t i = 0; i < cells.colours.size(); ++i) {
    const double column = static_cast<double>(static_cast<int>(i) % cells.columns);
    const double line = static_cast<double>(static_cast<int>(i) / cells.columns);
    on.box(kScale * (cells.x + kMargin) + column * width, kScale * (cells.y + kMargin) + line * height, width, height,
           cells.colours[i], 1);
  }
}

void lay(const Sheet::Text& text, const Theme& theme, Pixels& on) {
  const Letters& letters = text.letters;
  const std::u32string words = code_points(text.words);
  const int dot = dot_of(letters.size);
  const double width = static_cast<double>(words.size()) * kDots * dot;
  double along = letters.anchor == Anchor::kStart ? 0 : letters.anchor == Anchor::kEnd ? -width : -width / 2;
  for (const char32_t letter : words) {
    for (int again = 0; again < (letters.bold ? 2 : 1); ++again) {
      const double x = kScale * (text.at.x + kMargin), y = kScale * (text.at.y + kMargin);
      on.letter(letters.upwards ? x : x + along + again, letters.upwards ? y - along - again : y, dot, letter,
                colour_of(letters, theme), letters.upwards);
    }
    along += kDots * dot;
  }
}

}  // namespace

double Sheet::width_of(const std::string& words, double size) {
  const double letter = std::max(0.55 * size, static_cast<double>(kDots * dot_of(size)) / kScale);
  return letter * std::max<double>(static_cast<double>(code_points(words).size()), lens::display_width(words));
}

void Sheet::reach(double x, double y) {
  right_ = std::max(right_, x);
  bottom_ = std::max(bottom_, y);
}

void Sheet::add(Box box) {
  reach(box.x + box.width, box.y + box.height);
  items_.emplace_back(std::move(box));
}

void Sheet::add(Curve curve) {
  for (const Point& point : {curve.points[0], curve.points[3]}) reach(point.x, point.y);
  items_.emplace_back(std::move(curve));
}

void Sheet::add(Line line) {
  reach(std::max(line.from.x, line.to.x), std::max(line.from.y, line.to.y));
  items_.emplace_back(line);
}

void Sheet::add(Disc disc) {
  reach(disc.at.x + disc.radius, disc.at.y + disc.radius);
  items_.emplace_back(std::move(disc));
}

void Sheet::add(Cells cells) {
  reach(cells.x + cells.width, cells.y + cells.height);
  items_.emplace_back(std::move(cells));
}

void Sheet::text(double x, double y, std::string words, Letters letters) {
  const double width = width_of(words, letters.size);
  const double share = letters.anchor == Anchor::kStart ? 1 : letters.anchor == Anchor::kMiddle ? 0.5 : 0;
  reach(letters.upwards ? x : x + share * width, y + letters.size / 4);
  items_.emplace_back(Text{{x, y}, std::move(words), letters});
}

double Sheet::paragraph(double x, double y, const std::string& words, int columns, Letters letters) {
  std::istringstream each(words);
  std::string line, word;
  const auto end = [&] {
    if (!line.empty()) text(x, y, line, letters), y += 1.4 * letters.size;
    line.clear();
  };
  while (each >> word) {
    if (!line.empty() && lens::display_width(line) + 1 + lens::display_width(word) > columns) end();
    line += line.empty() ? word : " " + word;
  }
  end();
  return y;
}

std::string Sheet::svg(const std::string& title) const {
  const double width = std::ceil(right_) + 2 * kMargin, height = std::ceil(bottom_) + 2 * kMargin;
  std::string out = base::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"{2} {2} {0} {1}\" role=\"img\" "
      "font-family=\"system-ui, sans-serif\" font-variant-numeric=\"tabular-nums\">\n<title>{3}</title>\n"
      "<defs><pattern id=\"left-over\" width=\"{4}\" height=\"{4}\" patternUnits=\"userSpaceOnUse\" "
      "patternTransform=\"rotate(45)\"><rect width=\"2.5\" height=\"{4}\" fill=\"{5}\"/></pattern></defs>\n",
      number(width), number(height), number(-kMargin), xml_escaped(title), number(kHatch), hex(theme_.edge));
  out += element("rect", place_of(-kMargin, -kMargin, width, height) + attribute("fill", hex(theme_.paper)), "");
  for (const auto& item : items_) {
    out += std::visit(
        OneOf{[&](const Text& text) { return svg_of(text, theme_); }, [](const auto& other) { return svg_of(other); }},
        item);
  }
  return out + "</svg>\n";
}

std::string Sheet::png() const {
  Pixels pixels(kScale * static_cast<int>(std::ceil(right_) + 2 * kMargin),
                kScale * static_cast<int>(std::ceil(bottom_) + 2 * kMargin), theme_.paper);
  for (const auto& item : items_) {
    std::visit(
        OneOf{[&](const Text& text) { lay(text, theme_, pixels); },
              [&](const Disc& disc) { lay(disc, theme_, pixels); }, [&](const auto& other) { lay(other, pixels); }},
        item);
  }
  return pixels.png();
}

}  // namespace manyheads::cli
