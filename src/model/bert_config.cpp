#include "model/bert_config.hpp"

#include <manyheads/error.hpp>
#include <manyheads/multi_head_attention.hpp>
#include <string>

#include "base/utf8.hpp"
#include "io/json.hpp"

namespace manyheads::model {
namespace {

using io::JsonDocument;

constexpr std::int64_t kMostWidth = 1 << 20;  // of hidden and intermediate states
constexpr std::int64_t kMostLayers = 1 << 12;
constexpr std::int64_t kMostRows = 1 << 30;  // of an embedding table

layer::Activation activation(const JsonDocument& config, const char* key) {
  if (!has(config, key)) return layer::Activation::kGelu;
  const std::string name = require_string(config, key);
  if (name == "gelu") return layer::Activation::kGelu;
  if (name == "gelu_new" || name == "gelu_pytorch_tanh") return layer::Activation::kGeluTanh;
  if (name == "relu") return layer::Activation::kRelu;
  refuse_json(config, key, "gelu, gelu_new, gelu_pytorch_tanh or relu");
}

const BertNames& names_of(const JsonDocument& config) {
  const std::string type = require_string(config, "model_type");
  std::string known;
  for (const BertNames& names : kBertNames) {
    if (type == names.model_type) return names;
    known += (known.empty() ? "" : " or ") + base::in_quotes(names.model_type);
  }
  refuse_json(config, "model_type", known);
}

}  // namespace

BertConfig load_bert_config(const std::filesystem::path& folder) {
  return bert_config(io::read_json(folder / "config.json"));
}

BertConfig bert_config(const JsonDocument& json) {
  const BertNames& names = names_of(json);
  BertConfig config;
  config.names = &names;
  config.hidden_size = require_int(json, names.hidden_size, 1, kMostWidth);
  config.num_hidden_layers = require_int(json, names.num_hidden_layers, 1, kMostLayers);
  config.num_attention_heads = require_int(json, names.num_attention_heads, 1, kMostWidth);
  config.intermediate_size = require_int(json, names.intermediate_size, 1, kMostWidth);
  config.vocab_size = require_int(json, "vocab_size", 1, kMostRows);
  config.max_position_embeddings = require_int(json, "max_position_embeddings", 1, kMostRows);
  // Older files leave out keys that have one value in every BERT.
  if (const char* key = names.type_vocab_size) {
    config.type_vocab_size = has(json, key) ? require_int(json, key, 1, kMostRows) : 2;
  }
  const bool has_eps = names.layer_norm_eps != nullptr && has(json, names.layer_norm_eps);
  config.layer_norm_eps = has_eps ? require_number(json, names.layer_norm_eps, 0, 1) : 1e-12;
  config.hidden_act = activation(json, names.hidden_act);
  if (const char* key = names.pad_token_id) {
    const bool usual = !json.value.contains(key);
    config.first_position = 1 + (usual ? 1 : require_int(json, key, 0, config.vocab_size - 1));
    if (config.max_tokens() < 1) {
      refuse_json(json, "max_position_embeddings",
                  "more than " + std::to_string(config.first_position) + ", as positions begin behind " +
                      base::in_quotes(key) + ",");
    }
  }
  if (has(json, "position_embedding_type") && require_string(json, "position_embedding_type") != "absolute") {
    refuse_json(json, "position_embedding_type", "\"absolute\"");
  }
  if (has(json, "is_decoder") && require_bool(json, "is_decoder")) refuse_json(json, "is_decoder", "false: an encoder");
  const std::string problem = head_count_problem(config.hidden_size, config.num_attention_heads);
  if (!problem.empty()) {
    throw Error(ErrorCode::kMalformedFile, json.place + ": " + base::in_quotes(names.num_attention_heads) +
                                               " does not fit " + base::in_quotes(names.hidden_size) + ": " + problem);
  }
  return config;
}

}  // namespace manyheads::model
