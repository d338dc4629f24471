#include <manyheads/parallel.hpp>
#include <memory>

#include "base/aligned_buffer.hpp"

namespace manyheads {

struct Workspace::Block {
  base::AlignedBuffer<unsigned char> memory;
};

Workspace::Workspace() : block_(std::make_unique<Block>()) {}
Workspace::~Workspace() = default;
Workspace::Workspace(Workspace&&) noexcept = default;
Workspace& Workspace::operator=(Workspace&&) noexcept = default;

void* Workspace::reserve(std::size_t bytes) {
  if (block_ == nullptr) block_ = std::make_unique<Block>();  // moved from
  // The old block goes only once there is a new one: an error changes nothing.
  if (bytes > block_->memory.size()) block_->memory = base::AlignedBuffer<unsigned char>(bytes);
  return block_->memory.data();
}

std::size_t Workspace::capacity() const noexcept { return block_ == nullptr ? 0 : block_->memory.size(); }

}  // namespace manyheads
