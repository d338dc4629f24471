#pragma once

#include <functional>
#include <optional>

#include "view/dims.hpp"

namespace manyheads::view {

// What this machine reaches at most with so many threads, measured now in about a second: multiply-adds of F32, and
// reading memory beyond its caches. In a browser: one thread of WebAssembly, and 64 MiB of memory, of which a large
// cache may hold a part. None where progress(share) gives false.
std::optional<MachineRoofline> measure_limits(int threads, const std::function<bool(double)>& progress = {});

}  // namespace manyheads::view
