#pragma once

#include <filesystem>
#include <map>
#include <string>

#include <manyheads/tensor.hpp>
#include <manyheads/export.hpp>

namespace manyheads {

// What a safetensors file holds.
struct MANYHEADS_API SafetensorsFile {
  std::filesystem::path path;  // where it was read from, for messages
  StateDict tensors;           // read-only: views on the mapped file, which they keep alive
  std::map<std::string, std::string> metadata;
  std::map<std::string, std::string> unsupported;  // tensors that no Tensor can hold: name -> "U16", "F32 of rank 9"

  // The tensor of this name. Throws Error that says whether it is missing (kMalformedFile) or unsupported.
  const Tensor& at(const std::string& name) const;
};

// Maps a file into memory and checks its whole header. Copies no tensor, except one that does not lie at a multiple of
// its element's size. The file may be hostile: each way to break the format is an Error (kMalformedFile) that names the
// file and the tensor. What the system refuses is kIo. The file must not change in place while a tensor lives;
// replacing it by rename, as save_safetensors does, is fine.
MANYHEADS_API SafetensorsFile load_safetensors(const std::filesystem::path& path);

// Writes the tensors beside `path` and renames the file when all is written: after an error an older file is as it was.
// The same tensors give the same bytes: larger elements first, then by name. Names and metadata are UTF-8.
MANYHEADS_API void save_safetensors(const std::filesystem::path& path, const StateDict& tensors,
                      const std::map<std::string, std::string>& metadata = {});

}  // namespace manyheads
