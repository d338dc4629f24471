#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "model/tokenizer.hpp"

namespace manyheads::model {

// The text of tokens that come one by one. A character that several tokens spell comes out with its last one. The
// pieces join to what decode() gives for all tokens behind the context. A call decodes some tens of tokens at most.
class TextStream {
 public:
  // `context` are tokens that stand before, of which no text comes out: a word's first token begins with a blank only
  // behind another one. Ids that no token has are passed over.
  explicit TextStream(const Tokenizer& tokenizer, std::span<const std::int64_t> context = {},
                      bool skip_special_tokens = true);

  std::string push(std::int64_t id);  // what is whole now and has not come out yet
  std::string finish();               // what was held back: the bytes of no whole character become U+FFFD

 private:
  bool take(std::int64_t id);
  std::string rest_of(const std::string& text, std::size_t size) const;  // of its first `size` bytes, what is new
  void keep_from(std::size_t first);

  const Tokenizer* tokenizer_;
  bool skip_special_tokens_;
  std::vector<std::int64_t> ids_;  // the last tokens
  std::size_t settled_ = 0;        // how many of them were there when all text had come out
  std::string shown_;              // the text of ids_ that has come out
};

}  // namespace manyheads::model
