#pragma once

#include <string>
#include <vector>

namespace manyheads::study {

// A point with its interval, in shares (0 to 1).
struct PlotPoint {
  double x = 0, mean = 0, low = 0, high = 0;
};
struct PlotSeries {
  std::string name;
  int colour = 0;  // of the report's palette, which gives each a marker and a dash too
  std::vector<PlotPoint> points;
};
struct Plot {
  std::string title;  // for readers of the screen
  std::string x_label;
  std::vector<std::pair<double, std::string>> x_ticks;
  double x_low = 0, x_high = 1;
  bool bands = false;  // intervals as bands instead of bars
  std::vector<PlotSeries> series;
};

// An SVG element: partners missed, 1 - accuracy, on a logarithmic axis from .01 % to 100 %. What misses less is drawn
// on the axis.
std::string plot_svg(const Plot& plot);

// The text with <, > and & spelt out.
std::string html_text(const std::string& text);

}  // namespace manyheads::study
