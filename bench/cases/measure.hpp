#pragma once

#include <functional>
#include <string>

#include "bench/cases/case.hpp"
#include "bench/cases/roofline.hpp"

namespace manyheads::bench {

// What a case reaches on the instruction set in use, `isa`, taken in turn with what limits it and with its base. The
// best of each: others take time from a shared machine and never give any. `quick` takes fewer rounds.
Row measure(const Case& of, const std::string& isa, Roofline& machine, bool quick);

// The rows of the machine's own limits on so many threads, on every instruction set. Each is measured only where
// `wanted` says so, and is handed to `add` as soon as it stands. Leaves the best instruction set in use.
void measure_limits(int threads, Roofline& machine, bool quick, const std::function<bool(const Row&)>& wanted,
                    const std::function<void(const Row&)>& add);

}  // namespace manyheads::bench
