#include "model/tokenizer.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <thread>

#include "model/malformed.hpp"

namespace manyheads::model {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

// A WordPiece tokenizer as BERT has it, of a few words, that asks for padding and truncation to 6 tokens.
Json small_tokenizer() {
  Json vocab;
  int id = 0;
  for (const char* token :
       {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "cat", "sat", "##s", ".", "un", "##able", "\xc3\xa9"}) {
    vocab[token] = id++;
  }
  Json added = Json::array();
  for (const char* token : {"[PAD]", "[UNK]", "[CLS]", "[SEP]"}) {
    added.push_back({{"id", vocab[token]},
                     {"content", token},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  const auto special = [](const char* token, int type) {
    return Json{{"SpecialToken", {{"id", token}, {"type_id", type}}}};
  };
  const auto text = [](const char* name, int type) { return Json{{"Sequence", {{"id", name}, {"type_id", type}}}}; };
  return Json{{"version", "1.0"},
              {"truncation", {{"max_length", 6}, {"strategy", "LongestFirst"}, {"stride", 0}, {"direction", "Right"}}},
              {"padding",
               {{"strategy", {{"Fixed", 6}}},
                {"direction", "Right"},
                {"pad_to_multiple_of", nullptr},
                {"pad_id", 0},
                {"pad_type_id", 0},
                {"pad_token", "[PAD]"}}},
              {"added_tokens", added},
              {"normalizer",
               {{"type", "BertNormalizer"},
                {"clean_text", true},
                {"handle_chinese_chars", true},
                {"strip_accents", false},
                {"lowercase", true}}},
              {"pre_tokenizer", {{"type", "BertPreTokenizer"}}},
              {"post_processor",
               {{"type", "TemplateProcessing"},
                {"single", {special("[CLS]", 0), text("A", 0), special("[SEP]", 0)}},
                {"pair", {special("[CLS]", 0), text("A", 0), special("[SEP]", 0), text("B", 1), special("[SEP]", 1)}},
                {"special_tokens",
                 {{"[CLS]", {{"id", "[CLS]"}, {"ids", {2}}, {"tokens", {"[CLS]"}}}},
                  {"[SEP]", {{"id", "[SEP]"}, {"ids", {3}}, {"tokens", {"[SEP]"}}}}}}}},
              {"decoder", {{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}}},
              {"model",
               {{"type", "WordPiece"},
                {"unk_token", "[UNK]"},
                {"continuing_subword_prefix", "##"},
                {"max_input_chars_per_word", 100},
                {"vocab", vocab}}}};
}

Tokenizer load(const Json& json) {
  const TemporaryFolder folder;
  return Tokenizer(folder.write("tokenizer.json", json.dump()));
}

using Tokens = std::vector<std::string>;
using Ids = std::vector<std::int64_t>;
using Offsets = std::vector<std::array<std::int64_t, 2>>;

TEST(Tokenizer, OneText) {
  const Encoding encoding = load(small_tokenizer()).encode("The cats sat.");
  EXPECT_EQ(encoding.tokens, (Tokens{"[CLS]", "the", "cat", "##s", "sat", ".", "[SEP]"}));
  EXPECT_EQ(encoding.ids, (Ids{2, 4, 5, 7, 6, 8, 3}));
  EXPECT_EQ(encoding.type_ids, Ids(7, 0));
  EXPECT_EQ(encoding.offsets, (Offsets{{0, 0}, {0, 3}, {4, 7}, {7, 8}, {9, 12}, {12, 13}, {0, 0}}));
  EXPECT_EQ(encoding.words, (Ids{-1, 0, 1, 1, 2, 3, -1}));
  EXPECT_EQ(encoding.sequences, (std::vector<std::int32_t>{-1, 0, 0, 0, 0, 0, -1}));
  EXPECT_EQ(encoding.special, (std::vector<bool>{true, false, false, false, false, false, true}));
}

TEST(Tokenizer, PairCountsWordsOnAndOffsetsWithinEachText) {
  const Encoding encoding = load(small_tokenizer()).encode_pair("cats sat", "the cat.");
  EXPECT_EQ(encoding.tokens, (Tokens{"[CLS]", "cat", "##s", "sat", "[SEP]", "the", "cat", ".", "[SEP]"}));
  EXPECT_EQ(encoding.type_ids, (Ids{0, 0, 0, 0, 0, 1, 1, 1, 1}));
  EXPECT_EQ(encoding.offsets, (Offsets{{0, 0}, {0, 3}, {3, 4}, {5, 8}, {0, 0}, {0, 3}, {4, 7}, {7, 8}, {0, 0}}));
  EXPECT_EQ(encoding.words, (Ids{-1, 0, 0, 1, -1, 2, 3, 4, -1}));
  EXPECT_EQ(encoding.sequences, (std::vector<std::int32_t>{-1, 0, 0, 0, -1, 1, 1, 1, -1}));
}

TEST(Tokenizer, OffsetsAreBytesOfTheOriginalText) {
  // Upper case, two-byte and four-byte characters, and a control character that the normaliser drops.
  const std::string text = "\xc3\x89 \xf0\x9f\x98\x80 ca\x01t UNable";
  const Encoding encoding = load(small_tokenizer()).encode(text, false);
  EXPECT_EQ(encoding.tokens, (Tokens{"\xc3\xa9", "[UNK]", "cat", "un", "##able"}));
  EXPECT_EQ(encoding.offsets, (Offsets{{0, 2}, {3, 7}, {8, 12}, {13, 15}, {15, 19}}));
}

TEST(Tokenizer, PaddingAndTruncationOfTheFileAreOff) {
  const Tokenizer tokenizer = load(small_tokenizer());
  EXPECT_EQ(tokenizer.encode("cat").size(), 3u);
  std::string text;
  for (int i = 0; i < 1000; ++i) text += "cat ";
  EXPECT_EQ(tokenizer.encode(text).size(), 1002u);
  EXPECT_EQ(tokenizer.encode_pair(text, text).size(), 2003u);
}

TEST(Tokenizer, EmptyTextsAndSpecialTokensSwitchedOff) {
  const Tokenizer tokenizer = load(small_tokenizer());
  EXPECT_EQ(tokenizer.encode("").tokens, (Tokens{"[CLS]", "[SEP]"}));
  EXPECT_EQ(tokenizer.encode_pair("", std::string_view()).tokens, (Tokens{"[CLS]", "[SEP]", "[SEP]"}));
  EXPECT_EQ(tokenizer.encode("", false).size(), 0u);
  const Encoding pair = tokenizer.encode_pair("cat", "sat", false);
  EXPECT_EQ(pair.sequences, (std::vector<std::int32_t>{0, 1}));
  EXPECT_EQ(pair.words, (Ids{0, 1}));
}

TEST(Tokenizer, ASpecialTokenWrittenInTheTextBelongsToTheText) {
  const Encoding encoding = load(small_tokenizer()).encode("cat [SEP] sat");
  EXPECT_EQ(encoding.ids, (Ids{2, 5, 3, 6, 3}));
  EXPECT_EQ(encoding.special, (std::vector<bool>{true, false, false, false, true}));
  EXPECT_EQ(encoding.words, (Ids{-1, 0, 1, 2, -1}));
}

TEST(Tokenizer, RefusesTextThatIsNotUtf8) {
  const Tokenizer tokenizer = load(small_tokenizer());
  const auto error = [&](std::string_view text, const std::string_view* pair) -> std::string {
    try {
      pair == nullptr ? tokenizer.encode(text) : tokenizer.encode_pair(text, *pair);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
      return e.what();
    }
    return "no error";
  };
  EXPECT_EQ(error("cat \xff", nullptr), "tokenizer: the text is not UTF-8 at byte 4");
  EXPECT_EQ(error("\xed\xa0\x80", nullptr), "tokenizer: the text is not UTF-8 at byte 0");
  EXPECT_EQ(error("caf\xc3", nullptr), "tokenizer: the text is not UTF-8 at byte 3");
  const std::string_view second = "a\xc0\xaf";
  EXPECT_EQ(error("cat", &second), "tokenizer: the second text is not UTF-8 at byte 1");
  EXPECT_EQ(tokenizer.encode(std::string_view("cat\0sat", 7)).size(), 3u);  // a zero byte is dropped, as controls are
}

// The library panics on this file, which reaches the caller as an error like any other.
TEST(Tokenizer, APanicIsAnError) {
  Json json = small_tokenizer();
  json["post_processor"]["special_tokens"].erase("[SEP]");
  const Tokenizer tokenizer = load(json);
  testing::internal::CaptureStderr();
  try {
    tokenizer.encode("cat");
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("tokenizer.json\": cannot encode the text"), std::string::npos)
        << error.what();
  }
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

TEST(Tokenizer, ManyThreadsAtOnce) {
  const Tokenizer tokenizer = load(small_tokenizer());
  const Encoding expected = tokenizer.encode("The cats sat.");
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) wrong += tokenizer.encode("The cats sat.").ids != expected.ids;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

TEST(Tokenizer, SaysWhyAFileCannotBeOpened) {
  const TemporaryFolder folder;
  for (const fs::path& path : {folder.path() / "tokenizer.json", folder.path()}) {
    try {
      Tokenizer tokenizer(path);
      ADD_FAILURE();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kIo);
      EXPECT_NE(std::string(error.what()).find(path.filename().string()), std::string::npos);
    }
  }
}

TEST(Tokenizer, MalformedFilesAreRefusedEachInItsOwnWords) {
  std::vector<Malformed> cases = not_json("{\"model\":", "}");
  cases.push_back({"", "empty"});
  const std::string whole = small_tokenizer().dump();
  for (std::size_t size = 1; size < whole.size(); size += 40) cases.push_back({whole.substr(0, size), "not JSON"});
  for (const char* top : {"[]", "1", "\"x\"", "null", "true"}) cases.push_back({top, "a JSON object is needed"});
  cases.push_back({"{}", "\"model\" is missing; an object is needed"});

  const auto with = [&](const std::string& pointer, const Json& value, const std::string& expected) {
    Json json = small_tokenizer();
    json[Json::json_pointer(pointer)] = value;
    cases.push_back({json.dump(), expected});
  };
  const auto without = [&](const std::string& parent, const std::string& key, const std::string& expected) {
    Json json = small_tokenizer();
    json[Json::json_pointer(parent)].erase(key);
    cases.push_back({json.dump(), expected});
  };
  for (const Json& value : {Json(1), Json("WordPiece"), Json::array(), Json(nullptr), Json(true)}) {
    with("/model", value, "an object is needed");
    if (!value.is_array() && !value.is_null()) with("/model/vocab", value, "\"vocab\" is");
  }
  for (const Json& value : {Json(1), Json::array(), Json(true), Json::object()}) {
    with("/model/type", value, "\"type\" is");
    with("/model/unk_token", value, "not a tokenizer");
  }
  for (const Json& value : {Json(1), Json("x"), Json::object(), Json(true)}) {
    with("/added_tokens", value, "\"added_tokens\" is");
  }
  with("/model/type", "NoSuchModel", "not a tokenizer");
  with("/model/vocab/cat", "5", "not a tokenizer");
  with("/model/vocab/cat", -5, "not a tokenizer");
  with("/model/vocab/cat", 1.5, "not a tokenizer");
  with("/model/vocab/cat", std::uint64_t{1} << 32, "not a tokenizer");
  with("/model/vocab/cat", nullptr, "not a tokenizer");
  with("/model/max_input_chars_per_word", -1, "not a tokenizer");
  with("/added_tokens/0", 7, "not a tokenizer");
  with("/added_tokens/0/id", "zero", "not a tokenizer");
  with("/added_tokens/0/content", 1, "not a tokenizer");
  with("/added_tokens/0/special", "yes", "not a tokenizer");
  for (const char* part : {"/normalizer", "/pre_tokenizer", "/post_processor", "/decoder"}) {
    with(part, 1, "not a tokenizer");
    with(part, "x", "not a tokenizer");
    with(part, Json::array(), "not a tokenizer");
  }
  for (const char* part : {"/normalizer", "/pre_tokenizer", "/post_processor"}) {
    for (const Json& value : {Json("NoSuchPart"), Json(1), Json(nullptr)}) {
      with(std::string(part) + "/type", value, "not a tokenizer");
    }
  }
  const Json unknown = {{"type", "Sequence"}, {"normalizers", {{{"type", "NoSuchPart"}}}}};
  with("/normalizer", unknown, "not a tokenizer");
  with("/truncation", 1, "not a tokenizer");
  with("/truncation/strategy", "none", "not a tokenizer");
  with("/padding", "x", "not a tokenizer");
  with("/padding/pad_id", -1, "not a tokenizer");
  with("/version", 2, "not a tokenizer");
  with("/version", "2.0", "not a tokenizer");
  with("/model/vocab", Json::array(), "not a tokenizer");
  with("/model/vocab", nullptr, "not a tokenizer");
  without("/model", "vocab", "not a tokenizer");
  without("", "model", "\"model\" is missing");
  without("/added_tokens/0", "content", "not a tokenizer");
  without("/post_processor", "single", "not a tokenizer");
  expect_refused(cases, "tokenizer.json", 150, [](const fs::path& path) { Tokenizer tokenizer(path); });
}

}  // namespace
}  // namespace manyheads::model
