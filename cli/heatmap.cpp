#include "heatmap.hpp"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <iterator>

#include "base/format.hpp"
#include "lens/unicode.hpp"

namespace manyheads::cli {

namespace {

constexpr int kMinColumns = 20;
constexpr int kMaxLabel = 12;
constexpr int kMaxHeading = 9;

// From each weight on: one of 256 colours, light or dark text on it, and a shade for terminals without colours. The
// colours run from dark violet over green to yellow, which the colour-blind tell apart too.
struct Level {
  double from;
  int background;
  int text;
  const char* shade;
};
constexpr Level kLevels[] = {{0.02, 53, 231, "·"}, {0.05, 60, 231, "░"}, {0.1, 30, 231, "▒"},
                             {0.2, 36, 16, "▓"},   {0.4, 113, 16, "█"},  {0.7, 220, 16, "█"}};

const Level* level_of(double weight) {
  const Level* found = nullptr;
  for (const Level& level : kLevels) {
    if (weight >= level.from) found = &level;
  }
  return found;
}

std::string painted(const Level& level, const std::string& text) {
  return base::format("\x1b[48;5;{}m\x1b[38;5;{}m{}\x1b[0m", level.background, level.text, text);
}

std::string cell(double weight, int width, bool colour) {
  const Level* level = level_of(weight);
  std::string text;
  if (width >= 4) {
    text = std::isnan(weight) ? " nan" : level == nullptr ? "   ·" : base::format("{:4.0f}", 100 * weight);
  } else if (std::isnan(weight)) {
    text = std::string(static_cast<std::size_t>(width), '?');
  } else if (level == nullptr || colour) {
    text = std::string(static_cast<std::size_t>(width), ' ');
  } else {
    for (int i = 0; i < width; ++i) text += level->shade;
  }
  return colour && level != nullptr ? painted(*level, text) : text;
}

int label_columns(const std::vector<std::string>& labels) {
  int width = 1;
  for (const std::string& label : labels) width = std::max(width, lens::display_width(label));
  return std::min(width, kMaxLabel);
}

// Columns for the cells.
int room(const std::vector<std::string>& labels, int columns) { return columns - label_columns(labels) - 3; }

// The characters of a column's heading, from top to bottom; each fills the cell.
std::vector<std::string> heading(const std::string& label, int width) {
  std::vector<std::string> characters;
  char32_t c;
  for (std::size_t p = 0; p < label.size();) {
    const std::size_t begin = p;
    if (!lens::next_code_point(label, &p, &c)) break;
    std::string character = label.substr(begin, p - begin);
    int columns = lens::display_width(c);
    if (columns == 0) continue;
    if (columns > width) {
      character = "·";
      columns = 1;
    }
    characters.push_back(std::string(static_cast<std::size_t>(width - columns), ' ') + character);
  }
  if (characters.size() > kMaxHeading) {
    characters.resize(kMaxHeading);
    characters.back() = std::string(static_cast<std::size_t>(width - 1), ' ') + "…";
  }
  return characters;
}

}  // namespace

int terminal_columns() {
  winsize size{};
  if (::isatty(STDOUT_FILENO) == 1 && ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
    return std::max<int>(kMinColumns, size.ws_col);
  }
  return 80;
}

std::string fit(const std::string& text, int columns) {
  std::string out;
  int used = 0;
  const bool whole = lens::display_width(text) <= columns;
  char32_t c;
  for (std::size_t p = 0; p < text.size();) {
    const std::size_t begin = p;
    if (!lens::next_code_point(text, &p, &c)) break;
    const int width = lens::display_width(c);
    if (used + width > (whole ? columns : columns - 1)) break;
    out += text.substr(begin, p - begin);
    used += width;
  }
  if (!whole) {
    out += "…";
    ++used;
  }
  return out + std::string(static_cast<std::size_t>(std::max(0, columns - used)), ' ');
}

std::int64_t heat_map_size(const std::vector<std::string>& labels, int columns) {
  return std::min(static_cast<std::int64_t>(labels.size()), std::max<std::int64_t>(1, room(labels, columns)));
}

std::string heat_map(const float* weights, std::int64_t row_stride, const std::vector<std::string>& labels, int columns,
                     bool colour) {
  const int label_width = label_columns(labels);
  const auto n = static_cast<std::int64_t>(labels.size());
  const int width = 4 * n <= room(labels, columns) ? 4 : 2 * n <= room(labels, columns) ? 2 : 1;
  const std::int64_t shown = heat_map_size(labels, columns);

  const std::string margin(static_cast<std::size_t>(label_width + 2), ' ');
  std::vector<std::vector<std::string>> headings;
  std::size_t height = 0;
  for (std::int64_t k = 0; k < shown; ++k) {
    headings.push_back(heading(labels[static_cast<std::size_t>(k)], width));
    height = std::max(height, headings.back().size());
  }
  std::string out;
  for (std::size_t line = 0; line < height; ++line) {
    std::string row = margin;
    for (const std::vector<std::string>& characters : headings) {
      const std::size_t above = height - characters.size();
      row += line < above ? std::string(static_cast<std::size_t>(width), ' ') : characters[line - above];
    }
    row.erase(row.find_last_not_of(' ') + 1);
    out += row + "\n";
  }
  for (std::int64_t q = 0; q < shown; ++q) {
    out += fit(labels[static_cast<std::size_t>(q)], label_width) + " │";
    for (std::int64_t k = 0; k < shown; ++k) {
      out += cell(static_cast<double>(weights[q * row_stride + k]), width, colour);
    }
    out += "\n";
  }
  if (shown < n) out += base::format("(the first {} of {} tokens; --json has them all)\n", shown, n);
  out += "Each row is a token that attends; its columns say to what.";
  out += width >= 4 ? "\nNumbers are percent, · is below 2.\n" : "\n";
  if (width < 4 || colour) {
    for (const Level& level : kLevels) {
      if (!colour && &level == std::end(kLevels) - 1) continue;  // the last two share a shade
      const std::string block = colour ? painted(level, "  ") : std::string(level.shade) + level.shade;
      out += base::format("{} {:g}+  ", block, level.from);
    }
    out.erase(out.find_last_not_of(' ') + 1);
    out += "\n";
  }
  return out;
}

}  // namespace manyheads::cli
