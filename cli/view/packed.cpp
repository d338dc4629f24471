#include "view/packed.hpp"

#include <zlib.h>

#include <limits>
#include <manyheads/error.hpp>

#include "base/format.hpp"

namespace manyheads::cli {

std::string packed_text(std::string_view text) {
  constexpr int kGzip = 16 + MAX_WBITS, kMemory = 9;
  z_stream stream = {};
  if (text.size() > std::numeric_limits<uInt>::max() / 2 ||
      deflateInit2(&stream, Z_BEST_COMPRESSION, Z_DEFLATED, kGzip, kMemory, Z_DEFAULT_STRATEGY) != Z_OK) {
    throw Error(ErrorCode::kUnsupported, base::format("a page cannot hold a piece of {} bytes", text.size()));
  }
  std::string out(deflateBound(&stream, text.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  deflate(&stream, Z_FINISH);  // in one go: there is room for it
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

std::string packed_numbers(std::string_view bytes) {
  constexpr std::size_t kBytes = 4;
  const std::size_t words = bytes.size() / kBytes;
  std::string planes;
  planes.reserve(bytes.size());
  for (std::size_t plane = 0; plane < kBytes; ++plane) {
    for (std::size_t word = 0; word < words; ++word) planes += bytes[kBytes * word + plane];
  }
  planes += bytes.substr(kBytes * words);
  return packed_text(planes);
}

}  // namespace manyheads::cli
