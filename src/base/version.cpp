#include <manyheads/version.hpp>

#define MANYHEADS_TEXT_OF(x) #x
#define MANYHEADS_TEXT(x) MANYHEADS_TEXT_OF(x)

namespace manyheads {

const char* version() noexcept {
  return MANYHEADS_TEXT(MANYHEADS_VERSION_MAJOR) "." MANYHEADS_TEXT(MANYHEADS_VERSION_MINOR) "." MANYHEADS_TEXT(
      MANYHEADS_VERSION_PATCH);
}

}  // namespace manyheads
