#include "lens/link_reader.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace manyheads::lens {
namespace {

// What a head of `n` tokens gives to links, read row by row.
LinkReader read(const std::vector<float>& weights, std::size_t n, const std::vector<Word>& words,
                const std::vector<Link>& asked, std::size_t num_strongest) {
  LinkReader reader(words, asked, num_strongest);
  for (std::size_t q = 0; q < n; ++q) reader.add(weights.data() + q * n);
  return reader;
}

// Sum over the pieces of the attended word, mean over the pieces of the attending word.
TEST(LinkReaderTest, SumOverKeysMeanOverQueries) {
  const std::vector<float> a = {0.5f, 0.25f, 0.125f, 0.125f,  //
                                0.0f, 0.5f,  0.25f,  0.25f,   //
                                0.5f, 0.0f,  0.5f,   0.0f,    //
                                0.1f, 0.2f,  0.3f,   0.4f};
  const std::vector<Word> words = {{"x", 1, 2, 0}, {"y", 3, 1, 0}};
  const std::vector<WeighedLink> links = read(a, 4, words, {{0, 0}, {0, 1}, {1, 0}, {1, 1}}, 0).asked();
  ASSERT_EQ(links.size(), 4u);
  EXPECT_DOUBLE_EQ(links[0].weight, (0.5 + 0.25 + 0.0 + 0.5) / 2);  // x to x
  EXPECT_DOUBLE_EQ(links[1].weight, (0.25 + 0.0) / 2);              // x to y
  EXPECT_FLOAT_EQ(static_cast<float>(links[2].weight), 0.5f);       // y to x: 0.2 + 0.3
  EXPECT_FLOAT_EQ(static_cast<float>(links[3].weight), 0.4f);
}

// [CLS] a b c d [SEP]: each link's own weight is left out of the mean, and so is a word without a word at the offset.
TEST(LinkReaderTest, TheOtherWordsAtTheSameOffset) {
  const std::size_t n = 6;
  std::vector<float> a(n * n);
  for (std::size_t i = 0; i < a.size(); ++i) a[i] = static_cast<float>(i % 17) / 64;
  const auto at = [&](std::size_t q, std::size_t k) { return static_cast<double>(a[(q + 1) * n + k + 1]); };
  const std::vector<Word> words = {{"a", 1, 1, 0}, {"b", 2, 1, 0}, {"c", 3, 1, 0}, {"d", 4, 1, 0}};
  const std::vector<WeighedLink> links = read(a, n, words, {{1, 2}, {3, 1}, {0, 3}, {2, 2}}, 0).asked();
  EXPECT_DOUBLE_EQ(links[0].offset_mean.value(), (at(0, 1) + at(2, 3)) / 2);
  EXPECT_DOUBLE_EQ(links[0].above_offset().value(), at(1, 2) - (at(0, 1) + at(2, 3)) / 2);
  EXPECT_DOUBLE_EQ(links[1].offset_mean.value(), at(2, 0));
  EXPECT_EQ(links[2].offset_mean, std::nullopt);  // only a has a third next word
  EXPECT_EQ(links[2].above_offset(), std::nullopt);
  EXPECT_DOUBLE_EQ(links[3].offset_mean.value(), (at(0, 0) + at(1, 1) + at(3, 3)) / 3);
}

// a b | c d: links within one text and links across are told apart, though c is the next word of b.
TEST(LinkReaderTest, LinksAcrossTwoTextsAreAmongThemselves) {
  const std::size_t n = 4;
  std::vector<float> a(n * n);
  for (std::size_t i = 0; i < a.size(); ++i) a[i] = static_cast<float>(i + 1) / 64;
  const auto at = [&](std::size_t q, std::size_t k) { return static_cast<double>(a[q * n + k]); };
  const std::vector<Word> words = {{"a", 0, 1, 0}, {"b", 1, 1, 0}, {"c", 2, 1, 1}, {"d", 3, 1, 1}};
  const std::vector<WeighedLink> links = read(a, n, words, {{0, 1}, {1, 2}, {0, 2}, {3, 1}}, 0).asked();
  EXPECT_DOUBLE_EQ(links[0].offset_mean.value(), at(2, 3));
  EXPECT_EQ(links[1].offset_mean, std::nullopt);
  EXPECT_DOUBLE_EQ(links[2].offset_mean.value(), at(1, 3));
  EXPECT_DOUBLE_EQ(links[3].offset_mean.value(), at(2, 0));

  // Texts that take turns, as a file of another program may have them.
  const std::vector<Word> turns = {{"a", 0, 1, 0}, {"b", 1, 1, 1}, {"c", 2, 1, 1}, {"d", 3, 1, 0}};
  const std::vector<WeighedLink> crossing = read(a, n, turns, {{0, 1}, {3, 0}}, 2).asked();
  EXPECT_DOUBLE_EQ(crossing[0].offset_mean.value(), at(2, 3));
  EXPECT_EQ(crossing[1].offset_mean, std::nullopt);
}

TEST(LinkReaderTest, TheStrongestStandOutFromTheirOffset) {
  const std::vector<Word> words = {{"a", 0, 1, 0}, {"b", 1, 1, 0}, {"c", 2, 1, 0}};
  const std::vector<float> a = {0.9f, 0.5f,  1.0f,   //
                                0.0f, 0.9f,  0.75f,  //
                                0.5f, 0.25f, 0.9f};
  const std::vector<WeighedLink> links = read(a, 3, words, {}, 9).strongest();
  ASSERT_EQ(links.size(), 5u);  // 0.0 is no link, and the diagonal is none
  const Link order[] = {{1, 2}, {2, 1}, {0, 1}, {0, 2}, {2, 0}};
  const double above[] = {0.25, 0.25, -0.25};
  for (std::size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(links[i].link.query, order[i].query) << i;
    EXPECT_EQ(links[i].link.key, order[i].key) << i;
    if (i < 3) {
      EXPECT_DOUBLE_EQ(links[i].above_offset().value(), above[i]);
    }
  }
  EXPECT_EQ(links[3].offset_mean, std::nullopt);
  const std::vector<WeighedLink> two = read(a, 3, words, {}, 2).strongest();
  ASSERT_EQ(two.size(), 2u);
  EXPECT_EQ(two[1].link.query, 2u);
  EXPECT_TRUE(read({0.9f}, 1, {{"a", 0, 1, 0}}, {}, 3).strongest().empty());
  EXPECT_TRUE(read({0.9f}, 1, {}, {}, 3).strongest().empty());
}

// Heads of decoders rest on the first token: links to it count at their offset, and are never among the strongest.
TEST(LinkReaderTest, LinksToTheFirstTokenCanBeLeftOut) {
  const std::vector<float> a = {1.0f, 0.0f, 0.0f,  //
                                0.9f, 0.1f, 0.0f,  //
                                0.6f, 0.3f, 0.1f};
  const std::vector<Word> words = {{"a", 0, 1, 0}, {"b", 1, 1, 0}, {"c", 2, 1, 0}};
  LinkReader reader(words, {{2, 0}, {2, 1}}, 3, true);
  for (std::size_t q = 0; q < 3; ++q) reader.add(a.data() + q * 3);
  ASSERT_EQ(reader.strongest().size(), 1u);
  EXPECT_EQ(reader.strongest()[0].link.query, 2u);
  EXPECT_EQ(reader.strongest()[0].link.key, 1u);
  EXPECT_FLOAT_EQ(static_cast<float>(reader.strongest()[0].offset_mean.value()), 0.9f);
  EXPECT_FLOAT_EQ(static_cast<float>(reader.asked()[0].weight), 0.6f);
  EXPECT_EQ(read(a, 3, words, {}, 3).strongest().size(), 3u);
}

}  // namespace
}  // namespace manyheads::lens
