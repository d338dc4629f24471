#include "text.hpp"

#include <filesystem>
#include <manyheads/error.hpp>

#include "base/file.hpp"
#include "lens/truncate.hpp"
#include "lens/unicode.hpp"
#include "model/text_model.hpp"

namespace manyheads::cli {

std::string model_name(const std::string& folder) {
  const std::filesystem::path path = std::filesystem::path(folder).lexically_normal();
  const std::string name = (path.has_filename() ? path : path.parent_path()).filename().string();
  if (name != "." && name != ".." && !name.empty()) return name;
  std::error_code problem;
  const std::filesystem::path absolute = std::filesystem::canonical(path, problem);
  return problem ? folder : absolute.filename().string();
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

EncodedText encode_text(const model::TextModel& model, const std::string& subject, const std::string& text,
                        const std::optional<std::string>& pair, bool truncate) {
  check_text(subject, text);
  if (pair) check_text("--pair", *pair);
  EncodedText result;
  const model::Tokenizer& tokenizer = model.parts().configured.tokenizer;
  result.encoding = pair ? tokenizer.encode_pair(text, *pair) : tokenizer.encode(text);
  result.full_size = result.encoding.size();
  for (int sequence = 0; sequence < (pair ? 2 : 1); ++sequence) {
    bool any = false;
    for (const std::int32_t s : result.encoding.sequences) any = any || s == sequence;
    if (!any) {
      throw Error(ErrorCode::kInvalidArgument, (sequence == 0 ? subject : "--pair") + " is empty: it has no tokens");
    }
  }
  const std::int64_t max_tokens = model.encoder().config().max_position_embeddings;
  if (static_cast<std::int64_t>(result.full_size) > max_tokens) {
    if (!truncate) {
      throw Error(ErrorCode::kInvalidArgument, subject + (pair ? " and --pair have " : " has ") +
                                                   std::to_string(result.full_size) + " tokens, the model takes " +
                                                   std::to_string(max_tokens) + "; --truncate cuts to that");
    }
    result.encoding = lens::truncate(result.encoding, static_cast<std::size_t>(max_tokens));
  }
  model::check_ids(subject, result.encoding.ids, result.encoding.type_ids, model);
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
