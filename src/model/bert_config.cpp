#include "model/bert_config.hpp"

#include <manyheads/error.hpp>
#include <manyheads/multi_head_attention.hpp>
#include <string>

#include "io/json.hpp"

namespace manyheads::model {
namespace {

using io::JsonDocument;

constexpr std::int64_t kMostWidth = 1 << 20;  // of hidden and intermediate states
constexpr std::int64_t kMostLayers = 1 << 12;
constexpr std::int64_t kMostRows = 1 << 30;  // of an embedding table

layer::Activation activation(const JsonDocument& config) {
  if (!has(config, "hidden_act")) return layer::Activation::kGelu;
  const std::string name = require_string(config, "hidden_act");
  if (name == "gelu") return layer::Activation::kGelu;
  if (name == "gelu_new" || name == "gelu_pytorch_tanh") return layer::Activation::kGeluTanh;
  if (name == "relu") return layer::Activation::kRelu;
  refuse_json(config, "hidden_act", "gelu, gelu_new, gelu_pytorch_tanh or relu");
}

}  // namespace

BertConfig load_bert_config(const std::filesystem::path& folder) {
  const JsonDocument json = io::read_json(folder / "config.json");
  if (require_string(json, "model_type") != "bert") refuse_json(json, "model_type", "\"bert\"");
  BertConfig config;
  config.hidden_size = require_int(json, "hidden_size", 1, kMostWidth);
  config.num_hidden_layers = require_int(json, "num_hidden_layers", 1, kMostLayers);
  config.num_attention_heads = require_int(json, "num_attention_heads", 1, kMostWidth);
  config.intermediate_size = require_int(json, "intermediate_size", 1, kMostWidth);
  config.vocab_size = require_int(json, "vocab_size", 1, kMostRows);
  config.max_position_embeddings = require_int(json, "max_position_embeddings", 1, kMostRows);
  // Older files leave out keys that have one value in every BERT.
  config.type_vocab_size = has(json, "type_vocab_size") ? require_int(json, "type_vocab_size", 1, kMostRows) : 2;
  config.layer_norm_eps = has(json, "layer_norm_eps") ? require_number(json, "layer_norm_eps", 0, 1) : 1e-12;
  config.hidden_act = activation(json);
  if (has(json, "position_embedding_type") && require_string(json, "position_embedding_type") != "absolute") {
    refuse_json(json, "position_embedding_type", "\"absolute\"");
  }
  if (has(json, "is_decoder") && require_bool(json, "is_decoder")) refuse_json(json, "is_decoder", "false: an encoder");
  const std::string problem = head_count_problem(config.hidden_size, config.num_attention_heads);
  if (!problem.empty()) {
    throw Error(ErrorCode::kMalformedFile,
                json.place + ": \"num_attention_heads\" does not fit \"hidden_size\": " + problem);
  }
  return config;
}

}  // namespace manyheads::model
