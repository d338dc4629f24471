#include "model/tokenizer_config.hpp"

#include <algorithm>
#include <array>
#include <manyheads/error.hpp>
#include <map>
#include <string>
#include <vector>

#include "base/file.hpp"
#include "io/json.hpp"

namespace manyheads::model {
namespace {

namespace fs = std::filesystem;
using io::Json;
using io::JsonDocument;

// The file, or an empty object where it is not there.
JsonDocument read_if_there(const fs::path& path) {
  std::error_code none;
  if (!fs::exists(path, none)) return {Json::object(), base::path_in_quotes(path)};
  JsonDocument document = io::read_json(path);
  has(document, "");  // throws where it is no object
  return document;
}

// The tokenizers that transformers builds anew from the vocabulary, whatever else tokenizer.json says.
enum class Rebuilt { kNone, kBert, kRoberta };

// By the class that the folder names, else by its model.
Rebuilt rebuilt(const JsonDocument& settings, const fs::path& folder) {
  const JsonDocument config = read_if_there(folder / "config.json");
  const std::string model = has(config, "model_type") ? require_string(config, "model_type") : "bert";
  std::string name = model == "bert" || model == "distilbert" ? "BertTokenizer"
                     : model == "roberta"                     ? "RobertaTokenizer"
                                                              : "";
  if (has(settings, "tokenizer_class")) {
    name = require_string(settings, "tokenizer_class");
  } else if (has(config, "tokenizer_class")) {
    name = require_string(config, "tokenizer_class");
  }
  if (name.ends_with("Fast")) name.resize(name.size() - 4);
  if (name == "RobertaTokenizer") return Rebuilt::kRoberta;
  constexpr std::array<const char*, 9> kBert = {"BertTokenizer",
                                                "DistilBertTokenizer",
                                                "DPRContextEncoderTokenizer",
                                                "DPRQuestionEncoderTokenizer",
                                                "ElectraTokenizer",
                                                "LayoutLMTokenizer",
                                                "LxmertTokenizer",
                                                "MobileBertTokenizer",
                                                "SqueezeBertTokenizer"};
  return std::find(kBert.begin(), kBert.end(), name) != kBert.end() ? Rebuilt::kBert : Rebuilt::kNone;
}

bool flag(const JsonDocument& settings, const char* key, bool otherwise) {
  return has(settings, key) ? require_bool(settings, key) : otherwise;
}

// A token is given as its text, or as an object with `content` and how a text is searched for it.
std::string content(const JsonDocument& object, const std::string& key) {
  return object.value[key].is_object() ? require_string(require_object(object, key), "content")
                                       : require_string(object, key);
}

// An entry of tokenizer.json's added_tokens. `options` may say how a text is searched for it.
Json added_token(const std::string& text, const JsonDocument& options, bool special) {
  special = flag(options, "special", special);
  return {{"id", 0},
          {"content", text},
          {"single_word", flag(options, "single_word", false)},
          {"lstrip", flag(options, "lstrip", false)},
          {"rstrip", flag(options, "rstrip", false)},
          {"normalized", flag(options, "normalized", !special)},
          {"special", special}};
}

// The tokens that are searched for before words, in transformers' order: those of tokenizer_config.json, or of
// tokenizer.json where it lists none; then the named special ones that are missing.
Json added_tokens(const JsonDocument& tokenizer, const JsonDocument& settings, const JsonDocument& named) {
  Json list = Json::array();
  if (has(settings, "added_tokens_decoder")) {
    const JsonDocument decoder = require_object(settings, "added_tokens_decoder");
    std::map<std::int64_t, Json> by_id;
    for (const auto& [id, value] : decoder.value.items()) {
      const JsonDocument token = require_object(decoder, id);
      if (id.empty() || id.size() > 10 || id.find_first_not_of("0123456789") != std::string::npos) {
        refuse_json(decoder, id, "a token's number as the key");
      }
      by_id[std::stoll(id)] = added_token(require_string(token, "content"), token, false);
    }
    for (auto& [id, token] : by_id) list.push_back(std::move(token));
  } else if (has(tokenizer, "added_tokens")) {
    list = tokenizer.value["added_tokens"];
  }
  const auto add = [&](const std::string& text, const JsonDocument& options) {
    const auto same = [&](const Json& token) {
      return token.is_object() && token.contains("content") && token["content"] == text;
    };
    if (std::none_of(list.begin(), list.end(), same)) list.push_back(added_token(text, options, true));
  };
  const JsonDocument no_options{Json::object(), named.place};
  for (const char* key : {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"}) {
    if (!has(named, key)) continue;
    add(content(named, key), named.value[key].is_object() ? require_object(named, key) : no_options);
  }
  for (const char* key : {"extra_special_tokens", "additional_special_tokens"}) {
    if (!has(named, key) || !named.value[key].is_array()) continue;
    for (const JsonDocument& token : require_array(named, key)) {
      if (token.value.is_object()) {
        add(require_string(token, "content"), token);
      } else {
        const JsonDocument text{Json{{"content", token.value}}, token.place};
        add(require_string(text, "content"), no_options);
      }
    }
    break;
  }
  return list;
}

// What a class of transformers takes from the files.
struct Rebuild {
  const JsonDocument& tokenizer;
  const JsonDocument& settings;
  JsonDocument named, model, vocab;

  // `type` is what the model must be; `usual` are the class's special tokens where the settings name no others.
  Rebuild(const JsonDocument& from, const JsonDocument& how, JsonDocument names, const char* type, const char* owner,
          const std::map<std::string, std::string>& usual)
      : tokenizer(from), settings(how), named(std::move(names)), model(require_object(from, "model")) {
    if (has(model, "type") && require_string(model, "type") != type) {
      refuse_json(model, "type",
                  base::in_quotes(type) + ", as " + settings.place + " names " + owner + "'s tokenizer; this");
    }
    vocab = require_object(model, "vocab");
    for (const auto& [key, text] : usual) {
      if (!named.value.contains(key)) named.value[key] = text;
    }
  }

  std::string token(const char* key) const { return content(named, key); }
  std::int64_t id(const char* key) const {
    const std::string text = token(key);
    const JsonDocument known{Json{{text, vocab.value.contains(text) ? vocab.value[text] : Json()}}, vocab.place};
    return require_int(known, text);
  }
  // Tokens that the vocabulary lacks get the numbers behind it.
  Json added() const {
    Json list = added_tokens(tokenizer, settings, named);
    std::size_t next = vocab.value.size();
    for (Json& token : list) {
      if (!token.is_object() || !token.contains("content") || !token["content"].is_string()) continue;
      const auto known = vocab.value.find(token["content"].get<std::string>());
      token["id"] = known == vocab.value.end() ? Json(next++) : *known;
    }
    return list;
  }
};

// tokenizer.json as BertTokenizer would write it: the vocabulary of `tokenizer`, all else from the settings.
Json rebuild_bert(const JsonDocument& tokenizer, const JsonDocument& settings, JsonDocument named) {
  Rebuild from(tokenizer, settings, std::move(named), "WordPiece", "BERT",
               {{"unk_token", "[UNK]"},
                {"sep_token", "[SEP]"},
                {"pad_token", "[PAD]"},
                {"cls_token", "[CLS]"},
                {"mask_token", "[MASK]"}});
  const auto special = [&](const char* key, int type) {
    return Json{{"SpecialToken", {{"id", from.token(key)}, {"type_id", type}}}};
  };
  const auto text = [](const char* name, int type) { return Json{{"Sequence", {{"id", name}, {"type_id", type}}}}; };
  Json special_tokens = Json::object();
  for (const char* key : {"cls_token", "sep_token"}) {
    const std::string token = from.token(key);
    special_tokens[token] = {{"id", token}, {"ids", {from.id(key)}}, {"tokens", {token}}};
  }
  const Json strip = has(settings, "strip_accents") ? Json(require_bool(settings, "strip_accents")) : Json();
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", from.added()},
          {"normalizer",
           {{"type", "BertNormalizer"},
            {"clean_text", true},
            {"handle_chinese_chars", flag(settings, "tokenize_chinese_chars", true)},
            {"strip_accents", strip},
            {"lowercase", flag(settings, "do_lower_case", true)}}},
          {"pre_tokenizer", {{"type", "BertPreTokenizer"}}},
          {"post_processor",
           {{"type", "TemplateProcessing"},
            {"single", {special("cls_token", 0), text("A", 0), special("sep_token", 0)}},
            {"pair",
             {special("cls_token", 0), text("A", 0), special("sep_token", 0), text("B", 1), special("sep_token", 1)}},
            {"special_tokens", special_tokens}}},
          {"decoder", {{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}}},
          {"model",
           {{"type", "WordPiece"},
            {"unk_token", from.token("unk_token")},
            {"continuing_subword_prefix", "##"},
            {"max_input_chars_per_word", 100},
            {"vocab", std::move(from.vocab.value)}}}};
}

// As RobertaTokenizer would write it: the vocabulary and merges of `tokenizer`, all else from the settings.
Json rebuild_roberta(const JsonDocument& tokenizer, const JsonDocument& settings, JsonDocument named) {
  Rebuild from(tokenizer, settings, std::move(named), "BPE", "RoBERTa",
               {{"bos_token", "<s>"},
                {"eos_token", "</s>"},
                {"unk_token", "<unk>"},
                {"sep_token", "</s>"},
                {"pad_token", "<pad>"},
                {"cls_token", "<s>"},
                {"mask_token", "<mask>"}});
  const bool space_first = flag(settings, "add_prefix_space", false), trim = flag(settings, "trim_offsets", true);
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", from.added()},
          {"normalizer", nullptr},
          {"pre_tokenizer",
           {{"type", "ByteLevel"}, {"add_prefix_space", space_first}, {"trim_offsets", true}, {"use_regex", true}}},
          {"post_processor",
           {{"type", "RobertaProcessing"},
            {"sep", Json::array({from.token("sep_token"), from.id("sep_token")})},
            {"cls", Json::array({from.token("cls_token"), from.id("cls_token")})},
            {"trim_offsets", trim},
            {"add_prefix_space", space_first}}},
          {"decoder", nullptr},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", ""},
            {"end_of_word_suffix", ""},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"ignore_merges", false},
            {"vocab", std::move(from.vocab.value)},
            {"merges", view_array(from.model, "merges")}}}};
}

