#include <algorithm>
#include <array>
#include <manyheads/error.hpp>
#include <manyheads/model/pooling.hpp>
#include <string>
#include <vector>

#include "base/file.hpp"
#include "io/json.hpp"
#include "model/modules.hpp"

namespace manyheads::model {
namespace {

namespace fs = std::filesystem;
using io::Json;
using io::JsonDocument;

using Mode = PoolingConfig::Mode;

// A mode's name, and the key by which older files switch it on. Several modes stand in this order.
struct NamedMode {
  const char* name;
  const char* key;
  Mode mode;
};
constexpr std::array<NamedMode, 6> kModes = {
    {{"cls", "pooling_mode_cls_token", Mode::kCls},
     {"max", "pooling_mode_max_tokens", Mode::kMax},
     {"mean", "pooling_mode_mean_tokens", Mode::kMean},
     {"mean_sqrt_len_tokens", "pooling_mode_mean_sqrt_len_tokens", Mode::kMeanSqrtLen},
     {"weightedmean", "pooling_mode_weightedmean_tokens", Mode::kWeightedMean},
     {"lasttoken", "pooling_mode_lasttoken", Mode::kLastToken}}};

std::string mode_names() {
  std::string names;
  for (const NamedMode& known : kModes) names += std::string(names.empty() ? "" : ", ") + known.name;
  return names;
}

std::vector<Mode> read_modes(const JsonDocument& config) {
  std::vector<Mode> modes;
  constexpr const char* kPrefix = "pooling_mode_";
  for (const auto& [key, value] : config.value.items()) {
    if (key.rfind(kPrefix, 0) != 0 || !has(config, key) || !require_bool(config, key)) continue;
    const auto is_key = [&](const NamedMode& known) { return key == known.key; };
    if (std::none_of(kModes.begin(), kModes.end(), is_key)) {
      throw Error(ErrorCode::kMalformedFile,
                  config.place + ": " + base::in_quotes(key) + " is not known; the modes are " + mode_names());
    }
  }
  if (has(config, "pooling_mode")) {
    const auto add = [&](const JsonDocument& document, const std::string& key) {
      const std::string name = require_string(document, key);
      const auto found =
          std::find_if(kModes.begin(), kModes.end(), [&](const NamedMode& known) { return name == known.name; });
      if (found == kModes.end()) refuse_json(document, key, "one of " + mode_names());
      modes.push_back(found->mode);
    };
    if (!config.value["pooling_mode"].is_array()) {
      add(config, "pooling_mode");
    } else {
      for (const JsonDocument& item : require_array(config, "pooling_mode")) {
        add({Json{{"mode", item.value}}, item.place}, "mode");
      }
      if (modes.empty()) refuse_json(config, "pooling_mode", "a mode");
    }
    return modes;
  }
  for (const NamedMode& known : kModes) {
    if (has(config, known.key) && require_bool(config, known.key)) modes.push_back(known.mode);
  }
  if (modes.empty()) modes.push_back(Mode::kMean);
  return modes;
}

void check_normalize(const fs::path& folder, const Module& module) {
  std::error_code none;
  const fs::path path = folder / module.path / "config.json";
  if (module.path.empty() || !fs::exists(path, none)) return;
  const JsonDocument config = io::read_json(path);
  for (const char* key : {"module_input_name", "module_output_name"}) {
    if (has(config, key) && require_string(config, key) != "sentence_embedding") {
      refuse_json(config, key, "\"sentence_embedding\"");
    }
  }
}

}  // namespace

PoolingConfig load_pooling(const fs::path& folder) {
  PoolingConfig config;
  config.normalize = false;
  const std::vector<Module> modules = load_modules(folder);
  if (modules.empty()) return config;
  bool pools = false;
  for (std::size_t i = 1; i < modules.size(); ++i) {
    const Module& module = modules[i];
    if (module.type == "Pooling" && !pools) {
      const JsonDocument file = io::read_json(folder / module.path / "config.json");
      config.modes = read_modes(file);
      if (has(file, "include_prompt")) config.include_prompt = require_bool(file, "include_prompt");
      pools = true;
    } else if (module.type == "Normalize" && pools) {
      check_normalize(folder, module);
      config.normalize = true;
    } else {
      refuse_json(module.entry, "type", "Transformer, Pooling and Normalize, in this order");
    }
  }
  if (!pools) {
    throw Error(ErrorCode::kMalformedFile, modules[0].entry.place + ": no module of type Pooling follows");
  }
  return config;
}

}  // namespace manyheads::model
