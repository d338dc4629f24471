#pragma once

#include <cstddef>
#include <cstdint>

namespace manyheads::base {

// A place in a container, of a number that the API counts with a sign.
constexpr std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

}  // namespace manyheads::base
