#pragma once

#include <cstdint>
#include <manyheads/lens/lookback.hpp>
#include <manyheads/model/generate.hpp>
#include <memory>
#include <string>
#include <vector>

#include "model/tokenizer.hpp"

namespace manyheads::cli {

// A token's own text; the vocabulary's spelling where it is part of a character.
std::string token_text(const model::Tokenizer& tokenizer, std::int64_t id);

struct Prompt {
  std::string subject;  // what messages call it
  std::string text;
  std::vector<std::int64_t> ids;
};

// Takes what is written, prompt beside prompt, and prints it prompt by prompt, as soon as it is its turn.
class Written {
 public:
  virtual ~Written() = default;
  virtual void token(const model::NewToken& token, const std::vector<lens::LookedAt>& looked_at) = 0;
  virtual void end(std::size_t prompt, const model::Generated& text) = 0;
};

// As text, as JSON lines, or with `lookback` (of one prompt) as a line for each token. The arguments must outlive it.
std::unique_ptr<Written> make_written(const model::Tokenizer& tokenizer, const std::vector<Prompt>& prompts, bool json,
                                      bool lookback);

}  // namespace manyheads::cli
