#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <manyheads/error.hpp>
#include <manyheads/safetensors.hpp>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "base/checked.hpp"
#include "base/file.hpp"
#include "io/json.hpp"
#include "io/safetensors_bytes.hpp"
#include "io/safetensors_header.hpp"

namespace manyheads {
namespace {

static_assert(std::endian::native == std::endian::little, "tensors are mapped as they lie in the file");

using base::in_quotes;

[[noreturn]] void refuse(const std::string& place, const std::string& problem) {
  throw Error(ErrorCode::kMalformedFile, place + ": " + problem);
}

Tensor make_tensor(const io::SafetensorsEntry& entry, const std::string& place, const std::string& name,
                   const std::shared_ptr<const std::byte>& map, const std::byte* data) {
  const DType type = *entry.type->type;
  const Dims shape(entry.shape.first);
  const auto size = static_cast<std::size_t>(entry.end - entry.begin);
  if (type == DType::kBool) {
    const std::byte* bad = std::find_if(data, data + size, [](std::byte b) { return b > std::byte{1}; });
    if (bad != data + size) {
      refuse(io::tensor_place(place, name),
             "BOOL holds the byte " + std::to_string(std::to_integer<int>(*bad)) + "; only 0 and 1 may be");
    }
  }
  if (reinterpret_cast<std::uintptr_t>(data) % size_of(type) == 0) return Tensor(map, data, type, shape);
  Tensor copy(type, shape);
  if (size > 0) std::memcpy(copy.view().data(), data, size);
  return copy;
}

}  // namespace

const Tensor& SafetensorsFile::at(const std::string& name) const {
  if (const auto found = tensors.find(name); found != tensors.end()) return found->second;
  const std::string place = base::path_in_quotes(path) + ": tensor " + in_quotes(name);
  if (const auto found = unsupported.find(name); found != unsupported.end()) {
    throw Error(ErrorCode::kUnsupported, place + " is " + found->second + ", which cannot be computed with");
  }
  throw Error(ErrorCode::kMalformedFile, place + " is missing");
}

namespace io {

SafetensorsFile read_safetensors(const base::MappedFile& file, const std::filesystem::path& path) {
  const std::string place = base::path_in_quotes(path);
  std::uint64_t header_size = 0;
  if (file.size < sizeof header_size) {
    refuse(place,
           "not a safetensors file: " + std::to_string(file.size) + " bytes are too short for the header's size");
  }
  std::memcpy(&header_size, file.bytes.get(), sizeof header_size);
  const std::size_t after_size = file.size - sizeof header_size;
  if (header_size > io::kMaxSafetensorsHeader) {
    refuse(place, "not a safetensors file: the header claims " + std::to_string(header_size) +
                      " bytes; at most 100000000 are allowed");
  }
  if (header_size > after_size) {
    refuse(place, "truncated: the header claims " + std::to_string(header_size) + " bytes, " +
                      std::to_string(after_size) + " follow");
  }
  io::SafetensorsHeader header = io::parse_safetensors_header(
      file.text().substr(sizeof header_size, header_size), static_cast<std::int64_t>(after_size - header_size), place);

  SafetensorsFile out;
  out.path = path;
  out.metadata = std::move(header.metadata);
  const std::byte* data = file.bytes.get() + sizeof header_size + header_size;
  auto& entries = header.entries;
  while (!entries.empty()) {  // one table shrinks while the other grows
    const auto item = entries.extract(entries.begin());
    std::string& name = item.key();
    const io::SafetensorsEntry& entry = item.mapped();
    if (!entry.type->type.has_value()) {
      out.unsupported.emplace_hint(out.unsupported.end(), std::move(name), entry.type->name);
    } else if (entry.shape.rank > kMaxRank) {
      std::string described = entry.type->name + (" of rank " + std::to_string(entry.shape.rank));
      out.unsupported.emplace_hint(out.unsupported.end(), std::move(name), std::move(described));
    } else {
      Tensor tensor = make_tensor(entry, place, name, file.bytes, data + entry.begin);
      out.tensors.emplace_hint(out.tensors.end(), std::move(name), std::move(tensor));
    }
  }
  return out;
}

SafetensorsParts safetensors_parts(const StateDict& tensors, const std::map<std::string, std::string>& metadata,
                                   const std::string& target) {
  const auto problem = [&](const std::string& text) {
    return Error(ErrorCode::kInvalidArgument, "save_safetensors: " + text + " (for " + target + ")");
  };
  const auto json_string = [&](const std::string& text) {
    if (!base::is_utf8(text)) throw problem(in_quotes(text) + " is not UTF-8");
    return Json(text).dump();
  };

  // Larger elements first, so that each tensor lies at a multiple of its element's size.
  std::vector<StateDict::const_pointer> order;
  for (const auto& item : tensors) {
    if (!item.second.defined()) throw problem("tensor " + in_quotes(item.first) + " is not defined");
    if (item.first == io::kSafetensorsMetadata) {
      throw problem("a tensor cannot be called " + in_quotes(io::kSafetensorsMetadata));
    }
    order.push_back(&item);
  }
  std::stable_sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    return size_of(a->second.dtype()) > size_of(b->second.dtype());
  });

  std::string header = "{";
  const auto separate = [&] { header += header.size() > 1 ? "," : ""; };
  if (!metadata.empty()) {
    header += '"' + std::string(io::kSafetensorsMetadata) + "\":{";
    bool first = true;
    for (const auto& [key, value] : metadata) {
      header += (std::exchange(first, false) ? "" : ",") + json_string(key) + ":" + json_string(value);
    }
    header += "}";
  }
  std::int64_t end = 0;
  SafetensorsParts parts;
  for (const auto* item : order) {
    const Tensor& tensor = item->second;
    const std::int64_t begin = end;
    std::int64_t bytes = 0;
    if (!base::multiply(tensor.elements(), static_cast<std::int64_t>(size_of(tensor.dtype())), &bytes) ||
        !base::add(begin, bytes, &end)) {
      throw problem("the tensors are larger than any file");
    }
    parts.data.push_back({static_cast<const std::byte*>(tensor.bytes()), static_cast<std::size_t>(bytes)});
    separate();
    header += json_string(item->first) + ":{\"dtype\":\"" + name_of(tensor.dtype()) +
              "\",\"shape\":" + tensor.shape().to_string() + ",\"data_offsets\":[" + std::to_string(begin) + "," +
              std::to_string(end) + "]}";
  }
  header += "}";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  if (header.size() > io::kMaxSafetensorsHeader) {
    throw problem("the header takes " + std::to_string(header.size()) + " bytes; at most 100000000 are allowed");
  }

  const std::uint64_t header_size = header.size();
  parts.head.assign(reinterpret_cast<const char*>(&header_size), sizeof header_size);
  parts.head += header;
  return parts;
}

std::string safetensors_bytes(const StateDict& tensors, const std::map<std::string, std::string>& metadata) {
  SafetensorsParts parts = safetensors_parts(tensors, metadata, "memory");
  std::size_t size = parts.head.size();
  for (const auto& data : parts.data) size += data.size();
  std::string bytes = std::move(parts.head);
  bytes.reserve(size);
  for (const auto& data : parts.data) bytes.append(reinterpret_cast<const char*>(data.data()), data.size());
  return bytes;
}

}  // namespace io
}  // namespace manyheads
