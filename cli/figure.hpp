#pragma once

#include <cstdint>
#include <manyheads/lens/patch.hpp>
#include <string>
#include <vector>

namespace manyheads::cli {

// Weights as a labelled picture: a line for each query or cell of queries, a column for each key or cell of keys.
struct Figure {
  std::string title;     // which head of which model
  std::string subtitle;  // which queries and keys, and how they are pooled
  std::int64_t lines = 0, columns = 0;
  const float* values = nullptr;       // [lines,columns], dense
  lens::Range rows, keys;              // what they stand for
  std::vector<std::string> row_names;  // of each line; empty where places alone are known or there is no room
  std::vector<std::string> key_names;

  double largest() const;  // the upper end of the scale, whose lower end is 0
};

// Lines or columns beyond which names are not drawn.
constexpr std::int64_t kMostNames = 96;

// A text as SVG shows it, without what no one can see.
std::string xml_escaped(const std::string& text);

std::string svg_figure(const Figure& figure);
// Its letters are capitals of ASCII; it shows places, no names.
std::string png_figure(const Figure& figure);

}  // namespace manyheads::cli
