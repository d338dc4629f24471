#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

namespace manyheads::io {

using Json = nlohmann::json;
using OrderedJson = nlohmann::ordered_json;  // keeps its keys as they were put in

constexpr int kMaxJsonDepth = 64;

// A JSON value, and for error messages its place: the file, or the file and the key in it.
struct JsonDocument {
  Json value;
  std::string place;
};

// Reads untrusted text. Throws Error (kMalformedFile) with `place` and the byte when the text
// - is empty, not UTF-8, or no JSON,
// - repeats a key in an object,
// - nests deeper than `max_depth`, or
// - has a number that does not fit.
// Numbers without fraction or exponent stay integers.
JsonDocument parse_json(std::string_view text, std::string place, int max_depth = kMaxJsonDepth);
JsonDocument read_json(const std::filesystem::path& path, int max_depth = kMaxJsonDepth);

// Gets the parser's events, for a reader that keeps only part of a long text. An event ends the parse with
// `return refuse("why")`. The reader checks depth and repeated keys itself.
class JsonEvents : public nlohmann::json_sax<Json> {
 public:
  const std::string& problem() const { return problem_; }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception& error) override;

 protected:
  bool refuse(std::string problem);
  bool refuse_twice(const std::string& key);

 private:
  std::string problem_;
};

// Reads untrusted text, and throws as parse_json does.
void stream_json(std::string_view text, const std::string& place, JsonEvents& events);

// The value of an object's key. Throws Error (kMalformedFile) when the key is missing or null, of another type, or
// outside [min, max]. The message names the file, the key, the value and what is needed.
constexpr std::int64_t kMaxInt = std::numeric_limits<std::int64_t>::max();
constexpr double kMaxNumber = std::numeric_limits<double>::max();
std::int64_t require_int(const JsonDocument& object, const std::string& key, std::int64_t min = 0,
                         std::int64_t max = kMaxInt);
double require_number(const JsonDocument& object, const std::string& key, double min = -kMaxNumber,
                      double max = kMaxNumber);
bool require_bool(const JsonDocument& object, const std::string& key);
std::string require_string(const JsonDocument& object, const std::string& key);
JsonDocument require_object(const JsonDocument& object, const std::string& key);
std::vector<JsonDocument> require_array(const JsonDocument& object, const std::string& key);
// The value itself, for long ones: a copy with each item's place takes many times its text.
const Json& view_object(const JsonDocument& object, const std::string& key);
const Json& view_array(const JsonDocument& object, const std::string& key);

// True when the key is there and not null; throws when `object` is no object.
//   int heads = has(config, "num_key_value_heads") ? require_int(config, "num_key_value_heads", 1, heads) : heads;
bool has(const JsonDocument& object, const std::string& key);

// Throws what the getters throw: "config.json: "hidden_size" is "big"; an integer from 1 to 100 is needed".
[[noreturn]] void refuse_json(const JsonDocument& object, const std::string& key, const std::string& needed);

}  // namespace manyheads::io
