#include "model/llama_config.hpp"

#include <cmath>
#include <manyheads/error.hpp>
#include <manyheads/multi_head_attention.hpp>
#include <numbers>
#include <string>

#include "io/json.hpp"

namespace manyheads::model {
namespace {

using io::JsonDocument;

constexpr std::int64_t kMostWidth = 1 << 20;  // of hidden and intermediate states, and of all heads
constexpr std::int64_t kMostLayers = 1 << 12;
constexpr std::int64_t kMostRows = 1 << 30;  // of an embedding table, and of positions

std::int64_t int_or(const JsonDocument& json, const char* key, std::int64_t otherwise, std::int64_t most) {
  return has(json, key) ? require_int(json, key, 1, most) : otherwise;
}

bool flag(const JsonDocument& json, const char* key) { return has(json, key) && require_bool(json, key); }

void refuse_partial_rotation(const JsonDocument& json) {
  if (has(json, "partial_rotary_factor") && require_number(json, "partial_rotary_factor") != 1) {
    refuse_json(json, "partial_rotary_factor", "1");
  }
}

// Keys that change what a model computes and that this one does not do.
void refuse_others(const JsonDocument& json) {
  if (has(json, "hidden_act") && require_string(json, "hidden_act") != "silu") {
    refuse_json(json, "hidden_act", "\"silu\"");
  }
  if (has(json, "sliding_window")) refuse_json(json, "sliding_window", "null");
  if (has(json, "quantization_config")) {
    refuse_json(json, "quantization_config", "null: weights of F32, BF16 or F16");
  }
  refuse_partial_rotation(json);
}

// The frequencies of `rope`, an object with "rope_type" (or "type") and its figures.
void scale_frequencies(const JsonDocument& rope, std::vector<float>& frequencies) {
  const char* const key = has(rope, "rope_type") || !has(rope, "type") ? "rope_type" : "type";
  const std::string type = has(rope, key) ? require_string(rope, key) : "default";
  if (type == "default") return;
  if (type == "linear") {
    const auto factor = static_cast<float>(require_number(rope, "factor", 1, 1e6));
    for (float& frequency : frequencies) frequency /= factor;
    return;
  }
  if (type != "llama3") refuse_json(rope, key, "default, linear or llama3");
  // Llama 3.1: long wavelengths are stretched by `factor`, short ones are kept, those between are blended.
  const double factor = require_number(rope, "factor", 1, 1e6);
  const double low = require_number(rope, "low_freq_factor", 1e-6, 1e6);
  const double high = require_number(rope, "high_freq_factor", 1e-6, 1e6);
  if (high <= low) refuse_json(rope, "high_freq_factor", "a number above low_freq_factor");
  const auto original = static_cast<double>(require_int(rope, "original_max_position_embeddings", 1, kMostRows));
  for (float& frequency : frequencies) {
    const double wavelength = 2 * std::numbers::pi / static_cast<double>(frequency);
    double blend = (original / wavelength - low) / (high - low);
    blend = blend < 0 ? 0 : blend > 1 ? 1 : blend;
    frequency = static_cast<float>((1 - blend) * static_cast<double>(frequency) / factor +
                                   blend * static_cast<double>(frequency));
  }
}

std::vector<float> rope_frequencies(const JsonDocument& json, std::int64_t head_dim) {
  // transformers 5 writes rope_parameters with the base in it, older ones rope_theta beside rope_scaling.
  const char* const object = has(json, "rope_parameters") ? "rope_parameters" : "rope_scaling";
  if (has(json, "rope_parameters") && has(json, "rope_scaling")) {
    refuse_json(json, "rope_scaling", "null beside \"rope_parameters\"");
  }
  const bool given = has(json, object);
  const JsonDocument rope = given ? require_object(json, object) : JsonDocument{io::Json::object(), json.place};
  for (const auto& [key, value] : rope.value.items()) {
    // Some families have one object for each kind of layer.
    if (value.is_object()) refuse_json(rope, key, "a string or a number");
  }
  refuse_partial_rotation(rope);
  const JsonDocument& with_theta = has(rope, "rope_theta") ? rope : json;
  const double theta = has(with_theta, "rope_theta") ? require_number(with_theta, "rope_theta", 1, 1e12) : 10000;
  std::vector<float> frequencies(static_cast<std::size_t>(head_dim / 2));
  for (std::size_t i = 0; i < frequencies.size(); ++i) {
    frequencies[i] = static_cast<float>(std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim)));
  }
  scale_frequencies(rope, frequencies);
  return frequencies;
}

}  // namespace

LlamaConfig load_llama_config(const std::filesystem::path& folder) {
  const JsonDocument json = io::read_json(folder / "config.json");
  if (require_string(json, "model_type") != "llama") refuse_json(json, "model_type", "\"llama\"");
  LlamaConfig config;
  config.hidden_size = require_int(json, "hidden_size", 1, kMostWidth);
  config.num_hidden_layers = require_int(json, "num_hidden_layers", 1, kMostLayers);
  config.num_attention_heads = require_int(json, "num_attention_heads", 1, kMostWidth / 2);
  config.num_key_value_heads =
      int_or(json, "num_key_value_heads", config.num_attention_heads, config.num_attention_heads);
  if (config.num_attention_heads % config.num_key_value_heads != 0) {
    refuse_json(json, "num_key_value_heads",
                "a divisor of num_attention_heads, " + std::to_string(config.num_attention_heads));
  }
  if (has(json, "head_dim")) {
    config.head_dim = require_int(json, "head_dim", 2, kMostWidth / config.num_attention_heads);
  } else {
    const std::string problem = head_count_problem(config.hidden_size, config.num_attention_heads);
    if (!problem.empty()) {
      throw Error(ErrorCode::kMalformedFile,
                  json.place + ": \"num_attention_heads\" does not fit \"hidden_size\": " + problem);
    }
    config.head_dim = config.hidden_size / config.num_attention_heads;
  }
  if (config.head_dim % 2 != 0) {
    throw Error(ErrorCode::kMalformedFile, json.place + ": heads of " + std::to_string(config.head_dim) +
                                               "; rotary embeddings turn pairs, an even \"head_dim\" is needed");
  }
  config.intermediate_size = require_int(json, "intermediate_size", 1, kMostWidth);
  config.vocab_size = require_int(json, "vocab_size", 1, kMostRows);
  config.max_position_embeddings = int_or(json, "max_position_embeddings", 2048, kMostRows);
  if (has(json, "rms_norm_eps")) config.rms_norm_eps = require_number(json, "rms_norm_eps", 0, 1);
  config.attention_bias = flag(json, "attention_bias");
  config.mlp_bias = flag(json, "mlp_bias");
  config.tie_word_embeddings = flag(json, "tie_word_embeddings");
  refuse_others(json);
  config.rope_frequencies = rope_frequencies(json, config.head_dim);
  return config;
}

}  // namespace manyheads::model
