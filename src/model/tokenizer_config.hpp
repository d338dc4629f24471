#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

#include "model/tokenizer.hpp"

namespace manyheads::model {

// A folder's tokenizer as transformers builds it, which is not always as tokenizer.json describes it: where
// tokenizer_config.json (or config.json) names BERT's own class, or none does, the vocabulary alone is taken from
// tokenizer.json, and lower case, accents, Chinese characters and special tokens are as tokenizer_config.json says.
struct ConfiguredTokenizer {
  Tokenizer tokenizer;
  std::optional<std::int64_t> model_max_length;  // of tokenizer_config.json, in tokens, special ones counted
};

// `lower_case` turns all text to small letters first, whatever the files say. Throws Error on what
// tokenizer_config.json asks for and is not known here: cutting or padding on the left, special tokens split.
ConfiguredTokenizer load_tokenizer(const std::filesystem::path& folder, bool lower_case = false);

}  // namespace manyheads::model
