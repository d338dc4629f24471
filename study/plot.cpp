#include "study/plot.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/format.hpp"

namespace manyheads::study {
namespace {

constexpr double kWidth = 480, kHeight = 300, kLeft = 52, kRight = 84, kTop = 12, kBottom = 44;
constexpr double kLeast = 1e-4;
constexpr double kLabelHeight = 13;

double y_of(double accuracy) {
  const double missed = std::clamp(1 - accuracy, kLeast, 1.0);
  return kTop + (kHeight - kTop - kBottom) * std::log10(missed) / std::log10(kLeast);
}

std::string marker(int colour, double x, double y) {
  switch (colour % 5) {
    case 0:
      return base::format("<circle cx='{:.1f}' cy='{:.1f}' r='3.5'/>", x, y);
    case 1:
      return base::format("<path d='M{:.1f} {:.1f}h7v7h-7z'/>", x - 3.5, y - 3.5);
    case 2:
      return base::format("<path d='M{:.1f} {:.1f}l4.5 8h-9z'/>", x, y - 5);
    case 3:
      return base::format("<path d='M{:.1f} {:.1f}l5 5l-5 5l-5 -5z'/>", x, y - 5);
    default:
      return base::format("<path d='M{:.1f} {:.1f}l4.5 -8h-9z'/>", x, y + 5);
  }
}

}  // namespace

std::string html_text(const std::string& text) {
  std::string out;
  for (const char c : text) {
    out += c == '&' ? "&amp;" : c == '<' ? "&lt;" : c == '>' ? "&gt;" : c == '\'' ? "&#39;" : std::string(1, c);
  }
  return out;
}

std::string plot_svg(const Plot& plot) {
  const double right = kWidth - kRight, bottom = kHeight - kBottom;
  const auto x_of = [&](double x) { return kLeft + (right - kLeft) * (x - plot.x_low) / (plot.x_high - plot.x_low); };
  std::string svg =
      base::format("<svg viewBox='0 0 {} {}' role='img' aria-label='{}'>", kWidth, kHeight, html_text(plot.title));
  constexpr std::array<std::pair<double, const char*>, 5> kTicks = {
      {{1, "100 %"}, {0.1, "10 %"}, {0.01, "1 %"}, {0.001, "0.1 %"}, {0.0001, "0.01 %"}}};
  for (const auto& [missed, label] : kTicks) {
    const double y = y_of(1 - missed);
    svg += base::format("<path class='grid' d='M{} {:.1f}H{}'/><text x='{}' y='{:.1f}' class='end'>{}</text>", kLeft, y,
                        right, kLeft - 6, y + 4, label);
  }
  for (const auto& [x, label] : plot.x_ticks) {
    svg += base::format("<text x='{:.1f}' y='{}' class='mid'>{}</text>", x_of(x), bottom + 18, label);
  }
  svg += base::format("<text x='{}' y='{}' class='mid'>{}</text>", (kLeft + right) / 2, kHeight - 6,
                      html_text(plot.x_label));
  std::vector<std::pair<double, const PlotSeries*>> labels;
  for (const PlotSeries& series : plot.series) {
    if (series.points.empty()) continue;
    std::string line, band, back;
    for (const PlotPoint& point : series.points) {
      const double x = x_of(point.x);
      line += base::format("{}{:.1f} {:.1f}", line.empty() ? "M" : "L", x, y_of(point.mean));
      band += base::format("{}{:.1f} {:.1f}", band.empty() ? "M" : "L", x, y_of(point.high));
      back = base::format("L{:.1f} {:.1f}", x, y_of(point.low)) + back;
    }
    svg += base::format("<g class='s{}'>", series.colour);
    if (plot.bands) svg += "<path class='band' d='" + band + back + "Z'/>";
    svg += "<path class='line' d='" + line + "'/>";
    if (!plot.bands) {
      for (const PlotPoint& point : series.points) {
        const double x = x_of(point.x);
        svg += base::format("<path class='bar' d='M{:.1f} {:.1f}V{:.1f}'/>", x, y_of(point.low), y_of(point.high));
        svg += marker(series.colour, x, y_of(point.mean));
      }
    } else {
      svg += marker(series.colour, x_of(series.points.back().x), y_of(series.points.back().mean));
    }
    svg += "</g>";
    labels.push_back({y_of(series.points.back().mean), &series});
  }
  // The names at the lines' ends, moved apart.
  std::sort(labels.begin(), labels.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  double least = kTop + 4;
  for (std::size_t i = 0; i < labels.size(); ++i) {
    const double most = bottom - kLabelHeight * static_cast<double>(labels.size() - 1 - i);
    const double y = std::max(least, std::min(labels[i].first, most));
    least = y + kLabelHeight;
    svg += base::format("<g class='s{}'>{}<text x='{:.1f}' y='{:.1f}'>{}</text></g>", labels[i].second->colour,
                        marker(labels[i].second->colour, right + 12, y), right + 20, y + 4,
                        html_text(labels[i].second->name));
  }
  return svg + "</svg>";
}

}  // namespace manyheads::study
