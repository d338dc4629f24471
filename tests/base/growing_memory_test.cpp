#include "base/growing_memory.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "attention/child.hpp"
#include "base/aligned_buffer.hpp"
#include "support.hpp"

namespace manyheads::test {
namespace {

using base::GrowingMemory;

// What fills the memory up to now, and zeros behind it.
bool holds(const GrowingMemory& memory, std::size_t filled, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; i += i < filled ? 1 : 509) {
    const auto expected = i < filled ? static_cast<std::byte>(i * 7 + i / 4096) : std::byte{0};
    if (memory.data()[i] != expected) return false;
  }
  return true;
}

void fill(const GrowingMemory& memory, std::size_t from, std::size_t to) {
  for (std::size_t i = from; i < to; ++i) memory.data()[i] = static_cast<std::byte>(i * 7 + i / 4096);
}

TEST(GrowingMemory, KeepsWhatItHoldsAndGrowsByZeros) {
  GrowingMemory memory;
  EXPECT_EQ(memory.size(), 0u);
  EXPECT_EQ(memory.data(), nullptr);
  memory.grow(0);
  EXPECT_EQ(memory.data(), nullptr);
  std::vector<GrowingMemory> others;  // in the way of growth where it lies
  std::size_t filled = 0;
  for (const std::size_t bytes : {std::size_t{1}, std::size_t{4096}, std::size_t{5000}, std::size_t{100000},
                                  std::size_t{3} << 20, std::size_t{5} << 20, std::size_t{64} << 20}) {
    memory.grow(bytes);
    ASSERT_GE(memory.size(), bytes);
    const std::size_t unit = bytes >= base::kLargePage ? base::kLargePage : 4096;
    EXPECT_EQ(memory.size() % 4096, 0u);
    EXPECT_LT(memory.size(), bytes + unit);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(memory.data()) % 4096, 0u);
    ASSERT_TRUE(holds(memory, filled, memory.size())) << bytes;
    const std::size_t more = std::min(bytes, std::size_t{6} << 20);
    fill(memory, filled, more);
    filled = std::max(filled, more);
    memory.grow(bytes / 2);  // never less
    ASSERT_TRUE(holds(memory, filled, memory.size())) << bytes;
    others.emplace_back().grow(4096);
  }
}

TEST(GrowingMemory, MovesByGivingItUp) {
  GrowingMemory a;
  a.grow(10000);
  fill(a, 0, 10000);
  GrowingMemory b = std::move(a);
  EXPECT_TRUE(holds(b, 10000, b.size()));
  GrowingMemory c;
  c.grow(5);
  c = std::move(b);
  EXPECT_TRUE(holds(c, 10000, c.size()));
}

TEST(GrowingMemory, WhatCannotBeHadChangesNothing) {
  GrowingMemory memory;
  memory.grow(10000);
  fill(memory, 0, 10000);
  const std::byte* const data = memory.data();
  const std::size_t size = memory.size();
  constexpr std::size_t kMost = std::numeric_limits<std::size_t>::max();
  for (const std::size_t bytes : {kMost, kMost - 4095, kMost / 2, kMost / 2 - (std::size_t{4} << 20), std::size_t{1} << 60,
                                  std::size_t{1} << 48}) {
    EXPECT_NE(error_of([&] { memory.grow(bytes); }, ErrorCode::kOutOfMemory), "no error") << bytes;
    EXPECT_NE(error_of([&] { GrowingMemory().grow(bytes); }, ErrorCode::kOutOfMemory), "no error") << bytes;
    EXPECT_EQ(memory.data(), data);
    EXPECT_EQ(memory.size(), size);
    EXPECT_TRUE(holds(memory, 10000, size));
  }
}

// Nothing is copied: what grows a hundredfold takes no memory until it is written to.
TEST(GrowingMemory, TakesMemoryWhereItIsWrittenTo) {
  if (kSanitized) GTEST_SKIP() << "a sanitizer's own memory grows too";
  GrowingMemory memory, other;
  memory.grow(std::size_t{8} << 20);
  fill(memory, 0, std::size_t{8} << 20);
  const std::size_t before = own_status("VmHWM");
  for (std::size_t size = 16; size <= 4096; size *= 2) memory.grow(size << 20);
  EXPECT_LT(own_status("VmHWM"), before + 4096);  // KiB
  EXPECT_TRUE(holds(memory, std::size_t{8} << 20, std::size_t{16} << 20));
}

}  // namespace
}  // namespace manyheads::test
