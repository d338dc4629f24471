#pragma once

#include <cstddef>
#include <cstdint>
#include <manyheads/tensor.hpp>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

// A safetensors file: 8 bytes, little-endian, the size of the header; the header, a JSON object
//   {"name": {"dtype": "F32", "shape": [2,3], "data_offsets": [begin, end]}, ..., "__metadata__": {"key": "text"}}
// padded with spaces; the data, row-major, little-endian, without gaps. Offsets count from the header's end.

namespace manyheads::io {

constexpr std::size_t kMaxSafetensorsHeader = 100'000'000;
constexpr const char* kSafetensorsMetadata = "__metadata__";

// A type of the format.
struct SafetensorsType {
  const char* name;
  int bits;
  std::optional<DType> type;  // none: the format has it, Tensor has not
};

// The rank of a shape and its first sizes, as many as a message shows.
struct SafetensorsShape {
  static constexpr std::size_t kMostShown = 16;
  std::vector<std::int64_t> first;
  std::size_t rank = 0;

  std::string text() const;
};

// A tensor as the header describes it. Its bytes are [begin, end) of the data.
struct SafetensorsEntry {
  const SafetensorsType* type = nullptr;
  SafetensorsShape shape;
  std::int64_t begin = 0;
  std::int64_t end = 0;
};

struct SafetensorsHeader {
  std::map<std::string, SafetensorsEntry> entries;
  std::map<std::string, std::string> metadata;
};

// Reads an untrusted header, in memory that grows with its names. Throws Error (kMalformedFile) with `place`, the file,
// where it breaks the format or where the entries do not fill `data_size` bytes without gaps.
SafetensorsHeader parse_safetensors_header(std::string_view text, std::int64_t data_size, const std::string& place);

// "model.safetensors: tensor "name"", for messages.
std::string tensor_place(const std::string& place, const std::string& name);

}  // namespace manyheads::io
