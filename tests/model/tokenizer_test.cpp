#include "model/tokenizer.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <thread>

#include "io/malformed.hpp"
#include "support.hpp"

namespace manyheads::model {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using test::Malformed;
using test::TemporaryFolder;

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

Json template_of(Json pieces, Json special_tokens) {
  return {{"type", "TemplateProcessing"},
          {"single", std::move(pieces)},
          {"pair", {{{"Sequence", {{"id", "A"}, {"type_id", 0}}}}, {{"Sequence", {{"id", "B"}, {"type_id", 1}}}}}},
          {"special_tokens", std::move(special_tokens)}};
}

// Some hundred bytes that ask for gigabytes, or for hours.
TEST(Tokenizer, AFileThatAsksForTooMuchIsRefused) {
  std::vector<Malformed> cases;
  const auto with = [&](const std::string& pointer, const Json& value, const std::string& expected) {
    Json json = small_tokenizer();
    json[Json::json_pointer(pointer)] = value;
    cases.push_back({json.dump(), expected + ": too much for a tokenizer"});
  };
  const auto repeated = [](std::size_t count, const Json& value) { return Json(count, value); };
  const auto sequence = [](const char* key, const Json& parts) { return Json{{"type", "Sequence"}, {key, parts}}; };
  const Json text = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  const Json special = {{"SpecialToken", {{"id", "X"}, {"type_id", 0}}}};
  const auto tokens = [](const Json& ids, const Json& names) {
    return Json{{"X", {{"id", "X"}, {"ids", ids}, {"tokens", names}}}};
  };
  const Json many = repeated(1025, 1), names = repeated(1025, "x");
  with("/post_processor", template_of({special, text}, tokens(many, names)),
       "1025 ids in templates, at most 1024 are taken");
  with("/post_processor", template_of(repeated(60, special), tokens(repeated(20, 1), repeated(20, "x"))),
       "1200 ids in templates, at most 1024 are taken");
  with("/post_processor", template_of({special, special}, tokens({1}, {std::string(40'000, 'x')})),
       "80000 bytes of tokens in templates, at most 65536 are taken");
  with("/post_processor", template_of(repeated(65, special), tokens({1}, {"x"})),
       "65 pieces of a template, at most 64 are taken");
  with("/post_processor", template_of(repeated(5, text), tokens({1}, {"x"})),
       "5 copies of a text in templates, at most 4 are taken");
  with("/post_processor", sequence("processors", repeated(3, template_of(repeated(2, text), tokens({1}, {"x"})))),
       "8 copies of a text in templates, at most 4 are taken");

  with("/model/max_input_chars_per_word", std::int64_t{1} << 40,
       "1099511627776 characters (max_input_chars_per_word), at most 512 are taken");
  with("/model/max_input_chars_per_word", 513, "513 characters (max_input_chars_per_word), at most 512 are taken");
  with("/model/unk_token", std::string(257, 'x'), "257 bytes of unk_token, at most 256 are taken");
  with("/model/continuing_subword_prefix", std::string(257, 'x'),
       "257 bytes of continuing_subword_prefix, at most 256 are taken");
  const Json bpe = {{"type", "BPE"}, {"vocab", {{"a", 0}}}, {"merges", Json::array()}};
  for (const char* name : {"unk_token", "continuing_subword_prefix", "end_of_word_suffix"}) {
    Json model = bpe;
    model[name] = std::string(300, 'x');
    with("/model", model, std::string("300 bytes of ") + name + ", at most 256 are taken");
  }
  with("/model", {{"type", "WordLevel"}, {"vocab", {{"a", 0}}}, {"unk_token", std::string(300, 'x')}},
       "300 bytes of unk_token, at most 256 are taken");

  const Json byte_level = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}};
  with("/pre_tokenizer", sequence("pretokenizers", repeated(4, byte_level)),
       "pre-tokenizers that may make a text 64 times as long and more");
  const Json nested = sequence("pretokenizers", repeated(2, byte_level));
  with("/pre_tokenizer", sequence("pretokenizers", {nested, nested}),
       "pre-tokenizers that may make a text 64 times as long and more");
  with("/normalizer", sequence("normalizers", repeated(257, {{"type", "Lowercase"}})),
       "257 steps of the normalizer, at most 256 are taken");
  with("/normalizer", sequence("normalizers", repeated(3000, {{"type", "Lowercase"}})),
       "3023 parts, at most 2048 are taken");
  const Json replace = {{"type", "Replace"}, {"pattern", {{"Regex", "\\w{50}"}}}, {"content", "a"}};
  with("/normalizer", sequence("normalizers", repeated(65, replace)), "65 patterns, at most 64 are taken");
  Json split = {{"type", "Split"}, {"pattern", replace["pattern"]}, {"behavior", "Isolated"}, {"invert", false}};
  with("/pre_tokenizer", sequence("pretokenizers", repeated(65, split)), "65 patterns, at most 64 are taken");

  const std::string too_long_text = "a decoder that may make a text more than 64 times as long";
  const Json content = {{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", std::string(9, 'a')}};
  with("/decoder", sequence("decoders", repeated(2, content)), too_long_text);
  with("/decoder", sequence("decoders", Json::array({sequence("decoders", Json::array({content})), content})),
       too_long_text);
  with("/decoder", {{"type", "Replace"}, {"pattern", {{"Regex", "x*"}}}, {"content", std::string(64, 'a')}},
       too_long_text);
  with("/decoder", sequence("decoders", repeated(4, {{"type", "BPEDecoder"}, {"suffix", ""}})), too_long_text);
  with("/decoder", sequence("decoders", repeated(3000, {{"type", "Fuse"}})), "3023 parts, at most 2048 are taken");

  // The added tokens are normalized as the file is read.
  Json growing = small_tokenizer();
  Json grow = {{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", std::string(16, 'a')}};
  growing["normalizer"] = sequence("normalizers", repeated(6, grow));
  growing["added_tokens"].push_back({{"id", 5},
                                     {"content", std::string(31, 'a')},
                                     {"single_word", false},
                                     {"lstrip", false},
                                     {"rstrip", false},
                                     {"normalized", true},
                                     {"special", false}});
  cases.push_back({growing.dump(), "31 bytes of added tokens, which the normalizer may make 1.678e7 times as long"});
  test::expect_refused(cases, "tokenizer.json", cases.size(), [](const fs::path& path) { Tokenizer tokenizer(path); });
}

TEST(Tokenizer, ATextThatTheNormalizerMakesTooLongIsRefused) {
  const auto replace = [](const char* pattern, const char* kind, const std::string& content) {
    return Json{{"type", "Replace"}, {"pattern", {{kind, pattern}}}, {"content", content}};
  };
  const auto encode = [](const Json& steps, const std::string& text) {
    Json json = small_tokenizer();
    json["normalizer"] = {{"type", "Sequence"}, {"normalizers", steps}};
    const Tokenizer tokenizer = load(json);
    std::size_t tokens = 0;
    const std::string error = test::error_of([&] { tokens = tokenizer.encode(text, false).size(); });
    const std::string of_second = test::error_of([&] { tokenizer.encode_pair("the", text, false); });
    EXPECT_EQ(of_second == "no error", error == "no error") << of_second;
    return error == "no error" ? std::to_string(tokens) : error;
  };
  const auto prepend = [](std::size_t size) { return Json{{"type", "Prepend"}, {"prepend", std::string(size, 'a')}}; };
  const std::string letters(31, 'a'), many(6000, 'a');
  const Json doubled = replace("a", "String", std::string(16, 'a'));
  const std::string too_long = "cannot encode the text: the normalizer makes ";
  EXPECT_NE(encode(Json(5, doubled), letters).find(too_long + "31 bytes of text more than 65536"), std::string::npos);
  EXPECT_NE(encode(Json(40, doubled), letters).find(too_long), std::string::npos);
  EXPECT_NE(encode(Json(1, replace("", "Regex", std::string(100, 'a'))), many)
                .find(too_long + "6000 bytes of text more than 96000"),
            std::string::npos);
  EXPECT_NE(encode(Json(1, replace("", "String", std::string(100, 'a'))), many).find(too_long), std::string::npos);
  EXPECT_NE(encode(Json(1, prepend(100)), many).find(too_long), std::string::npos);
  EXPECT_NE(encode(Json(1, prepend(100'000)), "a").find(too_long), std::string::npos);

  // What grows little, or is short, or does not grow at all though it could, goes through.
  EXPECT_EQ(encode(Json(3, doubled), "a"), "1");
  EXPECT_EQ(encode(Json(1, replace("a", "String", "cat ")), many), "6000");
  EXPECT_EQ(encode(Json(5, doubled), "cct " + std::string(70'000, 'x')), "2");
  std::string words;
  for (int i = 0; i < 20'000; ++i) words += "cat ";
  EXPECT_EQ(encode({{{"type", "NFKC"}}, {{"type", "Lowercase"}}, {{"type", "NFKD"}}}, words), "20000");
}

TEST(Tokenizer, DecodesIds) {
  const Tokenizer tokenizer = load(small_tokenizer());
  const Ids ids = tokenizer.encode("The cats sat.").ids;
  EXPECT_EQ(tokenizer.decode(ids), "the cats sat.");
  EXPECT_EQ(tokenizer.decode(ids, false), "[CLS] the cats sat. [SEP]");
  EXPECT_EQ(tokenizer.decode({}), "");
  EXPECT_EQ(tokenizer.decode(Ids{2, 3}), "");
  Json json = small_tokenizer();
  json["decoder"] = nullptr;
  EXPECT_EQ(load(json).decode(ids), "the cat ##s sat .");
}

TEST(Tokenizer, ATokenByItsId) {
  const Tokenizer tokenizer = load(small_tokenizer());
  EXPECT_EQ(tokenizer.token(7)->text, "##s");
  EXPECT_FALSE(tokenizer.token(7)->special);
  EXPECT_EQ(tokenizer.token(3)->text, "[SEP]");
  EXPECT_TRUE(tokenizer.token(3)->special);
  for (const std::int64_t id :
       {std::int64_t{-1}, std::int64_t{12}, (std::int64_t{1} << 32) + 4, INT64_MIN, INT64_MAX}) {
    EXPECT_FALSE(tokenizer.token(id)) << id;
    const std::string error = test::error_of([&] { tokenizer.decode(Ids{4, id}); });
    EXPECT_NE(error.find("cannot decode the tokens: no token has the id " + std::to_string(id)), std::string::npos)
        << error;
  }
}

// The library panics on a token that Strip leaves nothing of.
TEST(Tokenizer, APanicOfTheDecoderIsAnError) {
  Json json = small_tokenizer();
  json["decoder"] = {{"type", "Strip"}, {"content", "."}, {"start", 0}, {"stop", 5}};
  const Tokenizer tokenizer = load(json);
  EXPECT_EQ(tokenizer.decode(Ids{4}), "the");
  EXPECT_NE(test::error_of([&] { tokenizer.decode(Ids{8}); }).find("the tokenizer gave up"), std::string::npos);
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
  std::vector<Malformed> cases = test::not_json("{\"model\":", "}");
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
  for (const char* part : {"/normalizer", "/pre_tokenizer", "/post_processor", "/decoder"}) {
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
  test::expect_refused(cases, "tokenizer.json", 150, [](const fs::path& path) { Tokenizer tokenizer(path); });
}

}  // namespace
}  // namespace manyheads::model
