#include "allocations.hpp"

#include <malloc.h>

#include <atomic>
#include <cstdlib>
#include <new>

namespace {

std::atomic<std::int64_t> g_allocations{0};
std::atomic<std::int64_t> g_held{0};
std::atomic<std::int64_t> g_most{0};

void* take(std::size_t size) noexcept {
  g_allocations.fetch_add(1, std::memory_order_relaxed);
  void* p = std::malloc(size > 0 ? size : 1);
  if (p == nullptr) return p;
  const auto bytes = static_cast<std::int64_t>(malloc_usable_size(p));
  const std::int64_t held = g_held.fetch_add(bytes, std::memory_order_relaxed) + bytes;
  for (std::int64_t most = g_most; held > most && !g_most.compare_exchange_weak(most, held);) {
  }
  return p;
}

void give(void* p) noexcept {
  if (p != nullptr) g_held.fetch_sub(static_cast<std::int64_t>(malloc_usable_size(p)), std::memory_order_relaxed);
  std::free(p);
}

}  // namespace

void* operator new(std::size_t size) {
  if (void* p = take(size)) return p;
  throw std::bad_alloc();
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept { return take(size); }
void operator delete(void* p) noexcept { give(p); }
void operator delete(void* p, std::size_t) noexcept { give(p); }

namespace manyheads::test {

std::int64_t allocations() noexcept { return g_allocations.load(std::memory_order_relaxed); }

std::int64_t most_bytes(const std::function<void()>& work) {
  const std::int64_t before = g_held;
  g_most = before;
  work();
  return g_most - before;
}

}  // namespace manyheads::test
