#pragma once

#include <cstdint>
#include <manyheads/model/encoder.hpp>
#include <memory>
#include <optional>
#include <string>

#include "model/modules.hpp"
#include "model/tokenizer.hpp"

namespace manyheads::cli {

// The name a model folder goes by: its last part.
std::string model_name(const std::string& folder);

// The encoder of a folder, and the tokenizer as the folder's settings want it.
struct TextModel {
  model::TransformerModule module;
  model::Tokenizer tokenizer;
  std::optional<std::int64_t> model_max_length;  // of tokenizer_config.json
  std::unique_ptr<const model::Encoder> encoder;
};
TextModel load_text_model(const std::string& folder, DType weights = DType::kF32);

// Throws Error that names the text when the model has no such token or segment: tokenizer and weights do not fit.
void check_ids(const std::string& subject, const std::vector<std::int64_t>& ids,
               const std::vector<std::int64_t>& type_ids, const TextModel& model);

// A text (and the second of a pair) as the model takes it. Throws Error when one of them is empty, is not UTF-8, or
// they have more tokens than the model has positions and `truncate` is off. The messages call the texts `subject` and
// --pair.
struct EncodedText {
  model::Encoding encoding;
  std::size_t full_size = 0;  // tokens before truncation
};
EncodedText encode_text(const TextModel& model, const std::string& subject, const std::string& text,
                        const std::optional<std::string>& pair, bool truncate);

// The part of these checks that needs no model, so that it can come first. Throws Error.
void check_utf8(const std::string& subject, const std::string& text);
void check_text(const std::string& subject, const std::string& text);

// Throws Error when there is no such folder.
void check_model(const std::string& folder);

// Long work must not end at a file that cannot be written: throws Error when `path` is a folder or lies in none.
void check_output(const std::string& path);

}  // namespace manyheads::cli
