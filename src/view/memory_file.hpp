#pragma once

#include <memory>
#include <string>
#include <utility>

#include "base/file.hpp"

namespace manyheads::view {

// Bytes that came from elsewhere, as if they were a mapped file.
inline base::MappedFile memory_file(std::string bytes) {
  const auto kept = std::make_shared<const std::string>(std::move(bytes));
  return {std::shared_ptr<const std::byte>(kept, reinterpret_cast<const std::byte*>(kept->data())), kept->size()};
}

}  // namespace manyheads::view