// sentence-transformers puts it in front, and not where there is one.
void lower_first(Json& tokenizer) {
  const auto lowers = [](const Json& part) { return part.is_object() && part.value("type", Json()) == "Lowercase"; };
  const Json lower = {{"type", "Lowercase"}};
  Json all = Json::array({lower});
  const Json normalizer = tokenizer.value("normalizer", Json());
  if (normalizer.is_object() && normalizer.value("type", Json()) == "Sequence" && normalizer.contains("normalizers") &&
      normalizer["normalizers"].is_array()) {
    const Json& parts = normalizer["normalizers"];
    if (std::any_of(parts.begin(), parts.end(), lowers)) return;
    all.insert(all.end(), parts.begin(), parts.end());
  } else if (lowers(normalizer)) {
    return;
  } else if (!normalizer.is_null()) {
    all.push_back(normalizer);
  }
  tokenizer["normalizer"] = {{"type", "Sequence"}, {"normalizers", std::move(all)}};
}

// Which end is cut and padded: tokenizer_config.json says so, or tokenizer.json's own sections.
void check_sides(const JsonDocument& tokenizer, const JsonDocument& settings) {
  const std::array<std::array<const char*, 2>, 2> sides = {
      {{"truncation_side", "truncation"}, {"padding_side", "padding"}}};
  for (const auto& [key, section] : sides) {
    if (has(settings, key)) {
      if (require_string(settings, key) != "right") refuse_json(settings, key, "\"right\"");
    } else if (has(tokenizer, section)) {
      const JsonDocument part = require_object(tokenizer, section);
      if (has(part, "direction") && require_string(part, "direction") != "Right") {
        refuse_json(part, "direction", "\"Right\"");
      }
    }
  }
  if (flag(settings, "split_special_tokens", false)) refuse_json(settings, "split_special_tokens", "false");
}

