#include "model/safetensors.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <manyheads/error.hpp>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "base/checked.hpp"
#include "base/file.hpp"
#include "model/json.hpp"

// The file: 8 bytes, little-endian, the size of the header; the header, a JSON object
//   {"name": {"dtype": "F32", "shape": [2,3], "data_offsets": [begin, end]}, ..., "__metadata__": {"key": "text"}}
// padded with spaces; the data, row-major, little-endian, without gaps. Offsets count from the header's end.

namespace manyheads {
namespace {

static_assert(std::endian::native == std::endian::little, "tensors are mapped as they lie in the file");

using base::in_quotes;
using model::Json;
using model::JsonDocument;

constexpr const char* kMetadata = "__metadata__";

struct FileType {
  const char* name;
  int bits;
  std::optional<DType> type;  // none: the format has it, Tensor has not
};

constexpr std::array<FileType, 22> kFileTypes = {{
    {"F32", 32, DType::kF32},
    {"BF16", 16, DType::kBF16},
    {"F16", 16, DType::kF16},
    {"F64", 64, DType::kF64},
    {"BOOL", 8, DType::kBool},
    {"U8", 8, DType::kU8},
    {"I8", 8, DType::kI8},
    {"I32", 32, DType::kI32},
    {"I64", 64, DType::kI64},
    {"I16", 16, std::nullopt},
    {"U16", 16, std::nullopt},
    {"U32", 32, std::nullopt},
    {"U64", 64, std::nullopt},
    {"C64", 64, std::nullopt},
    {"F8_E4M3", 8, std::nullopt},
    {"F8_E5M2", 8, std::nullopt},
    {"F8_E8M0", 8, std::nullopt},
    {"F8_E4M3FNUZ", 8, std::nullopt},
    {"F8_E5M2FNUZ", 8, std::nullopt},
    {"F6_E2M3", 6, std::nullopt},
    {"F6_E3M2", 6, std::nullopt},
    {"F4", 4, std::nullopt},
}};

[[noreturn]] void refuse(const std::string& place, const std::string& problem) {
  throw Error(ErrorCode::kMalformedFile, place + ": " + problem);
}

// A tensor as the header describes it.
struct Entry {
  std::string name;
  std::string place;  // file and tensor, for messages
  const FileType* type = nullptr;
  std::vector<std::int64_t> shape;
  std::int64_t begin = 0;
  std::int64_t end = 0;
};

std::string shape_text(const std::vector<std::int64_t>& shape) {
  constexpr std::size_t kMostShown = 16;
  std::string text = "[";
  for (std::size_t i = 0; i < std::min(shape.size(), kMostShown); ++i) {
    text += (i > 0 ? "," : "") + std::to_string(shape[i]);
  }
  return text + (shape.size() > kMostShown ? ",...]" : "]");
}

std::int64_t whole_number(const Json& value, const std::string& place, const std::string& what) {
  if (!value.is_number_unsigned()) {
    const std::string found = value.is_string() ? "a string" : value.dump();
    refuse(place, what + " must hold whole numbers from 0 on, not " + found);
  }
  if (value.get<std::uint64_t>() > std::uint64_t{model::kMaxInt}) refuse(place, what + " holds a number above 2^63");
  return value.get<std::int64_t>();
}

const Json& member(const JsonDocument& info, const char* key, Json::value_t type, const char* needed) {
  const auto found = info.value.find(key);
  if (found == info.value.end()) refuse(info.place, std::string(key) + " is missing");
  if (found->type() != type) refuse(info.place, std::string(key) + " must be " + needed);
  return *found;
}

Entry parse_entry(const std::string& name, const JsonDocument& info) {
  if (!info.value.is_object()) refuse(info.place, "must be an object with dtype, shape and data_offsets");
  Entry entry{name, info.place, nullptr, {}, 0, 0};

  const std::string dtype = member(info, "dtype", Json::value_t::string, "a string").get<std::string>();
  for (const FileType& type : kFileTypes) {
    if (dtype == type.name) entry.type = &type;
  }
  if (entry.type == nullptr) refuse(info.place, "unknown dtype " + in_quotes(dtype, 40));

  // The product is of sizes above 0: a 0 must not hide sizes that no stride can count.
  std::int64_t bits = entry.type->bits;
  bool empty = false;
  for (const Json& item : member(info, "shape", Json::value_t::array, "an array")) {
    const std::int64_t size = whole_number(item, info.place, "shape");
    entry.shape.push_back(size);
    empty = empty || size == 0;
    if (size > 0 && !base::multiply(bits, size, &bits)) refuse(info.place, "shape is larger than any file");
  }
  if (empty) bits = 0;
  if (bits % 8 != 0) refuse(info.place, dtype + " " + shape_text(entry.shape) + " does not fill whole bytes");

  const Json& offsets = member(info, "data_offsets", Json::value_t::array, "an array");
  if (offsets.size() != 2)
    refuse(info.place, "data_offsets must hold 2 numbers, not " + std::to_string(offsets.size()));
  entry.begin = whole_number(offsets[0], info.place, "data_offsets");
  entry.end = whole_number(offsets[1], info.place, "data_offsets");
  if (entry.begin > entry.end) refuse(info.place, "data_offsets " + offsets.dump() + " end before they begin");
  if (entry.end - entry.begin != bits / 8) {
    refuse(info.place, "data_offsets " + offsets.dump() + " hold " + std::to_string(entry.end - entry.begin) +
                           " bytes, " + dtype + " " + shape_text(entry.shape) + " takes " + std::to_string(bits / 8));
  }
  return entry;
}

// The tensors must fill the data from its first byte to its last.
void check_layout(std::vector<Entry>& entries, std::int64_t data_size, const std::string& place) {
  std::sort(entries.begin(), entries.end(),
            [](const Entry& a, const Entry& b) { return std::pair(a.begin, a.end) < std::pair(b.begin, b.end); });
  std::int64_t filled = 0;
  for (const Entry& entry : entries) {
    const std::string from = "data from byte " + std::to_string(entry.begin);
    if (entry.begin < filled)
      refuse(entry.place, from + " overlaps another tensor, which ends at " + std::to_string(filled));
    if (entry.begin > filled)
      refuse(entry.place, from + " leaves a gap: the tensor before ends at " + std::to_string(filled));
    if (entry.end > data_size) {
      refuse(entry.place,
             "data ends at byte " + std::to_string(entry.end) + ", the file's data at " + std::to_string(data_size));
    }
    filled = entry.end;
  }
  if (filled != data_size) {
    refuse(place, std::to_string(data_size - filled) + " bytes after the last tensor belong to none");
  }
}

Tensor make_tensor(const Entry& entry, const std::shared_ptr<const std::byte>& map, const std::byte* data) {
  const DType type = *entry.type->type;
  const Dims shape(entry.shape);
  const auto size = static_cast<std::size_t>(entry.end - entry.begin);
  if (type == DType::kBool) {
    const std::byte* bad = std::find_if(data, data + size, [](std::byte b) { return b > std::byte{1}; });
    if (bad != data + size) {
      refuse(entry.place,
             "BOOL holds the byte " + std::to_string(std::to_integer<int>(*bad)) + "; only 0 and 1 may be");
    }
  }
  if (reinterpret_cast<std::uintptr_t>(data) % size_of(type) == 0) return Tensor(map, data, type, shape);
  Tensor copy(type, shape);
  if (size > 0) std::memcpy(copy.view().data(), data, size);
  return copy;
}

std::map<std::string, std::string> parse_metadata(const JsonDocument& metadata) {
  if (!metadata.value.is_object()) refuse(metadata.place, "must be an object of strings");
  std::map<std::string, std::string> out;
  for (const auto& [key, value] : metadata.value.items()) {
    if (!value.is_string()) refuse(metadata.place, "the value of " + in_quotes(key) + " must be a string");
    out[key] = value.get<std::string>();
  }
  return out;
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

SafetensorsFile load_safetensors(const std::filesystem::path& path) {
  const base::MappedFile file = base::map_file(path);
  const std::string place = base::path_in_quotes(path);
  std::uint64_t header_size = 0;
  if (file.size < sizeof header_size) {
    refuse(place,
           "not a safetensors file: " + std::to_string(file.size) + " bytes are too short for the header's size");
  }
  std::memcpy(&header_size, file.bytes.get(), sizeof header_size);
  const std::size_t after_size = file.size - sizeof header_size;
  if (header_size > model::kMaxSafetensorsHeader) {
    refuse(place, "not a safetensors file: the header claims " + std::to_string(header_size) +
                      " bytes; at most 100000000 are allowed");
  }
  if (header_size > after_size) {
    refuse(place, "truncated: the header claims " + std::to_string(header_size) + " bytes, " +
                      std::to_string(after_size) + " follow");
  }
  const JsonDocument header =
      model::parse_json(file.text().substr(sizeof header_size, header_size), place + ": header", 3);
  if (!header.value.is_object()) refuse(header.place, "must be a JSON object");

  SafetensorsFile out;
  out.path = path;
  std::vector<Entry> entries;
  for (const auto& [name, value] : header.value.items()) {
    if (name == kMetadata) {
      out.metadata = parse_metadata({value, header.place + ": " + kMetadata});
    } else {
      entries.push_back(parse_entry(name, {value, place + ": tensor " + in_quotes(name)}));
    }
  }
  check_layout(entries, static_cast<std::int64_t>(after_size - header_size), place);

  const std::byte* data = file.bytes.get() + sizeof header_size + header_size;
  for (const Entry& entry : entries) {
    if (!entry.type->type.has_value()) {
      out.unsupported[entry.name] = entry.type->name;
    } else if (entry.shape.size() > kMaxRank) {
      out.unsupported[entry.name] = entry.type->name + (" of rank " + std::to_string(entry.shape.size()));
    } else {
      out.tensors.emplace(entry.name, make_tensor(entry, file.bytes, data + entry.begin));
    }
  }
  return out;
}

void save_safetensors(const std::filesystem::path& path, const StateDict& tensors,
                      const std::map<std::string, std::string>& metadata) {
  const auto problem = [&](const std::string& text) {
    return Error(ErrorCode::kInvalidArgument,
                 "save_safetensors: " + text + " (for " + base::path_in_quotes(path) + ")");
  };
  const auto json_string = [&](const std::string& text) {
    try {
      return Json(text).dump();
    } catch (const Json::type_error&) {
      throw problem(in_quotes(text) + " is not UTF-8");
    }
  };

  // Larger elements first, so that each tensor lies at a multiple of its element's size.
  std::vector<StateDict::const_pointer> order;
  for (const auto& item : tensors) {
    if (!item.second.defined()) throw problem("tensor " + in_quotes(item.first) + " is not defined");
    if (item.first == kMetadata) throw problem("a tensor cannot be called " + in_quotes(kMetadata));
    order.push_back(&item);
  }
  std::stable_sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    return size_of(a->second.dtype()) > size_of(b->second.dtype());
  });

