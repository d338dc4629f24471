#pragma once

#include <filesystem>
#include <map>
#include <string>

#include <manyheads/tensor.hpp>
#include <manyheads/export.hpp>

namespace manyheads {

// What a safetensors file holds.
struct MANYHEADS_API SafetensorsFile {
  std::filesystem::path path;  // the file read, for messages
  StateDict tensors;           // read-only views on the mapped file, which they keep alive
  std::map<std::string, std::string> metadata;
  std::map<std::string, std::string> unsupported;  // tensors that no Tensor can hold: name -> "U16", "F32 of rank 9"

  // The tensor of this name. Throws Error where there is none, or where it is an unsupported one, saying which.
  const Tensor& at(const std::string& name) const;
};

// Maps a file into memory and checks all of its header. Copies no tensor but one that does not lie at a multiple of its
// element's size.
// - A file may come from anyone. Each way to break the format is an Error (kMalformedFile) that names the file and the
//   tensor. What the system refuses is kIo.
// - The file must not change in place while a tensor lives. Replacing it by rename is fine, as save_safetensors does.
MANYHEADS_API SafetensorsFile load_safetensors(const std::filesystem::path& path);

// Writes the tensors, and replaces `path` only once all is written: on an error an older file stays as it was. The same
// tensors give the same bytes: larger elements first, then by name. Names and metadata are UTF-8.
MANYHEADS_API void save_safetensors(const std::filesystem::path& path, const StateDict& tensors,
                                    const std::map<std::string, std::string>& metadata = {});

}  // namespace manyheads
