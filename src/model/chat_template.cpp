#include "model/chat_template.hpp"

#include <algorithm>
#include <manyheads/error.hpp>

#include "base/file.hpp"
#include "base/utf8.hpp"
#include "io/json.hpp"

namespace manyheads::model {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kStart = "<|im_start|>";
constexpr std::string_view kEnd = "<|im_end|>\n";

bool is_word(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_'; }

// The template without what makes no difference: blanks between the words of a tag, the kind of quotes, "\n" for a line
// break in a text, and + between two texts.
std::string canonical(std::string_view text) {
  std::string out;
  bool in_tag = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (!in_tag) {
      in_tag = c == '{' && i + 1 < text.size() && (text[i + 1] == '{' || text[i + 1] == '%');
      out += c;
      if (in_tag) out += text[++i];
    } else if (c == '\'' || c == '"') {
      if (out.ends_with("'+")) {
        out.resize(out.size() - 2);
      } else {
        out += '\'';
      }
      for (++i; i < text.size() && text[i] != c; ++i) {
        const bool line_break = text[i] == '\\' && i + 1 < text.size() && text[i + 1] == 'n';
        out += line_break ? '\n' : text[i];
        if (line_break) ++i;
      }
      out += '\'';
    } else if (c == ' ' || c == '\n' || c == '\t' || c == '\r') {
      if (is_word(out.back()) && i + 1 < text.size() && is_word(text[i + 1])) out += ' ';
    } else {
      out += c;
      in_tag = !((c == '}' && i > 0 && (text[i - 1] == '}' || text[i - 1] == '%')));
    }
  }
  return out;
}

bool eat(std::string_view& text, std::string_view beginning) {
  if (!text.starts_with(beginning)) return false;
  text.remove_prefix(beginning.size());
  return true;
}

std::optional<ChatTemplate> read_chatml(std::string_view text) {
  ChatTemplate chat;
  if (!eat(text, "{%for message in messages%}")) return std::nullopt;
  if (eat(text, "{%if loop.first and messages[0]['role']!='system'%}{{'<|im_start|>system\n")) {
    const std::size_t end = text.find(kEnd);
    if (end == std::string_view::npos) return std::nullopt;
    chat.system = text.substr(0, end);
    if (chat.system.find_first_of("'\\") != std::string::npos) return std::nullopt;
    text.remove_prefix(end + kEnd.size());
    if (!eat(text, "'}}{%endif%}")) return std::nullopt;
  }
  if (!eat(text,
           "{{'<|im_start|>'+message['role']+'\n'+message['content']+'<|im_end|>\n'}}{%endfor%}"
           "{%if add_generation_prompt%}{{'<|im_start|>assistant\n'}}{%endif%}")) {
    return std::nullopt;
  }
  return text.find_first_not_of(" \n") == std::string_view::npos ? std::optional(chat) : std::nullopt;
}

// The template, and where it stands.
std::optional<io::JsonDocument> find_template(const fs::path& folder) {
  std::error_code none;
  if (const fs::path file = folder / "chat_template.jinja"; fs::exists(file, none)) {
    return io::JsonDocument{std::string(base::map_file(file).text()), base::path_in_quotes(file)};
  }
  const fs::path file = folder / "tokenizer_config.json";
  if (!fs::exists(file, none)) return std::nullopt;
  const io::JsonDocument config = io::read_json(file);
  if (!has(config, "chat_template")) return std::nullopt;
  return io::JsonDocument{require_string(config, "chat_template"), config.place + ": \"chat_template\""};
}

}  // namespace

std::string ChatTemplate::render(std::string_view user, const std::optional<std::string>& system_message) const {
  std::string text;
  const auto add = [&](std::string_view role, std::string_view content) {
    text.append(kStart).append(role).append("\n").append(content).append(kEnd);
  };
  const std::string& first = system_message ? *system_message : system;
  if (system_message || !first.empty()) add("system", first);
  add("user", user);
  return text.append(kStart).append("assistant\n");
}

ChatTemplate load_chat_template(const fs::path& folder) {
  const auto found = find_template(folder);
  if (!found) {
    throw Error(ErrorCode::kUnsupported, base::path_in_quotes(folder) +
                                             " has no chat template: neither chat_template.jinja nor "
                                             "\"chat_template\" in tokenizer_config.json");
  }
  const auto& text = found->value.get_ref<const std::string&>();
  if (const auto chat = read_chatml(canonical(text))) return *chat;
  throw Error(ErrorCode::kUnsupported, found->place +
                                           " is not the ChatML form, the only one that is known: it begins " +
                                           base::in_quotes(text.substr(0, text.find('\n')), 100));
}

}  // namespace manyheads::model
