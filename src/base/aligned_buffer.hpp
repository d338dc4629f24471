#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdlib>
#include <limits>
#include <memory>
#include <new>
#include <string>

#include <manyheads/error.hpp>

namespace manyheads::base {

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kLargePage = std::size_t{2} << 20;

// Memory of plain elements at a multiple of 64 bytes, not initialised. From the size of a large page on it lies in
// large pages, where the system has them: streams over small pages wait for address translation. Throws Error
// (kOutOfMemory).
template <class T>
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  explicit AlignedBuffer(std::size_t count) : size_(count) {
    if (count == 0) return;
    void* p = nullptr;
    if (count <= (std::numeric_limits<std::size_t>::max() - kLargePage) / sizeof(T)) {
      const bool large = count * sizeof(T) >= kLargePage;
      const std::size_t unit = large ? kLargePage : kAlignment;
      const std::size_t bytes = (count * sizeof(T) + unit - 1) / unit * unit;
      p = std::aligned_alloc(unit, bytes);
      if (large && p != nullptr) madvise(p, bytes, MADV_HUGEPAGE);  // a wish, not a must
    }
    if (p == nullptr) {
      throw Error(ErrorCode::kOutOfMemory,
                  "cannot allocate " + std::to_string(count) + " elements of " + std::to_string(sizeof(T)) + " bytes");
    }
    data_.reset(static_cast<T*>(p));
  }

  T* data() noexcept { return data_.get(); }
  const T* data() const noexcept { return data_.get(); }
  std::size_t size() const noexcept { return size_; }
  T& operator[](std::size_t i) noexcept { return data_.get()[i]; }
  const T& operator[](std::size_t i) const noexcept { return data_.get()[i]; }

 private:
  struct Free {
    void operator()(T* p) const noexcept { std::free(p); }
  };
  std::unique_ptr<T[], Free> data_;
  std::size_t size_ = 0;
};

}  // namespace manyheads::base
