#include "io/safetensors_header.hpp"

#include <algorithm>
#include <array>
#include <manyheads/error.hpp>
#include <set>
#include <utility>

#include "base/checked.hpp"
#include "base/file.hpp"
#include "io/json.hpp"

namespace manyheads::io {
namespace {

using base::in_quotes;

constexpr std::array<SafetensorsType, 22> kFileTypes = {{
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

using Entries = std::map<std::string, SafetensorsEntry>;

// Reads the header's table from the parser's events and keeps its entries only. Broken JSON ends the parse; a wrong
// entry is reported once the whole header is known to be JSON.
class HeaderReader final : public JsonEvents {
 public:
  explicit HeaderReader(std::string place) : place_(std::move(place)) {}

  Entries entries;
  std::map<std::string, std::string> metadata;

  // Empty where nothing is wrong.
  const std::string& malformation() const { return malformation_; }

  bool null() override {
    if (depth_ == 1 && name_ == kSafetensorsMetadata) return true;  // as if it were not there
    return scalar(nullptr);
  }
  bool boolean(bool value) override { return scalar(value); }
  bool number_integer(number_integer_t value) override { return scalar(value); }
  bool number_unsigned(number_unsigned_t value) override { return scalar(value); }
  bool number_float(number_float_t value, const string_t&) override { return scalar(value); }
  bool binary(binary_t&) override { return scalar(nullptr); }
  bool string(string_t& value) override {
    if (depth_ == 2 && in_metadata_) {
      metadata[key_] = std::move(value);
      return true;
    }
    if (depth_ == 2 && field_ == &dtype_) {
      field_->kind = Field::kRight;
      dtype_name_ = value.substr(0, 80);
      return true;
    }
    return scalar("");
  }

  bool start_object(std::size_t) override {
    if (depth_ == kMaxDepth) return refuse_depth();
    if (depth_ == 1) begin_member();
    if (depth_ >= 2) other_value();
    if (depth_ > 0) keys_[depth_ - 1].clear();
    ++depth_;
    return true;
  }
  bool end_object() override {
    if (--depth_ == 1 && !in_metadata_) end_entry();
    return true;
  }
  bool start_array(std::size_t) override {
    if (depth_ == kMaxDepth) return refuse_depth();
    if (depth_ == 2 && (field_ == &shape_ || field_ == &offsets_)) {
      field_->kind = Field::kRight;
    } else {
      other_value();
    }
    ++depth_;
    return true;
  }
  bool end_array() override {
    if (--depth_ == 2) field_ = nullptr;
    return true;
  }

  bool key(string_t& name) override {
    if (depth_ == 1) {
      name_ = std::move(name);
      if (name_ == kSafetensorsMetadata) return !std::exchange(has_metadata_, true) || refuse_twice(name_);
      return entries.try_emplace(name_).second || refuse_twice(name_);
    }
    if (depth_ == 2 && in_metadata_) {
      key_ = std::move(name);
      return metadata.try_emplace(key_).second || refuse_twice(key_);
    }
    if (!keys_[depth_ - 2].insert(name).second) return refuse_twice(name);
    if (depth_ == 2) {
      field_ = name == "dtype" ? &dtype_ : name == "shape" ? &shape_ : name == "data_offsets" ? &offsets_ : nullptr;
    }
    return true;
  }

 private:
  static constexpr int kMaxDepth = 3;

  // A member of an entry; of a list, its first numbers and what is wrong with the first bad item.
  struct Field {
    enum Kind { kMissing, kOther, kRight };
    Kind kind = kMissing;
    std::vector<std::int64_t> numbers;
    std::size_t count = 0;
    std::string problem;
  };

  bool refuse_depth() { return refuse("nested deeper than " + std::to_string(kMaxDepth)); }

  void malformed(const std::string& place, const std::string& problem) {
    if (malformation_.empty()) malformation_ = place + ": " + problem;
  }
  void malformed(const std::string& problem) { malformed(tensor_place(place_, name_), problem); }

  void begin_member() {
    in_metadata_ = name_ == kSafetensorsMetadata;
    dtype_ = shape_ = offsets_ = Field();
    field_ = nullptr;
    elements_ = 1;
    too_large_ = empty_ = false;
  }

  // A value in a wrong place, or of an unknown key.
  void other_value() {
    const std::string header = place_ + ": header";
    if (depth_ == 0) return malformed(header, "must be a JSON object");
    const std::string metadata_place = header + ": " + kSafetensorsMetadata;
    if (depth_ == 1 && name_ == kSafetensorsMetadata) return malformed(metadata_place, "must be an object of strings");
    if (depth_ == 1) return malformed("must be an object with dtype, shape and data_offsets");
    if (depth_ == 2 && in_metadata_) {
      return malformed(metadata_place, "the value of " + in_quotes(key_) + " must be a string");
    }
    if (depth_ == 2 && field_ != nullptr) field_->kind = Field::kOther;
    field_ = nullptr;
  }

  bool scalar(const Json& value) {
    if (depth_ == 3 && (field_ == &shape_ || field_ == &offsets_)) {
      item(value, field_ == &shape_ ? "shape" : "data_offsets");
    } else if (depth_ < 3) {
      other_value();
    }
    return true;
  }

  void item(const Json& value, const std::string& what) {
    ++field_->count;
    if (!field_->problem.empty()) return;
    if (!value.is_number_unsigned()) {
      const std::string found = value.is_string() ? "a string" : value.dump();
      field_->problem = what + " must hold whole numbers from 0 on, not " + found;
    } else if (value.get<std::uint64_t>() > std::uint64_t{kMaxInt}) {
      field_->problem = what + " holds a number above 2^63";
    } else {
      const auto number = value.get<std::int64_t>();
      if (field_->numbers.size() < SafetensorsShape::kMostShown) field_->numbers.push_back(number);
      if (field_ != &shape_) return;
      // The product leaves out zeros: a 0 must not hide sizes that no stride can count.
      empty_ = empty_ || number == 0;
      too_large_ = too_large_ || (number > 0 && !base::multiply(elements_, number, &elements_));
    }
  }

  void end_entry() {
    SafetensorsEntry& entry = entries[name_];
    if (dtype_.kind != Field::kRight) return missing(dtype_, "dtype", "a string");
    for (const SafetensorsType& type : kFileTypes) {
      if (dtype_name_ == type.name) entry.type = &type;
    }
    if (entry.type == nullptr) return malformed("unknown dtype " + in_quotes(dtype_name_, 40));

    if (shape_.kind != Field::kRight) return missing(shape_, "shape", "an array");
    if (!shape_.problem.empty()) return malformed(shape_.problem);
    entry.shape = {std::move(shape_.numbers), shape_.count};
    std::int64_t bits = entry.type->bits;
    if (too_large_ || !base::multiply(bits, elements_, &bits)) return malformed("shape is larger than any file");
    if (empty_) bits = 0;
    const std::string described = entry.type->name + (" " + entry.shape.text());
    if (bits % 8 != 0) return malformed(described + " does not fill whole bytes");

    if (offsets_.kind != Field::kRight) return missing(offsets_, "data_offsets", "an array");
    if (offsets_.count != 2) {
      return malformed("data_offsets must hold 2 numbers, not " + std::to_string(offsets_.count));
    }
    if (!offsets_.problem.empty()) return malformed(offsets_.problem);
    entry.begin = offsets_.numbers[0];
    entry.end = offsets_.numbers[1];
    const std::string offsets = "data_offsets [" + std::to_string(entry.begin) + "," + std::to_string(entry.end) + "]";
    if (entry.begin > entry.end) return malformed(offsets + " end before they begin");
    if (entry.end - entry.begin != bits / 8) {
      malformed(offsets + " hold " + std::to_string(entry.end - entry.begin) + " bytes, " + described + " takes " +
                std::to_string(bits / 8));
    }
  }

  void missing(const Field& field, const std::string& name, const std::string& needed) {
    malformed(name + (field.kind == Field::kMissing ? " is missing" : " must be " + needed));
  }

  std::string place_;  // the file
  std::string malformation_;
  int depth_ = 0;
  bool has_metadata_ = false;

  // The member of the header that is being read.
  std::string name_;
  bool in_metadata_ = false;
  std::string key_;                // of the metadata
  std::set<std::string> keys_[2];  // of an entry, and of an object in it
  Field* field_ = nullptr;         // whose value comes, or whose list is open
  Field dtype_, shape_, offsets_;
  std::string dtype_name_;
  std::int64_t elements_ = 1;
  bool too_large_ = false, empty_ = false;
};

// The tensors must fill the data from its first byte to its last.
void check_layout(const Entries& entries, std::int64_t data_size, const std::string& place) {
  std::vector<const Entries::value_type*> order;
  order.reserve(entries.size());
  for (const Entries::value_type& item : entries) order.push_back(&item);
  std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    return std::pair(a->second.begin, a->second.end) < std::pair(b->second.begin, b->second.end);
  });
  std::int64_t filled = 0;
  for (const auto* item : order) {
    const auto refuse_entry = [&](const std::string& problem) { refuse(tensor_place(place, item->first), problem); };
    const auto& [begin, end] = std::pair(item->second.begin, item->second.end);
    const auto from = [begin = begin] { return "data from byte " + std::to_string(begin); };
    if (begin < filled) refuse_entry(from() + " overlaps another tensor, which ends at " + std::to_string(filled));
    if (begin > filled) refuse_entry(from() + " leaves a gap: the tensor before ends at " + std::to_string(filled));
    if (end > data_size) {
      refuse_entry("data ends at byte " + std::to_string(end) + ", the file's data at " + std::to_string(data_size));
    }
    filled = end;
  }
  if (filled != data_size) {
    refuse(place, std::to_string(data_size - filled) + " bytes after the last tensor belong to none");
  }
}

}  // namespace

std::string SafetensorsShape::text() const {
  std::string text = "[";
  for (std::size_t i = 0; i < std::min(rank, kMostShown); ++i) {
    text += (i > 0 ? "," : "") + std::to_string(first[i]);
  }
  return text + (rank > kMostShown ? ",...]" : "]");
}

std::string tensor_place(const std::string& place, const std::string& name) {
  return place + ": tensor " + in_quotes(name);
}

SafetensorsHeader parse_safetensors_header(std::string_view text, std::int64_t data_size, const std::string& place) {
  if (text.substr(0, 3) == "\xef\xbb\xbf") refuse(place, "header: must begin with {, not with a byte order mark");
  HeaderReader reader(place);
  stream_json(text, place + ": header", reader);
  if (!reader.malformation().empty()) throw Error(ErrorCode::kMalformedFile, reader.malformation());
  check_layout(reader.entries, data_size, place);
  return {std::move(reader.entries), std::move(reader.metadata)};
}

}  // namespace manyheads::io
