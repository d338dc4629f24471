#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <manyheads/error.hpp>
#include <string>

#include "base/aligned_buffer.hpp"
#include "base/checked.hpp"

namespace manyheads::base {

// Lays out several arrays in one block of workspace, each at a multiple of 64 bytes. Checks sizes against overflow
// before any memory is taken. Throws Error (kOutOfMemory) in the name of `function`.
class WorkspaceLayout {
 public:
  explicit WorkspaceLayout(const char* function) : function_(function) {}

  // The offset of the next array, of this shape, in bytes.
  std::size_t take(std::initializer_list<std::int64_t> shape, std::size_t element) {
    std::int64_t bytes = static_cast<std::int64_t>(element), end = 0;
    bool fits = true;
    for (const std::int64_t size : shape) fits = fits && multiply(bytes, size, &bytes);
    if (!fits || !add(bytes, static_cast<std::int64_t>(used_ + kAlignment), &end)) {
      throw Error(ErrorCode::kOutOfMemory, std::string(function_) + ": the activations are larger than memory");
    }
    const std::size_t at = used_;
    used_ = static_cast<std::size_t>(end) / kAlignment * kAlignment;
    return at;
  }
  std::size_t used() const { return used_; }

 private:
  const char* function_;
  std::size_t used_ = 0;
};

}  // namespace manyheads::base
