#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace manyheads::model {

// A folder's template for chats, where it is the ChatML form:
//
//   <|im_start|>system
//   ...<|im_end|>
//   <|im_start|>user
//   ...<|im_end|>
//   <|im_start|>assistant
//
struct ChatTemplate {
  std::string system;  // the message that stands first where the chat has none of its own; empty: none stands there

  // A chat of one question, up to where the answer begins.
  std::string render(std::string_view user, const std::optional<std::string>& system_message = {}) const;
};

// Reads chat_template.jinja, or "chat_template" of tokenizer_config.json. Throws Error where there is none, or another
// than ChatML, with its first line.
ChatTemplate load_chat_template(const std::filesystem::path& folder);

}  // namespace manyheads::model
