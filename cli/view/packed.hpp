#pragma once

#include <string>
#include <string_view>

namespace manyheads::cli {

// A page's data as the page unpacks it (viewer/src/start.ts).

// Gzipped (RFC 1952). The same bytes give the same file.
std::string packed_text(std::string_view text);

// Gzipped, and before that laid out anew: the first bytes of all words of 4 bytes, then all second ones, and so on;
// what is left over stays last. The high bytes of floats are alike, and so take less room side by side.
std::string packed_numbers(std::string_view bytes);

}  // namespace manyheads::cli
