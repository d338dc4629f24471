// What Highway's library says of a processor. Debian packages it for processors alone.
#include "hwy/base.h"
#include "hwy/targets.h"

#include "base/wasm/host.hpp"

namespace hwy {

int64_t SupportedTargets() { return HWY_STATIC_TARGET; }

void Abort(const char*, int, const char* format, ...) { manyheads::base::stop(format); }

}  // namespace hwy
