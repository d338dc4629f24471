#include "figure.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>
#include <utility>

#include "base/base64.hpp"
#include "base/format.hpp"
#include "lens/unicode.hpp"
#include "png.hpp"

namespace manyheads::cli {
namespace {

// Places in the palette: colours of the scale, then white and black. The colours run from dark violet over green to
// yellow, which the colour-blind tell apart too.
constexpr int kShades = 254;
constexpr std::uint8_t kWhite = 254, kBlack = 255;

std::array<Colour, 256> palette() {
  constexpr double kStops[][3] = {{68, 1, 84}, {59, 82, 139}, {33, 145, 140}, {94, 201, 98}, {253, 231, 37}};
  std::array<Colour, 256> colours{};
  for (int shade = 0; shade < kShades; ++shade) {
    const double at = 4.0 * shade / (kShades - 1);
    const int stop = std::min(3, static_cast<int>(at));
    for (std::size_t c = 0; c < 3; ++c) {
      const double from = kStops[stop][c], to = kStops[stop + 1][c];
      colours[static_cast<std::size_t>(shade)][c] = static_cast<std::uint8_t>(from + (at - stop) * (to - from) + 0.5);
    }
  }
  colours[kWhite] = {255, 255, 255};
  colours[kBlack] = {0, 0, 0};
  return colours;
}

std::uint8_t shade_of(double value, double largest) {
  if (std::isnan(value)) return kBlack;
  return static_cast<std::uint8_t>(largest > 0 ? std::clamp(value / largest, 0.0, 1.0) * (kShades - 1) + 0.5 : 0);
}

// Pixels of a cell along both axes: pictures of few cells are drawn large.
int pixels_of_cell(const Figure& figure) {
  return static_cast<int>(std::clamp<std::int64_t>(512 / std::max(figure.lines, figure.columns), 1, 24));
}

void draw_cells(const Figure& figure, int x, int y, int cell, Picture& picture) {
  const double largest = figure.largest();
  for (std::int64_t r = 0; r < figure.lines; ++r) {
    for (std::int64_t c = 0; c < figure.columns; ++c) {
      picture.fill(x + static_cast<int>(c) * cell, y + static_cast<int>(r) * cell, cell, cell,
                   shade_of(static_cast<double>(figure.values[r * figure.columns + c]), largest));
    }
  }
}

// Letters of 3 x 5 pixels: a digit of three bits for each line.
constexpr std::pair<char, const char*> kLetters[] = {
    {'A', "25755"}, {'B', "65656"}, {'C', "34443"}, {'D', "65556"}, {'E', "74647"}, {'F', "74644"}, {'G', "34553"},
    {'H', "55755"}, {'I', "72227"}, {'J', "11152"}, {'K', "55655"}, {'L', "44447"}, {'M', "57755"}, {'N', "65555"},
    {'O', "25552"}, {'P', "65644"}, {'Q', "25563"}, {'R', "65655"}, {'S', "34216"}, {'T', "72222"}, {'U', "55557"},
    {'V', "55552"}, {'W', "55775"}, {'X', "55255"}, {'Y', "55222"}, {'Z', "71247"}, {'0', "75557"}, {'1', "26227"},
    {'2', "61247"}, {'3', "61216"}, {'4', "55711"}, {'5', "74616"}, {'6', "34757"}, {'7', "71122"}, {'8', "75757"},
    {'9', "75716"}, {'.', "00002"}, {':', "02020"}, {'-', "00700"}, {',', "00024"}, {'/', "11244"}, {'(', "12221"},
    {')', "42224"}, {'#', "57575"}, {'+', "02720"}, {'_', "00007"}, {'=', "07070"}, {'?', "61202"}};
constexpr int kLetterWidth = 8, kLetterHeight = 10;  // drawn twice as large, with a gap

void draw_text(std::string_view text, int x, int y, Picture& picture) {
  for (char letter : text) {
    if (letter >= 'a' && letter <= 'z') letter = static_cast<char>(letter - 'a' + 'A');
    for (const auto& [drawn, lines] : kLetters) {
      for (int line = 0; drawn == letter && line < 5; ++line) {
        for (int bit = 0; bit < 3; ++bit) {
          if (((lines[line] - '0') >> (2 - bit) & 1) != 0) picture.fill(x + 2 * bit, y + 2 * line, 2, 2, kBlack);
        }
      }
    }
    x += kLetterWidth;
  }
}

// The ends of a range as places.
std::string first_of(const lens::Range& range) { return base::format("{}", range.begin); }
std::string last_of(const lens::Range& range) { return base::format("{}", range.end - 1); }

std::string data_url(const Picture& picture) {
  return "data:image/png;base64," + base::base64(png_of(picture, palette()));
}

}  // namespace

std::string xml_escaped(const std::string& text) {
  std::string out;
  for (const char c : lens::printable(text)) {
    out += c == '<' ? "&lt;" : c == '>' ? "&gt;" : c == '&' ? "&amp;" : c == '"' ? "&quot;" : std::string(1, c);
  }
  return out;
}

double Figure::largest() const {
  double most = 0;
  for (std::int64_t i = 0; i < lines * columns; ++i) most = std::max(most, static_cast<double>(values[i]));
  return most;
}

std::string png_figure(const Figure& figure) {
  constexpr int kLeft = 72, kTop = 56, kRight = 16, kBottom = 72, kBar = 256;
  const int cell = pixels_of_cell(figure);
  const int width = static_cast<int>(figure.columns) * cell, height = static_cast<int>(figure.lines) * cell;
  const auto text_width = [](const std::string& text) { return static_cast<int>(text.size()) * kLetterWidth; };
  const std::string scale = base::format("{:.4g}", figure.largest());
  const int needed = std::max(
      {width, text_width(figure.title), text_width(figure.subtitle), kBar + 4 * kLetterWidth + text_width(scale)});
  Picture picture(kLeft + needed + kRight, kTop + height + kBottom, kWhite);
  draw_text(figure.title, kLeft, 8, picture);
  draw_text(figure.subtitle, kLeft, 8 + kLetterHeight + 4, picture);
  draw_text(first_of(figure.keys), kLeft, kTop - kLetterHeight - 2, picture);
  const std::string last_key = last_of(figure.keys), last_row = last_of(figure.rows), first_row = first_of(figure.rows);
  if (text_width(first_of(figure.keys)) + text_width(last_key) + kLetterWidth <= width) {
    draw_text(last_key, kLeft + width - text_width(last_key), kTop - kLetterHeight - 2, picture);
  }
  draw_text(first_row, kLeft - text_width(first_row) - 2, kTop, picture);
  if (height >= 2 * kLetterHeight + 2) {
    draw_text(last_row, kLeft - text_width(last_row) - 2, kTop + height - kLetterHeight, picture);
  }
  draw_cells(figure, kLeft, kTop, cell, picture);
  const int bar = kTop + height + 12;
  for (int x = 0; x < kBar; ++x) picture.fill(kLeft + x, bar, 1, 12, shade_of(x, kBar - 1));
  draw_text("0", kLeft, bar + 16, picture);
  draw_text(scale, kLeft + kBar - text_width(scale), bar + 16, picture);
  draw_text("lines: queries, columns: keys", kLeft, bar + 34, picture);
  return png_of(picture, palette());
}

std::string svg_figure(const Figure& figure) {
  constexpr int kTop = 64, kRight = 16, kBottom = 64, kBar = 256;
  const int cell = std::max(pixels_of_cell(figure), figure.row_names.empty() && figure.key_names.empty() ? 1 : 12);
  const int width = static_cast<int>(figure.columns) * cell, height = static_cast<int>(figure.lines) * cell;
  const auto longest = [](const std::vector<std::string>& names) {
    int most = 0;
    for (const std::string& name : names) most = std::max(most, lens::display_width(lens::printable(name)));
    return most;
  };
  const int left = std::max(72, 8 * longest(figure.row_names) + 8);
  const int top = kTop + (figure.key_names.empty() ? 16 : 8 * longest(figure.key_names));
  Picture cells(static_cast<int>(figure.columns), static_cast<int>(figure.lines), kWhite);
  draw_cells(figure, 0, 0, 1, cells);
  Picture bar(kBar, 1, kWhite);
  for (int x = 0; x < kBar; ++x) bar.fill(x, 0, 1, 1, shade_of(x, kBar - 1));

  const auto text = [](int x, int y, const std::string& attributes, const std::string& words) {
    return base::format("<text x=\"{}\" y=\"{}\"{}>{}</text>\n", x, y, attributes, xml_escaped(words));
  };
  const std::string end = " text-anchor=\"end\"";
  const int right =
      left +
      std::max({width, kBar, 7 * static_cast<int>(figure.title.size()), 7 * static_cast<int>(figure.subtitle.size())}) +
      kRight;
  std::string out = base::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} {1}\" role=\"img\" "
      "font-family=\"sans-serif\" font-size=\"12\">\n<title>{2}: {3}</title>\n"
      "<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n",
      right, top + height + kBottom, xml_escaped(figure.title), xml_escaped(figure.subtitle));
  out += text(left, 20, " font-size=\"14\" font-weight=\"bold\"", figure.title) + text(left, 40, "", figure.subtitle);
  out += base::format(
      "<image x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" preserveAspectRatio=\"none\" "
      "style=\"image-rendering:pixelated\" href=\"{}\"/>\n",
      left, top, width, height, data_url(cells));
  if (figure.key_names.empty()) {
    out += text(left, top - 4, "", first_of(figure.keys));
    out += text(left + width, top - 4, end, last_of(figure.keys));
  }
  for (std::size_t c = 0; c < figure.key_names.size(); ++c) {
    const int x = left + static_cast<int>(c) * cell + cell / 2 + 4, y = top - 4;
    out += text(x, y, base::format(" transform=\"rotate(-90 {} {})\"", x, y), figure.key_names[c]);
  }
  if (figure.row_names.empty()) {
    out += text(left - 4, top + 10, end, first_of(figure.rows));
    if (height >= 28) out += text(left - 4, top + height, end, last_of(figure.rows));
  }
  for (std::size_t r = 0; r < figure.row_names.size(); ++r) {
    out += text(left - 4, top + static_cast<int>(r) * cell + cell / 2 + 4, end, figure.row_names[r]);
  }
  const int below = top + height + 12;
  out +=
      base::format("<image x=\"{}\" y=\"{}\" width=\"{}\" height=\"12\" preserveAspectRatio=\"none\" href=\"{}\"/>\n",
                   left, below, kBar, data_url(bar));
  out += text(left, below + 26, "", "0") + text(left + kBar, below + 26, end, base::format("{:.4g}", figure.largest()));
  out += text(left, below + 44, "", "lines: queries, columns: keys");
  return out + "</svg>\n";
}

}  // namespace manyheads::cli
