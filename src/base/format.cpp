#include "base/format.hpp"

#include <fmt/format.h>

namespace manyheads::base {

std::string format_all(fmt::string_view pattern, fmt::format_args values) { return fmt::vformat(pattern, values); }

}  // namespace manyheads::base
