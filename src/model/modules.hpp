#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "io/json.hpp"

namespace manyheads::model {

// One entry of modules.json, the list of a sentence-transformers model: "Transformer", "Pooling" or another class.
struct Module {
  std::string type;            // the last part of the class's name
  std::filesystem::path path;  // inside the model's folder; empty: the folder itself
  io::JsonDocument entry;      // for messages
};

// The modules of a folder, in order; none without modules.json. Throws Error on a path that leads out of the folder.
std::vector<Module> load_modules(const std::filesystem::path& folder);

// What sentence_bert_config.json says of texts and tokens. sentence-transformers reads it only beside a modules.json.
struct TransformerModule {
  std::filesystem::path folder;                // of config.json, the weights and the tokenizer
  std::optional<std::int64_t> max_seq_length;  // tokens, special ones counted
  std::string max_seq_length_file;             // the file that says so
  bool do_lower_case = false;
};

// Throws Error on an unknown setting that would change vectors.
TransformerModule load_transformer_module(const std::filesystem::path& folder);

// What config_sentence_transformers.json says. It is read only beside a modules.json.
struct SentenceSettings {
  std::map<std::string, std::string> prompts;  // text that goes before each text, by name
  std::optional<std::string> default_prompt_name;
  std::optional<std::int64_t> truncate_dim;  // keeps the first so many numbers of a vector
  std::string place;

  // The prompt of this name, or the default one (empty where there is none). Throws Error that lists the known names.
  const std::string& prompt(const std::optional<std::string>& name) const;
};

SentenceSettings load_sentence_settings(const std::filesystem::path& folder);

}  // namespace manyheads::model
