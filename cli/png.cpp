#include "png.hpp"

#include <algorithm>
#include <string_view>

namespace manyheads::cli {
namespace {

std::uint32_t crc32(std::string_view bytes) {
  std::uint32_t crc = 0xffffffffu;
  for (const char byte : bytes) {
    crc ^= static_cast<std::uint8_t>(byte);
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ ((crc & 1) != 0 ? 0xedb88320u : 0u);
  }
  return ~crc;
}

std::uint32_t adler32(std::string_view bytes) {
  std::uint32_t low = 1, high = 0;
  for (const char byte : bytes) {
    low = (low + static_cast<std::uint8_t>(byte)) % 65521;
    high = (high + low) % 65521;
  }
  return high << 16 | low;
}

// A zlib stream (RFC 1950) of stored blocks (RFC 1951).
std::string stored(const std::string& data) {
  constexpr std::size_t kMost = 65535;
  std::string out = "\x78\x01";
  for (std::size_t begin = 0; begin == 0 || begin < data.size(); begin += kMost) {
    const std::size_t size = std::min(kMost, data.size() - begin);
    out += static_cast<char>(begin + size >= data.size());
    for (const std::size_t word : {size, ~size}) {
      out += static_cast<char>(word & 0xff);
      out += static_cast<char>(word >> 8 & 0xff);
    }
    out.append(data, begin, size);
  }
  return out + png_number(adler32(data));
}

}  // namespace

std::string png_number(std::uint32_t value) {
  std::string bytes;
  for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(value >> shift & 0xff);
  return bytes;
}

std::string png_chunk(const std::string& type, const std::string& data) {
  return png_number(static_cast<std::uint32_t>(data.size())) + type + data + png_number(crc32(type + data));
}

void Picture::fill(int x, int y, int columns, int lines, std::uint8_t colour) {
  const int from = std::clamp(x, 0, width), to = std::clamp(x + columns, 0, width);
  for (int line = std::max(0, y); line < std::min(height, y + lines) && from < to; ++line) {
    std::fill_n(pixels.begin() + static_cast<std::ptrdiff_t>(line) * width + from, to - from, colour);
  }
}

std::string png_of(const Picture& picture, std::span<const Colour> palette) {
  std::string colours, lines;
  for (const Colour& colour : palette) colours.append(colour.begin(), colour.end());
  for (int line = 0; line < picture.height; ++line) {
    lines += '\0';  // not filtered
    const auto from = picture.pixels.begin() + static_cast<std::ptrdiff_t>(line) * picture.width;
    lines.append(from, from + picture.width);
  }
  const std::string indexed{'\x08', '\x03', '\0', '\0', '\0'};
  return "\x89PNG\r\n\x1a\n" +
         png_chunk("IHDR", png_number(static_cast<std::uint32_t>(picture.width)) +
                               png_number(static_cast<std::uint32_t>(picture.height)) + indexed) +
         png_chunk("PLTE", colours) + png_chunk("IDAT", stored(lines)) + png_chunk("IEND", "");
}

}  // namespace manyheads::cli
