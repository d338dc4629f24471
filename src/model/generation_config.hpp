#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

namespace manyheads::model {

// The tokens that end a text: "eos_token_id" of generation_config.json, an id or a list of them; where that file does
// not say, of config.json; empty where neither does. Throws Error where an id is not below `vocab_size`.
std::vector<std::int64_t> end_tokens(const std::filesystem::path& folder, std::int64_t vocab_size);

}  // namespace manyheads::model
