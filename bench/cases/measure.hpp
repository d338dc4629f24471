#pragma once

#include <functional>
#include <string>

#include "bench/cases/case.hpp"
#include "kernels/roofline.hpp"

namespace manyheads::bench {

// What a case reaches on the instruction set in use, `isa`, measured in turn with its roofline and its base. Takes the
// best of each: others take time from a shared machine and never give any. `quick` takes fewer rounds.
Row measure(const Case& of, const std::string& isa, kernels::Roofline& machine, bool quick);

// The machine's roofline as rows, for every instruction set, on `threads` threads. Measures the rows that are `wanted`
// and hands each to `add` at once. Leaves the best instruction set in use.
void measure_limits(int threads, kernels::Roofline& machine, bool quick, const std::function<bool(const Row&)>& wanted,
                    const std::function<void(const Row&)>& add);

}  // namespace manyheads::bench
