#include "model/modules.hpp"

#include <algorithm>
#include <array>
#include <manyheads/error.hpp>

#include "base/file.hpp"

namespace manyheads::model {
namespace {

namespace fs = std::filesystem;
using io::Json;
using io::JsonDocument;

bool is_there(const fs::path& path) {
  std::error_code none;
  return fs::exists(path, none);
}

// A module's folder lies in the model's: no path may lead out of it.
bool stays_inside(const fs::path& path) {
  return !path.is_absolute() &&
         std::none_of(path.begin(), path.end(), [](const fs::path& part) { return part == ".."; });
}

// Arguments for transformers' loaders, by their new and old names. Those that only choose how the same vectors are
// computed are skipped; any other is an error.
void check_loader_arguments(const JsonDocument& config) {
  constexpr std::array<const char*, 10> kSameVectors = {
      "add_pooling_layer", "attn_implementation", "dtype",     "low_cpu_mem_usage", "revision",
      "torch_dtype",       "trust_remote_code",   "use_cache", "use_fast",          "use_safetensors"};
  for (const char* name :
       {"model_kwargs", "model_args", "processor_kwargs", "tokenizer_args", "config_kwargs", "config_args"}) {
    if (!has(config, name)) continue;
    const JsonDocument arguments = require_object(config, name);
    for (const auto& [key, value] : arguments.value.items()) {
      if (std::find(kSameVectors.begin(), kSameVectors.end(), key) == kSameVectors.end()) {
        throw Error(ErrorCode::kMalformedFile, arguments.place + ": " + base::in_quotes(key) + " is not known");
      }
    }
  }
}

void check_transformer(const JsonDocument& config) {
  // The first two are read here; the others hold for every text encoder, or apply to no plain call.
  constexpr std::array<const char*, 18> kKnown = {"max_seq_length",   "do_lower_case",          "transformer_task",
                                                  "modality_config",  "module_output_name",     "processing_kwargs",
                                                  "unpad_inputs",     "query_length",           "document_length",
                                                  "query_expansion",  "model_kwargs",           "model_args",
                                                  "processor_kwargs", "tokenizer_args",         "config_kwargs",
                                                  "config_args",      "tokenizer_name_or_path", "backend"};
  for (const auto& [key, value] : config.value.items()) {
    if (std::find(kKnown.begin(), kKnown.end(), key) == kKnown.end()) {
      throw Error(ErrorCode::kMalformedFile, config.place + ": " + base::in_quotes(key) + " is not known");
    }
  }
  check_loader_arguments(config);
  if (has(config, "transformer_task") && require_string(config, "transformer_task") != "feature-extraction") {
    refuse_json(config, "transformer_task", "\"feature-extraction\"");
  }
  if (has(config, "module_output_name") && require_string(config, "module_output_name") != "token_embeddings") {
    refuse_json(config, "module_output_name", "\"token_embeddings\"");
  }
  if (has(config, "modality_config")) {
    const Json usual = {{"text", {{"method", "forward"}, {"method_output_name", "last_hidden_state"}}}};
    if (require_object(config, "modality_config").value != usual) {
      refuse_json(config, "modality_config", "the last hidden state of a text");
    }
  }
  if (has(config, "processing_kwargs") && !require_object(config, "processing_kwargs").value.empty()) {
    refuse_json(config, "processing_kwargs", "an empty object");
  }
  if (has(config, "tokenizer_name_or_path")) refuse_json(config, "tokenizer_name_or_path", "null");
}

}  // namespace

std::vector<Module> load_modules(const fs::path& folder) {
  std::vector<Module> modules;
  if (!is_there(folder / "modules.json")) return modules;
  const JsonDocument list = io::read_json(folder / "modules.json");
  if (!list.value.is_array() || list.value.empty()) {
    throw Error(ErrorCode::kMalformedFile, list.place + ": a list of modules is needed");
  }
  for (const Json& entry : list.value) {
    Module module{{}, {}, {entry, list.place + ", module " + std::to_string(modules.size())}};
    const std::string type = require_string(module.entry, "type");
    module.type = type.substr(type.rfind('.') + 1);
    module.path = require_string(module.entry, "path");
    if (!stays_inside(module.path)) refuse_json(module.entry, "path", "a folder inside the model's");
    modules.push_back(std::move(module));
  }
  if (modules[0].type != "Transformer") refuse_json(modules[0].entry, "type", "Transformer, as the first module");
  return modules;
}

TransformerModule load_transformer_module(const fs::path& folder) {
  TransformerModule module;
  module.folder = folder;
  const std::vector<Module> modules = load_modules(folder);
  if (modules.empty()) return module;
  if (!modules[0].path.empty()) module.folder = folder / modules[0].path;
  // The names that the file has had, in the order of the search.
  for (const char* kind : {"bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet"}) {
    const fs::path path = module.folder / ("sentence_" + std::string(kind) + "_config.json");
    if (!is_there(path)) continue;
    const JsonDocument config = io::read_json(path);
    if (config.value == Json::object()) continue;
    if (has(config, "max_seq_length")) module.max_seq_length = require_int(config, "max_seq_length", 1);
    if (has(config, "do_lower_case")) module.do_lower_case = require_bool(config, "do_lower_case");
    check_transformer(config);
    module.max_seq_length_file = path.filename().string();
    break;
  }
  return module;
}

SentenceSettings load_sentence_settings(const fs::path& folder) {
  SentenceSettings settings;
  const fs::path path = folder / "config_sentence_transformers.json";
  settings.place = base::path_in_quotes(path);
  // Every such model has these two; by themselves they are empty.
  settings.prompts = {{"query", ""}, {"document", ""}};
  if (!is_there(folder / "modules.json") || !is_there(path)) return settings;
  const JsonDocument config = io::read_json(path);
  if (has(config, "model_type") && require_string(config, "model_type") != "SentenceTransformer") {
    refuse_json(config, "model_type", "\"SentenceTransformer\"");
  }
  if (has(config, "prompts")) {
    const JsonDocument prompts = require_object(config, "prompts");
    for (const auto& [name, text] : prompts.value.items()) {
      settings.prompts[name] = has(prompts, name) ? require_string(prompts, name) : "";
    }
  }
  if (has(config, "default_prompt_name")) {
    settings.default_prompt_name = require_string(config, "default_prompt_name");
    if (!settings.prompts.contains(*settings.default_prompt_name)) {
      refuse_json(config, "default_prompt_name", "a name in \"prompts\"");
    }
  }
  if (has(config, "truncate_dim")) settings.truncate_dim = require_int(config, "truncate_dim", 1);
  return settings;
}

const std::string& SentenceSettings::prompt(const std::optional<std::string>& name) const {
  static const std::string kNone;
  const std::optional<std::string>& wanted = name ? name : default_prompt_name;
  if (!wanted) return kNone;
  const auto found = prompts.find(*wanted);
  if (found != prompts.end()) return found->second;
  std::string names;
  for (const auto& [known, text] : prompts) names += (names.empty() ? "" : ", ") + base::in_quotes(known, 60);
  throw Error(ErrorCode::kInvalidArgument,
              "there is no prompt " + base::in_quotes(*wanted, 60) + " in " + place + "; its prompts are " + names);
}

}  // namespace manyheads::model
