#pragma once

namespace manyheads::model {

// What the files of one of BERT's kin call its parts. The architecture is the same.
struct BertNames {
  const char* model_type;

  // Keys of config.json.
  const char *hidden_size, *num_hidden_layers, *num_attention_heads, *intermediate_size, *hidden_act;
  const char* layer_norm_eps;   // null: 1e-12
  const char* type_vocab_size;  // null: the model has no segments
  const char* pad_token_id;     // positions begin behind this one; null: at 0

  // Tensors: the prefix that checkpoints may have, the layers, and the parts of each.
  const char *prefix, *layers;
  const char *query, *key, *value, *attention_output, *attention_norm;
  const char *intermediate, *output, *output_norm;
};

constexpr BertNames bert_names(const char* model_type, const char* prefix, const char* pad_token_id) {
  return {.model_type = model_type,
          .hidden_size = "hidden_size",
          .num_hidden_layers = "num_hidden_layers",
          .num_attention_heads = "num_attention_heads",
          .intermediate_size = "intermediate_size",
          .hidden_act = "hidden_act",
          .layer_norm_eps = "layer_norm_eps",
          .type_vocab_size = "type_vocab_size",
          .pad_token_id = pad_token_id,
          .prefix = prefix,
          .layers = "encoder.layer.",
          .query = "attention.self.query",
          .key = "attention.self.key",
          .value = "attention.self.value",
          .attention_output = "attention.output.dense",
          .attention_norm = "attention.output.LayerNorm",
          .intermediate = "intermediate.dense",
          .output = "output.dense",
          .output_norm = "output.LayerNorm"};
}

inline constexpr BertNames kBertNames[] = {
    bert_names("bert", "bert.", nullptr),                   // Devlin et al. 2018
    bert_names("roberta", "roberta.", "pad_token_id"),      // Liu et al. 2019
    bert_names("xlm-roberta", "roberta.", "pad_token_id"),  // Conneau et al. 2020
    bert_names("camembert", "roberta.", "pad_token_id"),    // Martin et al. 2020
    {.model_type = "distilbert",                            // Sanh et al. 2019
     .hidden_size = "dim",
     .num_hidden_layers = "n_layers",
     .num_attention_heads = "n_heads",
     .intermediate_size = "hidden_dim",
     .hidden_act = "activation",
     .layer_norm_eps = nullptr,
     .type_vocab_size = nullptr,
     .pad_token_id = nullptr,
     .prefix = "distilbert.",
     .layers = "transformer.layer.",
     .query = "attention.q_lin",
     .key = "attention.k_lin",
     .value = "attention.v_lin",
     .attention_output = "attention.out_lin",
     .attention_norm = "sa_layer_norm",
     .intermediate = "ffn.lin1",
     .output = "ffn.lin2",
     .output_norm = "output_layer_norm"}};

}  // namespace manyheads::model
