#pragma once

#include <string>
#include <string_view>

namespace manyheads::base {

// Four letters for each three bytes, the last ones filled up with "=" (RFC 4648).
std::string base64(std::string_view bytes);

}  // namespace manyheads::base
