#include "text.hpp"

#include <filesystem>
#include <manyheads/error.hpp>

#include "base/file.hpp"
#include "lens/truncate.hpp"
#include "lens/unicode.hpp"
#include "model/tokenizer_config.hpp"

namespace manyheads::cli {

std::string model_name(const std::string& folder) {
  const std::filesystem::path path = std::filesystem::path(folder).lexically_normal();
  const std::string name = (path.has_filename() ? path : path.parent_path()).filename().string();
  if (name != "." && name != ".." && !name.empty()) return name;
  std::error_code problem;
  const std::filesystem::path absolute = std::filesystem::canonical(path, problem);
  return problem ? folder : absolute.filename().string();
}

TextModel load_text_model(const std::string& folder, DType weights) {
  model::TransformerModule module = model::load_transformer_module(folder);
  model::ConfiguredTokenizer configured = model::load_tokenizer(module.folder, module.do_lower_case);
  std::unique_ptr<const model::Encoder> encoder = model::load_encoder(module.folder, weights);
  return {std::move(module), std::move(configured.tokenizer), configured.model_max_length, std::move(encoder)};
}

void check_ids(const std::string& subject, const std::vector<std::int64_t>& ids,
               const std::vector<std::int64_t>& type_ids, const TextModel& model) {
  const auto check = [&](const std::vector<std::int64_t>& values, const char* what, const char* key,
                         std::int64_t count) {
    for (const std::int64_t value : values) {
      if (value < count) continue;
      throw Error(ErrorCode::kMalformedFile,
                  subject + ": tokenizer.json and config.json of " + base::path_in_quotes(model.module.folder) +
                      " do not fit: " + what + " " + std::to_string(value) + ", " + key + " is " +
                      std::to_string(count));
    }
  };
  check(ids, "token id", "vocab_size", model.encoder->config().vocab_size);
  check(type_ids, "segment", "type_vocab_size", model.encoder->config().type_vocab_size);
}

void check_utf8(const std::string& subject, const std::string& text) {
  char32_t c;
  for (std::size_t p = 0; p < text.size();) {
    if (!lens::next_code_point(text, &p, &c)) {
      throw Error(ErrorCode::kInvalidArgument, subject + " is not UTF-8 (byte " + std::to_string(p) + ")");
    }
  }
}

void check_text(const std::string& subject, const std::string& text) {
  check_utf8(subject, text);
  if (text.find_first_not_of(" \t\r\n\v\f") == std::string::npos) {
    throw Error(ErrorCode::kInvalidArgument, subject + " is empty");
  }
}

EncodedText encode_text(const TextModel& model, const std::string& subject, const std::string& text,
                        const std::optional<std::string>& pair, bool truncate) {
  check_text(subject, text);
  if (pair) check_text("--pair", *pair);
  EncodedText result;
  result.encoding = pair ? model.tokenizer.encode_pair(text, *pair) : model.tokenizer.encode(text);
  result.full_size = result.encoding.size();
  for (int sequence = 0; sequence < (pair ? 2 : 1); ++sequence) {
    bool any = false;
    for (const std::int32_t s : result.encoding.sequences) any = any || s == sequence;
    if (!any) {
      throw Error(ErrorCode::kInvalidArgument, (sequence == 0 ? subject : "--pair") + " is empty: it has no tokens");
    }
  }
  const std::int64_t max_tokens = model.encoder->config().max_position_embeddings;
  if (static_cast<std::int64_t>(result.full_size) > max_tokens) {
    if (!truncate) {
      throw Error(ErrorCode::kInvalidArgument, subject + (pair ? " and --pair have " : " has ") +
                                                   std::to_string(result.full_size) + " tokens, the model takes " +
                                                   std::to_string(max_tokens) + "; --truncate cuts to that");
    }
    result.encoding = lens::truncate(result.encoding, static_cast<std::size_t>(max_tokens));
  }
  check_ids(subject, result.encoding.ids, result.encoding.type_ids, model);
  return result;
}

void check_model(const std::string& folder) {
  std::error_code problem;
  if (!std::filesystem::is_directory(folder, problem)) {
    throw Error(ErrorCode::kIo, "--model: there is no folder " + base::path_in_quotes(folder));
  }
}

void check_output(const std::string& path) {
  std::error_code problem;
  const std::filesystem::path parent = std::filesystem::path(path).parent_path();
  if (std::filesystem::is_directory(path, problem)) {
    throw Error(ErrorCode::kIo, "cannot write " + base::path_in_quotes(path) + ": it is a folder");
  }
  if (!parent.empty() && !std::filesystem::is_directory(parent, problem)) {
    throw Error(ErrorCode::kIo,
                "cannot write " + base::path_in_quotes(path) + ": there is no folder " + base::path_in_quotes(parent));
  }
}

}  // namespace manyheads::cli
