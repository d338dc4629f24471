#include "view/colours.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>

namespace manyheads::cli {
namespace {

using Three = std::array<double, 3>;

constexpr Theme kLight = {.paper = {0xfd, 0xfd, 0xfb},
                          .line = {0xd9, 0xd9, 0xd2},
                          .edge = {0x8b, 0x8b, 0x83},
                          .ink = {0x1d, 0x1e, 0x20},
                          .quiet = {0x55, 0x57, 0x5b},
                          .q = {0x00, 0x72, 0xb2},
                          .k = {0xd5, 0x5e, 0x00},
                          .v = {0x00, 0x9e, 0x73},
                          .w = {0x3b, 0x1f, 0x7a},
                          .less = {0xb0, 0x7a, 0x00},
                          .more = {0x2f, 0x7f, 0xb3}};
constexpr Theme kDark = {.paper = {0x17, 0x18, 0x1b},
                         .line = {0x38, 0x3b, 0x41},
                         .edge = {0x83, 0x86, 0x8d},
                         .ink = {0xe9, 0xe9, 0xe5},
                         .quiet = {0xb3, 0xb5, 0xba},
                         .q = {0x4e, 0xa5, 0xdc},
                         .k = {0xf0, 0x8a, 0x4b},
                         .v = {0x36, 0xc4, 0x98},
                         .w = {0xcd, 0xbc, 0xff},
                         .less = {0xf0, 0xc0, 0x4d},
                         .more = {0x6f, 0xc1, 0xf2}};

double light_of(std::uint8_t byte) {
  const double share = byte / 255.0;
  return byte <= 10 ? share / 12.92 : std::pow((share + 0.055) / 1.055, 2.4);
}

std::uint8_t byte_of(double light) {
  const double share = light <= 0.0031308 ? 12.92 * light : 1.055 * std::pow(light, 1 / 2.4) - 0.055;
  return static_cast<std::uint8_t>(std::lround(255 * std::clamp(share, 0.0, 1.0)));
}

// Oklab: equal steps look equal. The same numbers as viewer/src/maps/ramp.ts.
Three oklab(const Colour& colour) {
  const double r = light_of(colour[0]), g = light_of(colour[1]), b = light_of(colour[2]);
  const double l = std::cbrt(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b);
  const double m = std::cbrt(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b);
  const double s = std::cbrt(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b);
  return {0.2104542553 * l + 0.793617785 * m - 0.0040720468 * s, 1.9779984951 * l - 2.428592205 * m + 0.4505937099 * s,
          0.0259040371 * l + 0.7827717662 * m - 0.808675766 * s};
}

Colour from_oklab(const Three& lab) {
  const auto cubed = [](double x) { return x * x * x; };
  const double l = cubed(lab[0] + 0.3963377774 * lab[1] + 0.2158037573 * lab[2]);
  const double m = cubed(lab[0] - 0.1055613458 * lab[1] - 0.0638541728 * lab[2]);
  const double s = cubed(lab[0] - 0.0894841775 * lab[1] - 1.291485548 * lab[2]);
  return {byte_of(4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s),
          byte_of(-1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s),
          byte_of(-0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s)};
}

}  // namespace

const Theme& theme_of(bool dark) { return dark ? kDark : kLight; }

WeightRamp::WeightRamp(const Theme& theme) {
  constexpr std::size_t kSteps = 511;
  const Three from = oklab(theme.paper), to = oklab(theme.w);
  for (std::size_t step = 0; step < kSteps; ++step) {
    const double share = static_cast<double>(step) / (kSteps - 1);
    Three lab{};
    for (std::size_t i = 0; i < 3; ++i) lab[i] = from[i] + (to[i] - from[i]) * share;
    colours_.push_back(from_oklab(lab));
  }
}

Colour WeightRamp::at(double share) const {
  const double bound = share > 0 ? std::min(share, 1.0) : 0;  // NaN is 0 too
  return colours_[static_cast<std::size_t>(bound * static_cast<double>(colours_.size() - 1) + 0.5)];
}

Colour WeightRamp::root(double weight, double largest) const {
  return at(largest > 0 && weight > 0 ? std::sqrt(weight / largest) : 0);
}

Colour WeightRamp::straight(double weight, double largest) const { return at(largest > 0 ? weight / largest : 0); }

}  // namespace manyheads::cli
