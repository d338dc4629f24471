#include "base/growing_memory.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <limits>
#include <string>

#include <manyheads/error.hpp>

#include "base/aligned_buffer.hpp"

namespace manyheads::base {
namespace {

constexpr std::size_t kMost = static_cast<std::size_t>(std::numeric_limits<std::ptrdiff_t>::max()) - 2 * kLargePage;

// Reserves address space of so many bytes at a multiple of `unit`, a power of two. Null where there is none.
std::byte* reserve(std::size_t bytes, std::size_t unit) {
  void* const p = ::mmap(nullptr, bytes + unit, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) return nullptr;
  auto* const begin = static_cast<std::byte*>(p);
  const std::size_t before = (unit - reinterpret_cast<std::uintptr_t>(begin) % unit) % unit;
  if (before > 0) ::munmap(begin, before);
  ::munmap(begin + before + bytes, unit - before);
  return begin + before;
}

}  // namespace

GrowingMemory::~GrowingMemory() {
  if (data_ != nullptr) ::munmap(data_, size_);
}

void GrowingMemory::grow(std::size_t bytes) {
  if (bytes <= size_) return;
  const auto fail = [&] {
    throw Error(ErrorCode::kOutOfMemory, "cannot allocate " + std::to_string(bytes) + " bytes");
  };
  if (bytes > kMost) fail();
  const std::size_t unit = bytes >= kLargePage ? kLargePage : static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  const std::size_t size = (bytes + unit - 1) / unit * unit;
  void* at = data_ != nullptr ? ::mremap(data_, size_, size, 0) : MAP_FAILED;  // where it lies
  if (at == MAP_FAILED) {
    std::byte* const room = reserve(size, unit);
    if (room == nullptr) fail();
    if (data_ == nullptr) {
      at = room;
      if (::mprotect(room, size, PROT_READ | PROT_WRITE) != 0) {
        ::munmap(room, size);
        fail();
      }
    } else {
      // The system frees the room before it can refuse: another thread's memory may lie there then.
      at = ::mremap(data_, size_, size, MREMAP_MAYMOVE | MREMAP_FIXED, room);
      if (at == MAP_FAILED) fail();
    }
  }
  data_ = static_cast<std::byte*>(at);
  size_ = size;
  if (unit == kLargePage) ::madvise(data_, size_, MADV_HUGEPAGE);  // a wish, not a must
}

}  // namespace manyheads::base
