// WebAssembly moves no pages: memory grows by a copy.
#include "base/growing_memory.hpp"

#include <cstdlib>
#include <cstring>
#include <manyheads/error.hpp>
#include <string>

namespace manyheads::base {

GrowingMemory::~GrowingMemory() { std::free(data_); }

void GrowingMemory::grow(std::size_t bytes) {
  if (bytes <= size_) return;
  constexpr std::size_t kUnit = std::size_t{64} << 10;
  const std::size_t size = bytes <= static_cast<std::size_t>(-1) - kUnit ? (bytes + kUnit - 1) / kUnit * kUnit : 0;
  void* const room = size > 0 ? std::aligned_alloc(kUnit, size) : nullptr;
  if (room == nullptr) {
    throw Error(ErrorCode::kOutOfMemory, "cannot allocate " + std::to_string(bytes) + " bytes");
  }
  if (size_ > 0) std::memcpy(room, data_, size_);
  std::memset(static_cast<std::byte*>(room) + size_, 0, size - size_);
  std::free(data_);
  data_ = static_cast<std::byte*>(room);
  size_ = size;
}

}  // namespace manyheads::base
