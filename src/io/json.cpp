#include "io/json.hpp"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <manyheads/error.hpp>
#include <utility>

#include "base/file.hpp"

namespace manyheads::io {
namespace {

// Counts the characters that the parser has read: its events carry no place.
class Cursor {
 public:
  using iterator_category = std::forward_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  Cursor(const char* at, const char** reached) : at_(at), reached_(reached) {}
  reference operator*() const { return *at_; }
  Cursor& operator++() {
    *reached_ = ++at_;
    return *this;
  }
  Cursor operator++(int) {
    Cursor before = *this;
    ++*this;
    return before;
  }
  friend bool operator==(const Cursor& a, const Cursor& b) { return a.at_ == b.at_; }
  friend bool operator!=(const Cursor& a, const Cursor& b) { return !(a == b); }

 private:
  const char* at_;
  const char** reached_;
};

// Builds the value from the parser's events. An event that returns false ends the parse with `problem` set.
class Builder final : public JsonEvents {
 public:
  Builder(Json& root, int max_depth) : root_(root), max_depth_(max_depth) {}

  bool null() override { return put(nullptr); }
  bool boolean(bool value) override { return put(value); }
  bool number_integer(number_integer_t value) override { return put(value); }
  bool number_unsigned(number_unsigned_t value) override { return put(value); }
  bool number_float(number_float_t value, const string_t&) override { return put(value); }
  bool string(string_t& value) override { return put(std::move(value)); }
  bool binary(binary_t& value) override { return put(std::move(value)); }
  bool start_object(std::size_t) override { return open(Json::object()); }
  bool start_array(std::size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(string_t& name) override {
    const auto [slot, fresh] = open_.back()->get_ref<Json::object_t&>().try_emplace(name);
    if (!fresh) return refuse_twice(name);
    slot_ = &slot->second;
    return true;
  }

 private:
  template <class T>
  Json* place(T&& value) {
    if (open_.empty()) {
      root_ = std::forward<T>(value);
      return &root_;
    }
    if (open_.back()->is_array()) {
      auto& array = open_.back()->get_ref<Json::array_t&>();
      return &array.emplace_back(std::forward<T>(value));
    }
    *slot_ = std::forward<T>(value);
    return slot_;
  }

  template <class T>
  bool put(T&& value) {
    place(std::forward<T>(value));
    return true;
  }

  bool open(Json&& value) {
    if (static_cast<int>(open_.size()) == max_depth_) {
      return refuse("nested deeper than " + std::to_string(max_depth_));
    }
    open_.push_back(place(std::move(value)));
    return true;
  }

  bool close() {
    open_.pop_back();
    return true;
  }

  Json& root_;
  Json* slot_ = nullptr;  // where the value of the last key goes
  std::vector<Json*> open_;
  int max_depth_;
};

const Json* find(const JsonDocument& object, const std::string& key) {
  if (!object.value.is_object()) {
    throw Error(ErrorCode::kMalformedFile, object.place + ": a JSON object is needed, not " +
                                               (object.value.is_null() ? "null" : object.value.type_name()));
  }
  const auto found = object.value.find(key);
  return found == object.value.end() ? nullptr : &*found;
}

// The value as in the file, short enough for a message.
std::string shown(const Json* value) {
  if (value == nullptr) return "missing";
  if (value->is_string()) return base::in_quotes(value->get_ref<const std::string&>(), 60);
  if (value->is_object()) return "an object";
  if (value->is_array()) return "an array";
  return value->dump();
}

template <class Is>
const Json& require(const JsonDocument& object, const std::string& key, Is is, const std::string& needed) {
  const Json* value = find(object, key);
  if (value == nullptr || !is(*value)) refuse_json(object, key, needed);
  return *value;
}

std::string range(const std::string& what, const std::string& min, const std::string& max, bool open_end) {
  return what + (open_end ? " of at least " + min : " from " + min + " to " + max);
}

}  // namespace

// The parser's text is "[id] parse error at line 1, column 2: syntax error while parsing value - what; last read:
// '...'". The last part may be as long as the file, so it is left out.
bool JsonEvents::parse_error(std::size_t, const std::string&, const nlohmann::detail::exception& error) {
  if (error.id == 406) return refuse("a number is too large");
  const std::string text = error.what();
  const std::size_t dash = text.find(" - ");
  if (dash == std::string::npos) return refuse("not JSON");
  const std::string what = text.substr(dash + 3);
  return refuse("not JSON: " + what.substr(0, std::min<std::size_t>(what.find("; last read"), 200)));
}

bool JsonEvents::refuse(std::string problem) {
  problem_ = std::move(problem);
  return false;
}

bool JsonEvents::refuse_twice(const std::string& key) {
  return refuse("the key " + base::in_quotes(key) + " is there twice");
}

void refuse_json(const JsonDocument& object, const std::string& key, const std::string& needed) {
  throw Error(ErrorCode::kMalformedFile, object.place + ": " + base::in_quotes(key) + " is " +
                                             shown(find(object, key)) + "; " + needed + " is needed");
}

void stream_json(std::string_view text, const std::string& place, JsonEvents& events) {
  if (text.empty()) throw Error(ErrorCode::kMalformedFile, place + ": empty; JSON is needed");
  const char* reached = text.data();
  const Cursor first(text.data(), &reached), last(text.data() + text.size(), &reached);
  const auto refuse = [&](const std::string& problem, std::ptrdiff_t byte) {
    throw Error(ErrorCode::kMalformedFile, place + ": " + problem + " (byte " + std::to_string(byte) + ")");
  };
  if (!Json::sax_parse(first, last, &events)) refuse(events.problem(), reached - text.data());
  // The parser takes a zero byte for the end and does not see what follows.
  if (const std::size_t zero = text.find('\0'); zero != text.npos) {
    refuse("not JSON: a zero byte", static_cast<std::ptrdiff_t>(zero));
  }
}

JsonDocument parse_json(std::string_view text, std::string place, int max_depth) {
  JsonDocument document{Json(), std::move(place)};
  Builder builder(document.value, max_depth);
  stream_json(text, document.place, builder);
  return document;
}

JsonDocument read_json(const std::filesystem::path& path, int max_depth) {
  const base::MappedFile file = base::map_file(path);
  return parse_json(file.text(), base::path_in_quotes(path), max_depth);
}

std::int64_t require_int(const JsonDocument& object, const std::string& key, std::int64_t min, std::int64_t max) {
  const auto fits = [&](const Json& value) {
    if (!value.is_number_integer()) return false;
    if (value.is_number_unsigned() && value.get<std::uint64_t>() > std::uint64_t{kMaxInt}) return false;
    return value.get<std::int64_t>() >= min && value.get<std::int64_t>() <= max;
  };
  const std::string needed = range("an integer", std::to_string(min), std::to_string(max), max == kMaxInt);
  return require(object, key, fits, needed).get<std::int64_t>();
}

double require_number(const JsonDocument& object, const std::string& key, double min, double max) {
  const auto fits = [&](const Json& value) {
    return value.is_number() && value.get<double>() >= min && value.get<double>() <= max;
  };
  const std::string needed =
      min == -kMaxNumber ? "a number" : range("a number", Json(min).dump(), Json(max).dump(), max == kMaxNumber);
  return require(object, key, fits, needed).get<double>();
}

bool require_bool(const JsonDocument& object, const std::string& key) {
  return require(object, key, [](const Json& value) { return value.is_boolean(); }, "true or false").get<bool>();
}

std::string require_string(const JsonDocument& object, const std::string& key) {
  return require(object, key, [](const Json& value) { return value.is_string(); }, "a string").get<std::string>();
}

JsonDocument require_object(const JsonDocument& object, const std::string& key) {
  return {view_object(object, key), object.place + ": " + base::in_quotes(key)};
}

const Json& view_object(const JsonDocument& object, const std::string& key) {
  return require(object, key, [](const Json& v) { return v.is_object(); }, "an object");
}

const Json& view_array(const JsonDocument& object, const std::string& key) {
  return require(object, key, [](const Json& v) { return v.is_array(); }, "an array");
}

std::vector<JsonDocument> require_array(const JsonDocument& object, const std::string& key) {
  std::vector<JsonDocument> items;
  for (const Json& item : view_array(object, key)) {
    items.push_back({item, object.place + ": " + base::in_quotes(key) + " [" + std::to_string(items.size()) + "]"});
  }
  return items;
}

bool has(const JsonDocument& object, const std::string& key) {
  const Json* value = find(object, key);
  return value != nullptr && !value->is_null();
}

}  // namespace manyheads::io
