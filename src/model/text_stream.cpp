#include "model/text_stream.hpp"

#include <algorithm>
#include <string_view>

namespace manyheads::model {
namespace {

constexpr std::string_view kReplacement = "\xef\xbf\xbd";  // U+FFFD
constexpr std::size_t kContext = 8;                        // tokens
constexpr std::size_t kHeld = 16;                          // tokens whose text may still change
constexpr std::size_t kBegun = 4;                          // of a character that has begun, and one before

// The size of what later tokens leave as it is. A character that has begun has at most three bytes, each of which a
// decoder may show as a U+FFFD of its own.
std::size_t size_without_begun_character(std::string_view text) {
  for (int i = 0; i < 3 && text.ends_with(kReplacement); ++i) text.remove_suffix(kReplacement.size());
  return text.size();
}

}  // namespace

TextStream::TextStream(const Tokenizer& tokenizer, std::span<const std::int64_t> context, bool skip_special_tokens)
    : tokenizer_(&tokenizer), skip_special_tokens_(skip_special_tokens) {
  for (std::size_t i = context.size() - std::min(context.size(), kContext); i < context.size(); ++i) take(context[i]);
  keep_from(0);
}

std::string TextStream::push(std::int64_t id) {
  if (!take(id)) return "";
  const std::string text = tokenizer_->decode(ids_, false);
  const std::size_t size = size_without_begun_character(text);
  const bool changed = !std::string_view(text).starts_with(shown_);
  std::string now;
  if (!changed && size > shown_.size()) {
    now = rest_of(text, size);
    shown_.assign(text, 0, size);
    if (size == text.size()) keep_from(settled_);
  }
  if (ids_.size() - settled_ > kHeld) {  // no character takes so many
    if (changed) now = rest_of(text, text.size());
    keep_from(ids_.size() - kBegun);
    const std::string_view begun = std::string_view(text).substr(size);
    if (!changed && shown_.ends_with(begun)) shown_.resize(shown_.size() - begun.size());
  }
  return now;
}

std::string TextStream::finish() {
  const std::string text = tokenizer_->decode(ids_, false);
  std::string rest = rest_of(text, text.size());
  keep_from(0);
  return rest;
}

bool TextStream::take(std::int64_t id) {
  const auto token = tokenizer_->token(id);
  if (!token || (skip_special_tokens_ && token->special)) return false;
  ids_.push_back(id);
  return true;
}

std::string TextStream::rest_of(const std::string& text, std::size_t size) const {
  if (std::string_view(text).starts_with(shown_)) return text.substr(shown_.size(), size - shown_.size());
  // The decoder has changed text that is out already: only what the later tokens say by themselves can follow.
  return tokenizer_->decode(std::span(ids_).subspan(settled_), false);
}

void TextStream::keep_from(std::size_t first) {
  ids_.erase(ids_.begin(), ids_.begin() + static_cast<std::ptrdiff_t>(first));
  settled_ = ids_.size();
  shown_ = tokenizer_->decode(ids_, false);
}

}  // namespace manyheads::model
