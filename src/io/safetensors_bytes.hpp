#pragma once

#include <cstddef>
#include <filesystem>
#include <manyheads/safetensors.hpp>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/file.hpp"

// Safetensors in memory, as load_safetensors and save_safetensors have them in files.
namespace manyheads::io {

// The tensors are views on the bytes, which they keep alive. Messages call them `path`.
SafetensorsFile read_safetensors(const base::MappedFile& file, const std::filesystem::path& path);

// A file: its header and then each part's bytes, which are the tensors' own.
struct SafetensorsParts {
  std::string head;
  std::vector<std::span<const std::byte>> data;
};

// Throws Error as save_safetensors does; `target` names for its message where the file goes.
SafetensorsParts safetensors_parts(const StateDict& tensors, const std::map<std::string, std::string>& metadata,
                                   const std::string& target);
std::string safetensors_bytes(const StateDict& tensors, const std::map<std::string, std::string>& metadata);

}  // namespace manyheads::io
