// Texts, through the tokenizer of the model in models/ where it is there, else a small one. The input: the most tokens
// (a byte), a text and, behind a zero byte, a second one.
#include <manyheads/lens/links.hpp>

#include "harness.hpp"
#include "lens/truncate.hpp"
#include "lens/unicode.hpp"
#include "model/tokenizer.hpp"

using namespace manyheads;

namespace {

constexpr const char* kSmall = R"({"version":"1.0","truncation":null,"padding":null,"added_tokens":[],
  "normalizer":{"type":"BertNormalizer","clean_text":true,"handle_chinese_chars":true,"strip_accents":null,
    "lowercase":true},
  "pre_tokenizer":{"type":"BertPreTokenizer"},"post_processor":null,"decoder":null,
  "model":{"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##","max_input_chars_per_word":100,
    "vocab":{"[UNK]":0,"the":1,"cat":2,"##s":3,"a":4,"##a":5,".":6}}})";

model::Tokenizer load() {
  const std::filesystem::path root = MANYHEADS_SOURCE_DIR;
  const std::filesystem::path own = root / "models/all-MiniLM-L6-v2/tokenizer.json";
  if (std::filesystem::exists(own)) return model::Tokenizer(own);
  const fuzz::Folder folder;
  return model::Tokenizer(folder.write("tokenizer.json", kSmall));
}

void check_words(const model::Encoding& encoding, const std::string& text, const std::string& pair, bool has_pair) {
  lens::Trace trace;
  trace.text = text;
  if (has_pair) trace.text2 = pair;
  trace.tokens = encoding.tokens;
  trace.offsets = encoding.offsets;
  trace.words = encoding.words;
  trace.sequences.assign(encoding.sequences.begin(), encoding.sequences.end());
  trace.key_length = static_cast<std::int64_t>(encoding.size());
  const std::vector<lens::Word> words = lens::words_of(trace);
  std::int64_t tokens = 0, special = 0;
  for (const lens::Word& word : words) {
    tokens += word.num_tokens;
    fuzz::require(lens::is_utf8(word.text), "a word that is not UTF-8");
  }
  for (const bool s : encoding.special) special += s ? 1 : 0;
  fuzz::require(tokens + special == static_cast<std::int64_t>(encoding.size()), "tokens that belong to no word");
  for (std::size_t i = 0; i < words.size() && i < 8; ++i) {
    if (!words[i].text.empty()) fuzz::require(lens::has_word(words, words[i].text), "a word that is not found");
  }
}

void check_unicode(const std::string& text) {
  const bool utf8 = lens::is_utf8(text);
  std::size_t at = 0;
  char32_t c = 0;
  int width = 0;
  while (at < text.size()) {
    const std::size_t before = at;
    if (!lens::next_code_point(text, &at, &c)) break;
    fuzz::require(at > before && at <= before + 4 && c <= 0x10ffff, "a code point out of range");
    const int columns = lens::display_width(c);
    fuzz::require(columns >= 0 && columns <= 2, "a width out of range");
    width += columns;
    lens::is_punctuation(c);
  }
  fuzz::require(utf8 == (at >= text.size()), "is_utf8 and next_code_point disagree");
  if (!utf8) return;
  fuzz::require(lens::display_width(text) == width, "the width is not that of the characters");
  fuzz::require(lens::is_utf8(lens::fold_case(text)), "small letters that are not UTF-8");
  const std::string shown = lens::printable(text);
  fuzz::require(lens::is_utf8(shown), "a printable text that is not UTF-8");
  for (const char byte : shown) fuzz::require(static_cast<unsigned char>(byte) >= 0x20 && byte != 0x7f, "a control");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  static const model::Tokenizer tokenizer = load();
  if (size < 1) return 0;
  const std::string_view all(reinterpret_cast<const char*>(bytes) + 1, size - 1);
  const bool has_pair = all.find('\0') != all.npos;
  const std::vector<std::string> texts = fuzz::split(all, 2);
  for (const std::string& text : texts) check_unicode(text);
  model::Encoding encoding;
  const bool taken = fuzz::taken([&] {
    encoding = has_pair ? tokenizer.encode_pair(texts[0], texts[1]) : tokenizer.encode(texts[0]);
  });
  fuzz::require(taken == (lens::is_utf8(texts[0]) && lens::is_utf8(texts[1])), "UTF-8 alone decides");
  if (!taken) return 0;
  for (std::size_t i = 0; i < encoding.size(); ++i) {
    const auto [begin, end] = encoding.offsets[i];
    const std::string& own = encoding.sequences[i] == 1 ? texts[1] : texts[0];
    fuzz::require(0 <= begin && begin <= end && end <= static_cast<std::int64_t>(own.size()), "offsets outside");
    fuzz::require(lens::is_utf8(std::string_view(own).substr(static_cast<std::size_t>(begin),
                                                             static_cast<std::size_t>(end - begin))),
                  "offsets within a character");
  }
  check_words(encoding, texts[0], texts[1], has_pair);
  fuzz::taken([&] {
    const model::Encoding cut = lens::truncate(encoding, bytes[0]);
    fuzz::require(cut.size() <= bytes[0] && cut.size() == std::min<std::size_t>(encoding.size(), bytes[0]),
                  "not cut to the length asked for");
    check_words(cut, texts[0], texts[1], has_pair);
  });
  return 0;
}
