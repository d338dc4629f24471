#include "model/text_stream.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "io/malformed.hpp"
#include "model/byte_level.hpp"
#include "support.hpp"

namespace manyheads::model {
namespace {

using Ids = std::vector<std::int64_t>;
using Json = nlohmann::json;
using test::byte_level_tokenizer;
using test::TemporaryFolder;

Tokenizer load(const Json& json) {
  const TemporaryFolder folder;
  return Tokenizer(folder.write("tokenizer.json", json.dump()));
}

// Every byte is a token, 3 more than its value.
Tokenizer bytes() {
  std::string all;
  for (int b = 0; b < 256; ++b) all += static_cast<char>(b);
  return load(byte_level_tokenizer(all));
}
Ids ids_of(const std::string& text) {
  Ids ids;
  for (const char c : text) ids.push_back(3 + static_cast<unsigned char>(c));
  return ids;
}

// Tokens that begin a word with U+2581, spell unknown bytes as <0x..>, and lose the first blank of a text: as
// SentencePiece's.
Tokenizer sentence_piece() {
  Json vocabulary;
  int id = 0;
  for (const char* token : {"<unk>", "<s>", "</s>"}) vocabulary[token] = id++;
  for (int b = 0; b < 256; ++b) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", static_cast<unsigned>(b));
    vocabulary[name] = id++;
  }
  for (const char* token : {"\xe2\x96\x81the",
                            "\xe2\x96\x81"
                            "cat",
                            "s"}) {
    vocabulary[token] = id++;
  }
  Json json = byte_level_tokenizer("");
  json["added_tokens"] = Json::array();
  json["pre_tokenizer"] = nullptr;
  json["decoder"] = {{"type", "Sequence"},
                     {"decoders",
                      {{{"type", "Replace"}, {"pattern", {{"String", "\xe2\x96\x81"}}}, {"content", " "}},
                       {{"type", "ByteFallback"}},
                       {{"type", "Fuse"}},
                       {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}}}}};
  json["model"] = {{"type", "BPE"},
                   {"vocab", vocabulary},
                   {"merges", Json::array()},
                   {"unk_token", "<unk>"},
                   {"byte_fallback", true}};
  return load(json);
}

// What comes out at each token, and at the end.
std::vector<std::string> pieces(TextStream stream, const Ids& ids) {
  std::vector<std::string> out;
  for (const std::int64_t id : ids) out.push_back(stream.push(id));
  out.push_back(stream.finish());
  return out;
}
std::string joined(const std::vector<std::string>& parts) {
  std::string all;
  for (const std::string& part : parts) all += part;
  return all;
}

using Pieces = std::vector<std::string>;

TEST(TextStream, ACharacterComesOutWithItsLastToken) {
  const Tokenizer tokenizer = bytes();
  EXPECT_EQ(pieces(TextStream(tokenizer), ids_of("a\xc3\xa9\n")), (Pieces{"a", "", "\xc3\xa9", "\n", ""}));
  EXPECT_EQ(pieces(TextStream(tokenizer), ids_of("\xe4\xbd\xa0\xe5\xa5\xbd")),
            (Pieces{"", "", "\xe4\xbd\xa0", "", "", "\xe5\xa5\xbd", ""}));
  EXPECT_EQ(pieces(TextStream(tokenizer), ids_of("\xf0\x9f\x98\x80!")),
            (Pieces{"", "", "", "\xf0\x9f\x98\x80", "!", ""}));
  // A character that the model leaves unfinished.
  EXPECT_EQ(pieces(TextStream(tokenizer), ids_of("a\xf0\x9f")), (Pieces{"a", "", "", "\xef\xbf\xbd"}));
  EXPECT_EQ(joined(pieces(TextStream(tokenizer), ids_of("\xf0\x9f!"))), "\xef\xbf\xbd!");
}

