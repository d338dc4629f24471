#include "view/pixels.hpp"

#include <zlib.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <manyheads/error.hpp>

#include "base/format.hpp"
#include "png.hpp"
#include "view/letters.hpp"

namespace manyheads::cli {
namespace {

constexpr std::int64_t kMostPixels = 100'000'000;

// How much of the pixel from `at` to `at` + 1 lies between two places.
double covered(int at, double from, double to) {
  return std::clamp(std::min<double>(at + 1, to) - std::max<double>(at, from), 0.0, 1.0);
}

double distance(Point p, Point from, Point to) {
  const double x = to.x - from.x, y = to.y - from.y, length = x * x + y * y;
  const double along = length > 0 ? std::clamp(((p.x - from.x) * x + (p.y - from.y) * y) / length, 0.0, 1.0) : 0;
  return std::hypot(p.x - from.x - along * x, p.y - from.y - along * y);
}

}  // namespace

Pixels::Pixels(int width, int height, Colour ground) : width_(width), height_(height) {
  const std::int64_t count = std::int64_t{width} * height;
  if (count > kMostPixels) {
    throw Error(ErrorCode::kUnsupported,
                base::format("a PNG of this figure has {} x {} pixels, which are too many: take .svg", width, height));
  }
  colours_.assign(static_cast<std::size_t>(count), ground);
}

void Pixels::lay(int x, int y, Colour colour, double share) {
  if (x < 0 || y < 0 || x >= width_ || y >= height_) return;
  Colour& under =
      colours_[static_cast<std::size_t>(y) * static_cast<std::size_t>(width_) + static_cast<std::size_t>(x)];
  for (std::size_t i = 0; i < 3; ++i) {
    under[i] = static_cast<std::uint8_t>(std::lround(under[i] + share * (colour[i] - under[i])));
  }
}

void Pixels::box(double x, double y, double width, double height, Colour colour, double opacity) {
  const int top = std::max(0, static_cast<int>(y)), bottom = std::min(height_, static_cast<int>(std::ceil(y + height)));
  const int left = std::max(0, static_cast<int>(x)), right = std::min(width_, static_cast<int>(std::ceil(x + width)));
  for (int row = top; row < bottom; ++row) {
    const double high = covered(row, y, y + height);
    for (int column = left; column < right; ++column) {
      lay(column, row, colour, opacity * high * covered(column, x, x + width));
    }
  }
}

void Pixels::hatch(double x, double y, double width, double height, double step, Colour colour) {
  constexpr double kLineShare = 0.36;
  for (int row = static_cast<int>(y); row < y + height; ++row) {
    for (int column = static_cast<int>(x); column < x + width; ++column) {
      const double along = (column + row) / (step * std::sqrt(2.0));
      const double share = covered(row, y, y + height) * covered(column, x, x + width);
      if (along - std::floor(along) < kLineShare) lay(column, row, colour, share);
    }
  }
}

void Pixels::stroke(std::span<const Point> points, double width, Colour colour, double opacity) {
  if (points.empty()) return;
  double left = points[0].x, right = left, top = points[0].y, bottom = top;
  for (const Point& point : points) {
    left = std::min(left, point.x), right = std::max(right, point.x);
    top = std::min(top, point.y), bottom = std::max(bottom, point.y);
  }
  const double reach = width / 2 + 1;
  for (int row = std::max(0, static_cast<int>(top - reach)); row < std::min<double>(height_, bottom + reach); ++row) {
    for (int column = std::max(0, static_cast<int>(left - reach)); column < std::min<double>(width_, right + reach);
         ++column) {
      const Point middle{column + 0.5, row + 0.5};
      double nearest = reach;
      for (std::size_t i = 0; i + 1 < points.size(); ++i) {
        // Most pieces are further away than that already along one axis.
        if (std::min(points[i].y, points[i + 1].y) - middle.y > nearest ||
            middle.y - std::max(points[i].y, points[i + 1].y) > nearest)
          continue;
        nearest = std::min(nearest, distance(middle, points[i], points[i + 1]));
      }
      const double share = std::clamp(width / 2 + 0.5 - nearest, 0.0, std::min(1.0, width));
      if (share > 0) lay(column, row, colour, opacity * share);
    }
  }
}

void Pixels::disc(Point at, double radius, Colour colour) {
  for (int row = static_cast<int>(at.y - radius - 1); row <= at.y + radius + 1; ++row) {
    for (int column = static_cast<int>(at.x - radius - 1); column <= at.x + radius + 1; ++column) {
      const double away = std::hypot(column + 0.5 - at.x, row + 0.5 - at.y);
      lay(column, row, colour, std::clamp(radius + 0.5 - away, 0.0, 1.0));
    }
  }
}

void Pixels::letter(double x, double y, int dot, char32_t letter, Colour colour, bool upwards) {
  const LetterDots& dots = dots_of(letter);
  for (int column = 0; column < 5; ++column) {
    for (int line = 0; line < 8; ++line) {
      if ((dots[static_cast<std::size_t>(column)] >> line & 1) == 0) continue;
      const double along = column * dot, down = (line - 7) * dot;
      if (upwards) {
        box(x + down, y - along - dot, dot, dot, colour, 1);
      } else {
        box(x + along, y + down, dot, dot, colour, 1);
      }
    }
  }
}

std::string Pixels::png() const {
  std::string lines;
  lines.reserve(static_cast<std::size_t>(height_) * (3 * static_cast<std::size_t>(width_) + 1));
  for (int row = 0; row < height_; ++row) {
    lines += '\0';  // not filtered
    for (int column = 0; column < width_; ++column) {
      const Colour& colour =
          colours_[static_cast<std::size_t>(row) * static_cast<std::size_t>(width_) + static_cast<std::size_t>(column)];
      lines.append(colour.begin(), colour.end());
    }
  }
  uLongf size = compressBound(static_cast<uLong>(lines.size()));
  std::string packed(size, '\0');
  compress(reinterpret_cast<Bytef*>(packed.data()), &size, reinterpret_cast<const Bytef*>(lines.data()),
           static_cast<uLong>(lines.size()));  // there is room for it
  packed.resize(size);
  const std::string header = png_number(static_cast<std::uint32_t>(width_)) +
                             png_number(static_cast<std::uint32_t>(height_)) +
                             std::string{'\x08', '\x02', '\0', '\0', '\0'};  // 8 bits of red, green and blue
  return "\x89PNG\r\n\x1a\n" + png_chunk("IHDR", header) + png_chunk("IDAT", packed) + png_chunk("IEND", "");
}

}  // namespace manyheads::cli
