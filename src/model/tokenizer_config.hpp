#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

#include "model/tokenizer.hpp"

namespace manyheads::model {

// A folder's tokenizer as transformers builds it, which may differ from tokenizer.json. Where tokenizer_config.json, or
// config.json, or else its model_type, names BERT's or RoBERTa's own class, transformers takes the vocabulary (and
// merges) alone from tokenizer.json. Lower case, accents, Chinese characters, the blank before a text and special
// tokens are then as tokenizer_config.json says.
struct ConfiguredTokenizer {
  Tokenizer tokenizer;
  std::optional<std::int64_t> model_max_length;  // of tokenizer_config.json, in tokens, special ones counted
};

// `lower_case` lower-cases all text first, whatever the files say. Throws Error on settings of tokenizer_config.json
// that are not supported: cutting or padding on the left, splitting special tokens.
ConfiguredTokenizer load_tokenizer(const std::filesystem::path& folder, bool lower_case = false);

}  // namespace manyheads::model
