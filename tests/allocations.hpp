#pragma once

#include <cstdint>

namespace manyheads::test {

// Calls of operator new so far, on any thread. Tensors and memory of base::AlignedBuffer count by their control blocks.
std::int64_t allocations() noexcept;

}  // namespace manyheads::test
