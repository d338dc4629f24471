#pragma once

#include <cstdint>
#include <functional>

namespace manyheads::test {

// Calls of operator new so far, on any thread. Tensors and memory of base::AlignedBuffer count by their control blocks.
std::int64_t allocations() noexcept;

// The most bytes of operator new that were held at once while `work` ran, beyond those held before.
std::int64_t most_bytes(const std::function<void()>& work);

}  // namespace manyheads::test
