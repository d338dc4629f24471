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

// The modules of a folder, in order. None without modules.json. Throws Error on a path that leads out of the folder.
std::vector<Module> load_modules(const std::filesystem::path& folder);

// What sentence_bert_config.json says of texts and tokens. Without modules.json sentence-transformers does not read it.
struct TransformerModule {
  std::filesystem::path folder;                // of config.json, the weights and the tokenizer
  std::optional<std::int64_t> max_seq_length;  // tokens, special ones counted
  std::string max_seq_length_file;             // that says so
  bool do_lower_case = false;
};

// Throws Error on a setting that would change vectors and is not known here.
TransformerModule load_transformer_module(const std::filesystem::path& folder);

// What config_sentence_transformers.json says, read only where there is a modules.json.
struct SentenceSettings {
  std::map<std::string, std::string> prompts;  // text that goes before each text, by name
  std::optional<std::string> default_prompt_name;
  std::optional<std::int64_t> truncate_dim;  // numbers of a vector that are kept
  std::string place;

  // The prompt of this name, or the default one (none: empty). Throws Error naming those there are.
  const std::string& prompt(const std::optional<std::string>& name) const;
};

SentenceSettings load_sentence_settings(const std::filesystem::path& folder);

}  // namespace manyheads::model
