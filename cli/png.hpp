#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace manyheads::cli {

using Colour = std::array<std::uint8_t, 3>;  // red, green, blue

// A picture of at most 256 colours.
struct Picture {
  Picture(int columns, int lines, std::uint8_t colour)
      : width(columns),
        height(lines),
        pixels(static_cast<std::size_t>(columns) * static_cast<std::size_t>(lines), colour) {}
  // Leaves out what lies outside.
  void fill(int x, int y, int columns, int lines, std::uint8_t colour);

  int width, height;
  std::vector<std::uint8_t> pixels;  // places in the palette, line by line
};

// Its parts (ISO/IEC 15948): a number of four bytes, and a chunk with its length and checksum.
std::string png_number(std::uint32_t value);
std::string png_chunk(const std::string& type, const std::string& data);

// A PNG file, not compressed.
std::string png_of(const Picture& picture, std::span<const Colour> palette);

}  // namespace manyheads::cli
