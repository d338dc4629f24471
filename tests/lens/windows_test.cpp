#include "lens/windows.hpp"

#include <gtest/gtest.h>

#include <manyheads/error.hpp>

namespace manyheads::lens {
namespace {

// [CLS], then a token for each entry: the number of its word; then [SEP]. A token is 3 bytes behind the last.
model::Encoding encoding_of(const std::vector<std::int64_t>& words) {
  model::Encoding out;
  const auto add = [&](const char* token, std::int64_t id, std::int64_t word, std::int64_t at) {
    out.ids.push_back(id);
    out.type_ids.push_back(0);
    out.tokens.emplace_back(token);
    out.offsets.push_back({at, word < 0 ? at : at + 2});
    out.words.push_back(word);
    out.sequences.push_back(word < 0 ? -1 : 0);
    out.special.push_back(word < 0);
  };
  add("[CLS]", 101, -1, 0);
  for (std::size_t i = 0; i < words.size(); ++i) {
    add("t", 1000 + static_cast<std::int64_t>(i), words[i], 3 * static_cast<std::int64_t>(i));
  }
  add("[SEP]", 102, -1, 0);
  return out;
}

TEST(Windows, AShortTextIsOne) {
  const model::Encoding whole = encoding_of({0, 1, 2});
  const std::vector<Window> windows = windows_of(whole, 5);
  ASSERT_EQ(windows.size(), 1u);
  EXPECT_EQ(windows[0].encoding.ids, whole.ids);
  EXPECT_EQ(windows[0].encoding.offsets, whole.offsets);
  EXPECT_EQ(windows[0].bytes, (std::array<std::int64_t, 2>{0, 8}));
}

TEST(Windows, EndBeforeAWordAndLoseNoToken) {
  // Room for three: {0, 1 1}, {2 2}, a word of four in two windows, the second with {4}.
  const std::vector<Window> windows = windows_of(encoding_of({0, 1, 1, 2, 2, 3, 3, 3, 3, 4}), 5);
  std::vector<std::int64_t> ids;
  std::vector<std::size_t> sizes;
  for (const Window& window : windows) {
    const model::Encoding& encoding = window.encoding;
    EXPECT_EQ(encoding.ids.front(), 101);
    EXPECT_EQ(encoding.ids.back(), 102);
    EXPECT_EQ(encoding.words[1], 0);
    EXPECT_EQ(encoding.offsets[1][0], 0);
    sizes.push_back(encoding.size() - 2);
    ids.insert(ids.end(), encoding.ids.begin() + 1, encoding.ids.end() - 1);
    EXPECT_EQ(window.bytes[1] - window.bytes[0], encoding.offsets[encoding.size() - 2][1]);
  }
  EXPECT_EQ(sizes, (std::vector<std::size_t>{3, 2, 3, 2}));
  std::vector<std::int64_t> all(10);
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = 1000 + static_cast<std::int64_t>(i);
  EXPECT_EQ(ids, all);
  EXPECT_EQ(windows[1].bytes, (std::array<std::int64_t, 2>{9, 14}));
}

TEST(Windows, OfNoTokenAreNone) { EXPECT_TRUE(windows_of(encoding_of({}), 8).empty()); }

TEST(Windows, NeedRoom) { EXPECT_THROW(windows_of(encoding_of({0, 1}), 2), Error); }

}  // namespace
}  // namespace manyheads::lens
