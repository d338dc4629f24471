#include "model/tokenizer.hpp"

#include <manyheads_tokenizers.h>

#include <algorithm>
#include <cstddef>
#include <manyheads/error.hpp>

#include "base/file.hpp"
#include "io/json.hpp"

namespace manyheads::model {
namespace {

using io::Json;
using io::JsonDocument;

// On one line: the library's message may quote the file.
std::string last_error() {
  std::size_t size = 0;
  const char* text = manyheads_tokenizer_error(&size);
  const std::string line = base::in_quotes(std::string_view(text, size), 300);
  return line.substr(1, line.size() - 2);
}

constexpr std::string_view kBlanks = "\t\n\r ";
constexpr std::string_view kPunctuation = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";

constexpr std::size_t kUnknownFrom = 512;

std::string type_of(const Json& part) {
  return part.is_object() && part.contains("type") && part["type"].is_string() ? part["type"].get<std::string>() : "";
}

// Breaks are known where each step works on single characters, or on a character and the marks that follow it. BERT's
// normalizer and lower-casing do; BERT's pre-tokenizer then splits at every blank and punctuation mark.
TextBreaks breaks_of(const Json& file) {
  TextBreaks breaks;
  Json normalizer = file.value("normalizer", Json());
  if (type_of(normalizer) == "Sequence" && normalizer.contains("normalizers") && normalizer["normalizers"].is_array() &&
      normalizer["normalizers"].size() == 2 && type_of(normalizer["normalizers"][0]) == "Lowercase") {
    normalizer = Json(normalizer["normalizers"][1]);
  }
  const Json model = file.value("model", Json());
  const std::string type = type_of(model);
  const bool word_piece = type == "WordPiece" || (type.empty() && model.contains("continuing_subword_prefix"));
  if (type_of(normalizer) != "BertNormalizer" || type_of(file.value("pre_tokenizer", Json())) != "BertPreTokenizer" ||
      !word_piece) {
    return breaks;
  }
  for (const char c : kBlanks) breaks.before_ascii[static_cast<std::size_t>(c)] = true;
  for (const char c : kPunctuation) breaks.before_ascii[static_cast<std::size_t>(c)] = true;
  const Json longest = model.value("max_input_chars_per_word", Json(100));
  bool words_only = longest.is_number_integer() && longest <= kUnknownFrom / 2;
  for (const Json& token : file.value("added_tokens", Json::array())) {
    if (!token.is_object() || !token.contains("content") || !token["content"].is_string()) return breaks;
    if (token.value("single_word", Json(false)) != false) return breaks;
    const auto& content = token["content"].get_ref<const std::string&>();
    words_only =
        words_only && content.size() <= kUnknownFrom / 4 && !std::all_of(content.begin(), content.end(), is_alnum);
    for (const char c : content) {
      if (static_cast<unsigned char>(c) >= 128 || kBlanks.find(c) != std::string_view::npos) return breaks;
      breaks.before_ascii[static_cast<std::size_t>(c)] = false;
    }
  }
  breaks.known = true;
  if (words_only) breaks.unknown_from = kUnknownFrom;
  breaks.chinese = normalizer.value("handle_chinese_chars", Json(false)) == true;
  return breaks;
}

std::string take(const manyheads_text_view& view) {
  const std::unique_ptr<manyheads_text, void (*)(manyheads_text*)> owner(view.owner, manyheads_text_free);
  return {view.data, view.size};
}

}  // namespace

bool is_alnum(char c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'); }

std::size_t TextBreaks::find(std::string_view text, std::size_t first, std::size_t last) const {
  const auto breaks = [&](std::size_t at) {
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
    if (byte(at) < 128) return before_ascii[byte(at)];
    // U+4E00 to U+9FFF
    return chinese && byte(at) >= 0xe4 && byte(at) <= 0xe9 && at + 1 < text.size() &&
           (byte(at) > 0xe4 || byte(at + 1) >= 0xb8);
  };
  if (last >= text.size()) return text.size();
  for (std::size_t at = last; at >= first && at > 0; --at) {
    if (breaks(at)) return at;
  }
  for (std::size_t at = last + 1; at < text.size(); ++at) {
    if (breaks(at)) return at;
  }
  return text.size();
}

struct Tokenizer::Handle {
  explicit Handle(manyheads_tokenizer* handle) : tokenizer(handle) {}
  ~Handle() { manyheads_tokenizer_free(tokenizer); }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  manyheads_tokenizer* tokenizer;
};

void Tokenizer::check(const JsonDocument& file) {
  const Json& whole = view_object(file, "model");
  if (has(file, "added_tokens")) view_array(file, "added_tokens");
  // Long values are looked at, not copied.
  JsonDocument model{Json::object(), file.place + ": " + base::in_quotes("model")};
  if (const auto type = whole.find("type"); type != whole.end()) {
    model.value["type"] = type->is_array() ? Json::array() : type->is_object() ? Json::object() : *type;
  }
  if (const auto vocab = whole.find("vocab"); vocab != whole.end() && !vocab->is_structured()) {
    model.value["vocab"] = *vocab;
  }
  if (has(model, "type")) require_string(model, "type");
  if (has(model, "vocab")) require_object(model, "vocab");
}

Tokenizer::Tokenizer(const std::filesystem::path& path) : place_(base::path_in_quotes(path)) {
  const base::MappedFile file = base::map_file(path);
  // Our own parser comes first: it names the byte, where the library may only say that nothing matched.
  const JsonDocument document = io::parse_json(file.text(), place_);
  load(file.text(), document);
}

Tokenizer::Tokenizer(const JsonDocument& file) : place_(file.place) { load(file.value.dump(), file); }

void Tokenizer::load(std::string_view json, const JsonDocument& file) {
  check(file);
  manyheads_tokenizer* tokenizer = nullptr;
  if (manyheads_tokenizer_load(json.data(), json.size(), &tokenizer) != MANYHEADS_OK) {
    throw Error(ErrorCode::kMalformedFile, place_ + ": not a tokenizer: " + last_error());
  }
  handle_ = std::make_shared<const Handle>(tokenizer);
  breaks_ = breaks_of(file.value);
}

Encoding Tokenizer::encode(std::string_view text, bool add_special_tokens) const {
  return run(text, nullptr, add_special_tokens);
}

Encoding Tokenizer::encode_pair(std::string_view first, std::string_view second, bool add_special_tokens) const {
  return run(first, &second, add_special_tokens);
}

std::string Tokenizer::decode(std::span<const std::int64_t> ids, bool skip_special_tokens) const {
  manyheads_text_view view{};
  if (manyheads_tokenizer_decode(handle_->tokenizer, ids.data(), ids.size(), skip_special_tokens ? 1 : 0, &view) !=
      MANYHEADS_OK) {
    throw Error(ErrorCode::kInvalidArgument, place_ + ": cannot decode the tokens: " + last_error());
  }
  return take(view);
}

std::optional<Tokenizer::Token> Tokenizer::token(std::int64_t id) const {
  manyheads_text_view view{};
  const int status = manyheads_tokenizer_token(handle_->tokenizer, id, &view);
  if (status == MANYHEADS_NO_TOKEN) return std::nullopt;
  if (status != MANYHEADS_OK) throw Error(ErrorCode::kInvalidArgument, place_ + ": " + last_error());
  const bool special = view.special != 0;
  return Token{take(view), special};
}

Encoding Tokenizer::run(std::string_view text, const std::string_view* pair, bool add_special_tokens) const {
  manyheads_encoding_view view{};
  // The library takes a null address for no second text, and an empty view may have one.
  const char* pair_data = pair == nullptr ? nullptr : pair->empty() ? "" : pair->data();
  const int status = manyheads_tokenizer_encode(handle_->tokenizer, text.data(), text.size(), pair_data,
                                                pair == nullptr ? 0 : pair->size(), add_special_tokens ? 1 : 0, &view);
  if (status == MANYHEADS_NOT_UTF8) throw Error(ErrorCode::kInvalidArgument, "tokenizer: " + last_error());
  if (status != MANYHEADS_OK)
    throw Error(ErrorCode::kInvalidArgument, place_ + ": cannot encode the text: " + last_error());
  const std::unique_ptr<manyheads_encoding, void (*)(manyheads_encoding*)> owner(view.owner, manyheads_encoding_free);

  Encoding encoding;
  const std::size_t size = view.size;
  encoding.ids.assign(view.ids, view.ids + size);
  encoding.type_ids.assign(view.type_ids, view.type_ids + size);
  encoding.words.assign(view.words, view.words + size);
  encoding.sequences.assign(view.sequences, view.sequences + size);
  encoding.special.assign(view.special, view.special + size);
  std::size_t begin = 0;
  for (std::size_t i = 0; i < size; ++i) {
    encoding.offsets.push_back({view.offsets[i][0], view.offsets[i][1]});
    encoding.tokens.emplace_back(view.tokens + begin, view.token_ends[i] - begin);
    begin = view.token_ends[i];
  }
  return encoding;
}

}  // namespace manyheads::model