  std::string header = "{";
  const auto separate = [&] { header += header.size() > 1 ? "," : ""; };
  if (!metadata.empty()) {
    header += '"' + std::string(kMetadata) + "\":{";
    bool first = true;
    for (const auto& [key, value] : metadata) {
      header += (std::exchange(first, false) ? "" : ",") + json_string(key) + ":" + json_string(value);
    }
    header += "}";
  }
  std::int64_t end = 0;
  std::vector<std::size_t> sizes;
  for (const auto* item : order) {
    const Tensor& tensor = item->second;
    const std::int64_t begin = end;
    std::int64_t bytes = 0;
    if (!base::multiply(tensor.elements(), static_cast<std::int64_t>(size_of(tensor.dtype())), &bytes) ||
        !base::add(begin, bytes, &end)) {
      throw problem("the tensors are larger than any file");
    }
    sizes.push_back(static_cast<std::size_t>(bytes));
    separate();
    header += json_string(item->first) + ":{\"dtype\":\"" + name_of(tensor.dtype()) +
              "\",\"shape\":" + tensor.shape().to_string() + ",\"data_offsets\":[" + std::to_string(begin) + "," +
              std::to_string(end) + "]}";
  }
  header += "}";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  if (header.size() > model::kMaxSafetensorsHeader) {
    throw problem("the header takes " + std::to_string(header.size()) + " bytes; at most 100000000 are allowed");
  }

  base::FileWriter writer(path);
  const std::uint64_t header_size = header.size();
  writer.write(&header_size, sizeof header_size);
  writer.write(header);
  for (std::size_t i = 0; i < order.size(); ++i) writer.write(order[i]->second.bytes(), sizes[i]);
  writer.commit();
}

namespace model {
namespace {

constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";

// A shard is a file of the folder itself: a path could lead anywhere.
bool plain_file_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos &&
         name.find('\\') == std::string::npos && name.find('\0') == std::string::npos;
}

SafetensorsFile load_shards(const std::filesystem::path& folder) {
  SafetensorsFile out;
  out.path = folder / kIndexFile;
  const JsonDocument weight_map = require_object(read_json(out.path), "weight_map");
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

}  // namespace model
}  // namespace manyheads