TEST(TextStream, PiecesJoinToTheWhole) {
  const Tokenizer tokenizer = bytes();
  std::uint64_t state = 1;
  for (int text = 0; text < 300; ++text) {
    std::string random;
    for (int i = 0; i < 40; ++i) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      const auto pick = state >> 33;
      const std::string parts[] = {"a",    " b",       "\xc3\xa9",    "\xe4\xbd\xa0", "\xf0\x9f\x98\x80",
                                   "\xff", "\xf0\x9f", "\xef\xbf\xbd"};
      random += parts[pick % (text % 2 == 0 ? 5 : 8)];
    }
    const Ids ids = ids_of(random);
    ASSERT_EQ(joined(pieces(TextStream(tokenizer), ids)), tokenizer.decode(ids)) << text;
  }
}

// No text may be held back for ever, nor a token cost more and more.
TEST(TextStream, BytesOfNoCharacterComeOut) {
  const Tokenizer tokenizer = bytes();
  TextStream stream(tokenizer);
  std::size_t out = 0;
  for (int i = 1; i <= 2000; ++i) {
    out += stream.push(3 + 0xff).size() / 3;
    ASSERT_LE(static_cast<std::size_t>(i), out + 3) << i;
  }
  out += stream.finish().size() / 3;
  EXPECT_EQ(out, 2000u);
}

TEST(TextStream, SpecialTokensAreSkippedOrShown) {
  const Tokenizer tokenizer = bytes();
  const Ids ids = {1, 3 + 'a', 2, 3 + 'b', 2, 2};
  EXPECT_EQ(pieces(TextStream(tokenizer), ids), (Pieces{"", "a", "", "b", "", "", ""}));
  EXPECT_EQ(joined(pieces(TextStream(tokenizer, {}, false), ids)), "<|im_start|>a<|im_end|>b<|im_end|><|im_end|>");
  EXPECT_EQ(pieces(TextStream(tokenizer), {-1, 3 + 'a', 100'000, std::int64_t{1} << 40}),
            (Pieces{"", "a", "", "", ""}));
}

TEST(TextStream, ABlankBeforeAWordStandsBehindTheContextAlone) {
  const Tokenizer tokenizer = sentence_piece();
  const std::int64_t the = 259, cat = 260, s = 261;
  EXPECT_EQ(pieces(TextStream(tokenizer), {the, cat, s}), (Pieces{"the", " cat", "s", ""}));
  EXPECT_EQ(pieces(TextStream(tokenizer, Ids{the}), {cat, s, the}), (Pieces{" cat", "s", " the", ""}));
  EXPECT_EQ(pieces(TextStream(tokenizer, Ids(500, the)), {cat}), (Pieces{" cat", ""}));
}

TEST(TextStream, ByteFallback) {
  const Tokenizer tokenizer = sentence_piece();
  const std::int64_t cat = 260;
  const auto byte = [](int b) { return std::int64_t{3 + b}; };
  EXPECT_EQ(pieces(TextStream(tokenizer, Ids{cat}), {byte(0xe4), byte(0xbd), byte(0xa0), cat}),
            (Pieces{"", "", "\xe4\xbd\xa0", " cat", ""}));
  EXPECT_EQ(pieces(TextStream(tokenizer, Ids{cat}), {byte(0xc3), byte(0xa9), byte(0xe4), byte(0xbd), byte(0xa0)}),
            (Pieces{"", "\xc3\xa9", "", "", "\xe4\xbd\xa0", ""}));
  // This decoder takes back a whole character for a broken one behind it. What is out stays out.
  const std::string text =
      joined(pieces(TextStream(tokenizer, Ids{cat}), {byte(0xc3), byte(0xa9), byte(0xe4), cat, cat}));
  EXPECT_EQ(text.substr(0, 2), "\xc3\xa9");
  EXPECT_EQ(text.substr(text.size() - 8), " cat cat");
}

}  // namespace
}  // namespace manyheads::model
