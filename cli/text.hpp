#pragma once

#include <cstddef>
#include <manyheads/model/encoding.hpp>
#include <manyheads/model/text_model.hpp>
#include <optional>
#include <string>

namespace manyheads::cli {

// A model's name: the last part of its folder.
std::string model_name(const std::string& folder);

// A text (and the second of a pair) as the model takes it. Throws Error when a text is empty or not UTF-8, or when they
// have more tokens than the model has positions and `truncate` is off. Messages call the texts `subject` and --pair.
struct EncodedText {
  model::Encoding encoding;
  std::size_t full_size = 0;  // tokens before truncation
};
EncodedText encode_text(const model::TextModel& model, const std::string& subject, const std::string& text,
                        const std::optional<std::string>& pair, bool truncate);

// The checks that need no model, and so come first. Throws Error.
void check_utf8(const std::string& subject, const std::string& text);
void check_text(const std::string& subject, const std::string& text);

// Throws Error when there is no such folder.
void check_model(const std::string& folder);

// Throws Error when `path` is a folder or lies in none: long work must not end at a file that cannot be written.
void check_output(const std::string& path);

}  // namespace manyheads::cli
