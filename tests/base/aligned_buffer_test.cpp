#include "base/aligned_buffer.hpp"

#include <gtest/gtest.h>

#include <cstdint>

namespace manyheads::base {
namespace {

template <class T>
std::uintptr_t offset(const AlignedBuffer<T>& buffer, std::size_t unit) {
  return reinterpret_cast<std::uintptr_t>(buffer.data()) % unit;
}

TEST(AlignedBuffer, BeginsAtALineAndLargeOnesAtALargePage) {
  for (const std::size_t count : {1, 100, 1000, 100000}) {
    EXPECT_EQ(offset(AlignedBuffer<float>(count), kAlignment), 0u) << count;
  }
  for (const std::size_t bytes : {kLargePage, kLargePage + 1, 3 * kLargePage}) {
    AlignedBuffer<unsigned char> buffer(bytes);
    EXPECT_EQ(offset(buffer, kLargePage), 0u) << bytes;
    EXPECT_EQ(buffer.size(), bytes);
    buffer[0] = buffer[bytes - 1] = 7;
    EXPECT_EQ(buffer[bytes - 1], 7);
  }
  EXPECT_EQ(AlignedBuffer<float>(0).data(), nullptr);
}

TEST(AlignedBuffer, MoreThanAnyMemoryIsAnError) {
  EXPECT_THROW(AlignedBuffer<double>(~std::size_t{0}), Error);
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a sanitizer ends the program where memory runs out";
#endif
  EXPECT_THROW(AlignedBuffer<double>(std::size_t{1} << 60), Error);
}

}  // namespace
}  // namespace manyheads::base
