#pragma once

#include <cstddef>
#include <utility>

namespace manyheads::base {

// Memory of zeros that grows without a copy. The system moves its pages to where there is room, and takes memory only
// for pages that are written to. It lies in large pages from that size on, as AlignedBuffer.
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

  // Grows to at least so many bytes. The content keeps its offsets from data(), which may change. Throws Error
  // (kOutOfMemory) and changes nothing then.
  void grow(std::size_t bytes);

  std::byte* data() const noexcept { return data_; }
  std::size_t size() const noexcept { return size_; }  // bytes, whole pages

 private:
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace manyheads::base
