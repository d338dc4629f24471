#pragma once

#include <filesystem>
#include <manyheads/safetensors.hpp>

namespace manyheads::model {

// The tensors of a model folder as the hub lays it out: model.safetensors, or the shards that
// model.safetensors.index.json names, which must lie in the folder itself. `metadata` is that of the single file, and
// empty for shards.
SafetensorsFile load_checkpoint(const std::filesystem::path& folder);

}  // namespace manyheads::model
