#include "model/first_tokens.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <manyheads/error.hpp>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "io/json.hpp"
#include "support.hpp"

namespace manyheads::model {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

fs::path tiny() { return test::source_dir() / "tests/golden/embed/tiny"; }

Json tokenizer_json() { return io::read_json(tiny() / "tokenizer.json").value; }
Tokenizer load(const Json& json) { return Tokenizer(io::JsonDocument{json, "tokenizer.json"}); }

Json added_token(const std::string& content, bool special, bool single_word = false) {
  return {{"id", 0},         {"content", content},     {"single_word", single_word}, {"lstrip", true},
          {"rstrip", false}, {"normalized", !special}, {"special", special}};
}

// The whole text's tokens, cut by hand.
std::vector<std::int64_t> whole(const Tokenizer& tokenizer, const std::string& text, std::size_t max_tokens) {
  std::vector<std::int64_t> ids = tokenizer.encode(text).ids;
  if (ids.size() <= max_tokens) return ids;
  const std::int64_t last = ids.back();
  ids.resize(max_tokens - 1);
  ids.push_back(last);
  return ids;
}

// Texts that are long enough to be read in parts, of pieces that make trouble where they meet a cut.
std::string long_text(std::mt19937& random, std::size_t bytes) {
  static const std::vector<std::string> pieces = {"the",
                                                  "Cat",
                                                  "sat ",
                                                  " ",
                                                  "\t",
                                                  "  ",
                                                  ".",
                                                  ",",
                                                  ":",
                                                  "-",
                                                  "[",
                                                  "]",
                                                  "[MASK]",
                                                  "[SEP]",
                                                  "<x>",
                                                  "<",
                                                  ">",
                                                  "caf\xc3\xa9",
                                                  "cafe\xcc\x81",
                                                  "\xcc\x81",
                                                  "\xe4\xb8\xad",
                                                  "\xe6\x96\x87",
                                                  "\xe3\x80\x80",
                                                  "\xe3\x80\x82",
                                                  "\xe2\x80\x8b",
                                                  "\x01",
                                                  "\xd0\x9f\xd1\x80",
                                                  "\xf0\x9f\x98\x80",
                                                  "a",
                                                  "b",
                                                  "zz",
                                                  "wine",
                                                  "\xe1\x84\x92\xe1\x85\xa1",
                                                  "\xe2\x84\xaa"};
  std::string text;
  while (text.size() < bytes) {
    const auto kind = random() % 400;
    if (kind == 0) {
      text.append(random() % 3000, 'q');  // a long word
    } else if (kind == 1) {
      text.append(random() % 30000, ' ');
    } else {
      text += pieces[random() % pieces.size()];
    }
  }
  return text;
}

TEST(FirstTokens, PartsGiveTheTokensOfTheWhole) {
  std::vector<Json> files;
  files.push_back(tokenizer_json());
  files.push_back(tokenizer_json());
  files.back()["normalizer"]["handle_chinese_chars"] = false;
  files.back()["normalizer"]["lowercase"] = false;
  files.push_back(tokenizer_json());
  files.back()["added_tokens"].push_back(added_token("<x>", false));
  files.push_back(tokenizer_json());
  files.back()["normalizer"] = {{"type", "Sequence"},
                                {"normalizers", {{{"type", "Lowercase"}}, tokenizer_json()["normalizer"]}}};
  std::mt19937 random(1);
  for (std::size_t f = 0; f < files.size(); ++f) {
    const Tokenizer tokenizer = load(files[f]);
    ASSERT_TRUE(tokenizer.breaks().known) << f;
    for (int i = 0; i < 4; ++i) {
      const std::string text = long_text(random, 20000 + random() % 60000);
      const std::size_t all = tokenizer.encode(text).size();
      for (const std::size_t max_tokens : {std::size_t{2}, std::size_t{3}, std::size_t{256}, all - 1, all, all + 1}) {
        const FirstTokens got = first_tokens(tokenizer, text, max_tokens);
        ASSERT_EQ(got.ids, whole(tokenizer, text, max_tokens)) << f << " " << i << " " << max_tokens;
        ASSERT_EQ(got.type_ids, std::vector<std::int64_t>(got.ids.size(), 0));
        ASSERT_EQ(got.cut, all > max_tokens);
        ASSERT_TRUE(!got.read_whole || got.text_tokens == all - 2);
        ASSERT_TRUE(got.cut || got.read_whole);
      }
    }
  }
}

TEST(FirstTokens, AWordOfAnyLengthIsOneToken) {
  const Tokenizer tokenizer = load(tokenizer_json());
  EXPECT_GT(tokenizer.breaks().unknown_from, 0u);
  const std::string word(3 << 20, 'a');
  EXPECT_EQ(first_tokens(tokenizer, "the " + word + " cat [MASK]" + word + "[MASK]", 20).ids,
            tokenizer.encode("the " + std::string(200, 'a') + " cat [MASK]" + std::string(200, 'a') + "[MASK]").ids);
  // An added token that such a word can hold.
  Json json = tokenizer_json();
  json["added_tokens"].push_back(added_token("at", false));
  const Tokenizer holds = load(json);
  EXPECT_TRUE(holds.breaks().known);
  EXPECT_EQ(holds.breaks().unknown_from, 0u);
  const std::string text = std::string(20000, 'q') + "at" + std::string(20000, 'q');
  EXPECT_EQ(first_tokens(holds, text, 20).ids, holds.encode(text).ids);
}

// Only BERT's way is known to allow a cut, and not with tokens that reach across one.
TEST(FirstTokens, OtherTokenizersSeeTheTextAtOnce) {
  const auto known = [](const std::function<void(Json&)>& change) {
    Json json = tokenizer_json();
    change(json);
    return load(json).breaks().known;
  };
  EXPECT_TRUE(known([](Json&) {}));
  EXPECT_FALSE(known([](Json& json) { json["normalizer"] = {{"type", "NFC"}}; }));
  EXPECT_FALSE(known([](Json& json) { json["normalizer"] = nullptr; }));
  EXPECT_FALSE(known([](Json& json) { json["pre_tokenizer"] = {{"type", "Whitespace"}}; }));
  EXPECT_FALSE(known([](Json& json) { json["added_tokens"].push_back(added_token("red wine", false)); }));
  EXPECT_FALSE(known([](Json& json) { json["added_tokens"].push_back(added_token("caf\xc3\xa9", false)); }));
  EXPECT_FALSE(known([](Json& json) { json["added_tokens"].push_back(added_token("cat", false, true)); }));

  Json json = tokenizer_json();
  json["added_tokens"].push_back(added_token("red wine", false));
  const Tokenizer tokenizer = load(json);
  std::string text;
  while (text.size() < 100000) text += "the red wine cat ";
  EXPECT_EQ(first_tokens(tokenizer, text, 50).ids, whole(tokenizer, text, 50));
  text.resize(kLongestPart + 1, ' ');
  EXPECT_THROW(first_tokens(tokenizer, text, 50), Error);
}

TEST(FirstTokens, ShortTextsAndNoRoom) {
  const Tokenizer tokenizer = load(tokenizer_json());
  for (const char* text : {"", " ", "\xe2\x80\x8b"}) {
    const FirstTokens got = first_tokens(tokenizer, text, 10);
    EXPECT_EQ(got.ids, (std::vector<std::int64_t>{2, 3}));
    EXPECT_EQ(got.text_tokens, 0u);
    EXPECT_FALSE(got.cut);
  }
  EXPECT_TRUE(first_tokens(tokenizer, "the cat", 3).cut);
  EXPECT_FALSE(first_tokens(tokenizer, "the cat", 4).cut);
  EXPECT_THROW(first_tokens(tokenizer, "the cat", 1), Error);
  EXPECT_THROW(first_tokens(tokenizer, "the \xff", 10), Error);
}

}  // namespace
}  // namespace manyheads::model