std::optional<std::int64_t> max_length(const JsonDocument& settings) {
  for (const char* key : {"model_max_length", "max_len"}) {
    if (!has(settings, key)) continue;
    // Some files say "no limit" by a number of thirty digits.
    if (require_number(settings, key, 1) > 1e9) return std::nullopt;
    return require_int(settings, key, 1);
  }
  return std::nullopt;
}

}  // namespace

ConfiguredTokenizer load_tokenizer(const fs::path& folder, bool lower_case) {
  JsonDocument tokenizer = io::read_json(folder / "tokenizer.json");
  Tokenizer::check(tokenizer);
  const JsonDocument settings = read_if_there(folder / "tokenizer_config.json");
  check_sides(tokenizer, settings);
  if (const Rebuilt as = rebuilt(settings, folder); as != Rebuilt::kNone) {
    JsonDocument named = settings;
    if (!has(settings, "added_tokens_decoder")) {
      named.value.update(read_if_there(folder / "special_tokens_map.json").value);
    }
    tokenizer.value = (as == Rebuilt::kBert ? rebuild_bert : rebuild_roberta)(tokenizer, settings, std::move(named));
  }
  if (lower_case) lower_first(tokenizer.value);
  return {Tokenizer(tokenizer), max_length(settings)};
}

}  // namespace manyheads::model
