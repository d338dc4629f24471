#include "model/generation_config.hpp"

#include "io/json.hpp"

namespace manyheads::model {

std::vector<std::int64_t> end_tokens(const std::filesystem::path& folder, std::int64_t vocab_size) {
  const std::string key = "eos_token_id";
  for (const char* name : {"generation_config.json", "config.json"}) {
    std::error_code none;
    if (!std::filesystem::exists(folder / name, none)) continue;
    const io::JsonDocument config = io::read_json(folder / name);
    if (!has(config, key)) continue;
    if (!config.value[key].is_array()) return {require_int(config, key, 0, vocab_size - 1)};
    std::vector<std::int64_t> ids;
    for (const io::Json& id : view_array(config, key)) {
      const io::JsonDocument item{io::Json{{key, id}}, config.place};
      ids.push_back(require_int(item, key, 0, vocab_size - 1));
    }
    return ids;
  }
  return {};
}

}  // namespace manyheads::model
