#pragma once

#include <cstdint>
#include <filesystem>

#include "io/json.hpp"
#include "layer/linear.hpp"
#include "model/bert_names.hpp"

namespace manyheads::model {

// The sizes of an encoder of BERT's architecture, as its config.json gives them.
struct BertConfig {
  const BertNames* names = &kBertNames[0];
  std::int64_t hidden_size = 0;
  std::int64_t num_hidden_layers = 0;
  std::int64_t num_attention_heads = 0;
  std::int64_t intermediate_size = 0;
  std::int64_t vocab_size = 0;
  std::int64_t max_position_embeddings = 0;  // rows of the table
  std::int64_t first_position = 0;           // the row of an entry's first token
  std::int64_t type_vocab_size = 0;          // 0: the model has no segments
  double layer_norm_eps = 0;
  layer::Activation hidden_act = layer::Activation::kGelu;

  std::int64_t head_dim() const noexcept { return hidden_size / num_attention_heads; }
  std::int64_t max_tokens() const noexcept { return max_position_embeddings - first_position; }
};

// Reads `folder`/config.json of a model_type in kBertNames. Throws Error naming the file and the key: another
// model_type, a key that is missing or out of range, a hidden_act or position_embedding_type that is not known, a head
// count that does not divide, no position left for a token.
BertConfig load_bert_config(const std::filesystem::path& folder);
// The same of a config.json that is read already.
BertConfig bert_config(const io::JsonDocument& json);

}  // namespace manyheads::model
