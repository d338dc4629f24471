#pragma once

#include <manyheads/export.hpp>

// The version of these headers; the build reads it from here. Before 1.0 a minor version may change the API.
#define MANYHEADS_VERSION_MAJOR 0
#define MANYHEADS_VERSION_MINOR 1
#define MANYHEADS_VERSION_PATCH 0

namespace manyheads {

// The version of the library linked: "0.1.0".
MANYHEADS_API const char* version() noexcept;

}  // namespace manyheads
