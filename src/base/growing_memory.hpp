#pragma once

#include <cstddef>
#include <utility>

namespace manyheads::base {

// Zeros that become more without a copy: the system moves the pages that they lie on to where there is room, and takes
// memory for those that are written to. In large pages from that size on, as AlignedBuffer.
class GrowingMemory {
 public:
  GrowingMemory() = default;
  ~GrowingMemory();
  GrowingMemory(GrowingMemory&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  GrowingMemory& operator=(GrowingMemory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }

  // At least so many bytes; what was there keeps its place counted from data(), which may be another. Throws Error
  // (kOutOfMemory), and nothing has changed.
  void grow(std::size_t bytes);

  std::byte* data() const noexcept { return data_; }
  std::size_t size() const noexcept { return size_; }  // bytes, whole pages

 private:
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace manyheads::base
