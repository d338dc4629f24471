#include "model/checkpoint.hpp"

#include <manyheads/error.hpp>
#include <map>
#include <string>
#include <system_error>

#include "base/file.hpp"
#include "io/json.hpp"

namespace manyheads::model {
namespace {

constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";

// A shard lies in the folder itself: a path could lead anywhere.
bool plain_file_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos &&
         name.find('\\') == std::string::npos && name.find('\0') == std::string::npos;
}

SafetensorsFile load_shards(const std::filesystem::path& folder) {
  SafetensorsFile out;
  out.path = folder / kIndexFile;
  const io::JsonDocument weight_map = require_object(io::read_json(out.path), "weight_map");
  std::map<std::string, SafetensorsFile> shards;
  for (const auto& [name, value] : weight_map.value.items()) {
    const std::string shard = require_string(weight_map, name);
    if (!plain_file_name(shard)) {
      refuse_json(weight_map, name, "the name of a file in the same folder");
    }
    auto found = shards.find(shard);
    if (found == shards.end()) found = shards.emplace(shard, load_safetensors(folder / shard)).first;
    const SafetensorsFile& file = found->second;
    if (const auto other = file.unsupported.find(name); other != file.unsupported.end()) {
      out.unsupported.insert(*other);
    } else {
      out.tensors.emplace(name, file.at(name));
    }
  }
  return out;
}

}  // namespace

SafetensorsFile load_checkpoint(const std::filesystem::path& folder) {
  std::error_code ignored;
  if (std::filesystem::exists(folder / kSingleFile, ignored)) return load_safetensors(folder / kSingleFile);
  if (std::filesystem::exists(folder / kIndexFile, ignored)) return load_shards(folder);
  if (!std::filesystem::is_directory(folder, ignored)) {
    throw Error(ErrorCode::kIo, base::path_in_quotes(folder) + " is not a folder with a model");
  }
  throw Error(ErrorCode::kIo,
              "the folder " + base::path_in_quotes(folder) + " holds neither " + kSingleFile + " nor " + kIndexFile);
}

}  // namespace manyheads::model
