#include "lens/truncate.hpp"

#include <gtest/gtest.h>

#include <manyheads/error.hpp>
#include <string>

namespace manyheads::lens {
namespace {

// [CLS] a a a .. [SEP] b b .. [SEP]; each token's id is its place.
model::Encoding encoding(int first, int second) {
  model::Encoding e;
  const auto add = [&](const char* token, int sequence) {
    e.ids.push_back(static_cast<std::int64_t>(e.ids.size()));
    e.type_ids.push_back(sequence == 1 ? 1 : 0);
    e.tokens.push_back(token);
    e.offsets.push_back({0, 1});
    e.words.push_back(sequence < 0 ? -1 : 0);
    e.sequences.push_back(sequence);
    e.special.push_back(sequence < 0);
  };
  add("[CLS]", -1);
  for (int i = 0; i < first; ++i) add("a", 0);
  add("[SEP]", -1);
  for (int i = 0; i < second; ++i) add("b", 1);
  if (second > 0) add("[SEP]", -1);
  return e;
}

std::string spelled(const model::Encoding& e) {
  std::string out;
  for (const std::string& token : e.tokens) out += token[0] == '[' ? '|' : token[0];
  EXPECT_EQ(e.ids.size(), e.tokens.size());
  EXPECT_EQ(e.type_ids.size(), e.tokens.size());
  EXPECT_EQ(e.offsets.size(), e.tokens.size());
  EXPECT_EQ(e.words.size(), e.tokens.size());
  EXPECT_EQ(e.sequences.size(), e.tokens.size());
  EXPECT_EQ(e.special.size(), e.tokens.size());
  return out;
}

TEST(TruncateTest, OneTextLosesItsEnd) {
  EXPECT_EQ(spelled(truncate(encoding(5, 0), 7)), "|aaaaa|");
  EXPECT_EQ(spelled(truncate(encoding(5, 0), 6)), "|aaaa|");
  EXPECT_EQ(spelled(truncate(encoding(5, 0), 2)), "||");
  EXPECT_EQ(truncate(encoding(5, 0), 4).ids, (std::vector<std::int64_t>{0, 1, 2, 6}));
}

TEST(TruncateTest, OfAPairTheLongerIsCut) {
  EXPECT_EQ(spelled(truncate(encoding(6, 2), 9)), "|aaaa|bb|");
  EXPECT_EQ(spelled(truncate(encoding(2, 6), 9)), "|aa|bbbb|");
  EXPECT_EQ(spelled(truncate(encoding(6, 6), 10)), "|aaa|bbbb|");  // the second text has the odd one, as elsewhere
  EXPECT_EQ(spelled(truncate(encoding(7, 6), 10)), "|aaaa|bbb|");
}

TEST(TruncateTest, SpecialTokensMustFit) { EXPECT_THROW(truncate(encoding(5, 0), 1), Error); }

}  // namespace
}  // namespace manyheads::lens
